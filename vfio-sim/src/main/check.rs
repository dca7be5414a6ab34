// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check`: a layout on one host, or on many.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vfio_sim::check;
use vfio_sim::host::Host;
use vfio_sim::layout::Layout;
use vfio_sim::{hosts, junit, matrix};
use vfio_type1::Kernel;

use super::{REFUSED, Stop, ViewArguments, find_layout, write_file, write_json};

#[derive(Args)]
#[command(override_usage = "vfio-sim check [OPTIONS] HOST RANGE...\n       \
                            vfio-sim check [OPTIONS] --all-hosts RANGE...\n       \
                            vfio-sim check [OPTIONS] --layout LAYOUT HOST")]
pub(super) struct CheckArguments {
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
        let layout = find_layout(self.layout.as_deref(), ranges)?;
        let nothing = "nothing to check; write FIRST+SIZE or FIRST-LAST, or --layout LAYOUT";
        Ok((hosts, layout.ok_or_else(|| Stop::BadInput(nothing.to_owned()))?))
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
