// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim run`: a program on a host that is not there.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use rustix::thread::{CapabilitySet, capabilities};
use vfio_sim::render;
use vfio_sim::run::program::{self, ProgramError};
use vfio_sim::run::{SETTINGS_VARIABLE, Settings, stage};
use vfio_type1::Kernel;

use super::{PlaceArguments, Stop, complain};

#[derive(Args)]
pub(super) struct RunArguments {
    /// A known host (see `vfio-sim hosts`) or a host file in TOML.
    host: String,
    /// The kernel to imitate: 2018-v6, 4.19, 5.10, 6.1, 6.12, 7.2 or 7.3.
    #[arg(long, default_value = Kernel::NEWEST.name())]
    kernel: String,
    #[command(flatten)]
    place: PlaceArguments,
    /// Let BARs not be mapped, as VMMs with KVM need it: all accesses are reads and writes of the
    /// device's file.
    #[arg(long)]
    no_mmap: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Exit statuses of the tool's own, as other programs that run programs have them.
const CANNOT_SET_UP: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The name of the library, which lies beside the tool.
const LIBRARY: &str = "libvfio_preload.so";

/// Where the library finds its settings: in the `/sys` that is the program's alone.
const SETTINGS: &str = "/sys/kernel/vfio-sim.json";

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, Stop> {
    let settings = settings(arguments)?;
    let host = settings.host().map_err(Stop::bad)?;
    let kernel = settings.kernel().map_err(Stop::bad)?;
    let files = render::tree(&host, kernel).map_err(Stop::bad)?.tree;
    let program = program::find(&arguments.command[0], std::env::var_os("PATH").as_deref());
    let program = match program {
        Ok(program) => program,
        Err(missing @ ProgramError::Missing { .. }) => return Ok(fail(NOT_FOUND, &missing)),
        Err(error) => return Ok(fail(CANNOT_RUN, &error)),
    };
    let library = match library() {
        Ok(library) => library,
        Err(error) => return Ok(fail(CANNOT_SET_UP, &error)),
    };
    if let Err(error) = stage::enter().and_then(|()| stage::set(&files)) {
        return Ok(fail(CANNOT_SET_UP, &error));
    }
    if let Err(error) = settings.save(Path::new(SETTINGS)) {
        return Ok(fail(CANNOT_SET_UP, &format!("{SETTINGS}: {error}")));
    }
    let error = Command::new(&program)
        .arg0(&arguments.command[0])
        .args(&arguments.command[1..])
        .env(SETTINGS_VARIABLE, SETTINGS)
        .env("LD_PRELOAD", preload(&library))
        .exec();
    Ok(fail(CANNOT_RUN, &format!("{}: {error}", program.display())))
}

fn fail(status: u8, message: &dyn Display) -> ExitCode {
    complain(&message.to_string());
    ExitCode::from(status)
}

fn settings(arguments: &RunArguments) -> Result<Settings, Stop> {
    let ipc_lock = capabilities(None).map(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let settings = Settings {
        host: arguments.host.clone(),
        kernel: arguments.kernel.clone(),
        devices: arguments.place.models.clone(),
        mmap: !arguments.no_mmap,
        ipc_lock: ipc_lock.unwrap_or(false),
        traces: None,
    };
    settings.absolute().map_err(Stop::from)
}

/// The library, beside the tool or where a package puts libraries.
fn library() -> Result<PathBuf, String> {
    let tool = std::env::current_exe().map_err(|error| format!("where this tool is: {error}"))?;
    let directory = tool.parent().unwrap_or(Path::new("/"));
    let places =
        [".", "../lib/vfio-sim", "../lib"].map(|place| directory.join(place).join(LIBRARY));
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| {
        format!(
            "{LIBRARY} is not beside {}; build it with \"cargo build --release -p vfio-preload\"",
            tool.display()
        )
    })
}

/// The library in front of what is loaded already.
fn preload(library: &Path) -> OsString {
    let mut preload = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    preload
}
