// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Dirty page tracking: `VFIO_IOMMU_DIRTY_PAGES`, and the checks it shares with UNMAP's bitmap
//! (`vfio_iommu_type1_dirty_pages`, `vfio_iova_dirty_bitmap` in `vfio_iommu_type1.c`; spec 7.2 to
//! 7.4).
//!
//! A device behind an IOMMU may write any page unseen, so with such a group every page of every
//! mapping is dirty, every time. With emulated groups alone, the pages they pinned or wrote are.

use crate::addr::{Iova, Vaddr};
use crate::bitmap::{MAX_BITMAP_BYTES, bitmap_bytes};
use crate::errno::Errno;
use crate::inject::{Allocation, OutOfMemory};
use crate::kernel::Behaviours;
use crate::map::wrap_errno;
use crate::mapping::Extra;
use crate::memory::{Fault, Memory};
use crate::page_size::PageSize;
use crate::process::Process;
use crate::range::{IovaRange, RangeError};
use crate::type1::{NoType1, Type1, Type1Version};

/// A caller's bitmap (`struct vfio_bitmap`): one bit per page, in 64-bit little-endian words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserBitmap {
    /// Bytes per bit; must be the container's page.
    pub page_size: u64,
    /// Size of the buffer in bytes.
    pub bytes: u64,
    /// Where the buffer starts in the caller's memory.
    pub data: Vaddr,
}

impl UserBitmap {
    /// A bitmap for `pages` pages of `page_size` bytes, in a buffer that is just large enough.
    pub fn new(page_size: u64, pages: u64, data: impl Into<Vaddr>) -> Self {
        Self { page_size, bytes: bitmap_bytes(pages), data: data.into() }
    }
}

/// A request for DIRTY_PAGES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyPages {
    /// Start tracking. Nothing happens if it is on.
    Start,
    /// Stop tracking. Nothing happens if it is off.
    Stop,
    /// Report and clear the dirty pages of the mappings in a range.
    GetBitmap {
        /// First I/O virtual address; bit 0 stands for it.
        iova: Iova,
        /// Size in bytes.
        size: u64,
        /// Where to report to.
        bitmap: UserBitmap,
    },
}

impl DirtyPages {
    /// Flag of [`Self::Start`] (`VFIO_IOMMU_DIRTY_PAGES_FLAG_START`).
    pub const START: u32 = 1;
    /// Flag of [`Self::Stop`] (`VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP`).
    pub const STOP: u32 = 2;
    /// Flag of [`Self::GetBitmap`] (`VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP`).
    pub const GET_BITMAP: u32 = 4;
}

/// What is wrong with a caller's bitmap. EINVAL, all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitmapError {
    /// The buffer reaches addresses that no process has.
    #[error(
        "the bitmap, {bytes:#x} bytes at {data}, reaches beyond user addresses (below {limit})"
    )]
    BeyondUser {
        /// Start of the buffer.
        data: Vaddr,
        /// Its size in bytes.
        bytes: u64,
        /// The first address it may not reach.
        limit: Vaddr,
    },
    /// The range holds no whole page of the stated size.
    #[error("{size:#x} bytes hold no page of {page_size:#x} bytes")]
    NoPages {
        /// The size of the range, in bytes.
        size: u64,
        /// The page size stated.
        page_size: u64,
    },
    /// The buffer is too small for the range, or empty.
    #[error("a bitmap of {bytes:#x} bytes is too small for {pages} pages; give {needed:#x}")]
    TooSmall {
        /// The buffer's size, in bytes.
        bytes: u64,
        /// Pages in the range.
        pages: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The buffer is larger than 256 MiB.
    #[error("a bitmap of {bytes:#x} bytes is larger than the most a kernel takes, 256 MiB")]
    TooLarge {
        /// The buffer's size, in bytes.
        bytes: u64,
    },
    /// The page size is not the container's.
    #[error("the bitmap's page size {given:#x} is not the container's page {page}")]
    WrongPageSize {
        /// The page size stated.
        given: u64,
        /// The container's page.
        page: PageSize,
    },
    /// Dirty tracking is off.
    #[error("dirty tracking is off; start it with DIRTY_PAGES flag START first")]
    TrackingOff,
}

impl BitmapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        Errno::EINVAL
    }
}

impl UserBitmap {
    /// The rules that do not depend on the container, for a range of `size` bytes.
    pub(crate) fn check(&self, size: u64, behaviours: &Behaviours) -> Result<(), BitmapError> {
        let Self { page_size, bytes, data } = *self;
        let limit = behaviours.user_limit;
        if data.0.checked_add(bytes).is_none_or(|end| end > limit.0) {
            return Err(BitmapError::BeyondUser { data, bytes, limit });
        }
        // The kernel goes by the lowest bit set, and for 0 counts bytes as pages; whether the size is the
        // right one comes later.
        let pages = size.wrapping_shr(page_size.trailing_zeros());
        if pages == 0 {
            return Err(BitmapError::NoPages { size, page_size });
        }
        if bytes > MAX_BITMAP_BYTES {
            return Err(BitmapError::TooLarge { bytes });
        }
        let needed = bitmap_bytes(pages);
        if bytes < needed {
            return Err(BitmapError::TooSmall { bytes, pages, needed });
        }
        Ok(())
    }

    /// The page must be the container's smallest one.
    pub(crate) fn check_page(&self, page: PageSize) -> Result<(), BitmapError> {
        if self.page_size != page.bytes() {
            return Err(BitmapError::WrongPageSize { given: self.page_size, page });
        }
        Ok(())
    }
}

/// Why DIRTY_PAGES was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirtyError {
    /// The container has no type1 driver. EINVAL, or ENOTTY for noiommu.
    #[error(transparent)]
    NoType1(#[from] NoType1),
    /// The kernel has no dirty tracking (before 5.8). ENOTTY.
    #[error("this kernel has no dirty tracking; it came with 5.8")]
    NotKnown,
    /// The container is a v1 one. EACCES.
    #[error("a type1 v1 container has no dirty tracking; set the IOMMU to type1v2 (3)")]
    V1,
    /// Not exactly one of START, STOP and GET_BITMAP. EINVAL.
    #[error("flags {flags:#x} must be one of START 1, STOP 2 and GET_BITMAP 4")]
    NotOneFlag {
        /// The flags given.
        flags: u32,
    },
    /// START: a mapping has more pages than a bitmap covers. EINVAL; tracking stays off.
    #[error("mapping {mapping} has {pages} pages, more than one bitmap covers (2^31 - 1)")]
    TooLargeToTrack {
        /// The mapping.
        mapping: IovaRange,
        /// Its pages.
        pages: u64,
    },
    /// START: there is no memory for a mapping's bitmap. ENOMEM, on demand only; tracking stays off.
    #[error("mapping {mapping}: {error}")]
    NoMemory {
        /// The mapping.
        mapping: IovaRange,
        /// What the memory was for.
        error: OutOfMemory,
    },
    /// GET_BITMAP: the size is zero. EINVAL.
    #[error("size is 0; ask for at least one page")]
    SizeZero,
    /// GET_BITMAP: the range runs past the end of the space. EOVERFLOW from 6.18, EINVAL before.
    #[error("iova {iova} plus size {size:#x} runs past the end of the 64-bit space")]
    Wraps {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
        /// The kernel's errno.
        errno: Errno,
    },
    /// GET_BITMAP: the range ends at 2^64 - 1 (before 6.18). EINVAL.
    #[error("iova {iova} reaches the last address, which this kernel takes for wrapping around")]
    ReachesTop {
        /// The range given.
        iova: IovaRange,
    },
    /// GET_BITMAP: the bitmap breaks a rule of its own. EINVAL.
    #[error("{0}")]
    Bitmap(BitmapError),
    /// GET_BITMAP: the range is not aligned to the container's page. EINVAL.
    #[error("iova {iova} and size {size:#x} must be multiples of the page {page}")]
    Misaligned {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
        /// The container's page.
        page: PageSize,
    },
    /// GET_BITMAP: an end of the range lies inside a mapping. EINVAL.
    #[error("iova {iova} cuts the mapping {mapping} at {at}; ask for whole mappings")]
    Cuts {
        /// The range given.
        iova: IovaRange,
        /// The mapping that is cut.
        mapping: IovaRange,
        /// The end of the range that lies inside it.
        at: Iova,
    },
    /// GET_BITMAP: the bitmap could not be written. EFAULT; lower mappings are reported and clean.
    #[error("reporting the dirty pages of {mapping}: {fault}")]
    BitmapFault {
        /// The mapping whose pages could not be reported.
        mapping: IovaRange,
        /// Where the caller's memory failed.
        fault: Fault,
    },
}

impl DirtyError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoType1(error) => error.errno(),
            Self::NotKnown => Errno::ENOTTY,
            Self::V1 => Errno::EACCES,
            Self::Wraps { errno, .. } => *errno,
            Self::Bitmap(error) => error.errno(),
            Self::BitmapFault { .. } => Errno::EFAULT,
            Self::NoMemory { .. } => Errno::ENOMEM,
            Self::NotOneFlag { .. }
            | Self::TooLargeToTrack { .. }
            | Self::SizeZero
            | Self::ReachesTop { .. }
            | Self::Misaligned { .. }
            | Self::Cuts { .. } => Errno::EINVAL,
        }
    }
}

impl Type1 {
    /// Whether there is dirty tracking to ask for at all. The kernel looks at this before it reads
    /// the request.
    pub(crate) fn check_can_track(&self) -> Result<(), DirtyError> {
        if !self.behaviours().dirty_tracking {
            return Err(DirtyError::NotKnown);
        }
        if self.version == Type1Version::V1 {
            return Err(DirtyError::V1);
        }
        Ok(())
    }

    pub(crate) fn dirty_pages(
        &mut self,
        caller: &Process,
        request: &DirtyPages,
    ) -> Result<(), DirtyError> {
        self.check_can_track()?;
        match *request {
            DirtyPages::Start => self.start_tracking(),
            DirtyPages::Stop => {
                self.stop_tracking();
                Ok(())
            }
            DirtyPages::GetBitmap { iova, size, bitmap } => {
                let range = self.bitmap_range(iova, size, &bitmap)?;
                self.report(&range, &bitmap, caller)
            }
        }
    }

    fn start_tracking(&mut self) -> Result<(), DirtyError> {
        let page = self.page();
        if self.tracking {
            return Ok(());
        }
        let all: Vec<IovaRange> = self.mappings.iter().map(|mapping| mapping.iova).collect();
        let tracked = all.iter().try_for_each(|iova| {
            let too_large = DirtyError::TooLargeToTrack { mapping: *iova, pages: iova.pages(page) };
            let extra = self.mappings.make_extra(iova.first());
            extra.start_tracking(iova, page).ok_or(too_large)?;
            self.injector
                .allocate(Allocation::DirtyBitmap)
                .map_err(|error| DirtyError::NoMemory { mapping: *iova, error })
        });
        match tracked {
            Ok(()) => self.tracking = true,
            Err(_) => self.stop_tracking(),
        }
        tracked
    }

    fn stop_tracking(&mut self) {
        self.tracking = false;
        self.mappings.extras_mut().for_each(|extra| extra.bitmap = None);
        self.mappings.tidy_extras();
    }

    /// The rules of GET_BITMAP, in order.
    fn bitmap_range(
        &self,
        iova: Iova,
        size: u64,
        bitmap: &UserBitmap,
    ) -> Result<IovaRange, DirtyError> {
        let errno = wrap_errno(self.behaviours());
        let range = IovaRange::from_size(iova, size).map_err(|error| match error {
            RangeError::Empty => DirtyError::SizeZero,
            RangeError::Wraps { .. } => DirtyError::Wraps { iova, size, errno },
        })?;
        if range.next().is_none() && !self.behaviours().bitmap_reaches_top {
            return Err(DirtyError::ReachesTop { iova: range });
        }
        bitmap.check(size, self.behaviours()).map_err(DirtyError::Bitmap)?;
        let page = self.page();
        bitmap.check_page(page).map_err(DirtyError::Bitmap)?;
        if !range.is_aligned(page) {
            return Err(DirtyError::Misaligned { iova, size, page });
        }
        self.check_tracking().map_err(DirtyError::Bitmap)?;
        if let Some((mapping, at)) = self.mappings.cut_by(&range) {
            return Err(DirtyError::Cuts { iova: range, mapping: mapping.iova, at });
        }
        Ok(range)
    }

    pub(crate) fn check_tracking(&self) -> Result<(), BitmapError> {
        if self.tracking { Ok(()) } else { Err(BitmapError::TrackingOff) }
    }

    fn report(
        &mut self,
        range: &IovaRange,
        bitmap: &UserBitmap,
        caller: &Process,
    ) -> Result<(), DirtyError> {
        let page = self.page();
        let inside: Vec<IovaRange> = self.mappings.overlapping(range).map(|m| m.iova).collect();
        for iova in inside {
            self.report_mapping(iova.first(), range.first(), bitmap, caller.memory())
                .map_err(|fault| DirtyError::BitmapFault { mapping: iova, fault })?;
            if let Some(extra) = self.mappings.extra_mut(iova.first()) {
                extra.clean(&iova, page);
            }
        }
        Ok(())
    }

    /// Writes the dirty pages of the mapping at `first` to the caller's bitmap, whose bit 0
    /// stands for `base`. The mapping does not start below it.
    pub(crate) fn report_mapping(
        &mut self,
        first: Iova,
        base: Iova,
        bitmap: &UserBitmap,
        memory: &dyn Memory,
    ) -> Result<(), Fault> {
        let offset = first.0.wrapping_sub(base.0) >> self.page().shift();
        let all_is_dirty = self.all_is_dirty();
        let report = |extra: &mut Extra| {
            let dirty = extra.bitmap.as_mut()?;
            if all_is_dirty {
                dirty.mark_all();
            }
            Some(dirty.report(offset, bitmap.data, memory))
        };
        self.mappings.extra_mut(first).and_then(report).unwrap_or(Ok(()))
    }
}
