// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One live mapping: what a successful MAP_DMA leaves behind (`struct vfio_dma`; spec 0.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::addr::{Iova, Vaddr};
use crate::bitmap::DirtyBitmap;
use crate::iotlb::Translation;
use crate::memory::Access;
use crate::page_size::PageSize;
use crate::process::Process;
use crate::range::{IovaRange, VaddrRange};

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

#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) iova: IovaRange,
    pub(crate) vaddr: Vaddr,
    pub(crate) owner: Arc<Process>,
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
    /// Only mappings that are tracked or pinned by an emulated device have this.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What few mappings have.
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

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn bitmap_mut(&mut self) -> Option<&mut DirtyBitmap> {
        self.extra.as_mut()?.bitmap.as_mut()
    }

    /// How many pages emulated devices have pinned.
    pub(crate) fn pin_count(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.pins.len() as u64)
    }

    /// The pages that emulated devices have pinned, by their first byte.
    pub(crate) fn pinned_pages(&self) -> impl Iterator<Item = Iova> {
        self.extra.iter().flat_map(|extra| extra.pins.keys().copied())
    }

    pub(crate) fn has_pins(&self) -> bool {
        self.pin_count() != 0
    }

    /// Starts tracking: a clean bitmap with the pinned pages marked. `None` when the mapping has
    /// too many pages for one.
    pub(crate) fn start_tracking(&mut self, page: PageSize) -> Option<()> {
        let bitmap = DirtyBitmap::new(self.iova.pages(page))?;
        self.extra_mut().bitmap = Some(bitmap);
        self.mark_pins(page);
        Some(())
    }

    pub(crate) fn stop_tracking(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.bitmap = None;
        }
        if !self.has_pins() {
            self.extra = None;
        }
    }

    /// Starts the next round: all pages clean but those that may be written at any time.
    pub(crate) fn clean(&mut self, page: PageSize) {
        if let Some(bitmap) = self.bitmap_mut() {
            bitmap.clear();
        }
        self.mark_pins(page);
    }

    /// Marks the pages that emulated devices have pinned: they may be written at any time.
    pub(crate) fn mark_pins(&mut self, page: PageSize) {
        let first = self.iova.first().0;
        if let Some(Extra { bitmap: Some(bitmap), pins, .. }) = self.extra.as_deref_mut() {
            for at in pins.keys() {
                bitmap.mark((at.0 - first) >> page.shift(), 1);
            }
        }
    }

    /// Marks the pages that `part` touches, if tracking is on.
    pub(crate) fn mark_dirty(&mut self, part: &IovaRange, page: PageSize) {
        let first = (part.first().0 - self.iova.first().0) >> page.shift();
        if let Some(bitmap) = self.bitmap_mut() {
            bitmap.mark(first, part.pages(page));
        }
    }

    pub(crate) fn translation(&self) -> Translation {
        let Self { iova, vaddr, access, .. } = *self;
        let memory_epoch = (!self.vaddr_invalid).then_some(self.memory_epoch);
        let owner = Arc::clone(&self.owner);
        Translation { iova, vaddr, access, owner, memory_epoch, suspect: false }
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
