// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process did to its memory, for memory that can tell: so that a mapping whose memory has
//! gone can be told from a good one.
//!
//! Pinning keeps the pages of a mapping, not the process's addresses of them: a process may unmap,
//! replace or reuse memory that a device still reaches. This file keeps what happened last to each
//! address, and an epoch: the number of changes so far. A mapping remembers the epoch in which it
//! was made; a change of a later epoch is one it does not know of.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::Vaddr;
use crate::latest::Latest;
use crate::range::VaddrRange;

/// How many ranges with changes [`MemoryChanges`] remembers: those changed last.
pub const MAX_CHANGES: usize = 1024;

/// What a process did to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryChange {
    /// It is gone (`munmap`).
    Unmapped,
    /// Other pages are at its addresses (`mmap` over it, `mremap`, `MADV_DONTNEED`).
    Replaced,
    /// It went back to an allocator, which may give it out again (`free`). To be recorded for memory
    /// whose mappings should be gone by then, not for a heap that stays mapped as a whole.
    Freed,
}

impl fmt::Display for MemoryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmapped => "unmapped from the process",
            Self::Replaced => "replaced by other pages",
            Self::Freed => "freed",
        })
    }
}

/// What happened to a process's memory since it started.
///
/// Of each address the last change is remembered, of [`MAX_CHANGES`] ranges at most. Ranges that
/// changed longest ago are forgotten: mappings of them look good again.
#[derive(Debug, Default)]
pub struct MemoryChanges {
    epoch: AtomicU32,
    last: Mutex<Latest<Vaddr, Change, MAX_CHANGES>>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    epoch: u32,
    what: MemoryChange,
}

impl MemoryChanges {
    /// Nothing has changed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `range` changes. A program says so before the memory goes.
    ///
    /// It takes a lock and may allocate, so an allocator must not call it from inside itself.
    pub fn record(&self, range: VaddrRange, change: MemoryChange) {
        let mut last = self.lock();
        let epoch = self.epoch().wrapping_add(1);
        last.note(range, Change { epoch, what: change });
        self.epoch.store(epoch, Ordering::Release);
    }

    /// How many changes there were; it wraps around.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The newest change in `range` after `epoch`: where, and what.
    pub(crate) fn since(
        &self,
        epoch: u32,
        range: &VaddrRange,
    ) -> Option<(VaddrRange, MemoryChange)> {
        if self.epoch() == epoch {
            return None;
        }
        let last = self.lock();
        let now = self.epoch();
        // Ages are compared, as the epoch wraps around.
        let newer = |change: &Change| now.wrapping_sub(change.epoch) < now.wrapping_sub(epoch);
        let mut changes = last.newest_first().take_while(|(_, change)| newer(change));
        let (found, change) = changes.find(|(changed, _)| changed.overlaps(range))?;
        Some((*found, change.what))
    }

    fn lock(&self) -> MutexGuard<'_, Latest<Vaddr, Change, MAX_CHANGES>> {
        // A panic leaves a note missing at worst.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, size: u64) -> VaddrRange {
        VaddrRange::from_size(Vaddr(first), size).unwrap()
    }

    #[test]
    fn only_later_changes_of_the_same_memory_count() {
        let changes = MemoryChanges::new();
        changes.record(range(0x1000, 0x1000), MemoryChange::Freed);
        let epoch = changes.epoch();
        assert_eq!(changes.since(epoch, &range(0x1000, 1)), None);
        changes.record(range(0x3000, 0x2000), MemoryChange::Replaced);
        assert_eq!(changes.since(epoch, &range(0x1000, 0x2000)), None);
        let found = changes.since(epoch, &range(0x4fff, 2));
        assert_eq!(found, Some((range(0x3000, 0x2000), MemoryChange::Replaced)));
        changes.record(range(0x4000, 0x1000), MemoryChange::Unmapped);
        let found = changes.since(epoch, &range(0x3000, 0x2000));
        assert_eq!(found, Some((range(0x4000, 0x1000), MemoryChange::Unmapped)));
    }

    #[test]
    fn the_epoch_wraps_around() {
        let changes = MemoryChanges::new();
        changes.epoch.store(u32::MAX - 1, Ordering::Relaxed);
        let before = changes.epoch();
        for page in 1..4 {
            changes.record(range(page << 12, 0x1000), MemoryChange::Freed);
        }
        assert_eq!(changes.epoch(), 1);
        assert!(changes.since(before, &range(0x1000, 1)).is_some());
        assert!(changes.since(0, &range(0x2000, 1)).is_none());
        assert!(changes.since(0, &range(0x3000, 1)).is_some());
    }
}
