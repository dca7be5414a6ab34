// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim record`: what the kernel that this runs on answers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vfio_sim::hosts;
use vfio_sim::record::{Recorder, random};
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
