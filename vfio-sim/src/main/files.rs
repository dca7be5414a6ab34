// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim render` and `vfio-sim capture`: a host as files, and back.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use vfio_sim::hosts;
use vfio_type1::Kernel;

use super::{PlaceArguments, Stop, complain};

#[derive(Args)]
pub(super) struct RenderArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    host: String,
    /// Where to write: a directory that does not exist yet, or is empty.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    #[command(flatten)]
    place: PlaceArguments,
}

#[derive(Args)]
pub(super) struct CaptureArguments {
    /// Read a copied or rendered tree (DIR/sys, DIR/proc) instead of this machine.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The boot log, as dmesg or journalctl print it. Without, DIR/dmesg or this machine's log.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Where to write the host file; without, to stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn render(arguments: &RenderArguments) -> Result<ExitCode, Stop> {
    let mut host = hosts::find(&arguments.host).map_err(Stop::bad)?;
    arguments.place.place(&mut host)?;
    let kernel = arguments.kernel.parse().map_err(Stop::bad)?;
    let rendered = vfio_sim::render::tree(&host, kernel).map_err(Stop::bad)?;
    let unwritten = rendered.tree.write(&arguments.directory).map_err(Stop::bad)?;
    for note in rendered.notes.iter().chain(&unwritten) {
        complain(&format!("note: {note}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn capture(
    arguments: &CaptureArguments,
    out: &mut impl Write,
) -> Result<ExitCode, Stop> {
    let captured = vfio_sim::capture::capture(arguments.root.as_deref(), arguments.log.as_deref())
        .map_err(Stop::bad)?;
    for note in &captured.notes {
        complain(&format!("note: {note}"));
    }
    let text = captured.text(SystemTime::now()).map_err(Stop::bad)?;
    match &arguments.output {
        None => out.write_all(text.as_bytes())?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Stop::BadInput(format!("{}: cannot write: {error}", path.display()))
        })?,
    }
    Ok(ExitCode::SUCCESS)
}
