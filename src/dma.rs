// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DMA: how a device reaches memory, through the domain that its group is attached to.
//!
//! A [`BusMaster`] is a device's end of the bus. It translates I/O virtual addresses by the mappings
//! of the container that its group is in, and copies to or from the memory of the process that
//! mapped them. What does not translate is a [`DmaFault`].
//!
//! How that goes along with calls that change the mappings is in `bus`. Locks are taken in this order:
//! port, container. Removal takes them one after the other. The locks of the fault log, of the watch and
//! of a memory's changes are taken last, and none inside them.

use std::fmt;
use std::sync::Arc;

use crate::addr::{Iova, Vaddr};
use crate::bus::{Found, KnownOwners, Port};
use crate::fault::{DmaAccess, DmaFault, FaultCause, Refusal, Removal};
use crate::host::{Group, GroupId};
use crate::iova_list::is_excluded;
use crate::kernel::Kernel;
use crate::memory::{Fault, Memory};
use crate::process::Process;
use crate::range::{IovaRange, RangeError};
use crate::reserved::ReservedRegion;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::translation::Translation;
use crate::vfio::Shared;
use crate::watch::Mistake;

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
        let port = group.bus.add_port();
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
    /// first. Without it every access is a fault. When it has been turned off, no read or write is running.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
        if !enabled {
            self.port.settle();
        }
    }

    /// Whether bus mastering is on.
    #[inline]
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

    /// The kernel that is imitated.
    pub fn kernel(&self) -> &Kernel {
        &self.shared.kernel
    }

    /// Reads memory. On a fault, `into` holds what lies below it.
    pub fn read(&self, iova: Iova, into: &mut [u8]) -> Result<(), DmaFault> {
        self.access(iova, into.len(), DmaAccess::Read, |memory, at, done, bytes| {
            memory.read(at, &mut into[done..done + bytes])
        })
    }

    /// Writes memory. On a fault, what lies below it has been written.
    pub fn write(&self, iova: Iova, bytes: &[u8]) -> Result<(), DmaFault> {
        self.access(iova, bytes.len(), DmaAccess::Write, |memory, at, done, count| {
            memory.write(at, &bytes[done..done + count])
        })
    }

    /// Whether an access of `length` bytes would go through. It is not logged if it would not.
    #[inline]
    pub fn check(&self, iova: Iova, length: usize, access: DmaAccess) -> Result<(), DmaFault> {
        match self.hit(iova, length, access) {
            Some(_) => Ok(()),
            None => self.check_pieces(iova, length, access).map_err(|fault| *fault),
        }
    }

    #[inline(never)]
    fn check_pieces(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
    ) -> Result<(), Box<DmaFault>> {
        self.walk(iova, length, access, |at, _, left| {
            self.piece(&self.find(at, access)?, at, left, access)
        })
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
        self.translate_each(iova, length, access, |at, bytes| pieces.push((at, bytes)))?;
        Ok(pieces)
    }

    /// As [`Self::translate`], with each piece handed to `each`, also those below a fault.
    pub fn translate_each(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
        mut each: impl FnMut(Vaddr, usize),
    ) -> Result<(), DmaFault> {
        if self.shared.watch.is_on() {
            let mut pieces = Vec::new();
            let walk = self.access(iova, length, access, |_, at, _, bytes| {
                pieces.push((at, bytes));
                Ok(())
            });
            // The port is free again: `each` may do what it likes.
            pieces.into_iter().for_each(|(at, bytes)| each(at, bytes));
            return walk;
        }
        if let Some(vaddr) = self.hit(iova, length, access) {
            each(vaddr, length);
            return Ok(());
        }
        let walk = self.walk(iova, length, access, |at, _, left| {
            let translation = self.find(at, access)?;
            let bytes = self.piece(&translation, at, left, access)?;
            each(translation.vaddr_of(at), bytes);
            Ok(bytes)
        });
        walk.map_err(|fault| self.log(fault))
    }

    /// The process address of an access that lies in one mapping and is in order: the usual case, on the
    /// shortest way.
    #[inline]
    fn hit(&self, iova: Iova, length: usize, access: DmaAccess) -> Option<Vaddr> {
        let last = Iova(iova.0.checked_add((length as u64).checked_sub(1)?)?);
        if last > self.highest || !self.is_enabled() {
            return None;
        }
        match self.group.bus.find_cached(&self.port, iova) {
            Some((found, _)) => Self::in_order(&found, iova, last, access),
            None => self.hit_in_table(iova, last, access),
        }
    }

    #[inline(never)]
    fn hit_in_table(&self, iova: Iova, last: Iova, access: DmaAccess) -> Option<Vaddr> {
        let bus = &self.group.bus;
        let (found, _) = bus.find_in_table(&self.port, &self.shared.page_tables, iova)?;
        Self::in_order(&found, iova, last, access)
    }

    #[inline]
    fn in_order(by: &Translation, iova: Iova, last: Iova, access: DmaAccess) -> Option<Vaddr> {
        let allowed = access.is_allowed(by.attributes.access());
        (last <= by.iova.last() && allowed).then(|| by.vaddr_of(iova))
    }

    /// Runs `copy` on each piece: with the memory, the address, the bytes before this piece, and its own.
    fn access(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
        mut copy: impl FnMut(&dyn Memory, Vaddr, usize, usize) -> Result<(), Fault>,
    ) -> Result<(), DmaFault> {
        let watched = self.shared.watch.is_on();
        let mut known = self.port.begin();
        let walk = self.walk(iova, length, access, |at, done, left| {
            let (translation, owner) = self.find_owner(at, access, &mut known)?;
            let bytes = self.piece(&translation, at, left, access)?;
            let memory = owner.memory();
            if watched {
                self.look_behind(&translation, memory, at, bytes, access);
            }
            let vaddr = translation.vaddr_of(at);
            copy(memory, vaddr, done, bytes).map_err(|fault| {
                let gone = FaultCause::MemoryGone { mapping: translation.iova, vaddr: fault.at };
                let below = fault.at.0.saturating_sub(vaddr.0);
                self.fault(Iova(at.0.saturating_add(below)), access, gone)
            })?;
            Ok(bytes)
        });
        walk.map_err(|fault| self.log(fault))
    }

    #[cold]
    fn log(&self, fault: Box<DmaFault>) -> DmaFault {
        self.shared.faults.add((*fault).clone());
        if self.shared.watch.is_on() {
            self.report_refused(&fault);
        }
        *fault
    }

    /// Looks for mistakes behind an access that goes through.
    fn look_behind(
        &self,
        by: &Translation,
        behind: &dyn Memory,
        iova: Iova,
        bytes: usize,
        access: DmaAccess,
    ) {
        let Ok(part) = IovaRange::from_size(iova, bytes as u64) else { return };
        let mapping = by.iova;
        if let Some((memory, change)) = by.change_behind(behind, &part) {
            let device = self.device.clone();
            let stale = Mistake::StaleMapping { device, access, iova, mapping, memory, change };
            self.shared.watch.report(stale);
        }
        if self.group.bus.is_suspect(&self.shared.page_tables)
            && let Some(translator) = self.group.bus.translator()
            && let Some((iova, refusal)) = translator.refusal_of_other_memory(&part, by)
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

    /// Cuts an access into pieces that lie in one mapping each, in order. `go` gets the address of a piece,
    /// the bytes before it and those from it on, and answers how many are in it.
    #[inline]
    fn walk(
        &self,
        iova: Iova,
        length: usize,
        access: DmaAccess,
        mut go: impl FnMut(Iova, usize, usize) -> Result<usize, Box<DmaFault>>,
    ) -> Result<(), Box<DmaFault>> {
        let whole = match IovaRange::from_size(iova, length as u64) {
            Ok(range) => range,
            Err(RangeError::Empty) => return Ok(()),
            Err(RangeError::Wraps { .. }) => {
                return Err(self.fault(iova, access, FaultCause::PastTheEnd));
            }
        };
        self.check_mask(&whole, access)?;
        if !self.is_enabled() {
            return Err(self.fault(iova, access, FaultCause::BusMasterOff));
        }
        let mut done = 0;
        while done < length {
            done += go(Iova(iova.0 + done as u64), done, length - done)?;
        }
        Ok(())
    }

    /// How many of `left` bytes at `at` lie in the mapping, if it allows the access.
    #[inline]
    fn piece(
        &self,
        by: &Translation,
        at: Iova,
        left: usize,
        access: DmaAccess,
    ) -> Result<usize, Box<DmaFault>> {
        let (mapping, allowed) = (by.iova, by.attributes.access());
        if !access.is_allowed(allowed) {
            return Err(self.fault(at, access, FaultCause::NotAllowed { mapping, allowed }));
        }
        // A mapping may be larger than a slice can be.
        let inside = usize::try_from(mapping.last().0 - at.0).unwrap_or(usize::MAX);
        Ok(left.min(inside.saturating_add(1)))
    }

    #[inline]
    fn find(&self, at: Iova, access: DmaAccess) -> Result<Translation, Box<DmaFault>> {
        match self.group.bus.find(&self.port, &self.shared.page_tables, at) {
            Some((translation, _)) => Ok(translation),
            None => {
                let found = self.look_up(at).map_err(|cause| self.fault(at, access, cause))?;
                Ok(found.translation)
            }
        }
    }

    /// The translation and the process whose memory it leads to.
    fn find_owner<'a>(
        &self,
        at: Iova,
        access: DmaAccess,
        known: &'a mut KnownOwners,
    ) -> Result<(Translation, &'a Process), Box<DmaFault>> {
        let found = self.group.bus.find(&self.port, &self.shared.page_tables, at);
        let known_one =
            found.and_then(|(by, generation)| Some((by, known.place_of(&by, generation)?)));
        let (translation, place) = match known_one {
            Some(found) => found,
            None => {
                let found = self.look_up(at).map_err(|cause| self.fault(at, access, cause))?;
                (found.translation, known.add(found))
            }
        };
        Ok((translation, known.at(place)))
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

    /// Asks the container or the iommufd, which knows more.
    #[cold]
    fn look_up(&self, iova: Iova) -> Result<Found, FaultCause> {
        let group = self.group.id;
        let iommu = self.group.iommu().ok_or(FaultCause::NoIommu { group })?;
        let translator = self.group.bus.translator().ok_or(FaultCause::NotAttached { group })?;
        translator.translation(&self.group, iova).map_err(|miss| match miss {
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

/// Why there is no translation.
pub(crate) enum Miss {
    NotAttached,
    NeverMapped,
    Unmapped(Removal),
    Refused(Box<Refusal>),
}

impl Drop for BusMaster {
    fn drop(&mut self) {
        self.group.bus.remove_port(&self.port);
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
