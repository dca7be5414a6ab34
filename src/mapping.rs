// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One live mapping: what a successful MAP_DMA leaves behind (`struct vfio_dma`; spec 0.2).

use std::collections::BTreeMap;

use crate::addr::{Iova, Vaddr};
use crate::bitmap::DirtyBitmap;
use crate::memory::Access;
use crate::page_size::PageSize;
use crate::range::{IovaRange, VaddrRange};
use crate::translation::OwnerId;

/// A mapping in a container, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingInfo {
    /// The mapped I/O virtual addresses, inclusive.
    pub iova: IovaRange,
    /// The process address that `iova.first()` stands for.
    pub vaddr: Vaddr,
    /// What devices may do.
    pub access: Access,
    /// Whether an UNMAP with flag VADDR has taken the process address away.
    pub vaddr_invalid: bool,
    /// Pages charged to the owner's locked memory.
    pub locked_pages: u64,
}

/// A mapping, taken out of the table or about to be put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) iova: IovaRange,
    pub(crate) vaddr: Vaddr,
    pub(crate) owner: OwnerId,
    /// Pages charged to the owner.
    pub(crate) locked_pages: u64,
    pub(crate) access: Access,
    /// The mapping was made with CAP_IPC_LOCK, so later pins through it have no limit either.
    pub(crate) exempt: bool,
    pub(crate) vaddr_invalid: bool,
    /// Pinned and entered into the container's domains.
    pub(crate) iommu_mapped: bool,
    /// The epoch of the owner's memory when the mapping got its pages.
    pub(crate) memory_epoch: u32,
}

/// What few mappings have: those that are tracked, or pinned by an emulated device.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Present while dirty tracking is on.
    pub(crate) bitmap: Option<DirtyBitmap>,
    /// How often emulated devices have pinned a page, by the address of its first byte.
    pub(crate) pins: BTreeMap<Iova, u32>,
}

impl Mapping {
    /// The size in bytes. A mapping never spans the whole space: its size fits in 64 bits.
    pub(crate) fn bytes(&self) -> u64 {
        self.iova.span().wrapping_add(1)
    }

    /// The process addresses behind the mapping.
    pub(crate) fn vaddrs(&self) -> VaddrRange {
        self.vaddrs_of(&self.iova)
    }

    /// The process addresses behind a part of the mapping. They do not wrap around: the request
    /// that stated the address was checked.
    pub(crate) fn vaddrs_of(&self, part: &IovaRange) -> VaddrRange {
        let first = self.vaddr.0.saturating_add(part.first().0 - self.iova.first().0);
        let last = Vaddr(first.saturating_add(part.span()));
        VaddrRange::new(Vaddr(first), last).unwrap_or_else(VaddrRange::full)
    }

    pub(crate) fn info(&self) -> MappingInfo {
        MappingInfo {
            iova: self.iova,
            vaddr: self.vaddr,
            access: self.access,
            vaddr_invalid: self.vaddr_invalid,
            locked_pages: self.locked_pages,
        }
    }
}

impl Extra {
    /// Whether there is nothing left to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.bitmap.is_none() && self.pins.is_empty()
    }

    /// Starts tracking the mapping of `iova`: a clean bitmap with the pinned pages marked. `None` when
    /// it has too many pages for one.
    pub(crate) fn start_tracking(&mut self, iova: &IovaRange, page: PageSize) -> Option<()> {
        self.bitmap = Some(DirtyBitmap::new(iova.pages(page))?);
        self.mark_pins(iova, page);
        Some(())
    }

    /// Starts the next round: all pages clean but those that may be written at any time.
    pub(crate) fn clean(&mut self, iova: &IovaRange, page: PageSize) {
        if let Some(bitmap) = &mut self.bitmap {
            bitmap.clear();
        }
        self.mark_pins(iova, page);
    }

    /// Marks the pages that emulated devices have pinned: they may be written at any time.
    fn mark_pins(&mut self, iova: &IovaRange, page: PageSize) {
        if let Some(bitmap) = &mut self.bitmap {
            for at in self.pins.keys() {
                bitmap.mark((at.0 - iova.first().0) >> page.shift(), 1);
            }
        }
    }

    /// Marks the pages that `part` of the mapping of `iova` touches, if tracking is on.
    pub(crate) fn mark_dirty(&mut self, iova: &IovaRange, part: &IovaRange, page: PageSize) {
        let first = (part.first().0 - iova.first().0) >> page.shift();
        if let Some(bitmap) = &mut self.bitmap {
            bitmap.mark(first, part.pages(page));
        }
    }
}
