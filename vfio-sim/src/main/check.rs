// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check`: a layout on one host, or on many.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vfio_sim::check;
use vfio_sim::host::Host;
use vfio_sim::knobs::Knobs;
use vfio_sim::layout::{self, Expectation, Layout};
use vfio_sim::{hosts, junit, matrix};
use vfio_type1::Kernel;

use super::{REFUSED, Stop, ViewArguments, complain, find_layout, write_file, write_json};

#[derive(Args)]
#[command(override_usage = "vfio-sim check [OPTIONS] HOST RANGE...\n       \
                            vfio-sim check [OPTIONS] --all-hosts RANGE...\n       \
                            vfio-sim check [OPTIONS] --layout LAYOUT HOST")]
pub(super) struct CheckArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML; none with --all-hosts. Then what to
    /// map: [NAME=]FIRST+SIZE or [NAME=]FIRST-LAST, both ends included. Numbers are decimal or 0x
    /// hexadecimal, with K, M, G, T or P. A range whose NAME begins with bar stays whole where another
    /// place is suggested; one that begins with rom is read-only.
    #[arg(required_unless_present_any = ["all_hosts", "more_hosts"], value_name = "HOST RANGE")]
    host_and_ranges: Vec<String>,
    /// A known layout (see `vfio-sim layouts`) or a layout file in TOML, instead of ranges.
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<String>,
    /// Write the verdicts as JUnit XML too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Try the hosts with other settings, and let things fail: entries:N mappings at most, IOMMUs with
    /// the page sizes pages:BITMAP, map:N[=ERRNO], pin:N[=ERRNO] and allocation:N for the Nth of its
    /// kind in each container, seed:SEED/ONE-IN[@map+pin] for some of them.
    #[arg(long, value_name = "ITEM,...")]
    inject: Option<String>,
    #[command(flatten)]
    options: ViewArguments,
    /// Check on this host too, and print a table. May be given more than once.
    #[arg(long = "host", value_name = "HOST", conflicts_with = "devices")]
    more_hosts: Vec<String>,
    /// Check on every known host, and print a table.
    #[arg(long, conflicts_with = "devices")]
    all_hosts: bool,
    /// Check under every kernel, and print a table.
    #[arg(long, conflicts_with_all = ["kernel", "devices"])]
    all_kernels: bool,
}

pub(super) fn run(arguments: &CheckArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
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
        let mut hosts: Vec<Host> = Vec::new();
        if self.all_hosts {
            hosts = hosts::known().collect::<Result<_, _>>().map_err(Stop::bad)?;
        }
        for name in &self.more_hosts {
            hosts.push(hosts::find(name).map_err(Stop::bad)?);
        }
        let ranges = match &self.host_and_ranges[..] {
            [host, ranges @ ..] if hosts.is_empty() => {
                hosts.push(find_host(host)?);
                ranges
            }
            ranges => ranges,
        };
        for host in &mut hosts {
            self.options.change(host)?;
        }
        let layout = find_layout(self.layout.as_deref(), ranges)?;
        let nothing = "nothing to check; write FIRST+SIZE or FIRST-LAST, or --layout LAYOUT";
        let layout = layout.ok_or_else(|| Stop::BadInput(nothing.to_owned()))?;
        warn_of_unknown_hosts(&layout, &hosts);
        Ok((hosts, layout))
    }

    fn knobs(&self) -> Result<Knobs, Stop> {
        let text = self.inject.as_deref();
        text.map_or(Ok(Knobs::default()), |text| text.parse().map_err(Stop::bad))
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

/// The host, unless the argument is a range, so that the host is missing.
fn find_host(name: &str) -> Result<Host, Stop> {
    match layout::parse_ranges(std::slice::from_ref(&name.to_owned())) {
        Ok(_) => Err(Stop::BadInput(format!("\"{name}\" is a range; write a host before it"))),
        Err(_) => hosts::find(name).map_err(Stop::bad),
    }
}

/// A name that stands for no host is a mistake which nothing else would show.
fn warn_of_unknown_hosts(layout: &Layout, hosts: &[Host]) {
    let names = hosts.iter().map(|host| host.name.as_str()).chain(hosts::names());
    let names: Vec<&str> = names.collect();
    for pattern in layout.expectations.iter().flat_map(|expectation| &expectation.hosts) {
        if !names.iter().any(|name| Expectation::names(pattern, name)) {
            complain(&format!(
                "note: the layout expects something of \"{pattern}\", which is no host"
            ));
        }
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
    let knobs = arguments.knobs()?;
    let report =
        check::check(host, kernel, &knobs, selection.as_ref(), layout).map_err(Stop::bad)?;
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
    let knobs = arguments.knobs()?;
    let matrix = matrix::check_all(hosts, kernels, &knobs, layout).map_err(Stop::bad)?;
    arguments.write_junit(layout, matrix.reports())?;
    match arguments.options.json {
        true => write_json(&matrix.reports().collect::<Vec<_>>(), out)?,
        false => out.write_all(matrix.render().as_bytes())?,
    }
    Ok(matrix.is_good())
}
