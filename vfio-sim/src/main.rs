// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `vfio-sim` tool: arguments in, text and an exit status out.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vfio_sim::assign::Selection;
use vfio_sim::check::{self, WantedRange};
use vfio_sim::host::Host;
use vfio_sim::replay::{Difference, replay};
use vfio_sim::trace::Trace;
use vfio_sim::{hosts, show};
use vfio_type1::Kernel;

/// Which DMA mappings a Linux host accepts, and why it refuses the others.
#[derive(Parser)]
#[command(name = "vfio-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the hosts that are known by name.
    Hosts,
    /// Show a host's groups, reserved regions and valid IOVA ranges, with a drawing.
    Show(ShowArguments),
    /// Check whether ranges can be mapped on a host, and if not, why and what would fit.
    ///
    /// Exit status: 0 if all fit, 1 if some are refused, 2 for bad usage or input.
    Check(CheckArguments),
    /// Run recordings of a real kernel on the emulator and compare the answers.
    ///
    /// Exit status: 0 without differences, 1 with some, 2 if a recording cannot be read.
    Replay(ReplayArguments),
}

#[derive(Args)]
struct HostArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    host: String,
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    /// The devices that share one container; without, each group has its own.
    #[arg(long, value_name = "BDF,...", value_delimiter = ',')]
    devices: Vec<String>,
    /// Print JSON. Addresses are strings, since many JSON readers lose the low bits of numbers.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShowArguments {
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args)]
struct CheckArguments {
    #[command(flatten)]
    host: HostArguments,
    /// What to map: [NAME=]FIRST+SIZE or [NAME=]FIRST-LAST, both ends included. Numbers are decimal
    /// or 0x hexadecimal, with K, M, G, T or P.
    #[arg(required = true, value_name = "RANGE")]
    ranges: Vec<String>,
}

#[derive(Args)]
struct ReplayArguments {
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

/// A message for the user about bad usage or input: exit status 2.
struct BadInput(String);

impl<E: std::error::Error> From<E> for BadInput {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What a command prints, and whether it found nothing to object to.
struct Done {
    output: String,
    good: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Hosts => list_hosts(),
        Command::Show(arguments) => run_show(&arguments),
        Command::Check(arguments) => run_check(&arguments),
        Command::Replay(arguments) => run_replay(&arguments),
    };
    match done {
        Ok(Done { output, good }) => {
            print(&output);
            if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(BadInput(message)) => {
            eprintln!("vfio-sim: {message}");
            ExitCode::from(2)
        }
    }
}

/// Prints with colours where they can be seen. A reader that has gone away (`| head`) is no error.
fn print(output: &str) {
    let mut stdout = anstream::stdout().lock();
    let _ = stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush());
}

fn list_hosts() -> Result<Done, BadInput> {
    let mut output = String::new();
    for host in hosts::known() {
        let Host { name, description, .. } = host?;
        output += &format!("{name:10}{description}\n");
    }
    Ok(Done { output, good: true })
}

impl HostArguments {
    fn load(&self) -> Result<(Host, Kernel), BadInput> {
        Ok((hosts::find(&self.host)?, self.kernel.parse()?))
    }

    fn selection<'a>(&self, host: &'a Host) -> Result<Option<Selection<'a>>, BadInput> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        Ok(Some(Selection::of_devices(host, &self.devices)?))
    }
}

fn run_show(arguments: &ShowArguments) -> Result<Done, BadInput> {
    let (host, kernel) = arguments.host.load()?;
    let show = show::show(&host, kernel, arguments.host.selection(&host)?)?;
    let output = if arguments.host.json { json(&show)? } else { show::render(&show) };
    Ok(Done { output, good: true })
}

fn run_check(arguments: &CheckArguments) -> Result<Done, BadInput> {
    let (host, kernel) = arguments.host.load()?;
    let layout: Vec<WantedRange> =
        arguments.ranges.iter().map(|text| WantedRange::parse(text)).collect::<Result<_, _>>()?;
    let selection = arguments.host.selection(&host)?;
    let report = check::check(&host, kernel, selection.as_ref(), &layout)?;
    let output = if arguments.host.json { json(&report)? } else { check::render(&report) };
    Ok(Done { output, good: !report.refused() })
}

fn json(value: &impl serde::Serialize) -> Result<String, BadInput> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn run_replay(arguments: &ReplayArguments) -> Result<Done, BadInput> {
    let kernel: Option<Kernel> = arguments.kernel.as_deref().map(str::parse).transpose()?;
    let (mut output, mut traces, mut calls, mut differences) = (String::new(), 0, 0, 0);
    for path in &arguments.traces {
        let file = path.display();
        let trace = Trace::load(path).map_err(|error| BadInput(format!("{file}: {error}")))?;
        let outcome = replay(&trace, kernel.unwrap_or(trace.kernel))
            .map_err(|error| BadInput(format!("{file}: {error}")))?;
        for note in &outcome.notes {
            output += &format!("{file}: note: {note}\n");
        }
        let left = arguments.differences.saturating_sub(differences);
        for difference in outcome.differences.iter().take(left) {
            output += &describe(&file.to_string(), difference);
        }
        traces += 1;
        calls += outcome.calls;
        differences += outcome.differences.len();
    }
    output += &format!("{traces} traces, {calls} calls, {differences} differences\n");
    Ok(Done { output, good: differences == 0 })
}

fn describe(file: &str, difference: &Difference) -> String {
    let Difference { line, call, kernel, emulator, rule } = difference;
    let mut text = format!("{file}:{line}: {call}\n  kernel:   {kernel}\n  emulator: {emulator}\n");
    if let Some(rule) = rule {
        text += &format!("  rule:     {rule}\n");
    }
    text
}
