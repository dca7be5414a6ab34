// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mapping into an address space: the rules in the kernel's order, then the mapping
//! (`iopt_map_user_pages` in `drivers/iommu/iommufd/io_pagetable.c`; spec 9).
//!
//! Beside type1: what is reserved is looked at before what is mapped, the number of mappings has no
//! limit, memory need only be aligned as the domains are, and without a domain nothing is pinned.

use std::sync::Arc;

use super::ioas::{Domain, Ioas};
use super::pin::{self, pin};
use crate::addr::{Iova, Vaddr};
use crate::domain::{Iommu, IommuDriver};
use crate::errno::Errno;
use crate::host::GroupId;
use crate::inject::{Allocation, OutOfMemory};
use crate::map::iova_behind;
use crate::mapping::{Mapping, MappingInfo};
use crate::memory::Access;
use crate::obstacle::NotValid;
use crate::page_size::PageSize;
use crate::pin::{EnterError, PinError};
use crate::process::Process;
use crate::range::{IovaRange, VaddrRange};

/// Why an address space does not take a mapping: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoasMapError {
    /// `vaddr + size` does not fit in 64 bits. EOVERFLOW.
    #[error("vaddr {vaddr} plus size {size:#x} does not fit in 64 bits")]
    VaddrWraps {
        /// The address given.
        vaddr: Vaddr,
        /// The size given, in bytes.
        size: u64,
    },
    /// The size is zero. EINVAL.
    #[error("size is 0; map at least one page")]
    SizeZero,
    /// The size is that of the whole space, less than a page short of it. EINVAL.
    #[error("size {size:#x} is more than any process has")]
    TooLarge {
        /// The size given, in bytes.
        size: u64,
    },
    /// The size is not a multiple of the alignment. EINVAL.
    #[error("size {size:#x} must be a multiple of {alignment}")]
    MisalignedSize {
        /// The size given, in bytes.
        size: u64,
        /// The address space's alignment.
        alignment: PageSize,
    },
    /// The address is not a multiple of the alignment. EINVAL.
    #[error("iova {iova} must be a multiple of {alignment}")]
    MisalignedIova {
        /// The address given.
        iova: Iova,
        /// The address space's alignment.
        alignment: PageSize,
    },
    /// `iova + size - 1` does not fit in 64 bits. EOVERFLOW.
    #[error("iova {iova} plus size {size:#x} runs past the end of the 64-bit space")]
    IovaWraps {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
    },
    /// The range touches what a device or a domain reserves. EINVAL.
    #[error("{0}")]
    NotValid(Box<NotValid>),
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
    /// No address was stated, and half of the space or more asked for. EOVERFLOW.
    #[error("size {size:#x} is half of the space or more; state where it shall go")]
    TooLargeToPlace {
        /// The size given, in bytes.
        size: u64,
    },
    /// No address was stated, and the memory is not aligned as addresses must be. EINVAL.
    #[error(
        "vaddr {vaddr} must be a multiple of {alignment}, as the address found for it would be"
    )]
    CannotAlign {
        /// The address given.
        vaddr: Vaddr,
        /// The address space's alignment.
        alignment: PageSize,
    },
    /// No address was stated, and no range of the size is free. ENOSPC.
    #[error("no range of {size:#x} bytes is free and allowed")]
    NoSpace {
        /// The size given, in bytes.
        size: u64,
    },
    /// The process address is not aligned within its page. EINVAL.
    #[error("vaddr {vaddr} must be a multiple of {alignment}")]
    MisalignedVaddr {
        /// The address given.
        vaddr: Vaddr,
        /// The address space's alignment.
        alignment: PageSize,
    },
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
    /// There is no memory for the mapping or its page tables. ENOMEM, on demand only.
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
    /// The mapping lets devices neither read nor write, which no IOMMU driver maps. EINVAL.
    #[error("iova {iova} is to be neither read nor written; set READ, WRITE or both")]
    NoAccess {
        /// The range given.
        iova: IovaRange,
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
    /// More processes have mappings than the table can tell apart. ENOMEM; no kernel has this rule.
    #[error("more processes have mappings than can be told apart")]
    TooManyProcesses,
}

impl IoasMapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::VaddrWraps { .. } | Self::IovaWraps { .. } | Self::TooLargeToPlace { .. } => {
                Errno::EOVERFLOW
            }
            Self::Exists { .. } => Errno::EEXIST,
            Self::NoSpace { .. } => Errno::ENOSPC,
            Self::NoMemory { .. } | Self::TooManyProcesses => Errno::ENOMEM,
            Self::Pin { error, .. } => pin::errno(error),
            Self::Iommu { errno, .. } | Self::Injected { errno, .. } => *errno,
            Self::SizeZero
            | Self::TooLarge { .. }
            | Self::MisalignedSize { .. }
            | Self::MisalignedIova { .. }
            | Self::NotValid(_)
            | Self::CannotAlign { .. }
            | Self::MisalignedVaddr { .. }
            | Self::NoAccess { .. } => Errno::EINVAL,
        }
    }
}

/// What is to be mapped where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Where; `None` for any free range.
    pub(super) iova: Option<Iova>,
    pub(super) vaddr: Vaddr,
    /// In bytes.
    pub(super) size: u64,
    /// What devices may do, if anything.
    pub(super) access: Option<Access>,
}

impl Ioas {
    /// Maps the caller's memory; returns where. A refusal changes nothing.
    pub(super) fn map(
        &mut self,
        caller: &Arc<Process>,
        request: &Request,
    ) -> Result<IovaRange, IoasMapError> {
        let vaddrs = self.check_memory(request)?;
        let iova = match request.iova {
            Some(iova) => self.check_place(iova, request.size)?,
            None => self.find_place(request.vaddr, request.size)?,
        };
        let (vaddr, alignment) = (request.vaddr, self.alignment);
        // Only what is within a page counts: the alignment is a page at most.
        if !alignment.is_aligned(vaddr.0 & (self.cpu_page.bytes() - 1)) {
            return Err(IoasMapError::MisalignedVaddr { vaddr, alignment });
        }
        if let Some((nth, errno)) = self.injector.map(iova) {
            return Err(IoasMapError::Injected { iova, nth, errno });
        }
        let no_memory = |error| IoasMapError::NoMemory { iova, error };
        self.injector.allocate(Allocation::Mapping).map_err(no_memory)?;
        self.commit(caller, iova, vaddrs, request.access)
    }

    fn check_memory(&self, request: &Request) -> Result<VaddrRange, IoasMapError> {
        let (Request { vaddr, size, .. }, alignment) = (*request, self.alignment);
        if vaddr.0.checked_add(size).is_none() {
            return Err(IoasMapError::VaddrWraps { vaddr, size });
        }
        let vaddrs = VaddrRange::from_size(vaddr, size).map_err(|_| IoasMapError::SizeZero)?;
        if size > u64::MAX - self.cpu_page.bytes() {
            return Err(IoasMapError::TooLarge { size });
        }
        if !alignment.is_aligned(size) {
            return Err(IoasMapError::MisalignedSize { size, alignment });
        }
        Ok(vaddrs)
    }

    /// The rules for a stated address (`iopt_check_iova`).
    fn check_place(&self, iova: Iova, size: u64) -> Result<IovaRange, IoasMapError> {
        let alignment = self.alignment;
        if !alignment.is_aligned(iova.0) {
            return Err(IoasMapError::MisalignedIova { iova, alignment });
        }
        let range = IovaRange::from_size(iova, size);
        let iova = range.map_err(|_| IoasMapError::IovaWraps { iova, size })?;
        if self.reservation_in(&iova).is_some() {
            return Err(IoasMapError::NotValid(Box::new(self.explain(iova))));
        }
        match self.mappings.first_overlap(&iova) {
            Some(existing) => Err(IoasMapError::Exists { iova, existing: existing.info() }),
            None => Ok(iova),
        }
    }

    fn commit(
        &mut self,
        caller: &Arc<Process>,
        iova: IovaRange,
        vaddrs: VaddrRange,
        access: Option<Access>,
    ) -> Result<IovaRange, IoasMapError> {
        // Looked up before the pages are: a change in between counts as a later one.
        let memory_epoch = caller.memory_epoch();
        let exempt = caller.cap_ipc_lock();
        let locked_pages = self.pin_and_enter(caller, iova, vaddrs, access, exempt)?;
        let Some(owner) = self.mappings.add_owner(caller) else {
            caller.discharge(self.account, locked_pages);
            return Err(IoasMapError::TooManyProcesses);
        };
        self.mappings.insert(&Mapping {
            iova,
            vaddr: vaddrs.first(),
            owner,
            locked_pages,
            access: access.unwrap_or(Access::Read),
            exempt,
            vaddr_invalid: false,
            iommu_mapped: !self.domains.is_empty(),
            memory_epoch,
        });
        if access.is_none() {
            self.silent.insert(iova.first());
        }
        Ok(iova)
    }

    /// Pins the pages, enters them into the domains and charges them; returns how many. Without a
    /// domain the memory is not even looked at.
    fn pin_and_enter(
        &self,
        caller: &Process,
        iova: IovaRange,
        vaddrs: VaddrRange,
        access: Option<Access>,
        exempt: bool,
    ) -> Result<u64, IoasMapError> {
        if self.domains.is_empty() {
            return Ok(0);
        }
        let enter = |pages: VaddrRange| {
            let part = iova_behind(iova, vaddrs, pages);
            let mut domains = self.domains.iter();
            domains.try_for_each(|domain| self.enter_into(&*domain.iommu, part, access))
        };
        let refused = |error| match error {
            EnterError::Pin(error) => IoasMapError::Pin { iova, error },
            EnterError::Iommu(_) if access.is_none() => IoasMapError::NoAccess { iova },
            EnterError::Iommu(errno) => self.refused_by_iommu(iova, errno),
            EnterError::NoMemory(error) => IoasMapError::NoMemory { iova, error },
        };
        let needed = access.unwrap_or(Access::Read);
        pin(caller, vaddrs, needed, &self.injector, enter).map_err(refused)?;
        let pages = if exempt { 0 } else { vaddrs.pages(self.cpu_page) };
        let charged = caller.charge(self.account, pages, self.cpu_page);
        charged.map_err(|over| refused(PinError::OverMemlock(over).into()))?;
        Ok(pages)
    }

    /// Enters pages that lie behind each other into the page tables of a domain.
    pub(super) fn enter_into(
        &self,
        iommu: &dyn Iommu,
        part: IovaRange,
        access: Option<Access>,
    ) -> Result<(), EnterError> {
        if access.is_none() {
            return Err(EnterError::Iommu(Errno::EINVAL));
        }
        iommu.can_map(part, self.kernel.behaviours()).map_err(EnterError::Iommu)?;
        self.injector.allocate(Allocation::PageTables).map_err(EnterError::NoMemory)
    }

    /// Names the domain that does not take `iova`.
    fn refused_by_iommu(&self, iova: IovaRange, errno: Errno) -> IoasMapError {
        let behaviours = self.kernel.behaviours();
        let refuses = |domain: &&Domain| domain.iommu.can_map(iova, behaviours).is_err();
        match self.domains.iter().find(refuses).or(self.domains.first()) {
            Some(domain) => IoasMapError::Iommu {
                iova,
                driver: domain.iommu.driver(),
                group: domain.groups.first().map_or(GroupId::Numbered(0), |group| group.id),
                aperture: domain.iommu.aperture(),
                errno,
            },
            // Without a domain none can have refused.
            None => IoasMapError::NoAccess { iova },
        }
    }
}
