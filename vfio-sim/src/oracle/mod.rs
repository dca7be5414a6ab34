// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A naive VFIO driver, to hold the emulator against.
//!
//! First written from `docs/type1.md` alone, by someone who had not read the emulator. Where the two
//! differed, recordings and document decided, and both follow. Each function is
//! one operation, its rules stand in the order of the document and carry the number of its section
//! and step; "3.6" means section 3.6. Lists are scanned, nothing is cached, nothing is shared with
//! `vfio-type1` but plain values: requests, error numbers, descriptions of hosts.
//!
//! It states what is refused by the name of the rule, which is that of the variant of the
//! emulator's error, outer ones first: `Attach/ReservedConflict`. It does not say why.
//!
//! Where the document says that the answer depends on the shape of the kernel's tree, it does what
//! `SEMANTICS.md` promises instead, and says so there.

mod attach;
mod bytes;
mod detach;
mod devices;
mod dirty;
mod files;
mod info;
mod list;
mod map;
mod memory;
mod pin;
mod refusal;
mod regions;
mod release;
mod span;
mod type1;
mod unmap;

use std::sync::Arc;

use vfio_type1::{Binding, GroupDescription, GroupKind, Iommu, Kernel, ReservedRegion};

pub use devices::OnUnmap;
pub use dirty::Dirty;
pub use files::Target;
pub use info::OracleInfo;
pub use refusal::{Answer, Refusal};
pub use span::Span;
pub use type1::OracleMapping;

use files::{Container, GroupFile};
use memory::Memory;
use release::Release;

/// The naive driver on one host, with its open files and the processes that use it. Groups,
/// containers and processes are numbered from 0, in the order in which they were stated or made.
#[derive(Debug)]
pub struct Oracle {
    pub(crate) host: Host,
    processes: Vec<Process>,
    containers: Vec<Container>,
    files: Vec<GroupFile>,
}

/// What the kernel was booted with, and its module parameters.
#[derive(Debug)]
pub(crate) struct Host {
    release: Release,
    groups: Vec<Group>,
    allow_unsafe_interrupts: bool,
    noiommu_mode: bool,
    dma_entry_limit: u64,
}

#[derive(Debug)]
struct Group {
    kind: GroupKind,
    devices: Vec<(String, Binding)>,
    /// What its devices' IOMMU driver lists, device by device.
    stated: Vec<ReservedRegion>,
    /// 4.1: the same, merged.
    regions: Vec<ReservedRegion>,
    /// A device of it has a region of type direct, whatever else the kernel calls direct.
    direct: bool,
}

impl Group {
    fn iommu(&self) -> Option<&Arc<dyn Iommu>> {
        match &self.kind {
            GroupKind::Iommu(iommu) => Some(iommu),
            GroupKind::Emulated | GroupKind::NoIommu => None,
        }
    }

    fn is_noiommu(&self) -> bool {
        matches!(self.kind, GroupKind::NoIommu)
    }

    fn kernel_owned(&self) -> bool {
        self.devices.iter().any(|(_, binding)| matches!(binding, Binding::Kernel(_)))
    }
}

/// A process: its memory and its account (5.3).
#[derive(Debug, Default)]
struct Process {
    memory: Memory,
    /// Pages of 4 KiB, as VmLck.
    locked: u64,
    /// RLIMIT_MEMLOCK in bytes.
    memlock: u64,
    ipc_lock: bool,
    sys_rawio: bool,
    exited: bool,
}

impl Oracle {
    /// `kernel` on a host of these groups. A kernel that is not known by name counts as the newest.
    pub fn new(kernel: &Kernel, groups: &[GroupDescription]) -> Self {
        let release = Release::of(kernel);
        let groups: Vec<Group> =
            groups.iter().map(|group| regions::group(group, release)).collect();
        let files = groups.iter().map(|_| GroupFile::default()).collect();
        let host = Host {
            release,
            groups,
            allow_unsafe_interrupts: false,
            noiommu_mode: false,
            dma_entry_limit: 65535,
        };
        Self { host, processes: Vec::new(), containers: Vec::new(), files }
    }

    /// The merged reserved regions of a group (4.2).
    pub fn regions(&self, group: usize) -> &[ReservedRegion] {
        &self.host.groups[group].regions
    }

    /// A privileged process without memory.
    pub fn add_process(&mut self) -> usize {
        let memlock = u64::MAX;
        let process = Process { memlock, ipc_lock: true, sys_rawio: true, ..Process::default() };
        self.processes.push(process);
        self.processes.len() - 1
    }

    /// Gives a process memory: whole pages, read-write or read-only.
    pub fn add_memory(&mut self, process: usize, first: u64, last: u64, writable: bool) {
        self.processes[process].memory.add(Span { first, last }, writable);
    }

    /// Writes a process's memory whatever its permissions.
    pub fn poke(&mut self, process: usize, to: u64, bytes: &[u8]) {
        self.processes[process].memory.poke(to, bytes);
    }

    /// What a process's memory holds; zero where there is none.
    pub fn peek(&self, process: usize, from: u64, length: u64) -> Vec<u8> {
        self.processes[process].memory.peek(from, length)
    }

    /// Sets RLIMIT_MEMLOCK, in bytes.
    pub fn set_memlock(&mut self, process: usize, bytes: u64) {
        self.processes[process].memlock = bytes;
    }

    /// Gives or takes CAP_IPC_LOCK.
    pub fn set_ipc_lock(&mut self, process: usize, has: bool) {
        self.processes[process].ipc_lock = has;
    }

    /// Gives or takes CAP_SYS_RAWIO.
    pub fn set_sys_rawio(&mut self, process: usize, has: bool) {
        self.processes[process].sys_rawio = has;
    }

    /// Ends a process.
    pub fn exit(&mut self, process: usize) {
        self.processes[process].exited = true;
    }

    /// VmLck of a process, in pages.
    pub fn locked_pages(&self, process: usize) -> u64 {
        self.processes[process].locked
    }

    /// Sets `allow_unsafe_interrupts`.
    pub fn set_allow_unsafe_interrupts(&mut self, allow: bool) {
        self.host.allow_unsafe_interrupts = allow;
    }

    /// Sets `enable_unsafe_noiommu_mode`.
    pub fn set_noiommu_mode(&mut self, enable: bool) {
        self.host.noiommu_mode = enable;
    }

    /// Sets `dma_entry_limit`.
    pub fn set_dma_entry_limit(&mut self, mappings: u32) {
        self.host.dma_entry_limit = u64::from(mappings);
    }
}
