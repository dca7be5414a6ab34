// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Emulated devices on an address space (`iommufd_access_attach`, `iommufd_access_pin_pages`,
//! `iommufd_access_rw` in `drivers/iommu/iommufd/device.c`; spec 9). They have no domain; what they need is
//! that mappings are whole pages.
//!
//! Beside type1: a hole is ENOENT, reading needs READ alone and writing WRITE alone, and a request for
//! pages starts with the page that its address lies in.

use super::ObjectId;
use super::attach_error::IoasAttachError;
use super::bind::Bound;
use super::context::State;
use super::ioas::Ioas;
use super::objects::{Attached, Device};
use super::pin::{self, pin};
use crate::addr::Iova;
use crate::emulated::Transfer;
use crate::errno::Errno;
use crate::mapping::Mapping;
use crate::memory::{Access, Fault};
use crate::page_size::PageSize;
use crate::pin::PinError;
use crate::range::IovaRange;

/// Why an emulated device on an iommufd cannot pin pages or copy: one variant per rule, in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The device is attached to no address space. ENOENT.
    #[error("the device is attached to no address space")]
    NotAttached,
    /// The range wraps around. EOVERFLOW.
    #[error("iova {iova} plus {size:#x} bytes runs past the end of the 64-bit space")]
    Wraps {
        /// The address given.
        iova: Iova,
        /// Bytes asked for.
        size: u64,
    },
    /// Nothing is mapped there. ENOENT; what lies below has been copied.
    #[error("no mapping holds iova {iova}")]
    NotMapped {
        /// The first address without a mapping.
        iova: Iova,
    },
    /// The mapping does not allow it. EPERM.
    #[error("the mapping {mapping} does not let the device {}", if *.write { "write" } else { "read" })]
    NoAccess {
        /// The mapping.
        mapping: IovaRange,
        /// Whether the device wanted to write.
        write: bool,
    },
    /// The page cannot be pinned. EFAULT, ENOMEM.
    #[error("the page at iova {iova}: {error}")]
    Pin {
        /// The page's first address.
        iova: Iova,
        /// What is wrong.
        error: PinError,
    },
    /// The process's memory is not there, or the process has exited. EFAULT.
    #[error("iova {iova}: {fault}")]
    Fault {
        /// The first address concerned.
        iova: Iova,
        /// Where the memory failed.
        fault: Fault,
    },
}

impl AccessError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotAttached | Self::NotMapped { .. } => Errno::ENOENT,
            Self::Wraps { .. } => Errno::EOVERFLOW,
            Self::NoAccess { .. } => Errno::EPERM,
            Self::Pin { error, .. } => pin::errno(error),
            Self::Fault { .. } => Errno::EFAULT,
        }
    }
}

impl Bound {
    /// Runs `operation` on the address space that the device is attached to.
    fn on_ioas<T>(
        &self,
        operation: impl FnOnce(&mut Ioas) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let mut state = self.context().lock();
        let attached = state.objects.device(self.id()).and_then(|device| device.attached);
        let id = attached.ok_or(AccessError::NotAttached)?.ioas;
        operation(state.objects.ioas_mut(id).ok_or(AccessError::NotAttached)?)
    }

    /// Pins `pages` CPU pages. A refusal pins nothing.
    pub(crate) fn pin_pages(
        &self,
        iova: Iova,
        pages: u64,
        access: Access,
    ) -> Result<(), AccessError> {
        self.on_ioas(|ioas| ioas.pin_pages(iova, pages, access.writes()))
    }

    /// Lets go of pages once.
    pub(crate) fn unpin_pages(&self, iova: Iova, pages: u64) {
        let unpin = |ioas: &mut Ioas| {
            let range = ioas.pages_from(iova, pages)?;
            ioas.unpin_range(&range);
            Ok(())
        };
        // Of a device that is not attached, or a range that is none, nothing is pinned.
        let _ = self.on_ioas(unpin);
    }

    /// Copies between the device and the process.
    pub(crate) fn dma_rw(&self, iova: Iova, copy: Transfer<'_>) -> Result<(), AccessError> {
        self.on_ioas(|ioas| ioas.dma_rw(iova, copy))
    }
}

impl State {
    /// Lets an emulated device use an address space, in place of the one it used before.
    pub(super) fn attach_access(
        &mut self,
        id: ObjectId,
        device: &Device,
        target: ObjectId,
    ) -> Result<ObjectId, IoasAttachError> {
        let no_object = IoasAttachError::NoSuchObject { id: target };
        self.objects.ioas_mut(target).ok_or(no_object)?.add_access(id)?;
        if let Some(before) = device.attached.filter(|before| before.ioas != target) {
            self.detach_access(id, before.ioas);
        }
        if let Some(device) = self.objects.device_mut(id) {
            device.attached = Some(Attached { ioas: target, domain: None });
        }
        Ok(target)
    }

    pub(super) fn detach_access(&mut self, id: ObjectId, ioas: ObjectId) {
        if let Some(ioas) = self.objects.ioas_mut(ioas) {
            ioas.accesses.remove(&id);
            // An access less asks for no larger alignment.
            let _ = ioas.realign();
        }
    }
}

impl Ioas {
    fn add_access(&mut self, id: ObjectId) -> Result<(), IoasAttachError> {
        let new = self.accesses.insert(id);
        self.realign().inspect_err(|_| {
            if new {
                self.accesses.remove(&id);
            }
        })?;
        Ok(())
    }

    /// The pages asked for, from the one that `iova` lies in.
    fn pages_from(&self, iova: Iova, pages: u64) -> Result<IovaRange, AccessError> {
        let page = self.cpu_page.bytes();
        let size = pages.saturating_mul(page);
        let first = Iova(iova.0 & !(page - 1));
        IovaRange::from_size(first, size).map_err(|_| AccessError::Wraps { iova, size })
    }

    fn pin_pages(&mut self, iova: Iova, pages: u64, write: bool) -> Result<(), AccessError> {
        let (range, page) = (self.pages_from(iova, pages)?, self.cpu_page);
        for done in 0..pages {
            let at = Iova(range.first().0 + done * page.bytes());
            if let Err(error) = self.pin_page(at, write, page) {
                if let Some(pinned) = range.below(at) {
                    self.unpin_range(&pinned);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn pin_page(&mut self, at: Iova, write: bool, page: PageSize) -> Result<(), AccessError> {
        let mapping = self.mappings.containing(at);
        let mut mapping = mapping.ok_or(AccessError::NotMapped { iova: at })?;
        // Only writing is looked at: what is pinned may be read.
        if write && !self.allows(&mapping, true) {
            return Err(AccessError::NoAccess { mapping: mapping.iova, write });
        }
        let extra = self.mappings.make_extra(mapping.iova.first());
        if let Some(count) = extra.pins.get_mut(&at) {
            *count += 1;
            return Ok(());
        }
        let locked = self.pin_memory(&mapping, at, page);
        let locked = locked.inspect_err(|_| self.mappings.tidy_extras())?;
        self.mappings.make_extra(mapping.iova.first()).pins.insert(at, 1);
        mapping.locked_pages += locked;
        self.mappings.update(&mapping);
        Ok(())
    }

    /// Pins the memory behind a page, and charges it unless a domain has done so; returns how many pages
    /// it charged.
    fn pin_memory(&self, mapping: &Mapping, at: Iova, page: PageSize) -> Result<u64, AccessError> {
        let last = Iova(at.0.saturating_add(page.bytes() - 1)).min(mapping.iova.last());
        let part = IovaRange::new(at, last).unwrap_or(mapping.iova);
        let owner = self.mappings.owner(mapping.owner);
        let refused = |error| AccessError::Pin { iova: at, error };
        let vaddrs = mapping.vaddrs_of(&part);
        pin(owner, vaddrs, mapping.access, &self.injector, |_| Ok(())).map_err(refused)?;
        let pages = u64::from(!mapping.iommu_mapped && !mapping.exempt);
        let charged = owner.charge(self.account, pages, page);
        charged.map_err(|over| refused(PinError::OverMemlock(over)))?;
        Ok(pages)
    }

    /// Lets go once of each page that is pinned in `range`.
    pub(super) fn unpin_range(&mut self, range: &IovaRange) {
        let touched: Vec<Mapping> = self.mappings.overlapping(range).collect();
        for mut mapping in touched {
            let Some(extra) = self.mappings.extra_mut(mapping.iova.first()) else { continue };
            let before = extra.pins.len() as u64;
            extra.pins.range_mut(range.first()..=range.last()).for_each(|(_, count)| *count -= 1);
            extra.pins.retain(|_, count| *count != 0);
            let unpinned = before - extra.pins.len() as u64;
            if !mapping.iommu_mapped {
                let pages = unpinned.min(mapping.locked_pages);
                self.mappings.owner(mapping.owner).discharge(self.account, pages);
                mapping.locked_pages -= pages;
                self.mappings.update(&mapping);
            }
        }
        self.mappings.tidy_extras();
    }

    /// Copies between the device and the process, mapping by mapping.
    fn dma_rw(&mut self, iova: Iova, mut copy: Transfer<'_>) -> Result<(), AccessError> {
        let size = copy.len() as u64;
        let wraps = |_| AccessError::Wraps { iova, size };
        let range = IovaRange::from_size(iova, size).map_err(wraps)?;
        let mut done = 0;
        while done < copy.len() {
            done += self.copy_chunk(Iova(range.first().0 + done as u64), &mut copy, done)?;
        }
        Ok(())
    }

    /// Copies up to the end of the mapping that holds `at`.
    fn copy_chunk(
        &self,
        at: Iova,
        copy: &mut Transfer<'_>,
        done: usize,
    ) -> Result<usize, AccessError> {
        let mapping = self.mappings.containing(at).ok_or(AccessError::NotMapped { iova: at })?;
        let write = matches!(copy, Transfer::Write(_));
        if !self.allows(&mapping, write) {
            return Err(AccessError::NoAccess { mapping: mapping.iova, write });
        }
        let left = usize::try_from(mapping.iova.last().0 - at.0).unwrap_or(usize::MAX);
        let size = left.saturating_add(1).min(copy.len() - done);
        let part = IovaRange::new(at, mapping.iova.last()).unwrap_or(mapping.iova);
        let (owner, vaddr) = (self.mappings.owner(mapping.owner), mapping.vaddrs_of(&part).first());
        let fault = |fault| AccessError::Fault { iova: at, fault };
        if !owner.is_alive() {
            return Err(fault(Fault { at: vaddr }));
        }
        match copy {
            Transfer::Read(bytes) => owner.memory().read(vaddr, &mut bytes[done..done + size]),
            Transfer::Write(bytes) => owner.memory().write(vaddr, &bytes[done..done + size]),
        }
        .map_err(fault)?;
        Ok(size)
    }

    fn allows(&self, mapping: &Mapping, write: bool) -> bool {
        let allowed = if write { mapping.access.writes() } else { mapping.access.reads() };
        allowed && !self.silent.contains(&mapping.iova.first())
    }
}
