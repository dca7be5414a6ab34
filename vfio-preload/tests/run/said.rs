// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run` as the tests call it, and what came of it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use crate::tool::{self, ADDRESS, skip, vfio_sim};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// A run that is being put together.
#[derive(Clone)]
pub(crate) struct Run {
    tool: PathBuf,
    arguments: Vec<OsString>,
    input: String,
    user: Option<u32>,
}

/// A run on host vtd48 with a device, `MODEL` or `MODEL,KEY=VALUE...`, at [`ADDRESS`]. `None`, and the reason
/// on stderr, where this machine lets nobody have namespaces.
pub(crate) fn run(device: &str) -> Option<Run> {
    run_on("vtd48", device)
}

/// The same on another host.
pub(crate) fn run_on(host: impl Into<OsString>, device: &str) -> Option<Run> {
    Some(options([host])?.options(placed(device)))
}

/// A run with these options alone.
pub(crate) fn options<S: Into<OsString>>(options: impl IntoIterator<Item = S>) -> Option<Run> {
    static FORBIDDEN: OnceLock<Option<String>> = OnceLock::new();
    if let Some(reason) = FORBIDDEN.get_or_init(forbidden) {
        return skip(reason);
    }
    let run =
        Run { tool: vfio_sim(), arguments: vec!["run".into()], input: String::new(), user: None };
    Some(run.options(options))
}

/// The options that place a device at [`ADDRESS`].
pub(crate) fn placed(device: &str) -> [String; 2] {
    let (model, keys) = device.split_once(',').unwrap_or((device, ""));
    let placed = format!("{model},bdf={ADDRESS},{keys}");
    ["--device".to_owned(), placed.trim_end_matches(',').to_owned()]
}

/// Why this machine lets nobody have namespaces, if it does not.
fn forbidden() -> Option<String> {
    let output = Command::new(vfio_sim()).args(["run", "vtd48", "--", "true"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    text.contains("user and mount namespaces").then(|| text.trim().to_owned())
}

impl Run {
    /// More options of `vfio-sim run`.
    pub(crate) fn options<S: Into<OsString>>(
        mut self,
        options: impl IntoIterator<Item = S>,
    ) -> Self {
        self.arguments.extend(options.into_iter().map(Into::into));
        self
    }

    /// What the program reads from its standard input.
    pub(crate) fn input(mut self, input: &str) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    /// As a user without privileges, if the tests are run by root.
    pub(crate) fn by_an_ordinary_user(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            self.tool = tool::for_everybody();
            self.user = Some(NOBODY);
        }
        self
    }

    /// Runs a program, which is given with its arguments.
    pub(crate) fn program<S: Into<OsString>>(
        self,
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Said {
        let run = self.options([OsString::from("--"), program.into()]).options(arguments);
        let mut command = Command::new(&run.tool);
        command.args(&run.arguments).env("BDF", ADDRESS);
        if let Some(user) = run.user {
            command.uid(user).gid(user);
        }
        Said::of(&mut command, &run.input)
    }
}

/// How a run ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Said {
    status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Runs a command.
    pub(crate) fn of(command: &mut Command, input: &str) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // A program that ends without reading closes its end.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The exit status; `None` if it was a signal.
    pub(crate) fn status(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    #[track_caller]
    pub(crate) fn ends_with(self, status: i32) -> Self {
        assert_eq!(self.status(), Some(status), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ends_with(0)
    }

    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "stdout lacks {text:?}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "stderr lacks {text:?}: {self:#?}");
        self
    }

    /// That it said one line, on stderr, and nothing else.
    #[track_caller]
    pub(crate) fn says_one_line(self) -> Self {
        assert_eq!((self.err.lines().count(), self.out.as_str()), (1, ""), "{self:#?}");
        self
    }
}
