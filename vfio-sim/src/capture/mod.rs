// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host from a Linux machine: its `/sys`, or a copy of it, and its boot log.
//!
//! A tree was written by nobody knows whom: files may be missing, too large, no text, or links in a
//! circle. Whatever cannot be read is left out and told. `source` reads files, `log` the boot log,
//! `device` a device, `unit` an IOMMU, `group` the groups, `regions` finds what the kernel reserves
//! beyond what follows from the facts, `release` knows kernels by what `uname -r` says, `text` makes
//! the host file.

mod bridge;
mod device;
mod group;
mod log;
mod machine;
mod regions;
mod release;
mod source;
mod text;
mod unit;

use std::path::Path;

use crate::host::{BootError, Host};
use crate::toml_file::FileError;
use log::Log;
use machine::Machine;
use source::Source;

/// A machine that cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// There is no sysfs.
    #[error(
        "there is no {path}; --root names the directory that has the sys and proc of a Linux machine"
    )]
    NoSysfs {
        /// What was looked for.
        path: String,
    },
    /// Devices have no groups: without an IOMMU there are none.
    #[error(
        "no IOMMU groups in {path}: the machine has no IOMMU, or it is off; turn on VT-d, AMD-Vi or the \
         SMMU in the firmware, and boot with intel_iommu=on on Intel; vfio-sim hosts lists machines \
         that have one"
    )]
    NoGroups {
        /// Where they would be.
        path: String,
    },
    /// There are groups, but none can be in a host file.
    #[error("none of the {count} groups can be described: {reason}")]
    NoUsableGroup {
        /// How many there are.
        count: usize,
        /// Why the last one cannot.
        reason: String,
    },
    /// The log that was named cannot be read.
    #[error("{path}: cannot read the log: {error}")]
    Log {
        /// The file.
        path: String,
        /// What the system says.
        error: String,
    },
    /// The groups contradict each other.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The text of the host file does not parse.
    #[error("the host file does not parse, which is a mistake of vfio-sim: {0}")]
    NotParsed(FileError),
    /// The text of the host file says something else.
    #[error("the host file does not say what was captured, which is a mistake of vfio-sim")]
    NotTheSame,
}

/// A machine, captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// The machine.
    pub host: Host,
    /// Its kernel, as `uname -r` says it.
    pub release: String,
    /// Whether it is the machine this runs on, rather than a copied tree.
    pub live: bool,
    /// What could not be read or had to be assumed, a line each.
    pub notes: Vec<String>,
}

/// Captures the tree at `root`, or this machine. `log` is a file with its boot log; without, it is
/// `dmesg` in the tree, or this machine's own.
pub fn capture(root: Option<&Path>, log: Option<&Path>) -> Result<Captured, CaptureError> {
    let mut source = Source::new(root);
    if !source.is_directory("sys/kernel") {
        return Err(CaptureError::NoSysfs { path: source.shown("sys/kernel") });
    }
    let log = Log::find(log, &mut source)?;
    let machine = Machine::read(&log, &mut source);
    let units = unit::units(&machine, &mut source);
    let groups = group::groups(&units, &mut source)?;
    let mut host = machine.host(&units, &groups);
    host.bridges = bridge::bridges(&log, &mut source);
    regions::explain(&mut host, &machine, &groups, &mut source)?;
    let live = root.is_none();
    Ok(Captured { host, release: machine.release, live, notes: source.into_notes() })
}
