// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a device cannot be attached to an address space, or no domain be made for it.

use super::ioas::Unaligned;
use super::pin;
use crate::domain::IommuDriver;
use crate::errno::Errno;
use crate::host::GroupId;
use crate::inject::OutOfMemory;
use crate::obstacle::Culprit;
use crate::page_size::{PageSize, PageSizes};
use crate::pin::PinError;
use crate::range::IovaRange;

/// Why a device cannot be attached to an address space: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoasAttachError {
    /// The iommufd has no such object. ENOENT.
    #[error("the iommufd has no object {id}")]
    NoSuchObject {
        /// The number given.
        id: u32,
    },
    /// The object is neither an address space nor a domain; for emulated devices, no address space. EINVAL,
    /// for emulated devices ENOENT.
    #[error("object {id} is no address space; allocate one with IOMMU_IOAS_ALLOC")]
    NotAnIoas {
        /// The number given.
        id: u32,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The iommufd has no compatibility address space. ENODEV.
    #[error("the iommufd has no compatibility address space; set one with IOMMU_VFIO_IOAS")]
    NoCompatIoas,
    /// Another device of the group is attached elsewhere. EINVAL.
    #[error("group {group} is attached to object {other}, and all its devices share that")]
    GroupElsewhere {
        /// The group.
        group: GroupId,
        /// The domain that it is attached to.
        other: u32,
    },
    /// The group's IOMMU cannot use the domain that is asked for. EINVAL.
    #[error(
        "the {driver} of group {group} cannot use the domain {domain}; attach the address space"
    )]
    Incompatible {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The domain.
        domain: u32,
    },
    /// The IOMMU driver cannot make a domain. Its errno.
    #[error("the {driver} cannot make a domain for group {group}: {errno}")]
    NoDomain {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The driver's errno.
        errno: Errno,
    },
    /// A mapping overlaps a reserved region of the device. EADDRINUSE.
    #[error("mapping {mapping} overlaps {culprit}; unmap it before attaching the device")]
    ReservedMapped {
        /// The region and who reserves it.
        culprit: Culprit,
        /// The mapping.
        mapping: IovaRange,
    },
    /// A reserved region of the device overlaps a range that is to be kept free. EADDRINUSE.
    #[error("{culprit} overlaps {allowed}, which IOMMU_IOAS_ALLOW_IOVAS keeps free")]
    ReservedAllowed {
        /// The region and who reserves it.
        culprit: Culprit,
        /// The range to be kept free.
        allowed: IovaRange,
    },
    /// The IOMMU's smallest page is larger than the CPU's, or it has none. EINVAL.
    #[error(
        "the {driver} of group {group} maps pages of {page_sizes} only, none as small as {page}"
    )]
    PageTooLarge {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The page sizes a domain can map.
        page_sizes: PageSizes,
        /// The CPU's page.
        page: PageSize,
    },
    /// A mapping is not aligned to the page of the IOMMU, or for an emulated device to that of the CPU.
    /// EADDRINUSE.
    #[error("mapping {mapping} is not aligned to {page}; unmap it before attaching the device")]
    MappingMisaligned {
        /// The mapping.
        mapping: IovaRange,
        /// What it should be aligned to.
        page: PageSize,
    },
    /// A mapping lies outside the aperture of the group's domain. EADDRINUSE.
    #[error(
        "mapping {mapping} lies outside {aperture}, all that the {driver} of group {group} \
         translates; unmap it before attaching the device"
    )]
    ApertureMapped {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// What its domain translates, inclusive.
        aperture: IovaRange,
        /// The mapping.
        mapping: IovaRange,
    },
    /// A range that is to be kept free reaches outside the aperture of the group's domain. EADDRINUSE.
    #[error(
        "{allowed}, which IOMMU_IOAS_ALLOW_IOVAS keeps free, reaches outside {aperture}, all that \
         the {driver} of group {group} translates"
    )]
    ApertureAllowed {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// What its domain translates, inclusive.
        aperture: IovaRange,
        /// The range to be kept free.
        allowed: IovaRange,
    },
    /// A mapping cannot be pinned for the group's domain. EFAULT, ENOMEM.
    #[error("mapping {mapping} cannot be pinned for group {group}: {error}")]
    Pin {
        /// The group.
        group: GroupId,
        /// The mapping.
        mapping: IovaRange,
        /// What is wrong.
        error: PinError,
    },
    /// The group's IOMMU driver refuses an existing mapping. Its errno; EINVAL for one that lets devices
    /// neither read nor write.
    #[error("the {driver} of group {group} refuses the mapping {mapping}: {errno}")]
    Iommu {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The mapping.
        mapping: IovaRange,
        /// The driver's errno.
        errno: Errno,
    },
    /// There is no memory for page tables. ENOMEM, on demand only.
    #[error("{0}")]
    NoMemory(OutOfMemory),
}

impl IoasAttachError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchObject { .. } => Errno::ENOENT,
            Self::NoCompatIoas => Errno::ENODEV,
            Self::NotAnIoas { errno, .. }
            | Self::NoDomain { errno, .. }
            | Self::Iommu { errno, .. } => *errno,
            Self::GroupElsewhere { .. } | Self::Incompatible { .. } | Self::PageTooLarge { .. } => {
                Errno::EINVAL
            }
            Self::ReservedMapped { .. }
            | Self::ReservedAllowed { .. }
            | Self::MappingMisaligned { .. }
            | Self::ApertureMapped { .. }
            | Self::ApertureAllowed { .. } => Errno::EADDRINUSE,
            Self::Pin { error, .. } => pin::errno(error),
            Self::NoMemory(_) => Errno::ENOMEM,
        }
    }
}

impl From<Unaligned> for IoasAttachError {
    fn from(Unaligned { mapping, page }: Unaligned) -> Self {
        Self::MappingMisaligned { mapping, page }
    }
}
