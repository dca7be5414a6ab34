// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim replay`: recordings of real kernels, compared.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use vfio_sim::replay::{Difference, Outcome, replay};
use vfio_sim::trace::Trace;
use vfio_type1::Kernel;

use super::{BAD_INPUT, REFUSED, Stop, complain};

#[derive(Args)]
pub(super) struct ReplayArguments {
    /// Recordings, plain or compressed (.xz).
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Replay as this kernel instead of the one that was recorded.
    #[arg(long)]
    kernel: Option<String>,
    /// How many differences to print.
    #[arg(long, value_name = "N", default_value_t = 10)]
    differences: usize,
}

/// A recording that cannot be read does not keep the others from being replayed.
pub(super) fn run(arguments: &ReplayArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let kernel: Option<Kernel> =
        arguments.kernel.as_deref().map(str::parse).transpose().map_err(Stop::bad)?;
    let (mut traces, mut calls, mut differences, mut unreadable) = (0, 0, 0, false);
    for path in &arguments.traces {
        let file = path.display().to_string();
        let outcome = match replay_file(path, kernel) {
            Ok(outcome) => outcome,
            Err(problem) => {
                complain(&format!("{file}: {problem}"));
                unreadable = true;
                continue;
            }
        };
        for note in &outcome.notes {
            writeln!(out, "{file}: note: {note}")?;
        }
        let left = arguments.differences.saturating_sub(differences);
        for difference in outcome.differences.iter().take(left) {
            write_difference(&file, difference, out)?;
        }
        traces += 1;
        calls += outcome.calls;
        differences += outcome.differences.len();
    }
    if differences > arguments.differences {
        let more = differences - arguments.differences;
        writeln!(out, "{more} more differences not shown; see --differences")?;
    }
    if traces > 0 {
        writeln!(out, "{traces} traces, {calls} calls, {differences} differences")?;
    }
    Ok(match (unreadable, differences) {
        (true, _) => ExitCode::from(BAD_INPUT),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::from(REFUSED),
    })
}

fn replay_file(path: &Path, kernel: Option<Kernel>) -> Result<Outcome, String> {
    let trace = Trace::load(path).map_err(|error| error.to_string())?;
    replay(&trace, kernel.unwrap_or(trace.kernel)).map_err(|error| error.to_string())
}

fn write_difference(
    file: &str,
    difference: &Difference,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let Difference { line, call, kernel, emulator, rule } = difference;
    writeln!(out, "{file}:{line}: {call}")?;
    writeln!(out, "  kernel:   {kernel}")?;
    writeln!(out, "  emulator: {emulator}")?;
    match rule {
        Some(rule) => writeln!(out, "  rule:     {rule}"),
        None => Ok(()),
    }
}
