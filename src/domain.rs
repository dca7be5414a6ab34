// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The seam to IOMMU hardware: what type1 asks of the IOMMU driver behind a group.
//!
//! In Linux that is `struct iommu_ops` and `struct iommu_domain` (`include/linux/iommu.h`). Here it
//! is the trait [`Iommu`], with one plain implementation, [`FixedIommu`], that states the answers.
//! Mappings themselves live in the container's table, so a domain here holds none.

use std::fmt;

use crate::errno::Errno;
use crate::kernel::Behaviours;
use crate::page_size::PageSizes;
use crate::range::IovaRange;

/// The IOMMU that a group sits behind.
///
/// It is asked for facts and for consent, and keeps no state: a container that is refused something
/// halfway does not undo what it asked before. It is asked with the container locked, so an
/// implementation must not call back.
pub trait Iommu: fmt::Debug + Send + Sync {
    /// The driver. Groups share a domain only under one driver (spec 3.10).
    fn driver(&self) -> IommuDriver;

    /// The addresses a domain can translate, inclusive.
    fn aperture(&self) -> IovaRange;

    /// The page sizes a domain can map.
    fn page_sizes(&self) -> PageSizes;

    /// Whether a domain enforces cache coherency (`VFIO_DMA_CC_IOMMU`).
    fn enforces_coherency(&self) -> bool;

    /// Whether MSIs of the group's devices are remapped, so that no device can forge another's.
    fn isolates_msi(&self) -> bool;

    /// Whether a paging domain can be made for the group. The errno is the driver's.
    fn can_make_domain(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether the domain can be a nested one (type 6, up to 6.12). The errno is the driver's.
    fn can_nest(&self, behaviours: &Behaviours) -> Result<(), Errno> {
        self.driver().can_nest(behaviours)
    }

    /// Whether the group can share the domain that `owner`, an IOMMU of the same driver and
    /// coherency, made for another group. If not, it gets its own.
    ///
    /// As a rule an IOMMU takes a domain that is no wider than it can translate.
    fn can_share_domain_of(&self, owner: &dyn Iommu) -> bool {
        self.aperture().contains_range(&owner.aperture())
    }

    /// Whether a mapping of `iova` can be entered into the domain. The errno is the driver's.
    ///
    /// Kernels with a valid IOVA list ask only for ranges inside the aperture, unless mappings of
    /// an emulated group are replayed (spec 3.11).
    fn can_map(&self, iova: IovaRange, behaviours: &Behaviours) -> Result<(), Errno> {
        if !self.page_sizes().smallest().is_some_and(|page| iova.is_aligned(page)) {
            return Err(Errno::EINVAL);
        }
        if !self.aperture().contains_range(&iova) {
            return Err(self.driver().beyond_aperture(behaviours));
        }
        Ok(())
    }
}

/// The IOMMU drivers whose behaviour differs where type1 can see it, and the others by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IommuDriver {
    /// Intel VT-d: refuses groups with firmware-owned memory in kernels up to 6.5.
    IntelVtd,
    /// AMD-Vi.
    AmdVi,
    /// Arm SMMUv3.
    SmmuV3,
    /// Arm SMMUv1 and v2.
    SmmuV2,
    /// virtio-iommu.
    Virtio,
    /// Any other driver, by its name.
    Other(&'static str),
}

impl IommuDriver {
    /// Whether the driver itself refuses to hand over a device that the firmware still uses by DMA
    /// (a locked RMRR). Only VT-d does; from 6.6 the core does it for all (spec 2.4).
    pub fn refuses_direct_regions(self) -> bool {
        self == Self::IntelVtd
    }

    /// What the driver answers when it shall map addresses that a domain cannot translate.
    fn beyond_aperture(self, behaviours: &Behaviours) -> Errno {
        match self {
            Self::IntelVtd | Self::AmdVi if !behaviours.shared_page_tables => Errno::EFAULT,
            Self::IntelVtd | Self::AmdVi | Self::SmmuV3 | Self::SmmuV2 => Errno::ERANGE,
            Self::Virtio | Self::Other(_) => Errno::EINVAL,
        }
    }

    /// What the driver answers when a domain shall be a nested one (spec 1.4): the SMMUs could, VT-d
    /// could with hardware that is not modelled, the others do not know it.
    fn can_nest(self, behaviours: &Behaviours) -> Result<(), Errno> {
        match self {
            Self::SmmuV3 | Self::SmmuV2 if behaviours.smmu_nesting_is_eperm => Err(Errno::EPERM),
            Self::SmmuV3 | Self::SmmuV2 => Ok(()),
            Self::IntelVtd if behaviours.vtd_nesting_is_enodev => Err(Errno::ENODEV),
            Self::IntelVtd | Self::AmdVi | Self::Virtio | Self::Other(_) => Err(Errno::EINVAL),
        }
    }
}

impl fmt::Display for IommuDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IntelVtd => "Intel VT-d",
            Self::AmdVi => "AMD-Vi",
            Self::SmmuV3 => "SMMUv3",
            Self::SmmuV2 => "SMMUv2",
            Self::Virtio => "virtio-iommu",
            Self::Other(name) => name,
        })
    }
}

/// An IOMMU whose answers are plain values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedIommu {
    /// The driver.
    pub driver: IommuDriver,
    /// The addresses a domain can translate, inclusive.
    pub aperture: IovaRange,
    /// The page sizes a domain can map.
    pub page_sizes: PageSizes,
    /// Whether a domain enforces cache coherency.
    pub coherent: bool,
    /// Whether MSIs are isolated.
    pub isolated_msi: bool,
}

impl Iommu for FixedIommu {
    fn driver(&self) -> IommuDriver {
        self.driver
    }

    fn aperture(&self) -> IovaRange {
        self.aperture
    }

    fn page_sizes(&self) -> PageSizes {
        self.page_sizes
    }

    fn enforces_coherency(&self) -> bool {
        self.coherent
    }

    fn isolates_msi(&self) -> bool {
        self.isolated_msi
    }
}
