// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim record`: what the kernel that this runs on answers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use vfio_sim::hosts;
use vfio_sim::record::shrink::shrink;
use vfio_sim::record::{Recorder, random};
use vfio_sim::replay::replay;
use vfio_sim::trace::Trace;

use super::Stop;

#[derive(Args)]
pub(super) struct RecordArguments {
    /// The calls to make: a recording, whose answers are passed over, or its lines without answers.
    #[arg(required_unless_present = "random", conflicts_with = "random")]
    script: Option<PathBuf>,
    /// Make random calls instead, on the groups that are bound to vfio-pci. The same number gives the
    /// same calls on the same machine.
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
    /// How many random calls.
    #[arg(long, value_name = "N", default_value_t = 2500, requires = "random")]
    calls: usize,
    /// Leave out random calls that make the kernel write past the end of memory: what it has written by
    /// then is the processor's choice, and the emulator answers as x86-64 does.
    #[arg(long, requires = "random")]
    no_torn_writes: bool,
    /// Record only the fewest calls of the script that the emulator answers differently. Records again and
    /// again, each time in a process of its own.
    #[arg(long, conflicts_with = "random")]
    shrink: bool,
    /// What sysfs does not show of the IOMMU: a known host like this machine (see `vfio-sim hosts`), or
    /// its host file, which `vfio-sim capture` writes. Without, the script's "# iommu" line.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Where to write the recording; without, to stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &RecordArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let host = arguments.host.as_deref().map(hosts::find).transpose().map_err(Stop::bad)?;
    let recorder = Recorder::new().map_err(Stop::bad)?;
    let script = match (&arguments.script, arguments.random) {
        (Some(path), _) => Trace::load_script(path)
            .map_err(|error| Stop::BadInput(format!("{}: {error}", path.display())))?,
        (None, seed) => {
            let options = random::Options {
                seed: seed.unwrap_or(0),
                calls: arguments.calls,
                torn_writes: !arguments.no_torn_writes,
            };
            recorder.random_script(host.as_ref(), &options).map_err(Stop::bad)?
        }
    };
    let script = match arguments.shrink {
        false => script,
        true => shrunk(&script, arguments.host.as_deref())?,
    };
    match &arguments.output {
        None => recorder.record(&script, host.as_ref(), out).map_err(Stop::bad)?,
        Some(path) => {
            let cannot =
                |error| Stop::BadInput(format!("{}: cannot write: {error}", path.display()));
            let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
            recorder.record(&script, host.as_ref(), &mut file).map_err(Stop::bad)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The fewest calls of a script that are answered differently.
fn shrunk(script: &Trace, host: Option<&str>) -> Result<Trace, Stop> {
    let first_difference = |attempt: &Trace| -> Result<Option<usize>, Stop> {
        let recording = recorded_apart(attempt, host)?;
        let outcome = replay(&recording, recording.kernel).map_err(Stop::bad)?;
        let Some(first) = outcome.differences.first() else { return Ok(None) };
        Ok(recording.calls.iter().position(|recorded| recorded.line == first.line))
    };
    shrink(script, first_difference)?
        .ok_or_else(|| Stop::BadInput("all calls are answered alike, so nothing to shrink".into()))
}

/// Records in another process: limits that a script gives up are given up only there.
fn recorded_apart(script: &Trace, host: Option<&str>) -> Result<Trace, Stop> {
    let cannot = |error| Stop::BadInput(format!("cannot record in another process: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
        .args(["record", "/proc/self/fd/0"])
        .args(host.iter().flat_map(|host| ["--host", host]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    // It reads all before it writes anything.
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.to_script().as_bytes()).map_err(cannot)?;
    }
    let output = child.wait_with_output().map_err(cannot)?;
    if !output.status.success() {
        return Err(Stop::BadInput("an attempt could not be recorded".to_owned()));
    }
    Trace::parse("attempt", &String::from_utf8_lossy(&output.stdout)).map_err(Stop::bad)
}
