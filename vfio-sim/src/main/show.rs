// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim show`: a host, as text, JSON or a picture.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use vfio_sim::assign::Selection;
use vfio_sim::host::Host;
use vfio_sim::knobs::Knobs;
use vfio_sim::{check, dma_api, hosts, show, svg};

use super::{Stop, ViewArguments, find_layout, write_file, write_json};

#[derive(Args)]
pub(super) struct ShowArguments {
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
    /// With --svg: a known layout or a layout file to draw beside the address spaces.
    #[arg(long, value_name = "LAYOUT", requires = "svg")]
    layout: Option<String>,
    /// With --svg: ranges to draw beside the address spaces, written as for `check`.
    #[arg(value_name = "RANGE", requires = "svg")]
    ranges: Vec<String>,
}

pub(super) fn run(arguments: &ShowArguments, out: &mut impl Write) -> Result<ExitCode, Stop> {
    let options = &arguments.options;
    let mut host = hosts::find(&arguments.host).map_err(Stop::bad)?;
    options.change(&mut host)?;
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
    /// What the kernel says to the layout, if there is one.
    fn report(
        &self,
        host: &Host,
        selection: Option<&Selection<'_>>,
    ) -> Result<Option<check::Report>, Stop> {
        let layout = find_layout(self.layout.as_deref(), &self.ranges)?;
        let kernel = self.options.kernel()?;
        let check = |layout| {
            check::check(host, kernel, &Knobs::default(), selection, &layout).map_err(Stop::bad)
        };
        layout.map(check).transpose()
    }
}

fn write_svg(path: &Path, text: &str, out: &mut impl Write) -> Result<(), Stop> {
    match path == Path::new("-") {
        true => Ok(out.write_all(text.as_bytes())?),
        false => write_file(path, text),
    }
}
