// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `vfio-sim` tool: arguments in, text and an exit status out.
#![forbid(unsafe_code)]

#[path = "main/check.rs"]
mod check;
#[path = "main/files.rs"]
mod files;
#[path = "main/record.rs"]
mod record;
#[path = "main/replay.rs"]
mod replay;
#[path = "main/run.rs"]
mod run;
#[path = "main/show.rs"]
mod show;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vfio_sim::assign::Selection;
use vfio_sim::device::AddDevicesError;
use vfio_sim::host::Host;
use vfio_sim::layout::{self, Layout};
use vfio_sim::{hosts, layouts};
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
    /// List the layouts that are known by name: public reports of programs that failed.
    Layouts,
    /// Show a host's groups, reserved regions and valid IOVA ranges, with a drawing.
    Show(show::ShowArguments),
    /// Check whether a layout can be mapped on a host, and if not, why and what would fit.
    ///
    /// Groups that cannot be assigned are passed over. Exit status: 0 if all ranges fit in all other
    /// groups, 1 if some are refused or no group can be assigned, 2 for bad usage or input. In a table,
    /// hosts with nothing to assign do not count. If the layout says what it expects, 0 if it comes so
    /// everywhere, and 1 if not.
    Check(check::CheckArguments),
    /// Write the files that programs read on a host: /sys, /dev/vfio and some of /proc.
    ///
    /// The boot log comes with them, as DIR/dmesg. Nodes under dev/vfio are empty files. Exit
    /// status: 0, or 2 for bad usage or input.
    Render(files::RenderArguments),
    /// Write the host file of a machine, from its /sys or from a copy of it.
    ///
    /// What could not be read or had to be assumed is told on stderr, and in the file. Exit
    /// status: 0, or 2 if the machine has no groups or cannot be described.
    Capture(files::CaptureArguments),
    /// Make calls on the kernel that this runs on, and record the answers.
    ///
    /// Needs /dev/vfio and devices bound to vfio-pci; drivers of guests and programs must not use them
    /// meanwhile. A script is trusted like a program. Exit status: 0, or 2 if nothing, or not everything,
    /// could be recorded.
    Record(record::RecordArguments),
    /// Run a program that uses VFIO on a host that is not there.
    ///
    /// The program is unchanged: it sees the host's /sys and /dev/vfio, and its calls are answered as the
    /// kernel would. It must be linked dynamically to glibc. Exit status: the program's own; 2 for bad
    /// usage or input, 125 if the host cannot be set up, 126 if the program cannot be run so, 127 if it is not
    /// there.
    Run(run::RunArguments),
    /// Run recordings of a real kernel on the emulator and compare the answers.
    ///
    /// Exit status: 0 without differences, 1 with some, 2 if a recording cannot be read.
    Replay(replay::ReplayArguments),
}

#[derive(Args)]
struct PlaceArguments {
    /// Place a simulated device on the host: MODEL[,bdf=BDF][,KEY=VALUE...], where MODEL is
    /// dma-engine, edu, ioat, nvme or peer. A new device gets a group of its own. May be given more than
    /// once.
    #[arg(long = "device", value_name = "MODEL,...")]
    models: Vec<String>,
}

impl PlaceArguments {
    fn place(&self, host: &mut Host) -> Result<(), Stop> {
        host.add_devices(&self.models).map_err(|error| {
            let message = error.to_string();
            Stop::BadInput(match &error {
                AddDevicesError::Spec { text, .. } if text.contains(':') && !text.contains(',') => {
                    message + "; for a device of the host write --devices"
                }
                _ => message,
            })
        })
    }
}

#[derive(Args)]
struct ViewArguments {
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    /// The devices that share one container; without, each group has its own.
    #[arg(long, value_name = "BDF,...", value_delimiter = ',')]
    devices: Vec<String>,
    #[command(flatten)]
    place: PlaceArguments,
    /// Imitate a kernel that was proposed in 2020 and never made: it reserves the addresses above a
    /// device's DMA mask and outside its IOMMU's aperture.
    #[arg(long)]
    reserve_dma_masks: bool,
    /// Print JSON. Addresses are strings, since many JSON readers lose the low bits of numbers.
    #[arg(long)]
    json: bool,
}

/// Why a command ends early.
enum Stop {
    /// Bad usage or input, in a line for the user: exit status 2.
    BadInput(String),
    /// The output cannot be written.
    Output(std::io::Error),
}

impl Stop {
    fn bad(error: impl std::error::Error) -> Self {
        Self::BadInput(error.to_string())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// Exit statuses beside 0 for success.
const REFUSED: u8 = 1;
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Colours are stripped where they cannot be seen.
    let mut out = anstream::stdout().lock();
    let result = match arguments.command {
        Command::Hosts => list_hosts(&mut out),
        Command::Layouts => list_layouts(&mut out),
        Command::Show(arguments) => show::run(&arguments, &mut out),
        Command::Check(arguments) => check::run(&arguments, &mut out),
        Command::Render(arguments) => files::render(&arguments),
        Command::Capture(arguments) => files::capture(&arguments, &mut out),
        Command::Record(arguments) => record::run(&arguments, &mut out),
        Command::Run(arguments) => run::run(&arguments, &mut anstream::stderr().lock()),
        Command::Replay(arguments) => replay::run(&arguments, &mut out),
    };
    let stop = match result.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => return code,
        Err(stop) => stop,
    };
    match stop {
        // The reader has seen enough (`| head`).
        Stop::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Stop::Output(error) => complain(&format!("cannot write the output: {error}")),
        Stop::BadInput(message) => complain(&message),
    }
    ExitCode::from(BAD_INPUT)
}

/// Prints a message as one line, whatever a file or an argument has put into it.
fn complain(message: &str) {
    const LONGEST: usize = 600;
    let mut line: String = message
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .take(LONGEST + 1)
        .collect();
    if line.chars().count() > LONGEST {
        line.pop();
        line.push('…');
    }
    eprintln!("vfio-sim: {line}");
}

fn list_hosts(out: &mut impl Write) -> Result<ExitCode, Stop> {
    let hosts: Vec<Host> = hosts::known().collect::<Result<_, _>>().map_err(Stop::bad)?;
    list(hosts.iter().map(|host| (host.name.as_str(), host.description.as_str())), out)
}

fn list_layouts(out: &mut impl Write) -> Result<ExitCode, Stop> {
    let layouts: Vec<Layout> = layouts::known().collect::<Result<_, _>>().map_err(Stop::bad)?;
    list(layouts.iter().map(|layout| (layout.name.as_str(), layout.description.as_str())), out)
}

/// Names and what they stand for, a line each.
fn list<'a>(
    lines: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    out: &mut impl Write,
) -> Result<ExitCode, Stop> {
    let width = lines.clone().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, description) in lines {
        writeln!(out, "{name:width$}  {description}")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl ViewArguments {
    /// Changes the host as the options say.
    fn change(&self, host: &mut Host) -> Result<(), Stop> {
        host.reserve_dma_masks |= self.reserve_dma_masks;
        self.place.place(host)
    }

    fn kernel(&self) -> Result<Kernel, Stop> {
        self.kernel.parse().map_err(Stop::bad)
    }

    fn selection<'a>(&self, host: &'a Host) -> Result<Option<Selection<'a>>, Stop> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        Selection::of_devices(host, &self.devices).map(Some).map_err(Stop::bad)
    }
}

/// The layout of that name or file, or of these ranges; `None` if neither is given.
fn find_layout(name: Option<&str>, ranges: &[String]) -> Result<Option<Layout>, Stop> {
    match (name, ranges) {
        (None, []) => Ok(None),
        (None, ranges) => layout::parse_ranges(ranges).map(Layout::plain).map(Some),
        (Some(name), []) => return layouts::find(name).map(Some).map_err(Stop::bad),
        (Some(_), [range, ..]) => {
            let text = format!("--layout and \"{range}\" exclude each other; give one");
            return Err(Stop::BadInput(text));
        }
    }
    .map_err(Stop::bad)
}

fn write_file(path: &Path, text: &str) -> Result<(), Stop> {
    let cannot = |error| Stop::BadInput(format!("{}: cannot write: {error}", path.display()));
    std::fs::write(path, text).map_err(cannot)
}

fn write_json(value: &impl serde::Serialize, out: &mut impl Write) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(value).map_err(Stop::bad)?;
    Ok(writeln!(out, "{text}")?)
}
