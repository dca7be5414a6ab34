// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process's memory as the emulator sees it: what ioctls copy, what MAP pins, what devices access.

use std::sync::Arc;

use vfio_type1::{
    Access, Errno, Fault, Memory, MemoryChange, MemoryChanges, PinFault, PinnedRun, Vaddr,
    VaddrRange,
};

use crate::guard::{self, PAGE};
use crate::windows::Windows;

/// Where this kernel's user addresses end, the first one that is none. With five-level page tables programs
/// have to ask for more.
const USER_END: u64 = (1 << 47) - PAGE;

/// What is pinned at once, in bytes.
const BATCH: u64 = 512 * PAGE;

/// The memory of this process.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    windows: Arc<Windows>,
    changes: MemoryChanges,
}

impl ProcessMemory {
    pub(crate) fn new(windows: Arc<Windows>) -> Self {
        Self { windows, changes: MemoryChanges::new() }
    }

    /// Notes that memory is about to go, or to be used anew.
    pub(crate) fn record(&self, range: VaddrRange, change: MemoryChange) {
        self.changes.record(range, change);
    }

    /// Registers take no DMA: a copy would run in the middle of what a device is doing.
    fn check(&self, at: Vaddr, length: usize) -> Result<(), Fault> {
        if self.windows.is_empty() || length == 0 {
            return Ok(());
        }
        let range = VaddrRange::from_size(at, length as u64).map_err(|_| Fault { at })?;
        match self.windows.overlapping(&range).filter(|window| window.trapped) {
            Some(window) => Err(Fault { at: at.max(window.range.first()) }),
            None => Ok(()),
        }
    }
}

/// An address that is no user address is not looked at: a non-canonical one raises no page fault.
fn check_end(at: Vaddr, length: usize) -> Result<(), Fault> {
    let end = at.0.checked_add(length as u64);
    if end.is_some_and(|end| end <= USER_END) { Ok(()) } else { Err(Fault { at }) }
}

impl Memory for ProcessMemory {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        check_end(from, into.len())?;
        self.check(from, into.len())?;
        guard::read(from.0, into).map_err(|done| Fault { at: Vaddr(from.0 + done) })
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        check_end(to, bytes.len())?;
        self.check(to, bytes.len())?;
        guard::write(to.0, bytes).map_err(|done| Fault { at: Vaddr(to.0 + done) })
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        let first = pages.first();
        let fault = PinFault { at: first, errno: Errno::EFAULT };
        let mut last = pages.last();
        if let Some(window) = self.windows.overlapping(&pages) {
            if window.range.contains(first) {
                // A BAR's pages are not the process's to lock.
                return Ok(PinnedRun { last: last.min(window.range.last()), charged: false });
            }
            last = Vaddr(window.range.first().0 - 1);
        }
        // In pieces, so that the limit on locked memory is looked at before all memory has been brought in.
        let batch = first.0.saturating_add(BATCH - 1) | (PAGE - 1);
        let last = last.min(Vaddr(USER_END - 1)).min(Vaddr(batch));
        let span = last.0.checked_sub(first.0).ok_or(fault)?;
        match guard::touch(first.0, span / PAGE + 1, access.writes()) {
            Ok(()) => Ok(PinnedRun { last, charged: true }),
            Err(0) => Err(fault),
            Err(there) => {
                let end = (first.0 & !(PAGE - 1)) + there * PAGE;
                Ok(PinnedRun { last: Vaddr(end - 1), charged: true })
            }
        }
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        Some(&self.changes)
    }
}
