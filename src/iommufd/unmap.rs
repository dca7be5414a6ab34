// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmapping from an address space, and cutting mappings in two (`iopt_unmap_iova`, `iopt_cut_iova` in
//! `drivers/iommu/iommufd/io_pagetable.c`; spec 9).
//!
//! Beside type1: mappings go one after the other until one is not wholly in the range, and those before
//! it stay gone.

use std::sync::Arc;

use super::ioas::Ioas;
use crate::addr::Iova;
use crate::errno::Errno;
use crate::mapping::Mapping;
use crate::page_size::PageSize;
use crate::range::{IovaRange, RangeError};

/// Why an address space does not remove mappings: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoasUnmapError {
    /// The range starts or ends where a mapping cannot be cut: within a page. EINVAL. The version 1
    /// interface alone cuts mappings.
    #[error("the mapping {mapping} cannot be cut at {at}, which is no multiple of {alignment}")]
    MisalignedCut {
        /// The mapping.
        mapping: IovaRange,
        /// The first address of the upper part.
        at: Iova,
        /// The address space's alignment.
        alignment: PageSize,
    },
    /// The range would cut a mapping of which an emulated device has pages pinned. EINVAL.
    #[error("the mapping {mapping} cannot be cut at {at} while a device has pages of it pinned")]
    PinnedCut {
        /// The mapping.
        mapping: IovaRange,
        /// The first address of the upper part.
        at: Iova,
    },
    /// The size is zero. EINVAL.
    #[error("size is 0; unmap at least one byte, or everything")]
    SizeZero,
    /// `iova + size - 1` does not fit in 64 bits. EOVERFLOW.
    #[error("iova {iova} plus size {size:#x} runs past the end of the 64-bit space")]
    Wraps {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
    },
    /// The range would cut a mapping in two. ENOENT; lower mappings are gone.
    #[error(
        "iova {iova} cuts the mapping {mapping}; unmap whole mappings; \
         {unmapped:#x} bytes were unmapped"
    )]
    Cuts {
        /// The range given.
        iova: IovaRange,
        /// The mapping that would be cut.
        mapping: IovaRange,
        /// Bytes of mappings removed before.
        unmapped: u64,
    },
    /// An emulated device keeps pages pinned although it was told to let go. EDEADLK.
    #[error(
        "an emulated device keeps pages of {mapping} pinned after it was told to let go; \
         {unmapped:#x} bytes were unmapped"
    )]
    StillPinned {
        /// The mapping.
        mapping: IovaRange,
        /// Bytes of mappings removed before.
        unmapped: u64,
    },
}

impl IoasUnmapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::MisalignedCut { .. } | Self::PinnedCut { .. } | Self::SizeZero => Errno::EINVAL,
            Self::Wraps { .. } => Errno::EOVERFLOW,
            Self::Cuts { .. } => Errno::ENOENT,
            Self::StillPinned { .. } => Errno::EDEADLK,
        }
    }

    /// Bytes of mappings that were removed all the same.
    pub fn unmapped(&self) -> u64 {
        match self {
            Self::Cuts { unmapped, .. } | Self::StillPinned { unmapped, .. } => *unmapped,
            _ => 0,
        }
    }

    /// Adds what earlier rounds of the same request removed.
    pub(super) fn after(mut self, bytes: u64) -> Self {
        if let Self::Cuts { unmapped, .. } | Self::StillPinned { unmapped, .. } = &mut self {
            *unmapped = unmapped.wrapping_add(bytes);
        }
        self
    }
}

/// How far an unmapping got.
#[derive(Debug)]
pub(super) enum Unmapped {
    /// It is done: so many bytes of mappings were removed.
    Done(u64),
    /// Emulated devices must unpin this mapping first; `removed` bytes are gone already.
    Notify { mapping: IovaRange, removed: u64 },
}

/// The range that a request states.
pub(super) fn range_of(iova: Iova, size: u64) -> Result<IovaRange, IoasUnmapError> {
    IovaRange::from_size(iova, size).map_err(|error| match error {
        RangeError::Empty => IoasUnmapError::SizeZero,
        RangeError::Wraps { .. } => IoasUnmapError::Wraps { iova, size },
    })
}

impl Ioas {
    /// Removes the mappings in a range, which has to hold each of them whole.
    pub(super) fn unmap(&mut self, iova: IovaRange) -> Result<Unmapped, IoasUnmapError> {
        let mut unmapped: u64 = 0;
        while let Some(mapping) = self.mappings.first_overlap(&iova) {
            if !iova.contains_range(&mapping.iova) {
                return Err(IoasUnmapError::Cuts { iova, mapping: mapping.iova, unmapped });
            }
            if self.mappings.pin_count(mapping.iova.first()) != 0 {
                return Ok(Unmapped::Notify { mapping: mapping.iova, removed: unmapped });
            }
            self.remove(&mapping);
            unmapped = unmapped.wrapping_add(mapping.bytes());
        }
        Ok(Unmapped::Done(unmapped))
    }

    /// Cuts mappings so that the range of a request holds each of them whole or not at all. The ends are
    /// those that the caller states, whether or not they make a range.
    pub(super) fn cut(&mut self, iova: Iova, size: u64) -> Result<(), IoasUnmapError> {
        self.cut_behind(Iova(iova.0.wrapping_add(size).wrapping_sub(1)))?;
        match iova.0.checked_sub(1) {
            Some(below) => self.cut_behind(Iova(below)),
            None => Ok(()),
        }
    }

    /// Cuts the mapping that holds `last` in two, so that the lower part ends there. At the first
    /// address of a mapping as at its last one, the kernel takes it for cut already.
    fn cut_behind(&mut self, last: Iova) -> Result<(), IoasUnmapError> {
        let Some(whole) = self.mappings.containing(last) else { return Ok(()) };
        let (Some(low), Some(high)) =
            (IovaRange::new(whole.iova.first(), last), whole.iova.above(last))
        else {
            return Ok(());
        };
        if last == whole.iova.first() {
            return Ok(());
        }
        let (mapping, at, alignment) = (whole.iova, high.first(), self.alignment);
        let upper = whole.vaddrs_of(&high).first();
        if !alignment.is_aligned(at.0) || !alignment.is_aligned(upper.0) {
            return Err(IoasUnmapError::MisalignedCut { mapping, at, alignment });
        }
        if self.mappings.pin_count(mapping.first()) != 0 {
            return Err(IoasUnmapError::PinnedCut { mapping, at });
        }
        let low_pages = whole.locked_pages.min(whole.vaddrs_of(&low).pages(self.cpu_page));
        let low = Mapping { iova: low, locked_pages: low_pages, ..whole };
        let locked_pages = whole.locked_pages - low_pages;
        let high = Mapping { iova: high, vaddr: upper, locked_pages, ..whole };
        self.split(&whole, &low, high);
        Ok(())
    }

    /// Puts two mappings in the place of one. Devices find nothing there for a moment, and ask again under
    /// the lock.
    fn split(&mut self, whole: &Mapping, low: &Mapping, high: Mapping) {
        let owner = Arc::clone(self.mappings.owner(whole.owner));
        let silent = self.silent.contains(&whole.iova.first());
        let Some(second) = self.mappings.add_owner(&owner) else { return };
        self.mappings.remove(whole);
        self.mappings.insert(low);
        self.mappings.insert(&Mapping { owner: second, ..high });
        if silent {
            self.silent.insert(high.iova.first());
        }
    }

    /// Removes a mapping, and takes it off all accounts.
    fn remove(&mut self, mapping: &Mapping) {
        self.mappings.remove(mapping);
        self.mappings.owner(mapping.owner).discharge(self.account, mapping.locked_pages);
        self.mappings.drop_owner(mapping.owner);
        self.silent.remove(&mapping.iova.first());
        self.removed.add(mapping.iova);
    }

    pub(super) fn remove_all(&mut self) {
        let all: Vec<Mapping> = self.mappings.iter().collect();
        all.iter().for_each(|mapping| self.remove(mapping));
    }
}
