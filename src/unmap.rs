// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `VFIO_IOMMU_UNMAP_DMA`: the rules in the kernel's order, then the walk over the mappings
//! (`vfio_dma_do_unmap` in `vfio_iommu_type1.c`; spec 6).
//!
//! Pages that emulated devices have pinned must be let go of first. The kernel drops its lock to
//! tell them, and starts over; so does `container`, which calls [`Type1::unmap`] again for as long
//! as it answers [`Unmapped::Notify`].

use std::sync::Arc;

use crate::addr::Iova;
use crate::dirty::{BitmapError, UserBitmap};
use crate::errno::Errno;
use crate::kernel::{Behaviours, UnmapAtTop};
use crate::map::wrap_errno;
use crate::mapping::Mapping;
use crate::memory::Fault;
use crate::page_size::PageSize;
use crate::process::Process;
use crate::range::{IovaRange, RangeError};
use crate::type1::{NoType1, Type1, Type1Version};

/// A request to unmap, as the caller states it; it may break any rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapDma {
    /// First I/O virtual address.
    pub iova: Iova,
    /// Size in bytes.
    pub size: u64,
    /// [`UnmapDma::DIRTY_BITMAP`], [`UnmapDma::ALL`], [`UnmapDma::VADDR`], or zero.
    pub flags: u32,
    /// Where to report dirty pages; looked at with [`UnmapDma::DIRTY_BITMAP`] only.
    pub bitmap: UserBitmap,
}

impl UnmapDma {
    /// Report dirty pages (`VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP`, from 5.8).
    pub const DIRTY_BITMAP: u32 = 1;
    /// Everything; address and size must be zero (`VFIO_DMA_UNMAP_FLAG_ALL`, from 5.12).
    pub const ALL: u32 = 2;
    /// Take the process address away, leave the mapping (`VFIO_DMA_UNMAP_FLAG_VADDR`, from 5.12).
    pub const VADDR: u32 = 4;

    /// Removes the mappings in `size` bytes from `iova`.
    pub fn new(iova: impl Into<Iova>, size: u64) -> Self {
        Self { iova: iova.into(), size, flags: 0, bitmap: UserBitmap::default() }
    }

    /// Removes every mapping.
    pub fn all() -> Self {
        Self { flags: Self::ALL, ..Self::new(Iova(0), 0) }
    }

    /// Takes process addresses away instead of removing the mappings.
    #[must_use]
    pub fn vaddr_only(self) -> Self {
        Self { flags: self.flags | Self::VADDR, ..self }
    }

    /// Reports dirty pages to the caller's `bitmap`.
    #[must_use]
    pub fn with_bitmap(self, bitmap: UserBitmap) -> Self {
        Self { flags: self.flags | Self::DIRTY_BITMAP, bitmap, ..self }
    }

    /// What a request that went through asked to remove.
    pub(crate) fn removes(&self) -> Option<IovaRange> {
        (self.flags & Self::VADDR == 0).then(|| self.range())?
    }

    fn range(&self) -> Option<IovaRange> {
        match self.flags & Self::ALL {
            0 => IovaRange::from_size(self.iova, self.size).ok(),
            _ => Some(IovaRange::full()),
        }
    }
}

/// Why UNMAP_DMA was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmapError {
    /// The container has no type1 driver. EINVAL, or ENOTTY for noiommu.
    #[error(transparent)]
    NoType1(#[from] NoType1),
    /// A flag this kernel does not know. EINVAL.
    #[error("flags {flags:#x} has bits that this kernel does not know; it knows {known:#x}")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
        /// The flags known.
        known: u32,
    },
    /// A dirty bitmap together with ALL or VADDR. EINVAL.
    #[error("flags {flags:#x} mix GET_DIRTY_BITMAP with ALL or VADDR; it stands alone")]
    BitmapWithOther {
        /// The flags given.
        flags: u32,
    },
    /// The dirty bitmap breaks a rule of its own. EINVAL.
    #[error("{0}")]
    Bitmap(BitmapError),
    /// VADDR while an emulated group is attached. EBUSY.
    #[error(
        "an emulated group is attached, and its driver may use process addresses at any time; \
         detach it before taking them away"
    )]
    EmulatedGroup,
    /// `iova` is not a multiple of the container's page. EINVAL.
    #[error("iova {iova} must be a multiple of the page {page}")]
    MisalignedIova {
        /// The address given.
        iova: Iova,
        /// The container's page.
        page: PageSize,
    },
    /// ALL with an address or a size. EINVAL.
    #[error("flag ALL takes iova 0 and size 0, not {iova} and {size:#x}")]
    AllWithRange {
        /// The address given.
        iova: Iova,
        /// The size given.
        size: u64,
    },
    /// The size is zero. EINVAL.
    #[error("size is 0; unmap at least one page, or set flag ALL")]
    SizeZero,
    /// `size` is not a multiple of the container's page. EINVAL.
    #[error("size {size:#x} must be a multiple of the page {page}")]
    MisalignedSize {
        /// The size given, in bytes.
        size: u64,
        /// The container's page.
        page: PageSize,
    },
    /// `iova + size - 1` does not fit in 64 bits. EOVERFLOW from 6.18, EINVAL before.
    #[error("iova {iova} plus size {size:#x} runs past the end of the 64-bit space")]
    Wraps {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The range ends at 2^64 - 1 (before 5.0). EINVAL.
    #[error("iova {iova} reaches the last address, which this kernel takes for wrapping around")]
    ReachesTop {
        /// The range given.
        iova: IovaRange,
    },
    /// The range would cut a mapping in two (not in v1). EINVAL.
    #[error(
        "iova {iova} cuts the mapping {mapping} at {at}; \
         unmap whole mappings, this kernel interface does not split them"
    )]
    Cuts {
        /// The range given.
        iova: IovaRange,
        /// The mapping that would be cut.
        mapping: IovaRange,
        /// Where: the end of the range that lies inside the mapping.
        at: Iova,
    },
    /// VADDR: a mapping in the range has lost its process address already. EINVAL.
    #[error("mapping {mapping} has lost its process address already; none was taken away now")]
    AlreadyInvalid {
        /// The mapping.
        mapping: IovaRange,
    },
    /// The dirty bitmap could not be written; mappings below `mapping` are gone. EFAULT.
    #[error("reporting the dirty pages of {mapping}: {fault}; {removed:#x} bytes were unmapped")]
    BitmapFault {
        /// The mapping whose pages could not be reported; it is still there.
        mapping: IovaRange,
        /// Where the caller's memory failed.
        fault: Fault,
        /// Bytes of mappings removed before.
        removed: u64,
    },
    /// An emulated device keeps pages pinned although it was told to let go. Linux has no errno
    /// for it: it calls it a bug of the device's driver and halts. EBUSY here.
    #[error(
        "an emulated device keeps pages of {mapping} pinned after {rounds} notifications; \
         its unmap callback must unpin them; {removed:#x} bytes were unmapped"
    )]
    StillPinned {
        /// The mapping.
        mapping: IovaRange,
        /// How often it was told.
        rounds: u32,
        /// Bytes of mappings removed before.
        removed: u64,
    },
}

impl UnmapError {
    /// Adds what earlier rounds of the same request removed.
    pub(crate) fn after(mut self, bytes: u64) -> Self {
        if let Self::BitmapFault { removed, .. } | Self::StillPinned { removed, .. } = &mut self {
            *removed = removed.wrapping_add(bytes);
        }
        self
    }

    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoType1(error) => error.errno(),
            Self::Wraps { errno, .. } => *errno,
            Self::EmulatedGroup | Self::StillPinned { .. } => Errno::EBUSY,
            Self::BitmapFault { .. } => Errno::EFAULT,
            Self::Bitmap(error) => error.errno(),
            Self::UnknownFlags { .. }
            | Self::BitmapWithOther { .. }
            | Self::MisalignedIova { .. }
            | Self::AllWithRange { .. }
            | Self::SizeZero
            | Self::MisalignedSize { .. }
            | Self::ReachesTop { .. }
            | Self::Cuts { .. }
            | Self::AlreadyInvalid { .. } => Errno::EINVAL,
        }
    }
}

/// How far an UNMAP got.
#[derive(Debug)]
pub(crate) enum Unmapped {
    /// It is done: so many bytes of mappings were removed, or lost their process address.
    Done(u64),
    /// Emulated devices must unpin this mapping first; `removed` bytes are gone already.
    Notify { mapping: IovaRange, removed: u64 },
}

/// A request that obeys every rule but the one about cutting.
struct Request {
    range: IovaRange,
    /// The flag ALL: no mapping can be cut, and v1 removes as v2 does.
    all: bool,
    purpose: Purpose,
}

enum Purpose {
    Remove,
    RemoveReporting(UserBitmap),
    InvalidateVaddr,
}

impl Purpose {
    fn parse(raw: &UnmapDma, behaviours: &Behaviours) -> Result<Self, UnmapError> {
        let flags = raw.flags;
        let known = known_flags(behaviours);
        if flags & !known != 0 {
            return Err(UnmapError::UnknownFlags { flags, known });
        }
        if flags & UnmapDma::DIRTY_BITMAP != 0 {
            if flags != UnmapDma::DIRTY_BITMAP {
                return Err(UnmapError::BitmapWithOther { flags });
            }
            raw.bitmap.check(raw.size, behaviours).map_err(UnmapError::Bitmap)?;
            return Ok(Self::RemoveReporting(raw.bitmap));
        }
        let vaddr = flags & UnmapDma::VADDR != 0;
        Ok(if vaddr { Self::InvalidateVaddr } else { Self::Remove })
    }
}

fn known_flags(behaviours: &Behaviours) -> u32 {
    let flag = |known: bool, flag: u32| if known { flag } else { 0 };
    flag(behaviours.dirty_tracking, UnmapDma::DIRTY_BITMAP)
        | flag(behaviours.unmap_all, UnmapDma::ALL)
        | flag(behaviours.update_vaddr, UnmapDma::VADDR)
}

impl Type1 {
    /// Unmaps. A refusal changes nothing, except that [`UnmapError::BitmapFault`] and
    /// [`UnmapError::StillPinned`] stop halfway.
    pub(crate) fn unmap(
        &mut self,
        caller: &Arc<Process>,
        raw: &UnmapDma,
    ) -> Result<Unmapped, UnmapError> {
        let request = self.parse_unmap(raw)?;
        let start = self.mappings.containing(request.range.first());
        self.check_cuts(&request, start)?;
        match request.purpose {
            Purpose::InvalidateVaddr => self.invalidate_vaddrs(&request, start).map(Unmapped::Done),
            Purpose::Remove => self.remove(caller, &request, start, None),
            Purpose::RemoveReporting(bitmap) => self.remove(caller, &request, start, Some(bitmap)),
        }
    }

    fn parse_unmap(&self, raw: &UnmapDma) -> Result<Request, UnmapError> {
        let purpose = Purpose::parse(raw, self.behaviours())?;
        if matches!(purpose, Purpose::InvalidateVaddr) && !self.emulated.is_empty() {
            return Err(UnmapError::EmulatedGroup);
        }
        let page = self.page();
        let all = raw.flags & UnmapDma::ALL != 0;
        let range = self.unmap_range(raw, all, page)?;
        if let Purpose::RemoveReporting(bitmap) = &purpose {
            self.check_tracking().map_err(UnmapError::Bitmap)?;
            bitmap.check_page(page).map_err(UnmapError::Bitmap)?;
        }
        Ok(Request { range, all, purpose })
    }

    fn unmap_range(
        &self,
        raw: &UnmapDma,
        all: bool,
        page: PageSize,
    ) -> Result<IovaRange, UnmapError> {
        let UnmapDma { iova, size, .. } = *raw;
        if !page.is_aligned(iova.0) {
            return Err(UnmapError::MisalignedIova { iova, page });
        }
        if all {
            let plain = iova.0 == 0 && size == 0;
            return plain.then(IovaRange::full).ok_or(UnmapError::AllWithRange { iova, size });
        }
        if !page.is_aligned(size) {
            return Err(UnmapError::MisalignedSize { size, page });
        }
        let errno = wrap_errno(self.behaviours());
        let range = IovaRange::from_size(iova, size).map_err(|error| match error {
            RangeError::Empty => UnmapError::SizeZero,
            RangeError::Wraps { .. } => UnmapError::Wraps { iova, size, errno },
        })?;
        if range.next().is_none() && self.behaviours().unmap_at_top == UnmapAtTop::Refused {
            return Err(UnmapError::ReachesTop { iova: range });
        }
        Ok(range)
    }

    /// v2 refuses a range whose ends lie inside mappings (spec 6.1 step 9).
    fn check_cuts(&self, request: &Request, start: Option<Mapping>) -> Result<(), UnmapError> {
        let exact = start.is_some_and(|mapping| mapping.iova == request.range);
        if exact || request.all || self.version == Type1Version::V1 {
            return Ok(());
        }
        match self.mappings.cut_by(&request.range) {
            Some((mapping, at)) => {
                Err(UnmapError::Cuts { iova: request.range, mapping: mapping.iova, at })
            }
            None => Ok(()),
        }
    }

    /// Takes the process address of each mapping in the range away, or of none (spec 6.3).
    fn invalidate_vaddrs(
        &mut self,
        request: &Request,
        start: Option<Mapping>,
    ) -> Result<u64, UnmapError> {
        let first = self.next_to_unmap(request, start).map(|mapping| mapping.iova.first());
        let Some(range) = first.and_then(|first| IovaRange::new(first, request.range.last()))
        else {
            return Ok(0);
        };
        let lost = self.mappings.overlapping(&range).find(|mapping| mapping.vaddr_invalid);
        if let Some(mapping) = lost {
            return Err(UnmapError::AlreadyInvalid { mapping: mapping.iova });
        }
        let mut bytes: u64 = 0;
        let lose: Vec<Mapping> = self.mappings.starting_in(range).collect();
        for mapping in lose {
            self.mappings.update(&Mapping { vaddr_invalid: true, ..mapping });
            self.invalid_vaddrs += 1;
            bytes = bytes.wrapping_add(mapping.bytes());
        }
        Ok(bytes)
    }

    /// The lowest mapping that the range touches; `start` is the one at its first address, if known. In v1
    /// a range that starts inside a mapping reaches nothing at all, not even what lies behind it (spec 6.2).
    fn next_to_unmap(&self, request: &Request, start: Option<Mapping>) -> Option<Mapping> {
        let at_top = request.range.next().is_none() && !request.all;
        if at_top && self.behaviours().unmap_at_top == UnmapAtTop::FindsNothing {
            return None;
        }
        start
            .or_else(|| self.mappings.first_overlap(&request.range))
            .filter(|mapping| mapping.iova.first() >= request.range.first())
    }

    fn remove(
        &mut self,
        caller: &Arc<Process>,
        request: &Request,
        mut start: Option<Mapping>,
        bitmap: Option<UserBitmap>,
    ) -> Result<Unmapped, UnmapError> {
        let base = request.range.first();
        let stops_at_foreign = self.behaviours().unmap_stops_at_foreign_mm;
        let mut removed: u64 = 0;
        while let Some(mapping) = self.next_to_unmap(request, start.take()) {
            if stops_at_foreign && !Arc::ptr_eq(self.mappings.owner(mapping.owner), caller) {
                break;
            }
            let iova = mapping.iova;
            if self.mappings.pin_count(iova.first()) != 0 {
                return Ok(Unmapped::Notify { mapping: iova, removed });
            }
            if let Some(bitmap) = bitmap {
                let memory = caller.memory();
                self.report_mapping(iova.first(), base, &bitmap, memory)
                    .map_err(|fault| UnmapError::BitmapFault { mapping: iova, fault, removed })?;
            }
            self.remove_mapping(&mapping);
            removed = removed.wrapping_add(mapping.bytes());
            if iova.last() >= request.range.last() {
                break;
            }
        }
        Ok(Unmapped::Done(removed))
    }
}
