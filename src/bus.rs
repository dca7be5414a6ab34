// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group's side of the bus: what its devices translate by, and what removal waits for.
//!
//! Devices find a translation in the page table of their group's container without a lock. What they
//! find was true while they looked: the table was the group's before and after. To copy, a device holds
//! the lock of its own port from the lookup to the end of the copy, and nothing else. Whoever removes a
//! mapping takes it out of the table first, then waits at each port for the access that runs there. An
//! access that comes later finds the mapping gone. Who waits is let in before the next access, so no
//! device can keep UNMAP waiting for longer than the access that runs.

use std::sync::{Arc, PoisonError, Weak};

use crate::addr::{Iova, Vaddr};
use crate::changes::MemoryChange;
use crate::container::Core;
use crate::memory::{Access, Memory};
use crate::page_table::{Entry, OwnerId, PageTable, PageTables};
use crate::process::Process;
use crate::range::{IovaRange, VaddrRange};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, pause};

/// A mapping as a device uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    pub(crate) iova: IovaRange,
    vaddr: Vaddr,
    pub(crate) access: Access,
    owner: OwnerId,
    /// The epoch of the owner's memory when the mapping got its pages. `None` while its process
    /// address is taken away: the pages stay, whatever happens at the old address.
    memory_epoch: Option<u32>,
}

impl Translation {
    /// The translation by an entry, if it is in the container's domains.
    pub(crate) fn by(entry: &Entry) -> Option<Self> {
        let Entry { iova, vaddr, attributes } = *entry;
        let memory_epoch = (!attributes.vaddr_invalid).then_some(attributes.memory_epoch);
        let (access, owner) = (attributes.access, attributes.owner);
        attributes.iommu_mapped.then_some(Self { iova, vaddr, access, owner, memory_epoch })
    }

    /// The process address that `iova`, which lies in the mapping, stands for.
    pub(crate) fn vaddr_of(&self, iova: Iova) -> Vaddr {
        Vaddr(self.vaddr.0.wrapping_add(iova.0.wrapping_sub(self.iova.first().0)))
    }

    /// What happened to the memory behind `part` of the mapping since it was mapped.
    pub(crate) fn change_behind(
        &self,
        memory: &dyn Memory,
        part: &IovaRange,
    ) -> Option<(VaddrRange, MemoryChange)> {
        let changes = memory.changes()?;
        let vaddrs = VaddrRange::new(self.vaddr_of(part.first()), self.vaddr_of(part.last()))?;
        changes.since(self.memory_epoch?, &vaddrs)
    }
}

/// The container that a group is in, and its devices that do DMA.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    container: Mutex<Weak<Core>>,
    /// One more than the number of the page table that devices translate by, or 0; in the upper half,
    /// how often that changed.
    attached: AtomicU64,
    ports: Mutex<Vec<Arc<Port>>>,
    /// Whether `ports` has ever had an entry.
    used: AtomicBool,
}

/// Until this changes, numbers of owners mean the same processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    attached: u64,
    vacated: u64,
}

/// What the container finds under its lock.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) translation: Translation,
    pub(crate) owner: Arc<Process>,
    pub(crate) stamp: Stamp,
}

impl Bus {
    pub(crate) fn enter(&self, container: &Arc<Core>) {
        *lock(&self.container) = Arc::downgrade(container);
    }

    pub(crate) fn leave(&self) {
        *lock(&self.container) = Weak::new();
    }

    pub(crate) fn container(&self) -> Option<Arc<Core>> {
        lock(&self.container).upgrade()
    }

    /// Lets devices translate by a page table, or by none. Under the lock of the container.
    pub(crate) fn attach(&self, table: Option<u32>) {
        let changes = self.attached.load(Ordering::Relaxed) >> 32;
        let table = table.map_or(0, |table| u64::from(table) + 1);
        self.attached.store(changes.wrapping_add(1) << 32 | table, Ordering::Release);
    }

    /// The translation of `iova`. `None` if none is found without a lock: then the container knows.
    pub(crate) fn find(&self, tables: &PageTables, iova: Iova) -> Option<(Translation, Stamp)> {
        let attached = self.attached.load(Ordering::Acquire);
        let table = self.table(tables, attached)?;
        let entry = table.find(iova)?;
        let stamp = Stamp { attached, vacated: table.vacated() };
        fence(Ordering::Acquire);
        let same = self.attached.load(Ordering::Relaxed) == attached;
        Translation::by(&entry).filter(|_| same).map(|translation| (translation, stamp))
    }

    /// The stamp of what is found under the lock of the container, in its page table.
    pub(crate) fn stamp(&self, table: &PageTable) -> Stamp {
        Stamp { attached: self.attached.load(Ordering::Acquire), vacated: table.vacated() }
    }

    /// Whether a MAP was refused that a device may not know of: the container has the details.
    pub(crate) fn is_suspect(&self, tables: &PageTables) -> bool {
        self.table(tables, self.attached.load(Ordering::Acquire)).is_some_and(PageTable::is_suspect)
    }

    fn table<'a>(&self, tables: &'a PageTables, attached: u64) -> Option<&'a PageTable> {
        let number = u32::try_from(attached & u64::from(u32::MAX)).ok()?;
        tables.get(number.checked_sub(1)?)
    }

    /// Whether the group has devices that do DMA; no, for groups nobody simulates a device of.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn ports(&self) -> Vec<Arc<Port>> {
        lock(&self.ports).clone()
    }

    pub(crate) fn add_port(&self) -> Arc<Port> {
        let port = Arc::new(Port::default());
        let mut ports = lock(&self.ports);
        ports.push(Arc::clone(&port));
        // Under the container's lock or not: accesses of this port have not begun.
        self.used.store(true, Ordering::Release);
        port
    }

    pub(crate) fn remove_port(&self, port: &Arc<Port>) {
        lock(&self.ports).retain(|known| !Arc::ptr_eq(known, port));
    }
}

/// Where the accesses of a bus master run, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Port {
    running: Mutex<KnownOwners>,
    /// How many wait for the access that runs.
    waiting: AtomicU32,
}

impl Port {
    /// Begins an access, which lasts as long as the guard.
    pub(crate) fn begin(&self) -> MutexGuard<'_, KnownOwners> {
        while self.waiting.load(Ordering::Relaxed) != 0 {
            pause();
        }
        lock(&self.running)
    }

    /// Waits for the access that runs.
    pub(crate) fn settle(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(lock(&self.running));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The processes whose memory a bus master has accessed last.
#[derive(Debug, Default)]
pub(crate) struct KnownOwners {
    stamp: Stamp,
    owners: Vec<(OwnerId, Arc<Process>)>,
}

impl KnownOwners {
    /// Where the owner of a translation is kept that was found at `stamp`.
    pub(crate) fn place_of(&self, by: &Translation, stamp: Stamp) -> Option<usize> {
        let is = |(owner, _): &(OwnerId, Arc<Process>)| *owner == by.owner;
        self.owners.iter().position(is).filter(|_| self.stamp == stamp)
    }

    pub(crate) fn at(&self, place: usize) -> &Process {
        &self.owners[place].1
    }

    /// Keeps an owner, and forgets those from before its stamp. Returns its place.
    pub(crate) fn add(&mut self, found: Found) -> usize {
        if self.stamp != found.stamp {
            self.owners.clear();
            self.stamp = found.stamp;
        }
        self.owners.push((found.translation.owner, found.owner));
        self.owners.len() - 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is replaced whole, so a panic leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
