// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run`: a program on a host that is not there.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use clap::Args;
use rustix::thread::{CapabilitySet, capabilities};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use vfio_sim::host::Host;
use vfio_sim::render;
use vfio_sim::run::program::{self, ProgramError};
use vfio_sim::run::{SETTINGS_VARIABLE, Settings, recording, report, stage};
use vfio_type1::Kernel;

use super::{PlaceArguments, Stop, complain};

#[derive(Args)]
pub(super) struct RunArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    host: String,
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

/// Where the library finds its settings: in the `/sys` that is the program's alone.
const SETTINGS: &str = "/sys/kernel/vfio-sim.json";

pub(super) fn run(arguments: &RunArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let settings = settings(arguments)?;
    let host = settings.host().map_err(Stop::bad)?;
    let kernel = settings.kernel().map_err(Stop::bad)?;
    let recorded = arguments.trace.is_some() || arguments.report;
    if recorded && arguments.tapes.is_none() {
        return supervise(arguments, &host, kernel, out);
    }
    let files = render::tree(&host, kernel).map_err(Stop::bad)?.tree;
    let program = program::find(&arguments.command[0], std::env::var_os("PATH").as_deref());
    let program = match program {
        Ok(program) => program,
        Err(missing @ ProgramError::Missing { .. }) => return Ok(fail(NOT_FOUND, &missing)),
        Err(error) => return Ok(fail(CANNOT_RUN, &error)),
    };
    let library = match library() {
        Ok(library) => library,
        Err(error) => return Ok(fail(CANNOT_SET_UP, &error)),
    };
    if let Err(error) = stage::enter().and_then(|()| stage::set(&files)) {
        return Ok(fail(CANNOT_SET_UP, &error));
    }
    if let Err(error) = settings.save(Path::new(SETTINGS)) {
        return Ok(fail(CANNOT_SET_UP, &format!("{SETTINGS}: {error}")));
    }
    let error = Command::new(&program)
        .arg0(&arguments.command[0])
        .args(&arguments.command[1..])
        .env(SETTINGS_VARIABLE, SETTINGS)
        .env("LD_PRELOAD", preload(&library))
        .exec();
    Ok(fail(CANNOT_RUN, &format!("{}: {error}", program.display())))
}

/// Runs the program in a process of its own, and tells afterwards what it did.
fn supervise(
    arguments: &RunArguments,
    host: &Host,
    kernel: Kernel,
    out: &mut impl Write,
) -> Result<ExitCode, Stop> {
    let cannot = |error: &dyn Display| fail(CANNOT_SET_UP, &error.to_string());
    let tapes = match tempfile::tempdir() {
        Ok(tapes) => tapes,
        Err(error) => return Ok(cannot(&format!("no directory for recordings: {error}"))),
    };
    let status = match wait_for(&mut again(arguments, tapes.path())?) {
        Ok(status) => status,
        Err(error) => return Ok(cannot(&error)),
    };
    let texts = match recording::texts(tapes.path(), host, kernel) {
        Ok(texts) => texts,
        Err(error) => return Ok(cannot(&error)),
    };
    if let Some(trace) = &arguments.trace {
        write_traces(trace, &texts)?;
    }
    if arguments.report {
        report_on(&texts, host, kernel, out)?;
    }
    Ok(status)
}

/// This tool once more, with the same arguments, to become the program.
fn again(arguments: &RunArguments, tapes: &Path) -> Result<Command, Stop> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("run").arg(&arguments.host).args(["--kernel", &arguments.kernel]);
    for model in &arguments.place.models {
        command.arg(format!("--device={model}"));
    }
    if arguments.no_mmap {
        command.arg("--no-mmap");
    }
    command.arg("--tapes").arg(tapes).arg("--").args(&arguments.command);
    Ok(command)
}

/// Waits for the program. What a terminal sends is for the program; what asks this process to end is handed
/// on to it.
fn wait_for(command: &mut Command) -> std::io::Result<ExitCode> {
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
    let mut child = command.spawn()?;
    let pid = rustix::process::Pid::from_child(&child);
    let handle = signals.handle();
    let forwarder = thread::spawn(move || {
        for signal in &mut signals {
            let forwarded = match signal {
                SIGTERM => rustix::process::Signal::TERM,
                SIGHUP => rustix::process::Signal::HUP,
                _ => continue,
            };
            let _ = rustix::process::kill_process(pid, forwarded);
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forwarder.join();
    let status = status?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The first process's recording goes to the file, others' to files with a number behind.
fn write_traces(path: &Path, texts: &[String]) -> Result<(), Stop> {
    for (number, text) in (1..).zip(texts) {
        let mut name = path.as_os_str().to_owned();
        if number > 1 {
            name.push(format!(".{number}"));
        }
        std::fs::write(&name, text).map_err(|error| {
            Stop::BadInput(format!("{}: {error}", Path::new(&name).display()))
        })?;
    }
    if texts.is_empty() {
        complain("no process of the program opened a file of VFIO's: there is nothing to record");
    }
    Ok(())
}

fn report_on(
    texts: &[String],
    host: &Host,
    kernel: Kernel,
    out: &mut impl Write,
) -> Result<(), Stop> {
    for (number, text) in (1..).zip(texts) {
        let trace = recording::parse(text).map_err(Stop::bad)?;
        let report = report::report(&trace, host, kernel).map_err(Stop::bad)?;
        match texts.len() {
            1 => writeln!(out, "vfio-sim: what the program did on {}:", host.name)?,
            _ => writeln!(out, "vfio-sim: what process {number} did on {}:", host.name)?,
        }
        write!(out, "{report}")?;
    }
    if texts.is_empty() {
        writeln!(out, "vfio-sim: the program opened no file of VFIO's")?;
    }
    Ok(())
}

fn fail(status: u8, message: &dyn Display) -> ExitCode {
    complain(&message.to_string());
    ExitCode::from(status)
}

fn settings(arguments: &RunArguments) -> Result<Settings, Stop> {
    let ipc_lock = capabilities(None).map(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let settings = Settings {
        host: arguments.host.clone(),
        kernel: arguments.kernel.clone(),
        devices: arguments.place.models.clone(),
        mmap: !arguments.no_mmap,
        ipc_lock: ipc_lock.unwrap_or(false),
        traces: arguments.tapes.clone(),
    };
    settings.absolute().map_err(Stop::from)
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
            "{LIBRARY} is not beside {}; build it with \"cargo build --release -p vfio-preload\"",
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
