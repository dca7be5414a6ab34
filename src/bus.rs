// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A group's side of the bus: what its devices translate by, and what removal waits for.
//!
//! Devices find a translation without a lock: in their IOTLB, or in the page table of their group's
//! container. The bus has a generation, which changes with each removal and when the group comes or
//! goes. What is found counts if the generation was the same before and after, and is kept with it.
//!
//! To copy, a device holds the lock of its own port from the lookup to the end of the copy. Whoever
//! removes a mapping takes it out of the table first, then waits at each port for the access that runs
//! there; one that comes later finds the mapping gone. Who waits is let in before the next access, so
//! no device can keep UNMAP waiting for longer than the access that runs.

use std::sync::{Arc, PoisonError, TryLockError, Weak};

use crate::addr::Iova;
use crate::dma::Miss;
use crate::fault::Refusal;
use crate::host::Group;
use crate::iotlb::Iotlb;
use crate::page_table::{PageTable, PageTables};
use crate::process::Process;
use crate::range::IovaRange;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard, pause};
use crate::translation::{OwnerId, Translation};

/// What holds the mappings that a group's devices translate by: a container, or an iommufd.
pub(crate) trait Translator: Send + Sync {
    /// What `iova` means to the devices of a group, or why nothing.
    fn translation(&self, group: &Group, iova: Iova) -> Result<Found, Miss>;

    /// The newest refusal, if any, to map other memory in `part` of a mapping, and where.
    fn refusal_of_other_memory(
        &self,
        part: &IovaRange,
        mapping: &Translation,
    ) -> Option<(Iova, Refusal)>;
}

/// What a group's devices translate by, and its devices that do DMA.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    translator: Mutex<Option<Weak<dyn Translator>>>,
    /// One more than the number of the page table that devices translate by, or 0.
    table: AtomicU32,
    /// Changes after something has been removed, or the table is another one.
    generation: AtomicU64,
    ports: Mutex<Vec<Arc<Port>>>,
    /// Whether `ports` has ever had an entry.
    used: AtomicBool,
}

/// What a translator finds under its lock.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) translation: Translation,
    pub(crate) owner: Arc<Process>,
    /// Of the bus, while the translator's lock was held.
    pub(crate) generation: u64,
}

impl Bus {
    pub(crate) fn enter(&self, translator: Weak<dyn Translator>) {
        *lock(&self.translator) = Some(translator);
    }

    pub(crate) fn leave(&self) {
        *lock(&self.translator) = None;
    }

    pub(crate) fn translator(&self) -> Option<Arc<dyn Translator>> {
        lock(&self.translator).as_ref()?.upgrade()
    }

    /// Lets devices translate by a page table, or by none. Under the lock of the translator.
    pub(crate) fn attach(&self, table: Option<u32>) {
        self.table.store(table.map_or(0, |table| table + 1), Ordering::Release);
        // What was found in the other table is not to be believed.
        self.renew();
    }

    /// Begins a new generation: what was found before may be gone.
    pub(crate) fn renew(&self) {
        // Here a removal meets a port that was made meanwhile: one of them comes first, and the other one
        // knows of it.
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The translation of `iova`, and the generation that it is of. `None` if none is found without a lock:
    /// then the container knows.
    #[inline]
    pub(crate) fn find(
        &self,
        port: &Port,
        tables: &PageTables,
        iova: Iova,
    ) -> Option<(Translation, u64)> {
        self.find_cached(port, iova).or_else(|| self.find_in_table(port, tables, iova))
    }

    /// [`Self::find`] in the IOTLB alone.
    #[inline]
    pub(crate) fn find_cached(&self, port: &Port, iova: Iova) -> Option<(Translation, u64)> {
        let generation = self.generation();
        port.iotlb.find(iova, generation).map(|translation| (translation, generation))
    }

    /// [`Self::find`] in the page table alone.
    #[inline]
    pub(crate) fn find_in_table(
        &self,
        port: &Port,
        tables: &PageTables,
        iova: Iova,
    ) -> Option<(Translation, u64)> {
        let generation = self.generation();
        let translation = self.table(tables)?.find(iova)?;
        fence(Ordering::Acquire);
        let same = self.generation.load(Ordering::Relaxed) == generation;
        if !same || !translation.attributes.iommu_mapped() {
            return None;
        }
        port.iotlb.keep(iova, &translation, generation);
        Some((translation, generation))
    }

    /// Whether a MAP was refused that a device may not know of: the container has the details.
    pub(crate) fn is_suspect(&self, tables: &PageTables) -> bool {
        self.table(tables).is_some_and(PageTable::is_suspect)
    }

    #[inline]
    fn table<'a>(&self, tables: &'a PageTables) -> Option<&'a PageTable> {
        tables.get(self.table.load(Ordering::Acquire).checked_sub(1)?)
    }

    /// Whether the group has devices that do DMA; no, for groups nobody simulates a device of.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Whether no access runs. What devices kept goes to `kept`, to be dropped without a lock.
    pub(crate) fn is_quiet(&self, kept: &mut Vec<KnownOwners>) -> bool {
        !self.is_used() || lock(&self.ports).iter().all(|port| port.is_quiet(kept))
    }

    /// Waits for the accesses that run.
    pub(crate) fn settle(&self) {
        let ports = lock(&self.ports).clone();
        ports.iter().for_each(|port| port.settle());
    }

    pub(crate) fn add_port(&self) -> Arc<Port> {
        let port = Arc::new(Port::default());
        let mut ports = lock(&self.ports);
        ports.push(Arc::clone(&port));
        self.used.store(true, Ordering::Release);
        // Where this meets the removal's own renewal.
        self.renew();
        port
    }

    pub(crate) fn remove_port(&self, port: &Arc<Port>) {
        lock(&self.ports).retain(|known| !Arc::ptr_eq(known, port));
    }
}

/// Where the accesses of a bus master run, one at a time, and the translations it has used last.
#[derive(Debug, Default)]
pub(crate) struct Port {
    iotlb: Iotlb,
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

    /// Whether no access runs. Those who cannot tell say no: loom takes a thread that tries a lock for one
    /// that waits for it.
    fn is_quiet(&self, kept: &mut Vec<KnownOwners>) -> bool {
        if cfg!(loom) {
            return false;
        }
        let mut running = match self.running.try_lock() {
            Ok(running) => running,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if !running.owners.is_empty() {
            kept.push(std::mem::take(&mut running));
        }
        true
    }

    /// Waits for the access that runs, and lets go of the processes whose memory was accessed.
    pub(crate) fn settle(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let kept = std::mem::take(&mut *lock(&self.running));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(kept);
    }
}

/// The processes whose memory a bus master has accessed last.
#[derive(Debug, Default)]
pub(crate) struct KnownOwners {
    generation: u64,
    owners: Vec<(OwnerId, Arc<Process>)>,
}

impl KnownOwners {
    /// Where the owner of a translation of this generation is kept.
    pub(crate) fn place_of(&self, by: &Translation, generation: u64) -> Option<usize> {
        let is = |(owner, _): &(OwnerId, Arc<Process>)| *owner == by.attributes.owner();
        self.owners.iter().position(is).filter(|_| self.generation == generation)
    }

    pub(crate) fn at(&self, place: usize) -> &Process {
        &self.owners[place].1
    }

    /// Keeps an owner, and forgets those of an older generation. Returns its place.
    pub(crate) fn add(&mut self, found: Found) -> usize {
        if self.generation != found.generation {
            self.owners.clear();
            self.generation = found.generation;
        }
        if let Some(place) = self.place_of(&found.translation, found.generation) {
            return place;
        }
        self.owners.push((found.translation.attributes.owner(), found.owner));
        self.owners.len() - 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves what these locks guard usable: it is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
