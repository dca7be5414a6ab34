// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `VFIO_IOMMU_MAP_DMA`: the rules in the kernel's order, then the mapping (`vfio_dma_do_map` in
//! `vfio_iommu_type1.c`; spec 5.1).

use std::sync::Arc;

use crate::addr::{Iova, Vaddr};
use crate::domain::{Iommu, IommuDriver};
use crate::errno::Errno;
use crate::host::GroupId;
use crate::inject::{Allocation, OutOfMemory};
use crate::kernel::Behaviours;
use crate::mapping::{Extra, Mapping, MappingInfo};
use crate::memory::Access;
use crate::obstacle::NotValid;
use crate::page_size::{PageSize, PageSizes};
use crate::pin::{Charge, EnterError, PinError, pin_range};
use crate::process::{OverMemlock, Process};
use crate::range::{IovaRange, RangeError, VaddrRange};
use crate::type1::{Domain, NoType1, Type1};

/// A request to map, as the caller states it; it may break any rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapDma {
    /// First I/O virtual address.
    pub iova: Iova,
    /// The process address it stands for.
    pub vaddr: Vaddr,
    /// Size in bytes.
    pub size: u64,
    /// [`MapDma::READ`], [`MapDma::WRITE`] or both; or [`MapDma::VADDR`] alone.
    pub flags: u32,
}

impl MapDma {
    /// Devices may read (`VFIO_DMA_MAP_FLAG_READ`).
    pub const READ: u32 = 1;
    /// Devices may write (`VFIO_DMA_MAP_FLAG_WRITE`).
    pub const WRITE: u32 = 2;
    /// Give a mapping without a process address a new one (`VFIO_DMA_MAP_FLAG_VADDR`, from 5.12).
    pub const VADDR: u32 = 4;

    /// Maps `size` bytes of the caller's memory at `vaddr` to `iova`.
    pub fn new(iova: impl Into<Iova>, vaddr: impl Into<Vaddr>, size: u64, access: Access) -> Self {
        let flags = match access {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
            Access::ReadWrite => Self::READ | Self::WRITE,
        };
        Self { iova: iova.into(), vaddr: vaddr.into(), size, flags }
    }

    /// Gives the mapping at `iova`, of exactly this size, the process address `vaddr`, after an
    /// UNMAP with flag VADDR took the old one away.
    pub fn update_vaddr(iova: impl Into<Iova>, vaddr: impl Into<Vaddr>, size: u64) -> Self {
        Self { iova: iova.into(), vaddr: vaddr.into(), size, flags: Self::VADDR }
    }
}

/// Why MAP_DMA was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
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
    /// The size is zero. EINVAL.
    #[error("size is 0; map at least one page")]
    SizeZero,
    /// `iova + size - 1` does not fit in 64 bits. EOVERFLOW from 6.18, EINVAL before.
    #[error("iova {iova} plus size {size:#x} runs past the end of the 64-bit space")]
    IovaWraps {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
        /// The kernel's errno.
        errno: Errno,
    },
    /// `vaddr + size - 1` does not fit in 64 bits. EOVERFLOW from 6.18, EINVAL before.
    #[error("vaddr {vaddr} plus size {size:#x} runs past the end of the 64-bit space")]
    VaddrWraps {
        /// The address given.
        vaddr: Vaddr,
        /// The size given, in bytes.
        size: u64,
        /// The kernel's errno.
        errno: Errno,
    },
    /// Neither READ nor WRITE nor VADDR. EINVAL.
    #[error("no flag is set; set READ, WRITE or both")]
    NoAccess,
    /// VADDR together with READ or WRITE. EINVAL.
    #[error("flags {flags:#x} mix VADDR with READ or WRITE; VADDR stands alone")]
    VaddrWithAccess {
        /// The flags given.
        flags: u32,
    },
    /// The domains of the container share no page size. EINVAL.
    #[error("the container's IOMMU domains share no page size (bitmap {page_sizes})")]
    NoPageSize {
        /// The container's page sizes.
        page_sizes: PageSizes,
    },
    /// `iova`, `vaddr` or `size` is not a multiple of the container's page. EINVAL.
    #[error("iova {iova}, vaddr {vaddr} and size {size:#x} must be multiples of the page {page}")]
    Misaligned {
        /// The address given.
        iova: Iova,
        /// The process address given.
        vaddr: Vaddr,
        /// The size given, in bytes.
        size: u64,
        /// The container's page.
        page: PageSize,
    },
    /// VADDR: no mapping there. ENOENT.
    #[error("nothing is mapped in iova {iova}, so there is no process address to update")]
    NothingToUpdate {
        /// The range given.
        iova: IovaRange,
    },
    /// VADDR: the mapping found still has its process address. EINVAL.
    #[error("mapping {iova} still has its process address; unmap it with flag VADDR first")]
    StillValid {
        /// The mapping.
        iova: IovaRange,
    },
    /// VADDR: the mapping found has other bounds. EINVAL.
    #[error("iova {iova} is not the whole mapping {found}; state its exact start and size")]
    UpdateNotExact {
        /// The range given.
        iova: IovaRange,
        /// The mapping found.
        found: IovaRange,
    },
    /// VADDR by another process: its locked memory cannot take the pages over. ENOMEM.
    #[error("the caller cannot take over the mapping's locked pages: {0}")]
    TakeOver(OverMemlock),
    /// The range overlaps a mapping. EEXIST.
    #[error(
        "iova {iova} overlaps the mapping {} -> vaddr {}; unmap that first",
        existing.iova, existing.vaddr
    )]
    Exists {
        /// The range given.
        iova: IovaRange,
        /// The lowest mapping it overlaps.
        existing: MappingInfo,
    },
    /// `dma_entry_limit` mappings are in use. ENOSPC.
    #[error(
        "all {mappings} mappings that the limit allows are in use; \
         unmap some, map larger ranges, or raise dma_entry_limit"
    )]
    TableFull {
        /// Mappings in use.
        mappings: usize,
    },
    /// The range is not in one range of the valid IOVA list. EINVAL.
    #[error("{0}")]
    NotValid(Box<NotValid>),
    /// The fault plan wants it. ENOMEM, or the plan's errno.
    #[error("iova {iova} is refused: {errno}, injected as map:{nth}")]
    Injected {
        /// The range given.
        iova: IovaRange,
        /// Which MAP that no rule is against it was since the plan was set, counted from 1.
        nth: u64,
        /// The plan's errno.
        errno: Errno,
    },
    /// There is no memory for the mapping, its page tables or its dirty bitmap. ENOMEM, on demand
    /// only.
    #[error("iova {iova}: {error}")]
    NoMemory {
        /// The range given.
        iova: IovaRange,
        /// What the memory was for.
        error: OutOfMemory,
    },
    /// A page cannot be pinned, or not within the locked-memory limit. EFAULT, ENOMEM.
    #[error("iova {iova}: {error}")]
    Pin {
        /// The range given.
        iova: IovaRange,
        /// What is wrong.
        error: PinError,
    },
    /// The IOMMU driver refused the range. Its errno.
    #[error("the {driver} of group {group} translates {aperture} and refuses iova {iova}: {errno}")]
    Iommu {
        /// The range given.
        iova: IovaRange,
        /// The driver.
        driver: IommuDriver,
        /// A group of its domain.
        group: GroupId,
        /// What its domain translates, inclusive.
        aperture: IovaRange,
        /// The driver's errno.
        errno: Errno,
    },
    /// Dirty tracking is on, and the range has more pages than a bitmap covers. EINVAL.
    #[error("dirty tracking is on and {pages} pages are more than one bitmap covers (2^31 - 1)")]
    TooLargeToTrack {
        /// Pages of the range.
        pages: u64,
    },
}

impl MapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoType1(error) => error.errno(),
            Self::IovaWraps { errno, .. } | Self::VaddrWraps { errno, .. } => *errno,
            Self::NothingToUpdate { .. } => Errno::ENOENT,
            Self::Exists { .. } => Errno::EEXIST,
            Self::TableFull { .. } => Errno::ENOSPC,
            Self::TakeOver(_) | Self::NoMemory { .. } => Errno::ENOMEM,
            Self::Pin { error, .. } => error.errno(),
            Self::Iommu { errno, .. } | Self::Injected { errno, .. } => *errno,
            Self::UnknownFlags { .. }
            | Self::SizeZero
            | Self::NoAccess
            | Self::VaddrWithAccess { .. }
            | Self::Misaligned { .. }
            | Self::NoPageSize { .. }
            | Self::UpdateNotExact { .. }
            | Self::StillValid { .. }
            | Self::NotValid(_)
            | Self::TooLargeToTrack { .. } => Errno::EINVAL,
        }
    }
}

/// The errno for a range that wraps around.
pub(crate) fn wrap_errno(behaviours: &Behaviours) -> Errno {
    if behaviours.wrap_is_eoverflow { Errno::EOVERFLOW } else { Errno::EINVAL }
}

/// A request that obeys every rule which does not depend on the container.
#[derive(Clone, Copy, Debug)]
struct Request {
    iova: IovaRange,
    vaddr: VaddrRange,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Map(Access),
    UpdateVaddr,
}

impl Request {
    #[inline]
    fn parse(raw: &MapDma, behaviours: &Behaviours) -> Result<Self, MapError> {
        let MapDma { iova, vaddr, size, flags } = *raw;
        let vaddr_flag = if behaviours.update_vaddr { MapDma::VADDR } else { 0 };
        let known = MapDma::READ | MapDma::WRITE | vaddr_flag;
        if flags & !known != 0 {
            return Err(MapError::UnknownFlags { flags, known });
        }
        let errno = wrap_errno(behaviours);
        let iovas = IovaRange::from_size(iova, size).map_err(|error| match error {
            RangeError::Empty => MapError::SizeZero,
            RangeError::Wraps { .. } => MapError::IovaWraps { iova, size, errno },
        })?;
        let vaddrs = VaddrRange::from_size(vaddr, size).map_err(|_| MapError::VaddrWraps {
            vaddr,
            size,
            errno,
        })?;
        Ok(Self { iova: iovas, vaddr: vaddrs, purpose: Purpose::parse(flags)? })
    }
}

impl Purpose {
    #[inline]
    fn parse(flags: u32) -> Result<Self, MapError> {
        match (flags & MapDma::READ != 0, flags & MapDma::WRITE != 0, flags & MapDma::VADDR != 0) {
            (true, false, false) => Ok(Self::Map(Access::Read)),
            (false, true, false) => Ok(Self::Map(Access::Write)),
            (true, true, false) => Ok(Self::Map(Access::ReadWrite)),
            (false, false, true) => Ok(Self::UpdateVaddr),
            (false, false, false) => Err(MapError::NoAccess),
            (_, _, true) => Err(MapError::VaddrWithAccess { flags }),
        }
    }
}

impl Type1 {
    /// Maps, or updates a process address. A refusal changes nothing.
    pub(crate) fn map(&mut self, caller: &Arc<Process>, raw: &MapDma) -> Result<(), MapError> {
        let request = Request::parse(raw, self.behaviours())?;
        let page_sizes = self.page_sizes;
        let page = page_sizes.smallest().ok_or(MapError::NoPageSize { page_sizes })?;
        if !request.iova.is_aligned(page) || !page.is_aligned(raw.vaddr.0) {
            let MapDma { iova, vaddr, size, .. } = *raw;
            return Err(MapError::Misaligned { iova, vaddr, size, page });
        }
        match request.purpose {
            Purpose::UpdateVaddr => self.update_vaddr(caller, &request),
            Purpose::Map(access) => self.map_new(caller, &request, access, page),
        }
    }

    fn map_new(
        &mut self,
        caller: &Arc<Process>,
        request: &Request,
        access: Access,
        page: PageSize,
    ) -> Result<(), MapError> {
        let iova = request.iova;
        let overlap_seen = self.search_sees(&iova);
        if overlap_seen {
            self.check_free(iova)?;
        }
        if self.behaviours().entry_limit && self.entries_left == 0 {
            return Err(MapError::TableFull { mappings: self.mappings.len() });
        }
        if !self.iova_list.allows(&iova) {
            return Err(MapError::NotValid(Box::new(self.explain(iova))));
        }
        if !overlap_seen {
            // These kernels would now map twice and lose track of both: not imitated.
            self.check_free(iova)?;
        }
        if let Some((nth, errno)) = self.injector.map(iova) {
            return Err(MapError::Injected { iova, nth, errno });
        }
        self.allocate_to_map(iova, Allocation::Mapping)?;
        // Looked up before the pages are: a change in between counts as a later one.
        let memory_epoch = caller.memory_epoch();
        let exempt = caller.cap_ipc_lock();
        let locked_pages = self.pin_and_enter(caller, request, access, exempt)?;
        let extra = if self.tracking { Some(self.extra_of(&iova, page)?) } else { None };
        // Numbers of owners run out after millions of processes; no rule is closer to it.
        let owner = self.mappings.add_owner(caller);
        let full = || MapError::TableFull { mappings: self.mappings.len() };
        let owner = owner.ok_or_else(full)?;
        caller.lock_pages(locked_pages);
        self.mappings.insert(&Mapping {
            iova,
            vaddr: request.vaddr.first(),
            owner,
            locked_pages,
            access,
            exempt,
            vaddr_invalid: false,
            iommu_mapped: !self.domains.is_empty(),
            memory_epoch,
        });
        if let Some(extra) = extra {
            *self.mappings.make_extra(iova.first()) = extra;
        }
        self.entries_left = self.entries_left.saturating_sub(1);
        Ok(())
    }

    /// What a new mapping has while dirty tracking is on.
    fn extra_of(&self, iova: &IovaRange, page: PageSize) -> Result<Extra, MapError> {
        let mut extra = Extra::default();
        let too_large = MapError::TooLargeToTrack { pages: iova.pages(page) };
        extra.start_tracking(iova, page).ok_or(too_large)?;
        self.allocate_to_map(*iova, Allocation::DirtyBitmap)?;
        Ok(extra)
    }

    #[inline]
    fn allocate_to_map(&self, iova: IovaRange, what: Allocation) -> Result<(), MapError> {
        self.injector.allocate(what).map_err(|error| MapError::NoMemory { iova, error })
    }

    /// Whether the kernel's search for mappings works in this range.
    fn search_sees(&self, iova: &IovaRange) -> bool {
        iova.next().is_some() || self.behaviours().search_reaches_top
    }

    #[inline]
    fn check_free(&self, iova: IovaRange) -> Result<(), MapError> {
        if self.mappings.is_free(&iova) {
            return Ok(());
        }
        match self.mappings.first_overlap(&iova) {
            Some(existing) => Err(MapError::Exists { iova, existing: existing.info() }),
            None => Ok(()),
        }
    }

    /// Pins the pages and enters them into the domains; returns how many to charge. With emulated
    /// groups alone there is no domain, and the memory is not even looked at.
    fn pin_and_enter(
        &self,
        caller: &Process,
        request: &Request,
        access: Access,
        exempt: bool,
    ) -> Result<u64, MapError> {
        if self.domains.is_empty() {
            return Ok(0);
        }
        let iova = request.iova;
        let charge = Charge { exempt, already: 0, page: self.cpu_page() };
        let enter = |pages: VaddrRange| {
            let part = iova_behind(iova, request.vaddr, pages);
            self.domains.iter().try_for_each(|domain| self.enter_into(&*domain.iommu, part))
        };
        let injector = &self.injector;
        let entered = pin_range(caller, request.vaddr, access, charge, injector, enter);
        entered.map_err(|error| match error {
            EnterError::Pin(error) => MapError::Pin { iova, error },
            EnterError::Iommu(errno) => self.refused_by_iommu(iova, errno),
            EnterError::NoMemory(error) => MapError::NoMemory { iova, error },
        })
    }

    /// Enters pages that lie behind each other into the page tables of a domain.
    pub(crate) fn enter_into(&self, iommu: &dyn Iommu, part: IovaRange) -> Result<(), EnterError> {
        iommu.can_map(part, self.behaviours()).map_err(EnterError::Iommu)?;
        self.injector.allocate(Allocation::PageTables).map_err(EnterError::NoMemory)
    }

    /// Names the domain that does not take `iova`.
    fn refused_by_iommu(&self, iova: IovaRange, errno: Errno) -> MapError {
        let refuses = |domain: &&Domain| domain.iommu.can_map(iova, self.behaviours()).is_err();
        match self.domains.iter().find(refuses).or(self.domains.first()) {
            Some(domain) => MapError::Iommu {
                iova,
                driver: domain.iommu.driver(),
                group: domain.groups.first().map_or(GroupId::Numbered(0), |group| group.id),
                aperture: domain.iommu.aperture(),
                errno,
            },
            // Without a domain none can have refused.
            None => MapError::NoType1(NoType1::NoIommu),
        }
    }

    fn update_vaddr(&mut self, caller: &Arc<Process>, request: &Request) -> Result<(), MapError> {
        let iova = request.iova;
        let found = self.mappings.first_overlap(&iova).filter(|_| self.search_sees(&iova));
        let mut mapping = found.ok_or(MapError::NothingToUpdate { iova })?;
        let found = mapping.iova;
        if !mapping.vaddr_invalid {
            return Err(MapError::StillValid { iova: found });
        }
        if found != iova {
            return Err(MapError::UpdateNotExact { iova, found });
        }
        self.hand_over(&mut mapping, caller)?;
        mapping.vaddr = request.vaddr.first();
        mapping.vaddr_invalid = false;
        mapping.memory_epoch = caller.memory_epoch();
        self.mappings.update(&mapping);
        self.invalid_vaddrs -= 1;
        Ok(())
    }

    /// Moves the charge to another process, under its limit; the same process keeps it as it is
    /// (spec 5.4).
    fn hand_over(&mut self, mapping: &mut Mapping, caller: &Arc<Process>) -> Result<(), MapError> {
        if Arc::ptr_eq(self.mappings.owner(mapping.owner), caller) {
            return Ok(());
        }
        let exempt = caller.cap_ipc_lock();
        let pages = mapping.locked_pages;
        caller.check_charge(pages, exempt, self.cpu_page()).map_err(MapError::TakeOver)?;
        let full = MapError::TableFull { mappings: self.mappings.len() };
        let new = self.mappings.add_owner(caller).ok_or(full)?;
        caller.lock_pages(pages);
        self.mappings.owner(mapping.owner).uncharge(pages);
        self.mappings.drop_owner(mapping.owner);
        *mapping = Mapping { owner: new, exempt, ..*mapping };
        Ok(())
    }
}

/// The part of `iova` that stands for `pages`, a part of `vaddr`.
pub(crate) fn iova_behind(iova: IovaRange, vaddr: VaddrRange, pages: VaddrRange) -> IovaRange {
    let first = iova.first().0 + (pages.first().0 - vaddr.first().0);
    IovaRange::new(Iova(first), Iova(first + pages.span())).unwrap_or(iova)
}
