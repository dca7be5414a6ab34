// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An IOTLB: the translations that a device has used last.

use std::sync::Arc;

use crate::addr::{Iova, Vaddr};
use crate::changes::MemoryChange;
use crate::memory::{Access, Memory};
use crate::process::Process;
use crate::range::{IovaRange, VaddrRange};

/// How many translations are kept. Queues, descriptors and a few buffers at a time.
const ENTRIES: usize = 8;

/// A mapping as a device uses it.
#[derive(Clone, Debug)]
pub(crate) struct Translation {
    pub(crate) iova: IovaRange,
    pub(crate) vaddr: Vaddr,
    pub(crate) access: Access,
    pub(crate) owner: Arc<Process>,
    /// The epoch of the owner's memory when the mapping got its pages. `None` while its process
    /// address is taken away: the pages stay, whatever happens at the old address.
    pub(crate) memory_epoch: Option<u32>,
    /// A MAP of a part of it was refused, which the container knows more about.
    pub(crate) suspect: bool,
}

impl Translation {
    /// The process address that `iova`, which lies in the mapping, stands for.
    pub(crate) fn vaddr_of(&self, iova: Iova) -> Vaddr {
        Vaddr(self.vaddr.0.wrapping_add(iova.0.wrapping_sub(self.iova.first().0)))
    }

    pub(crate) fn memory(&self) -> &dyn Memory {
        self.owner.memory()
    }

    /// What happened to the memory behind `part` of the mapping since it was mapped.
    pub(crate) fn change_behind(&self, part: &IovaRange) -> Option<(VaddrRange, MemoryChange)> {
        let changes = self.memory().changes()?;
        let vaddrs = VaddrRange::new(self.vaddr_of(part.first()), self.vaddr_of(part.last()))?;
        changes.since(self.memory_epoch?, &vaddrs)
    }
}

/// A few translations. They never overlap, since mappings do not.
#[derive(Debug, Default)]
pub(crate) struct Iotlb {
    entries: Vec<Translation>,
    /// The entry that was used last.
    last: usize,
    /// The entry to be replaced next.
    next: usize,
}

impl Iotlb {
    /// The translation that holds `iova`.
    pub(crate) fn find(&mut self, iova: Iova) -> Option<&Translation> {
        let holds = |entry: &Translation| entry.iova.contains(iova);
        if !self.entries.get(self.last).is_some_and(holds) {
            self.last = self.entries.iter().position(holds)?;
        }
        self.entries.get(self.last)
    }

    /// Adds a translation, in the place of the oldest one if there is no room.
    pub(crate) fn insert(&mut self, translation: Translation) -> &Translation {
        if self.entries.len() < ENTRIES {
            self.last = self.entries.len();
            self.entries.push(translation);
        } else {
            self.last = self.next;
            self.entries[self.last] = translation;
            self.next = (self.next + 1) % ENTRIES;
        }
        &self.entries[self.last]
    }

    /// Drops what overlaps `range`.
    pub(crate) fn forget(&mut self, range: &IovaRange) {
        self.entries.retain(|entry| !entry.iova.overlaps(range));
        self.next = 0;
    }
}
