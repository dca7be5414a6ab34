// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DMA: how a device reaches memory, through the domain that its group is attached to.
//!
//! A [`BusMaster`] is a device's end of the bus. It translates I/O virtual addresses by the mappings
//! of the container that its group is in, and copies to or from the memory of the process that
//! mapped them. What does not translate is a [`DmaFault`].
//!
//! Translations are cached in an IOTLB, one for each bus master, as devices with an ATC do. An access
//! holds its own IOTLB's lock from the lookup to the end of the copy, and nothing else. Whoever
//! removes a mapping takes it out of the table first, then goes through the IOTLBs: so when UNMAP
//! returns, no access to the range is running, and none will find it. Accesses of different devices
//! never wait for each other.
//!
//! Locks are taken in this order: IOTLB, container. Removal takes them one after the other. The locks
//! of the fault log, of the watch and of a memory's changes are taken last, and none inside them.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use crate::addr::{Iova, Vaddr};
use crate::container::Core;
use crate::fault::{DmaAccess, DmaFault, FaultCause, Refusal, Removal};
use crate::host::{Group, GroupId};
use crate::iotlb::{Iotlb, Translation};
use crate::iova_list::is_excluded;
use crate::memory::Fault;
use crate::range::{IovaRange, RangeError};
use crate::reserved::ReservedRegion;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::vfio::Shared;
use crate::watch::Mistake;

/// A group's side of the bus: the container it is in, and its devices that do DMA.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    container: Mutex<Weak<Core>>,
    masters: Mutex<Vec<Arc<Port>>>,
    /// Whether `masters` has ever had an entry.
    used: AtomicBool,
}

/// What removal must reach of a bus master.
#[derive(Debug)]
pub(crate) struct Port {
    iotlb: Mutex<Iotlb>,
}

impl Bus {
    pub(crate) fn enter(&self, container: &Arc<Core>) {
        *lock(&self.container) = Arc::downgrade(container);
    }

    pub(crate) fn leave(&self) {
        *lock(&self.container) = Weak::new();
    }

    fn container(&self) -> Option<Arc<Core>> {
        lock(&self.container).upgrade()
    }

    /// Whether the group has devices that do DMA; no, for groups nobody simulates a device of.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn ports(&self) -> Vec<Arc<Port>> {
        lock(&self.masters).clone()
    }

    fn add(&self) -> Arc<Port> {
        let port = Arc::new(Port { iotlb: Mutex::default() });
        let mut masters = lock(&self.masters);
        masters.push(Arc::clone(&port));
        // Under the container's lock or not: an IOTLB fills only through that lock.
        self.used.store(true, Ordering::Release);
        port
    }

    fn remove(&self, port: &Arc<Port>) {
        lock(&self.masters).retain(|known| !Arc::ptr_eq(known, port));
    }
}

impl Port {
    /// Forgets translations of `range`. When it returns, no access through one is running.
    pub(crate) fn forget(&self, range: &IovaRange) {
        lock(&self.iotlb).forget(range);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is replaced whole, so a panic leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device's end of the bus, by which it reads and writes memory.
///
/// It works whether or not the device is open, as hardware does: what counts is the container that
/// its group is in. Any number of threads may use it; they take turns. A device with several engines
/// that shall run at once has one for each.
pub struct BusMaster {
    shared: Arc<Shared>,
    group: Arc<Group>,
    device: String,
    /// The highest address that it can state.
    highest: Iova,
    enabled: AtomicBool,
    port: Arc<Port>,
}

impl BusMaster {
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>, device: String) -> Self {
        let port = group.bus.add();
        Self {
            shared,
            group,
            device,
            highest: Iova(u64::MAX),
            enabled: AtomicBool::new(true),
            port,
        }
    }

    /// The same device with fewer address lines: it cannot state addresses of more than `bits` bits.
    #[must_use]
    pub fn with_address_bits(mut self, bits: u32) -> Self {
        self.highest = Iova(u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(0));
        self
    }

    /// Turns bus mastering on or off, as bit 2 of a PCI device's command register does. It is on at
    /// first. Without it every access is a fault. When it has been turned off, no access is running.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
        if !enabled {
            drop(lock(&self.port.iotlb));
        }
    }

    /// Whether bus mastering is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.group.id
    }

    /// Reads memory. On a fault, `into` holds what lies below it.
    pub fn read(&self, iova: Iova, into: &mut [u8]) -> Result<(), DmaFault> {
        self.access(iova, into.len(), DmaAccess::Read, |translation, at, done, bytes| {
            translation.memory().read(at, &mut into[done..done + bytes])
        })
    }

    /// Writes memory. On a fault, what lies below it has been written.
    pub fn write(&self, iova: Iova, bytes: &[u8]) -> Result<(), DmaFault> {
        self.access(iova, bytes.len(), DmaAccess::Write, |translation, at, done, count| {
            translation.memory().write(at, &bytes[done..done + count])
        })
    }

    /// Whether an access of `length` bytes would go through. It is not logged if it would not.
    pub fn check(&self, iova: Iova, length: usize, access: DmaAccess) -> Result<(), DmaFault> {
        self.walk(iova, length, access, |_, _, _, _| Ok(())).map_err(|fault| *fault)
    }

    /// The process addresses that an access would reach, in order: address and bytes of each piece.
    /// A fault is logged.
    ///
    /// What is done with them afterwards is out of sight: UNMAP does not wait for it, as it does for
    /// [`Self::read`] and [`Self::write`].
    pub fn translate(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
    ) -> Result<Vec<(Vaddr, usize)>, DmaFault> {
        let mut pieces = Vec::new();
        self.access(iova, length, access, |_, at, _, bytes| {
            pieces.push((at, bytes));
            Ok(())
        })?;
        Ok(pieces)
    }

    fn access(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
        mut copy: impl FnMut(&Translation, Vaddr, usize, usize) -> Result<(), Fault>,
    ) -> Result<(), DmaFault> {
        let watched = self.shared.watch.is_on();
        let walk = self.walk(iova, length, access, |translation, at, done, bytes| {
            if watched {
                self.look_behind(translation, Iova(iova.0 + done as u64), bytes, access);
            }
            copy(translation, at, done, bytes)
        });
        walk.map_err(|fault| {
            self.shared.faults.add((*fault).clone());
            if watched {
                self.report_refused(&fault);
            }
            *fault
        })
    }

    /// Looks for mistakes behind an access that goes through.
    fn look_behind(&self, by: &Translation, iova: Iova, bytes: usize, access: DmaAccess) {
        let Ok(part) = IovaRange::from_size(iova, bytes as u64) else { return };
        let mapping = by.iova;
        if let Some((memory, change)) = by.change_behind(&part) {
            let device = self.device.clone();
            let stale = Mistake::StaleMapping { device, access, iova, mapping, memory, change };
            self.shared.watch.report(stale);
        }
        if by.suspect
            && let Some(container) = self.group.bus.container()
            && let Some((iova, refusal)) = container.refusal_of_other_memory(&part, by)
        {
            let (device, reached, refusal) =
                (self.device.clone(), by.vaddr_of(iova), Box::new(refusal));
            let older =
                Mistake::ReachedOlderMapping { device, access, iova, reached, mapping, refusal };
            self.shared.watch.report(older);
        }
    }

    fn report_refused(&self, fault: &DmaFault) {
        let DmaFault { iova, access, .. } = *fault;
        if let FaultCause::MapRefused(refusal) = &fault.cause {
            let (device, refusal) = (fault.device.clone(), refusal.clone());
            self.shared.watch.report(Mistake::UsedAfterRefusal { device, access, iova, refusal });
        }
    }

    /// Cuts an access into pieces that lie in one mapping each, in order.
    fn walk(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
        mut copy: impl FnMut(&Translation, Vaddr, usize, usize) -> Result<(), Fault>,
    ) -> Result<(), Box<DmaFault>> {
        let whole = match IovaRange::from_size(iova, length as u64) {
            Ok(range) => range,
            Err(RangeError::Empty) => return Ok(()),
            Err(RangeError::Wraps { .. }) => {
                return Err(self.fault(iova, access, FaultCause::PastTheEnd));
            }
        };
        self.check_mask(&whole, access)?;
        let mut iotlb = lock(&self.port.iotlb);
        if !self.is_enabled() {
            return Err(self.fault(iova, access, FaultCause::BusMasterOff));
        }
        let (mut at, mut done) = (iova, 0);
        loop {
            let translation = match iotlb.find(at) {
                Some(translation) => translation,
                None => {
                    let found = self.look_up(at).map_err(|cause| self.fault(at, access, cause))?;
                    iotlb.insert(found)
                }
            };
            let (mapping, allowed) = (translation.iova, translation.access);
            if !access.is_allowed(allowed) {
                return Err(self.fault(at, access, FaultCause::NotAllowed { mapping, allowed }));
            }
            let last = mapping.last().min(whole.last());
            // A mapping may be larger than a slice can be.
            let left = length - done;
            let bytes = usize::try_from(last.0 - at.0).map_or(left, |span| left.min(span + 1));
            copy(translation, translation.vaddr_of(at), done, bytes).map_err(|fault| {
                let gone = FaultCause::MemoryGone { mapping, vaddr: fault.at };
                let below = fault.at.0.saturating_sub(translation.vaddr_of(at).0);
                self.fault(Iova(at.0.saturating_add(below)), access, gone)
            })?;
            if last == whole.last() {
                return Ok(());
            }
            done += bytes;
            at = Iova(last.0 + 1);
        }
    }

    /// Boxed, so that accesses without one do not carry its size around.
    #[cold]
    fn fault(&self, iova: Iova, access: DmaAccess, cause: FaultCause) -> Box<DmaFault> {
        Box::new(DmaFault { device: self.device.clone(), iova, access, cause })
    }

    /// The device cannot even state an address above its mask.
    fn check_mask(&self, range: &IovaRange, access: DmaAccess) -> Result<(), Box<DmaFault>> {
        if range.last() <= self.highest {
            return Ok(());
        }
        let Iova(highest) = self.highest;
        let first_bad = Iova(highest.saturating_add(1).max(range.first().0));
        let bits = u64::BITS - highest.leading_zeros();
        Err(self.fault(first_bad, access, FaultCause::BeyondMask { bits }))
    }

    /// Asks the container, as an IOTLB miss walks the page tables.
    fn look_up(&self, iova: Iova) -> Result<Translation, FaultCause> {
        let group = self.group.id;
        let iommu = self.group.iommu().ok_or(FaultCause::NoIommu { group })?;
        let container = self.group.bus.container().ok_or(FaultCause::NotAttached { group })?;
        container.translation(group, iova).map_err(|miss| match miss {
            Miss::NotAttached => FaultCause::NotAttached { group },
            Miss::Unmapped(removal) => FaultCause::Unmapped(removal),
            Miss::Refused(refusal) => FaultCause::MapRefused(refusal),
            Miss::NeverMapped => self.never_mapped(iova, iommu.aperture()),
        })
    }

    fn never_mapped(&self, iova: Iova, aperture: IovaRange) -> FaultCause {
        let here = IovaRange::new(iova, iova).unwrap_or_else(IovaRange::full);
        let excluded = |region: &&ReservedRegion| is_excluded(region.kind) && region.touches(&here);
        if let Some(region) = self.group.regions.as_slice().iter().find(excluded) {
            let owner = self.group.device_reserving(region.kind, &here).unwrap_or(&self.device);
            return FaultCause::Reserved { region: *region, owner: owner.to_owned() };
        }
        match aperture.contains(iova) {
            true => FaultCause::NeverMapped,
            false => FaultCause::BeyondAperture { aperture },
        }
    }
}

/// Why a container has no translation.
pub(crate) enum Miss {
    NotAttached,
    NeverMapped,
    Unmapped(Removal),
    Refused(Box<Refusal>),
}

impl Drop for BusMaster {
    fn drop(&mut self) {
        self.group.bus.remove(&self.port);
    }
}

impl fmt::Debug for BusMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusMaster")
            .field("device", &self.device)
            .field("group", &self.group.id)
            .finish_non_exhaustive()
    }
}
