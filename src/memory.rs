// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The seam to the memory of the process that calls.
//!
//! The driver touches a process's memory in two ways: it copies ioctl arguments and dirty bitmaps
//! (`copy_from_user`, `copy_to_user`), and it pins pages for DMA (`pin_user_pages`). [`Memory`] is
//! both; [`ModelMemory`] is an address space made of stated ranges, for tests and for replaying
//! recordings.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::Vaddr;
use crate::changes::{MemoryChange, MemoryChanges};
use crate::errno::Errno;
use crate::page_size::PageSize;
use crate::range::VaddrRange;

/// What a mapping lets a device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The device may read.
    Read,
    /// The device may write. On most IOMMUs it may then read too; type1 does not promise it.
    Write,
    /// The device may read and write.
    ReadWrite,
}

impl Access {
    /// Whether reading is allowed.
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether writing is allowed.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read-only",
            Self::Write => "write-only",
            Self::ReadWrite => "read-write",
        })
    }
}

/// Memory that could not be touched: the first address that is not mapped, or not as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable memory at {at}")]
pub struct Fault {
    /// The first bad address.
    pub at: Vaddr,
}

/// A page that could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page at {at} cannot be pinned: {errno}")]
pub struct PinFault {
    /// An address in the page.
    pub at: Vaddr,
    /// EFAULT for memory that is not there or lacks a permission; memory of special kinds may
    /// give others (spec 5.2).
    pub errno: Errno,
}

/// Pages that can be pinned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedRun {
    /// The last address of the run, inclusive.
    pub last: Vaddr,
    /// Whether the pages count as locked memory. Device memory does not (spec 5.2).
    pub charged: bool,
}

/// A process's memory as the driver sees it.
///
/// The driver calls it with the container locked, so an implementation must not call back.
pub trait Memory: Send + Sync {
    /// Copies bytes out of the process. On a fault, `into` holds what came before it.
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault>;

    /// Copies bytes into the process. On a fault, what came before it has been written.
    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault>;

    /// How far from `pages.first()` memory can be pinned alike for `access`, at most to
    /// `pages.last()`. The driver asks again behind a shorter run.
    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault>;

    /// What the process did to its memory, if this memory can tell. [`crate::Vfio::set_watch`] then
    /// finds devices that go on as before.
    fn changes(&self) -> Option<&MemoryChanges> {
        None
    }
}

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// Memory made of stated ranges: some read-write, some read-only, nothing elsewhere.
///
/// Contents are kept sparsely and start as zeroes, so a range may be as large as a guest. What is
/// done to it with [`Self::remove`], [`Self::replace`] and [`Self::free`] is recorded.
#[derive(Debug, Default)]
pub struct ModelMemory {
    state: Mutex<State>,
    changes: MemoryChanges,
}

#[derive(Debug, Default)]
struct State {
    /// By first address; disjoint.
    areas: BTreeMap<Vaddr, Area>,
    contents: HashMap<u64, Box<[u8; PAGE_BYTES]>>,
}

#[derive(Clone, Copy, Debug)]
struct Area {
    range: VaddrRange,
    writable: bool,
}

/// A range that cannot be memory of a [`ModelMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// It overlaps memory that is there already.
    #[error("memory {new} overlaps memory {old}")]
    Overlap {
        /// The range to add.
        new: VaddrRange,
        /// The range that is there.
        old: VaddrRange,
    },
    /// It does not consist of whole pages of 4 KiB.
    #[error("memory {range} does not start and end at page boundaries")]
    Unaligned {
        /// The range given.
        range: VaddrRange,
    },
}

impl ModelMemory {
    /// Memory with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds whole pages of 4 KiB that can be read and, if `writable`, written.
    pub fn add(&self, range: VaddrRange, writable: bool) -> Result<(), AreaError> {
        check_aligned(range)?;
        let mut state = self.lock();
        if let Some(area) = state.area_at_or_below(range.last())
            && area.range.overlaps(&range)
        {
            return Err(AreaError::Overlap { new: range, old: area.range });
        }
        state.areas.insert(range.first(), Area { range, writable });
        Ok(())
    }

    /// Takes whole pages away, as `munmap` does: what is not there is passed over.
    pub fn remove(&self, range: VaddrRange) -> Result<(), AreaError> {
        check_aligned(range)?;
        let mut state = self.lock();
        self.changes.record(range, MemoryChange::Unmapped);
        state.cut(&range);
        state.zero(&range);
        Ok(())
    }

    /// Puts other pages in the place of those that are there, with the same permissions: zeroes.
    pub fn replace(&self, range: VaddrRange) -> Result<(), AreaError> {
        check_aligned(range)?;
        let mut state = self.lock();
        self.changes.record(range, MemoryChange::Replaced);
        state.zero(&range);
        Ok(())
    }

    /// Notes that the process gives memory back to its allocator. It stays there as it is.
    pub fn free(&self, range: VaddrRange) {
        self.changes.record(range, MemoryChange::Freed);
    }

    /// Writes regardless of permissions, as the process did before it made memory read-only.
    /// Still faults where there is no memory.
    pub fn poke(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.lock().copy_in(to, bytes, Access::Read)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left bytes half written at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_aligned(range: VaddrRange) -> Result<(), AreaError> {
    match range.is_aligned(PageSize::P4K) {
        true => Ok(()),
        false => Err(AreaError::Unaligned { range }),
    }
}

impl State {
    /// Leaves of each area what lies outside `range`.
    fn cut(&mut self, range: &VaddrRange) {
        // They are apart, so those that reach into the range are the last ones that start up to its end.
        let below = self.areas.range(..=range.last()).rev();
        let touched = below.take_while(|(_, area)| area.range.last() >= range.first());
        for first in touched.map(|(first, _)| *first).collect::<Vec<_>>() {
            let Some(area) = self.areas.remove(&first) else { continue };
            let rests = area.range.without(range).map(|rest| Area { range: rest, ..area });
            self.areas.extend(rests.map(|rest| (rest.range.first(), rest)));
        }
    }

    /// Forgets the contents of whole pages.
    fn zero(&mut self, range: &VaddrRange) {
        self.contents.retain(|page, _| !range.contains(Vaddr(page * PAGE)));
    }

    fn area_at_or_below(&self, at: Vaddr) -> Option<&Area> {
        self.areas.range(..=at).next_back().map(|(_, area)| area)
    }

    /// The area that holds `at` and permits `access`.
    fn usable(&self, at: Vaddr, access: Access) -> Option<&Area> {
        self.area_at_or_below(at)
            .filter(|area| area.range.contains(at) && (area.writable || !access.writes()))
    }

    /// Cuts `length` bytes from `at` into pieces that lie in one page each, in order, and calls
    /// `piece` with the address and the offset. Faults at the first address without memory.
    fn walk(
        &mut self,
        at: Vaddr,
        length: usize,
        access: Access,
        mut piece: impl FnMut(&mut HashMap<u64, Box<[u8; PAGE_BYTES]>>, u64, usize, usize),
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < length {
            let here = Vaddr(at.0.checked_add(done as u64).ok_or(Fault { at: Vaddr(u64::MAX) })?);
            let area = self.usable(here, access).ok_or(Fault { at: here })?;
            let in_page = PAGE - here.0 % PAGE;
            let in_area = (area.range.last().0 - here.0).saturating_add(1);
            let wanted = in_page.min(in_area).min((length - done) as u64);
            // At most a page, so it fits.
            let size = usize::try_from(wanted).unwrap_or(usize::MAX);
            piece(&mut self.contents, here.0, done, size);
            done += size;
        }
        Ok(())
    }

    fn copy_in(&mut self, to: Vaddr, bytes: &[u8], access: Access) -> Result<(), Fault> {
        self.walk(to, bytes.len(), access, |contents, address, done, size| {
            let page = contents.entry(address / PAGE).or_insert_with(zero_page);
            page[offset(address)..][..size].copy_from_slice(&bytes[done..done + size]);
        })
    }

    fn copy_out(&mut self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.walk(from, into.len(), Access::Read, |contents, address, done, size| {
            let piece = &mut into[done..done + size];
            match contents.get(&(address / PAGE)) {
                Some(page) => piece.copy_from_slice(&page[offset(address)..][..size]),
                None => piece.fill(0),
            }
        })
    }
}

fn zero_page() -> Box<[u8; PAGE_BYTES]> {
    Box::new([0; PAGE_BYTES])
}

fn offset(address: u64) -> usize {
    (address % PAGE) as usize
}

impl Memory for ModelMemory {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.lock().copy_out(from, into)
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.lock().copy_in(to, bytes, Access::Write)
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        let state = self.lock();
        let area = state
            .usable(pages.first(), access)
            .ok_or(PinFault { at: pages.first(), errno: Errno::EFAULT })?;
        Ok(PinnedRun { last: area.range.last().min(pages.last()), charged: true })
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        Some(&self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> ModelMemory {
        let memory = ModelMemory::new();
        memory.add(VaddrRange::from_size(Vaddr(0x1000), 0x2000).unwrap(), true).unwrap();
        memory.add(VaddrRange::from_size(Vaddr(0x3000), 0x1000).unwrap(), false).unwrap();
        memory
    }

    #[test]
    fn bytes_cross_pages_and_areas() {
        let memory = memory();
        memory.write(Vaddr(0x1ffe), &[1, 2, 3, 4]).unwrap();
        let mut back = [0; 6];
        memory.read(Vaddr(0x1ffd), &mut back).unwrap();
        assert_eq!(back, [0, 1, 2, 3, 4, 0]);
        memory.read(Vaddr(0x2ffe), &mut back[..4]).unwrap();
    }

    #[test]
    fn faults_name_the_first_bad_address_and_keep_what_came_before() {
        let memory = memory();
        assert_eq!(memory.write(Vaddr(0x2ffe), &[7; 4]), Err(Fault { at: Vaddr(0x3000) }));
        let mut back = [0; 2];
        memory.read(Vaddr(0x2ffe), &mut back).unwrap();
        assert_eq!(back, [7, 7]);
        assert_eq!(memory.read(Vaddr(0x4000), &mut back), Err(Fault { at: Vaddr(0x4000) }));
        assert_eq!(memory.read(Vaddr(u64::MAX), &mut back), Err(Fault { at: Vaddr(u64::MAX) }));
    }

    #[test]
    fn read_only_memory_pins_for_reading_only() {
        let memory = memory();
        let pages = VaddrRange::from_size(Vaddr(0x2000), 0x2000).unwrap();
        let run = memory.pin(pages, Access::ReadWrite).unwrap();
        assert_eq!(run.last, Vaddr(0x2fff));
        let rest = VaddrRange::from_size(Vaddr(0x3000), 0x1000).unwrap();
        assert!(memory.pin(rest, Access::Read).is_ok());
        assert_eq!(memory.pin(rest, Access::Write).unwrap_err().at, Vaddr(0x3000));
    }

    #[test]
    fn areas_do_not_overlap() {
        let memory = memory();
        let clash = VaddrRange::from_size(Vaddr(0), 0x2000).unwrap();
        assert!(matches!(memory.add(clash, true), Err(AreaError::Overlap { .. })));
        let part = VaddrRange::from_size(Vaddr(0), 0x800).unwrap();
        assert!(matches!(memory.add(part, true), Err(AreaError::Unaligned { .. })));
        memory.add(VaddrRange::from_size(Vaddr(0), 0x1000).unwrap(), true).unwrap();
    }

    #[test]
    fn what_is_removed_is_gone_and_what_is_replaced_is_zero() {
        let memory = memory();
        memory.write(Vaddr(0x1000), &[7; 0x2000]).unwrap();
        let page = |at| VaddrRange::from_size(Vaddr(at), 0x1000).unwrap();
        let mut bytes = [1; 4];
        memory.replace(page(0x1000)).unwrap();
        memory.read(Vaddr(0x1ffe), &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 7, 7]);
        memory.remove(page(0x2000)).unwrap();
        assert_eq!(memory.read(Vaddr(0x1ffe), &mut bytes), Err(Fault { at: Vaddr(0x2000) }));
        memory.read(Vaddr(0x3000), &mut bytes).unwrap();
        memory.add(page(0x2000), true).unwrap();
        memory.read(Vaddr(0x2000), &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4]);
        let part = VaddrRange::from_size(Vaddr(0x1000), 0x800).unwrap();
        assert!(matches!(memory.remove(part), Err(AreaError::Unaligned { .. })));
        assert!(matches!(memory.replace(part), Err(AreaError::Unaligned { .. })));
        memory.free(part);
        let changes = memory.changes().unwrap();
        assert_eq!(changes.since(0, &page(0x1000)), Some((part, MemoryChange::Freed)));
        assert_eq!(changes.since(0, &page(0x2000)), Some((page(0x2000), MemoryChange::Unmapped)));
    }
}
