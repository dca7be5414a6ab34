// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run`: a program on a host that is not there.
//!
//! The tool makes the host and becomes the program. Where something is to be told afterwards, it stays
//! (`supervise`) and runs itself once more to become the program.

#[path = "run/matrix.rs"]
mod matrix;
#[path = "run/supervise.rs"]
mod supervise;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use rustix::thread::{CapabilitySet, capabilities};
use vfio_sim::render;
use vfio_sim::run::program::{self, ProgramError};
use vfio_sim::run::{SETTINGS_FILE, Settings, check_devices, stage};
use vfio_type1::Kernel;

use super::{PlaceArguments, Stop, complain};

#[derive(Args)]
pub(super) struct RunArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    #[arg(required_unless_present = "host_matrix")]
    host: Option<String>,
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    #[command(flatten)]
    place: PlaceArguments,
    /// Let BARs not be mapped, as VMMs with KVM need it: all accesses are reads and writes of the
    /// device's file.
    #[arg(long)]
    no_mmap: bool,
    /// Write the program's calls to a file that `vfio-sim replay` takes. Further processes that use VFIO get
    /// FILE.2, FILE.3 and so on.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Tell on stderr, when the program has ended, what was mapped, what was refused and why, which errors it
    /// ignored, which mappings went stale or were left over.
    #[arg(long)]
    report: bool,
    /// Run the program once on each known host, without its output, and tell on stdout where it fails. Exit
    /// status: 0 if it fails nowhere, else 1, also if it uses VFIO nowhere.
    #[arg(long, conflicts_with_all = ["host", "trace", "report"])]
    host_matrix: bool,
    /// Where the program's processes write their calls.
    #[arg(long, hide = true)]
    tapes: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Exit statuses of the tool's own, as other programs that run programs have them.
const CANNOT_SET_UP: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The name of the library, which lies beside the tool.
const LIBRARY: &str = "libvfio_preload.so";

pub(super) fn run(arguments: &RunArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let Some(host) = &arguments.host else { return matrix::run(arguments) };
    let settings = settings(arguments, host)?;
    let host = settings.host().map_err(Stop::bad)?;
    let kernel = settings.kernel().map_err(Stop::bad)?;
    check_devices(&host, kernel).map_err(Stop::bad)?;
    let recorded = arguments.trace.is_some() || arguments.report;
    if recorded && arguments.tapes.is_none() {
        return supervise::run(arguments, &host, kernel, out);
    }
    let files = render::tree(&host, kernel).map_err(Stop::bad)?.tree;
    let program = match find_program(arguments) {
        Ok(program) => program,
        Err(error) => return Ok(no_program(&error)),
    };
    let library = match library() {
        Ok(library) => library,
        Err(error) => return Ok(fail(CANNOT_SET_UP, &error)),
    };
    if let Err(error) = stage::enter().and_then(|()| stage::set(&files)) {
        return Ok(fail(CANNOT_SET_UP, &error));
    }
    if let Err(error) = settings.save(Path::new(SETTINGS_FILE)) {
        return Ok(fail(CANNOT_SET_UP, &format!("{SETTINGS_FILE}: {error}")));
    }
    let error = Command::new(&program)
        .arg0(&arguments.command[0])
        .args(&arguments.command[1..])
        .env("LD_PRELOAD", preload(&library))
        .exec();
    Ok(fail(CANNOT_RUN, &format!("{}: {error}", program.display())))
}

fn no_program(error: &ProgramError) -> ExitCode {
    let missing = matches!(error, ProgramError::Missing { .. });
    fail(if missing { NOT_FOUND } else { CANNOT_RUN }, error)
}

fn find_program(arguments: &RunArguments) -> Result<PathBuf, ProgramError> {
    program::find(&arguments.command[0], std::env::var_os("PATH").as_deref())
}

fn fail(status: u8, message: &dyn Display) -> ExitCode {
    complain(&message.to_string());
    ExitCode::from(status)
}

fn settings(arguments: &RunArguments, host: &str) -> Result<Settings, Stop> {
    let ipc_lock = capabilities(None).map(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let settings = Settings {
        host: host.to_owned(),
        kernel: arguments.kernel.clone(),
        devices: arguments.place.models.clone(),
        mmap: !arguments.no_mmap,
        ipc_lock: ipc_lock.unwrap_or(false),
        traces: arguments.tapes.clone(),
    };
    let relative = |error| {
        Stop::BadInput(format!("no paths from this directory: {error}; give absolute ones"))
    };
    settings.absolute().map_err(relative)
}

/// The library, beside the tool or where a package puts libraries.
fn library() -> Result<PathBuf, String> {
    let tool = std::env::current_exe().map_err(|error| format!("where this tool is: {error}"))?;
    let directory = tool.parent().unwrap_or(Path::new("/"));
    let places =
        [".", "../lib/vfio-sim", "../lib"].map(|place| directory.join(place).join(LIBRARY));
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| {
        format!(
            "{LIBRARY} is not beside {}, nor in ../lib/vfio-sim; build it with \"cargo build --release \
             -p vfio-preload\", and put it there if the tool has been moved",
            tool.display()
        )
    })
}

/// The library in front of what is loaded already.
fn preload(library: &Path) -> OsString {
    let mut preload = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    preload
}
