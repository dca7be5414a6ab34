// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run --trace` and `--report`: what the program did, when it has ended.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use vfio_sim::host::Host;
use vfio_sim::run::{recording, report};
use vfio_type1::Kernel;

use super::super::{Stop, complain};
use super::{CANNOT_SET_UP, RunArguments, fail};

/// Runs the program in a process of its own, and tells afterwards what it did.
pub(super) fn run(
    arguments: &RunArguments,
    host: &Host,
    kernel: Kernel,
    out: &mut impl Write,
) -> Result<ExitCode, Stop> {
    let name = arguments.host.as_deref().unwrap_or_default();
    // Before the program has done its work, so that it is not lost.
    if let Some(trace) = &arguments.trace {
        std::fs::write(trace, "").map_err(|error| unwritable(trace, &error))?;
    }
    let (status, texts) = match recorded(arguments, name, host, kernel, Output::Shown) {
        Ok(recorded) => recorded,
        Err(error) => return Ok(fail(CANNOT_SET_UP, &error)),
    };
    if let Some(trace) = &arguments.trace {
        write_traces(trace, &texts)?;
    }
    if arguments.report {
        report_on(&texts, host, kernel, out)?;
    }
    Ok(ExitCode::from(status))
}

/// What becomes of the program's output.
pub(super) enum Output {
    Shown,
    /// It is dropped, but for stderr, which goes to a file.
    Errors(File),
}

/// Runs the program on a host. Returns its exit status, and the recordings of its processes.
pub(super) fn recorded(
    arguments: &RunArguments,
    name: &str,
    host: &Host,
    kernel: Kernel,
    output: Output,
) -> Result<(u8, Vec<String>), String> {
    let told = |error: &dyn Display| error.to_string();
    let tapes =
        tempfile::tempdir().map_err(|error| format!("no directory to record in: {error}"))?;
    let mut command = again(arguments, name, tapes.path());
    if let Output::Errors(file) = output {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    }
    let status = wait_for(&mut command).map_err(|error| told(&error))?;
    let mut texts = recording::texts(tapes.path(), host, kernel).map_err(|error| told(&error))?;
    texts.retain(|text| recording::has_calls(text));
    Ok((status, texts))
}

/// This tool once more, with the same arguments, to become the program.
fn again(arguments: &RunArguments, host: &str, tapes: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("run").arg(host).args(["--kernel", &arguments.kernel]);
    for model in &arguments.place.models {
        command.arg(format!("--device={model}"));
    }
    if arguments.no_mmap {
        command.arg("--no-mmap");
    }
    command.arg("--tapes").arg(tapes).arg("--").args(&arguments.command);
    command
}

/// The signals that ask the tool to end.
pub(super) const FORWARDED: [i32; 4] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];

/// Waits for the program, and returns its exit status. What asks this process to end is for the program, and
/// handed on to it.
fn wait_for(command: &mut Command) -> std::io::Result<u8> {
    let mut signals = SignalsInfo::<WithOrigin>::new(FORWARDED)?;
    let mut child = command.spawn()?;
    let pid = rustix::process::Pid::from_child(&child);
    let handle = signals.handle();
    let forwarder = thread::spawn(move || {
        for signal in signals.into_iter().filter_map(|origin| forwarded(&origin)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forwarder.join();
    let status = status?;
    // As shells tell of a signal.
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// What the program is sent for a signal. Keys of a terminal reach it as well as this process; a hangup may
/// reach this process alone.
fn forwarded(Origin { signal, process, .. }: &Origin) -> Option<Signal> {
    match *signal {
        SIGINT => process.map(|_| Signal::INT),
        SIGQUIT => process.map(|_| Signal::QUIT),
        SIGTERM => Some(Signal::TERM),
        SIGHUP => Some(Signal::HUP),
        _ => None,
    }
}

fn unwritable(path: &Path, error: &dyn Display) -> Stop {
    Stop::BadInput(format!("{}: {error}", path.display()))
}

/// The first process's recording goes to the file, others' to files with a number behind.
fn write_traces(path: &Path, texts: &[String]) -> Result<(), Stop> {
    for (number, text) in (1..).zip(texts) {
        let mut name = path.as_os_str().to_owned();
        if number > 1 {
            name.push(format!(".{number}"));
        }
        std::fs::write(&name, text).map_err(|error| unwritable(Path::new(&name), &error))?;
    }
    if texts.is_empty() {
        // What was written to see whether it can be.
        let _ = std::fs::remove_file(path);
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
