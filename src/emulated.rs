// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver of an emulated (mdev) device may do: pin pages, let go of them, copy
//! (`vfio_iommu_type1_pin_pages`, `_unpin_pages`, `_dma_rw` in `vfio_iommu_type1.c`; spec 7.6).
//!
//! Rules about the device itself (is it open, does it take unmap notifications) are in `device`.

use crate::addr::Iova;
use crate::errno::Errno;
use crate::host::GroupId;
use crate::inject::{Allocation, OutOfMemory};
use crate::iommufd::AccessError;
use crate::map::wrap_errno;
use crate::memory::{Access, Fault};
use crate::page_size::PageSize;
use crate::pin::{Charge, PinError, pin_only};
use crate::range::IovaRange;
use crate::type1::{Type1, Type1Version};

/// The most pages one pin request may name: a page of pointers.
pub const MAX_PIN_PAGES: u64 = 512;

/// Why pages could not be pinned for an emulated device: one variant per rule, in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinPagesError {
    /// The request names no page. EINVAL.
    #[error("no page is asked for")]
    NoPages,
    /// The device takes no unmap notifications. EINVAL.
    #[error("the device has no unmap callback; register one before pinning pages")]
    NoCallback,
    /// More than [`MAX_PIN_PAGES`] pages. E2BIG.
    #[error("{pages} pages are more than one request may pin ({MAX_PIN_PAGES})")]
    TooMany {
        /// Pages asked for.
        pages: u64,
    },
    /// The device's container has no IOMMU driver. ENOTTY.
    #[error("the container of the device has no IOMMU driver; set one first")]
    NoDriver,
    /// The group is not an emulated one. EINVAL: vfio-pci takes no unmap notifications.
    #[error("group {group} is behind an IOMMU; its devices do DMA by themselves")]
    NotEmulated {
        /// The group.
        group: GroupId,
    },
    /// The device is on an iommufd, which refuses. Its errno.
    #[error(transparent)]
    Iommufd(#[from] AccessError),
    /// The container is a v1 one. EACCES.
    #[error("a type1 v1 container pins no pages for devices; set the IOMMU to type1v2 (3)")]
    V1,
    /// The range wraps around. EOVERFLOW from 6.18, EINVAL before.
    #[error("iova {iova} plus {pages} pages runs past the end of the 64-bit space")]
    Wraps {
        /// The address given.
        iova: Iova,
        /// Pages asked for.
        pages: u64,
        /// The kernel's errno.
        errno: Errno,
    },
    /// Mappings have lost their process address. EBUSY.
    #[error("mappings have lost their process address ({count}, by UNMAP flag VADDR)")]
    VaddrsInvalid {
        /// How many.
        count: u64,
    },
    /// Nothing is mapped at a page. EINVAL.
    #[error("no mapping holds the page at iova {iova}")]
    NotMapped {
        /// The page's first address.
        iova: Iova,
    },
    /// The mapping does not allow the access. EPERM.
    #[error("the page at iova {iova} is mapped {mapped}, and {wanted} access is asked for")]
    NoAccess {
        /// The page's first address.
        iova: Iova,
        /// What the mapping allows.
        mapped: Access,
        /// What is asked for.
        wanted: Access,
    },
    /// The page cannot be pinned. EFAULT, ENOMEM, ENODEV.
    #[error("the page at iova {iova}: {error}")]
    Pin {
        /// The page's first address.
        iova: Iova,
        /// What is wrong.
        error: PinError,
    },
    /// There is no memory to remember the page. ENOMEM, on demand only.
    #[error("the page at iova {iova}: {error}")]
    NoMemory {
        /// The page's first address.
        iova: Iova,
        /// What the memory was for.
        error: OutOfMemory,
    },
    /// The page is device memory, which has no page to pin. EINVAL.
    #[error("iova {iova} is mapped to device memory, which cannot be pinned")]
    DeviceMemory {
        /// The page's first address.
        iova: Iova,
    },
}

impl PinPagesError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::TooMany { .. } => Errno::E2BIG,
            Self::NoDriver => Errno::ENOTTY,
            Self::Iommufd(error) => error.errno(),
            Self::V1 => Errno::EACCES,
            Self::Wraps { errno, .. } => *errno,
            Self::VaddrsInvalid { .. } => Errno::EBUSY,
            Self::NoAccess { .. } => Errno::EPERM,
            Self::Pin { error, .. } => error.errno(),
            Self::NoMemory { .. } => Errno::ENOMEM,
            Self::NotEmulated { .. }
            | Self::NoPages
            | Self::NoCallback
            | Self::NotMapped { .. }
            | Self::DeviceMemory { .. } => Errno::EINVAL,
        }
    }
}

/// Why an emulated device could not copy: one variant per rule, in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaRwError {
    /// There is nothing to copy. EINVAL.
    #[error("no byte is to be copied")]
    Empty,
    /// The device's container has no type1 driver: it is a noiommu one. ENOTTY.
    #[error("the container of the device has no type1 driver, so there are no mappings")]
    NoDriver,
    /// The device is on an iommufd, which refuses. Its errno.
    #[error(transparent)]
    Iommufd(#[from] AccessError),
    /// Mappings have lost their process address. EBUSY.
    #[error("mappings have lost their process address ({count}, by UNMAP flag VADDR)")]
    VaddrsInvalid {
        /// How many.
        count: u64,
    },
    /// Nothing is mapped there. EINVAL; what lies below has been copied.
    #[error("no mapping holds iova {iova}")]
    NotMapped {
        /// The first address without a mapping.
        iova: Iova,
    },
    /// The mapping does not allow it: any access needs READ, writing needs WRITE too. EPERM.
    #[error("iova {iova} is mapped {mapped}; {}", if *.write { "writing needs both permissions" }
        else { "reading needs READ" })]
    NoAccess {
        /// The first address of the mapping that is in the way.
        iova: Iova,
        /// What it allows.
        mapped: Access,
        /// Whether the device wanted to write.
        write: bool,
    },
    /// The process that owns the memory has exited. EPERM.
    #[error("the process that owns the memory behind iova {iova} has exited")]
    NoProcess {
        /// The first address concerned.
        iova: Iova,
    },
    /// The process's memory is not there. EFAULT.
    #[error("iova {iova}: {fault}")]
    Fault {
        /// The first address concerned.
        iova: Iova,
        /// Where the memory failed.
        fault: Fault,
    },
}

impl DmaRwError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoDriver => Errno::ENOTTY,
            Self::Iommufd(error) => error.errno(),
            Self::VaddrsInvalid { .. } => Errno::EBUSY,
            Self::Empty | Self::NotMapped { .. } => Errno::EINVAL,
            Self::NoAccess { .. } | Self::NoProcess { .. } => Errno::EPERM,
            Self::Fault { .. } => Errno::EFAULT,
        }
    }
}

/// The bytes of one copy, in either direction.
#[derive(Debug)]
pub(crate) enum Transfer<'a> {
    /// Out of the process.
    Read(&'a mut [u8]),
    /// Into the process.
    Write(&'a [u8]),
}

impl Transfer<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Read(bytes) => bytes.len(),
            Self::Write(bytes) => bytes.len(),
        }
    }
}

impl Type1 {
    /// Pins `pages` pages' worth of addresses from `iova`. A refusal pins nothing.
    pub(crate) fn pin_pages(
        &mut self,
        iova: Iova,
        pages: u64,
        access: Access,
    ) -> Result<(), PinPagesError> {
        let page = self.cpu_page();
        if self.version == Type1Version::V1 {
            return Err(PinPagesError::V1);
        }
        let range = pages_from(iova, pages, page, wrap_errno(self.behaviours()))?;
        if self.invalid_vaddrs != 0 {
            return Err(PinPagesError::VaddrsInvalid { count: self.invalid_vaddrs });
        }
        for done in 0..pages {
            let at = Iova(range.first().0 + done * page.bytes());
            if let Err(error) = self.pin_page(at, access, page) {
                self.unpin_pages(range.first(), done);
                return Err(error);
            }
        }
        Ok(())
    }

    fn pin_page(&mut self, at: Iova, access: Access, page: PageSize) -> Result<(), PinPagesError> {
        // Behind an IOMMU the page is pinned and charged as part of its mapping.
        let charge_it = self.domains.is_empty();
        let bitmap_page = self.page();
        let mapping = self.mappings.containing(at);
        let mut mapping = mapping.ok_or(PinPagesError::NotMapped { iova: at })?;
        let first = mapping.iova.first();
        let allowed = (mapping.access.reads() || !access.reads())
            && (mapping.access.writes() || !access.writes());
        if !allowed {
            let mapped = mapping.access;
            return Err(PinPagesError::NoAccess { iova: at, mapped, wanted: access });
        }
        let extra = self.mappings.extra_mut(first);
        if let Some(count) = extra.and_then(|extra| extra.pins.get_mut(&at)) {
            *count += 1;
            return Ok(());
        }
        let last = Iova(at.0.saturating_add(page.bytes() - 1)).min(mapping.iova.last());
        let part = IovaRange::new(at, last).unwrap_or(mapping.iova);
        let charge = Charge { exempt: mapping.exempt || !charge_it, already: 0, page };
        let (owner, vaddrs) = (self.mappings.owner(mapping.owner), mapping.vaddrs_of(&part));
        let charged = pin_only(owner, vaddrs, mapping.access, charge, &self.injector)
            .map_err(|error| PinPagesError::Pin { iova: at, error })?;
        if charged == 0 {
            return Err(PinPagesError::DeviceMemory { iova: at });
        }
        self.injector
            .allocate(Allocation::PinnedPage)
            .map_err(|error| PinPagesError::NoMemory { iova: at, error })?;
        if charge_it {
            owner.lock_pages(1);
            mapping.locked_pages += 1;
            self.mappings.update(&mapping);
        }
        let extra = self.mappings.make_extra(first);
        extra.pins.insert(at, 1);
        extra.mark_dirty(&mapping.iova, &part, bitmap_page);
        Ok(())
    }

    /// Lets go of pages once. Stops at the first one without a mapping; pages that are not pinned
    /// are passed over.
    pub(crate) fn unpin_pages(&mut self, iova: Iova, pages: u64) {
        let page = self.cpu_page();
        let uncharge_it = self.domains.is_empty();
        let below_the_top =
            |index: u64| iova.0.checked_add(index.checked_mul(page.bytes())?).map(Iova);
        for at in (0..pages).map_while(below_the_top) {
            let Some(mut mapping) = self.mappings.containing(at) else {
                return;
            };
            let Some(extra) = self.mappings.extra_mut(mapping.iova.first()) else {
                continue;
            };
            let Some(count) = extra.pins.get_mut(&at) else {
                continue;
            };
            *count -= 1;
            if *count != 0 {
                continue;
            }
            extra.pins.remove(&at);
            if uncharge_it && mapping.locked_pages > 0 {
                self.mappings.owner(mapping.owner).uncharge(1);
                mapping.locked_pages -= 1;
                self.mappings.update(&mapping);
            }
        }
    }

    /// Lets go once of each page that is pinned in `range`.
    pub(crate) fn unpin_range(&mut self, range: &IovaRange) {
        let inside: Vec<Iova> = self
            .mappings
            .overlapping(range)
            .filter_map(|mapping| self.mappings.extra(mapping.iova.first()))
            .flat_map(|extra| extra.pins.keys().copied())
            .filter(|page| range.contains(*page))
            .collect();
        inside.into_iter().for_each(|page| self.unpin_pages(page, 1));
    }

    /// Copies between the device and the process, mapping by mapping.
    pub(crate) fn dma_rw(&mut self, iova: Iova, mut copy: Transfer<'_>) -> Result<(), DmaRwError> {
        if self.invalid_vaddrs != 0 {
            return Err(DmaRwError::VaddrsInvalid { count: self.invalid_vaddrs });
        }
        let mut done = 0;
        while done < copy.len() {
            let at = iova.0.checked_add(done as u64).map(Iova);
            let at = at.ok_or(DmaRwError::NotMapped { iova })?;
            done += self.copy_chunk(at, &mut copy, done)?;
        }
        Ok(())
    }

    /// Copies up to the end of the mapping that holds `at`, all of it or nothing.
    fn copy_chunk(
        &mut self,
        at: Iova,
        copy: &mut Transfer<'_>,
        done: usize,
    ) -> Result<usize, DmaRwError> {
        let page = self.page();
        let mapping = self.mappings.containing(at);
        let mapping = mapping.ok_or(DmaRwError::NotMapped { iova: at })?;
        let owner = self.mappings.owner(mapping.owner);
        let write = matches!(copy, Transfer::Write(_));
        if !mapping.access.reads() || (write && !mapping.access.writes()) {
            return Err(DmaRwError::NoAccess { iova: at, mapped: mapping.access, write });
        }
        if !owner.is_alive() {
            return Err(DmaRwError::NoProcess { iova: at });
        }
        let left = usize::try_from(mapping.iova.last().0 - at.0).unwrap_or(usize::MAX);
        let size = left.saturating_add(1).min(copy.len() - done);
        let last = Iova(at.0.saturating_add(size as u64 - 1));
        let part = IovaRange::new(at, last).unwrap_or(mapping.iova);
        let vaddr = mapping.vaddrs_of(&part).first();
        let memory = owner.memory();
        match copy {
            Transfer::Read(bytes) => memory.read(vaddr, &mut bytes[done..done + size]),
            Transfer::Write(bytes) => memory.write(vaddr, &bytes[done..done + size]),
        }
        .map_err(|fault| DmaRwError::Fault { iova: at, fault })?;
        if write && let Some(extra) = self.mappings.extra_mut(mapping.iova.first()) {
            extra.mark_dirty(&mapping.iova, &part, page);
        }
        Ok(size)
    }
}

/// The addresses asked for. The kernel does not round them to pages.
fn pages_from(
    iova: Iova,
    pages: u64,
    page: PageSize,
    errno: Errno,
) -> Result<IovaRange, PinPagesError> {
    let range = pages.checked_mul(page.bytes()).map(|size| IovaRange::from_size(iova, size));
    // It is not empty: a request of no pages is refused by the device.
    range.and_then(Result::ok).ok_or(PinPagesError::Wraps { iova, pages, errno })
}
