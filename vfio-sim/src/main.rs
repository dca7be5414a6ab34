// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The `vfio-sim` tool: arguments in, text and an exit status out.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vfio_sim::assign::Selection;
use vfio_sim::check;
use vfio_sim::host::Host;
use vfio_sim::layout::{self, Layout};
use vfio_sim::replay::{Difference, Outcome, replay};
use vfio_sim::trace::Trace;
use vfio_sim::{dma_api, hosts, junit, layouts, matrix, show, svg};
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
    Show(ShowArguments),
    /// Check whether a layout can be mapped on a host, and if not, why and what would fit.
    ///
    /// Groups that cannot be assigned are passed over. Exit status: 0 if all ranges fit in all other
    /// groups, 1 if some are refused or no group can be assigned, 2 for bad usage or input. In a table,
    /// hosts with nothing to assign do not count. If the layout says what it expects, 0 if it comes so
    /// everywhere, and 1 if not.
    Check(CheckArguments),
    /// Run recordings of a real kernel on the emulator and compare the answers.
    ///
    /// Exit status: 0 without differences, 1 with some, 2 if a recording cannot be read.
    Replay(ReplayArguments),
}

#[derive(Args)]
struct ViewArguments {
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    /// The devices that share one container; without, each group has its own.
    #[arg(long, value_name = "BDF,...", value_delimiter = ',')]
    devices: Vec<String>,
    /// Reserve what a device's DMA mask and its IOMMU leave out: proposed in 2020, not merged.
    #[arg(long)]
    reserve_dma_masks: bool,
    /// Print JSON. Addresses are strings, since many JSON readers lose the low bits of numbers.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShowArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    host: String,
    /// Show which addresses the kernel's own DMA API uses, beside those that VFIO maps for each group.
    #[arg(long)]
    dma_api: bool,
    #[command(flatten)]
    options: ViewArguments,
    /// Draw the address spaces as SVG into a file; - is the standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "dma_api"])]
    svg: Option<PathBuf>,
    /// With --svg: ranges to draw beside the address spaces, written as for `check`.
    #[arg(value_name = "RANGE", requires = "svg")]
    ranges: Vec<String>,
}

#[derive(Args)]
#[command(override_usage = "vfio-sim check [OPTIONS] HOST RANGE...\n       \
                            vfio-sim check [OPTIONS] --all-hosts RANGE...\n       \
                            vfio-sim check [OPTIONS] --layout LAYOUT HOST")]
struct CheckArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML; none with --all-hosts. Then what to
    /// map: [NAME=]FIRST+SIZE or [NAME=]FIRST-LAST, both ends included. Numbers are decimal or 0x
    /// hexadecimal, with K, M, G, T or P. A range whose NAME begins with bar stays whole where another
    /// place is suggested; one that begins with rom is read-only.
    #[arg(required_unless_present = "all_hosts", value_name = "HOST RANGE")]
    host_and_ranges: Vec<String>,
    /// A known layout (see `vfio-sim layouts`) or a layout file in TOML, instead of ranges.
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<String>,
    /// Write the verdicts as JUnit XML too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    options: ViewArguments,
    /// Check on every known host, and print a table.
    #[arg(long, conflicts_with = "devices")]
    all_hosts: bool,
    /// Check under every kernel, and print a table.
    #[arg(long, conflicts_with_all = ["kernel", "devices"])]
    all_kernels: bool,
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
        Command::Show(arguments) => run_show(&arguments, &mut out),
        Command::Check(arguments) => run_check(&arguments, &mut out),
        Command::Replay(arguments) => run_replay(&arguments, &mut out),
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

fn run_show(arguments: &ShowArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let options = &arguments.options;
    let mut host = hosts::find(&arguments.host).map_err(Stop::bad)?;
    host.reserve_dma_masks |= options.reserve_dma_masks;
    let selection = options.selection(&host)?;
    if arguments.dma_api {
        return show_dma_api(&host, options, selection.as_ref(), out);
    }
    let picture = match &arguments.svg {
        Some(path) => Some((path, arguments.report(&host, selection.as_ref())?)),
        None => None,
    };
    let show = show::show(&host, options.kernel()?, selection).map_err(Stop::bad)?;
    match picture {
        Some((path, report)) => write_svg(path, &svg::render(&show, report.as_ref()), out)?,
        None if options.json => write_json(&show, out)?,
        None => out.write_all(show::render(&show).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show_dma_api(
    host: &Host,
    options: &ViewArguments,
    selection: Option<&Selection<'_>>,
    out: &mut impl Write,
) -> Result<ExitCode, Stop> {
    let report = dma_api::report(host, options.kernel()?, selection).map_err(Stop::bad)?;
    match options.json {
        true => write_json(&report, out)?,
        false => out.write_all(dma_api::render(&report).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

impl ShowArguments {
    /// What the kernel says to the ranges, if there are some.
    fn report(
        &self,
        host: &Host,
        selection: Option<&Selection<'_>>,
    ) -> Result<Option<check::Report>, Stop> {
        let layout = Layout::plain(layout::parse_ranges(&self.ranges).map_err(Stop::bad)?);
        let kernel = self.options.kernel()?;
        let check = || check::check(host, kernel, selection, &layout).map_err(Stop::bad);
        (!self.ranges.is_empty()).then(check).transpose()
    }
}

fn write_svg(path: &Path, text: &str, out: &mut impl Write) -> Result<(), Stop> {
    match path == Path::new("-") {
        true => Ok(out.write_all(text.as_bytes())?),
        false => write_file(path, text),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Stop> {
    let cannot = |error| Stop::BadInput(format!("{}: cannot write: {error}", path.display()));
    std::fs::write(path, text).map_err(cannot)
}

fn run_check(arguments: &CheckArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let (hosts, layout) = arguments.hosts_and_layout()?;
    let good = match &hosts[..] {
        [host] if !arguments.all_kernels && !arguments.all_hosts => {
            check_one(arguments, host, &layout, out)?
        }
        _ => check_matrix(arguments, &hosts, &layout, out)?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

impl CheckArguments {
    /// The hosts to check on, and what to check.
    fn hosts_and_layout(&self) -> Result<(Vec<Host>, Layout), Stop> {
        let (mut hosts, ranges): (Vec<Host>, _) = match &self.host_and_ranges[..] {
            ranges if self.all_hosts => {
                (hosts::known().collect::<Result<_, _>>().map_err(Stop::bad)?, ranges)
            }
            [host, ranges @ ..] => (vec![hosts::find(host).map_err(Stop::bad)?], ranges),
            [] => (Vec::new(), &[][..]),
        };
        for host in &mut hosts {
            host.reserve_dma_masks |= self.options.reserve_dma_masks;
        }
        Ok((hosts, self.layout_of(ranges)?))
    }

    fn layout_of(&self, ranges: &[String]) -> Result<Layout, Stop> {
        let bad = |text: String| Err(Stop::BadInput(text));
        match (&self.layout, ranges) {
            (None, []) => {
                bad("nothing to check; write FIRST+SIZE or FIRST-LAST, or --layout LAYOUT".into())
            }
            (None, ranges) => layout::parse_ranges(ranges).map(Layout::plain).map_err(Stop::bad),
            (Some(layout), []) => layouts::find(layout).map_err(Stop::bad),
            (Some(_), [range, ..]) => {
                bad(format!("--layout and \"{range}\" exclude each other; give one"))
            }
        }
    }

    fn write_junit<'a>(
        &self,
        layout: &Layout,
        reports: impl IntoIterator<Item = &'a check::Report>,
    ) -> Result<(), Stop> {
        let Some(path) = &self.junit else { return Ok(()) };
        let name = if layout.name.is_empty() { "vfio-sim check" } else { &layout.name };
        let xml = junit::render(name, reports).map_err(Stop::bad)?;
        write_file(path, &xml)
    }
}

fn check_one(
    arguments: &CheckArguments,
    host: &Host,
    layout: &Layout,
    out: &mut impl Write,
) -> Result<bool, Stop> {
    let options = &arguments.options;
    let selection = options.selection(host)?;
    let kernel = options.kernel()?;
    let report = check::check(host, kernel, selection.as_ref(), layout).map_err(Stop::bad)?;
    arguments.write_junit(layout, [&report])?;
    match options.json {
        true => write_json(&report, out)?,
        false => out.write_all(check::render(&report).as_bytes())?,
    }
    Ok(report.is_good())
}

fn check_matrix(
    arguments: &CheckArguments,
    hosts: &[Host],
    layout: &Layout,
    out: &mut impl Write,
) -> Result<bool, Stop> {
    let one_kernel = [arguments.options.kernel()?];
    let kernels = if arguments.all_kernels { &Kernel::ALL[..] } else { &one_kernel[..] };
    let matrix = matrix::check_all(hosts, kernels, layout).map_err(Stop::bad)?;
    arguments.write_junit(layout, matrix.reports())?;
    match arguments.options.json {
        true => write_json(&matrix.reports().collect::<Vec<_>>(), out)?,
        false => out.write_all(matrix.render().as_bytes())?,
    }
    Ok(matrix.is_good())
}

fn write_json(value: &impl serde::Serialize, out: &mut impl Write) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(value).map_err(Stop::bad)?;
    Ok(writeln!(out, "{text}")?)
}

/// A recording that cannot be read does not keep the others from being replayed.
fn run_replay(arguments: &ReplayArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
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
