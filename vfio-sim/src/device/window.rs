// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process's memory with devices' BARs mapped into it, as `mmap` on a device's file maps them.
//!
//! Mapping such an address for another device is how VFIO does peer-to-peer DMA. Like the kernel, the
//! pages of a BAR pin without counting as locked memory (spec 5.2).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use vfio_type1::{
    Access, Errno, Fault, Memory, MemoryChanges, PageSize, PinFault, PinnedRun, Vaddr, VaddrRange,
};

use crate::device::bar::BarMemory;
use crate::device::pci_device::PciDevice;

/// A process's memory, and BARs in front of it.
pub struct MappedBars<M> {
    memory: M,
    windows: RwLock<Vec<Window>>,
}

struct Window {
    range: VaddrRange,
    bar: Arc<BarMemory>,
}

/// A BAR that cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMemory {
    /// There is no memory behind the BAR. Registers take no DMA here.
    #[error("{device} has no memory behind BAR {bar}; only memory takes DMA")]
    Registers {
        /// The device.
        device: String,
        /// The index of its BAR.
        bar: u8,
    },
    /// The address is not a multiple of 4 KiB.
    #[error("{vaddr} is no multiple of the page, 0x1000")]
    Unaligned {
        /// Where the BAR should go.
        vaddr: Vaddr,
    },
    /// The BAR does not fit above the address, or another one is there.
    #[error("BAR {bar} of {device} does not fit at {vaddr}, or another BAR is there")]
    NoRoom {
        /// The device.
        device: String,
        /// The index of its BAR.
        bar: u8,
        /// Where it should go.
        vaddr: Vaddr,
    },
}

impl<M: Memory> MappedBars<M> {
    /// `memory` with no BAR in it yet.
    pub fn new(memory: M) -> Self {
        Self { memory, windows: RwLock::default() }
    }

    /// The process's own memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Maps a whole BAR at `vaddr`, in front of what else is there.
    pub fn map(&self, vaddr: Vaddr, device: &PciDevice, bar: u8) -> Result<VaddrRange, NotMemory> {
        let name = || device.name().to_owned();
        let memory = device.bar_memory(bar);
        let memory = memory.ok_or_else(|| NotMemory::Registers { device: name(), bar })?;
        if !PageSize::P4K.is_aligned(vaddr.0) {
            return Err(NotMemory::Unaligned { vaddr });
        }
        let no_room = || NotMemory::NoRoom { device: name(), bar, vaddr };
        let range = VaddrRange::from_size(vaddr, memory.size()).map_err(|_| no_room())?;
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        if windows.iter().any(|window| window.range.overlaps(&range)) {
            return Err(no_room());
        }
        windows.push(Window { range, bar: memory });
        windows.sort_by_key(|window| window.range.first());
        Ok(range)
    }

    /// Cuts `length` bytes from `at` into pieces that lie in one window, or in memory.
    fn walk(
        &self,
        at: Vaddr,
        length: usize,
        mut piece: impl FnMut(Option<&Window>, Vaddr, usize, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let windows = self.windows();
        let mut done = 0;
        while done < length {
            let here = at.0.checked_add(done as u64).map(Vaddr);
            let here = here.ok_or(Fault { at: Vaddr(u64::MAX) })?;
            let (window, last) = find(&windows, here);
            let left = length - done;
            let size = usize::try_from(last.0 - here.0)
                .map_or(left, |span| left.min(span.saturating_add(1)));
            piece(window, here, done, size)?;
            done += size;
        }
        Ok(())
    }
}

impl<M> MappedBars<M> {
    /// Unmaps the BAR at `vaddr`; false if none is there.
    pub fn unmap(&self, vaddr: Vaddr) -> bool {
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        let before = windows.len();
        windows.retain(|window| window.range.first() != vaddr);
        windows.len() < before
    }

    fn windows(&self) -> RwLockReadGuard<'_, Vec<Window>> {
        self.windows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window that holds `at`, if one does, and how far that is so.
fn find(windows: &[Window], at: Vaddr) -> (Option<&Window>, Vaddr) {
    match windows.iter().find(|window| at <= window.range.last()) {
        Some(window) if window.range.contains(at) => (Some(window), window.range.last()),
        Some(next) => (None, Vaddr(next.range.first().0 - 1)),
        None => (None, Vaddr(u64::MAX)),
    }
}

impl<M: Memory> Memory for MappedBars<M> {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.walk(from, into.len(), |window, at, done, size| {
            let into = &mut into[done..done + size];
            match window {
                Some(window) => answer(window.bar.read(at.0 - window.range.first().0, into), at),
                None => self.memory.read(at, into),
            }
        })
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.walk(to, bytes.len(), |window, at, done, size| {
            let bytes = &bytes[done..done + size];
            match window {
                Some(window) => answer(window.bar.write(at.0 - window.range.first().0, bytes), at),
                None => self.memory.write(at, bytes),
            }
        })
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        let windows = self.windows();
        let (window, last) = find(&windows, pages.first());
        let last = last.min(pages.last());
        match window {
            Some(window) if window.bar.decodes() => {
                return Ok(PinnedRun { last, charged: false });
            }
            // A BAR that does not decode is not there for the CPU either.
            Some(_) => return Err(PinFault { at: pages.first(), errno: Errno::EFAULT }),
            None => {}
        }
        let pages = VaddrRange::new(pages.first(), last).unwrap_or(pages);
        self.memory.pin(pages, access)
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        self.memory.changes()
    }
}

fn answer(answered: bool, at: Vaddr) -> Result<(), Fault> {
    if answered { Ok(()) } else { Err(Fault { at }) }
}

impl<M: fmt::Debug> fmt::Debug for MappedBars<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows: Vec<VaddrRange> = self.windows().iter().map(|window| window.range).collect();
        f.debug_struct("MappedBars")
            .field("memory", &self.memory)
            .field("windows", &windows)
            .finish()
    }
}
