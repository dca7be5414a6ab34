// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a container takes a group: the claim of its DMA (spec 2.4 step 5).
//!
//! From 5.19 a group that joins a container is claimed (`iommu_group_claim_dma_owner` in
//! `drivers/iommu/iommu.c`): none of its devices may do DMA for the kernel or, from 6.6, for the
//! firmware. Before, only opening a device asks.

use crate::attach::AttachError;
use crate::errno::Errno;
use crate::host::{Group, GroupId};
use crate::kernel::{Behaviours, DirectRegions, Ownership};
use crate::reserved::ReservedRegion;

/// Why a container does not take a group; see [`crate::SetContainerError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddGroupError {
    /// The container's groups are of the other kind. EPERM.
    #[error("groups with and without an IOMMU cannot share a container; use another one")]
    MixedKinds,
    /// A device of the group belongs to a kernel driver (from 5.19). EPERM.
    #[error(
        "{device} of group {group} is bound to the kernel driver {driver}; \
         bind every device of the group to vfio-pci, or to none"
    )]
    KernelOwned {
        /// The group.
        group: GroupId,
        /// The device.
        device: String,
        /// Its driver.
        driver: String,
    },
    /// The firmware keeps using memory by DMA of a device of the group. EINVAL from 6.6, EPERM
    /// on VT-d from 5.19 to 6.5.
    #[error(
        "the firmware does DMA to the {region} through {device}, so the kernel keeps group {group} \
         for itself; look for a firmware setting that ends it, or use another device"
    )]
    DirectRegion {
        /// The group.
        group: GroupId,
        /// The device.
        device: String,
        /// The region.
        region: ReservedRegion,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The container has a driver, and the group cannot be attached to it.
    #[error("group {group} cannot be attached: {error}")]
    Attach {
        /// The group.
        group: GroupId,
        /// Why.
        error: AttachError,
    },
}

impl AddGroupError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::MixedKinds | Self::KernelOwned { .. } => Errno::EPERM,
            Self::DirectRegion { errno, .. } => *errno,
            Self::Attach { error, .. } => error.errno(),
        }
    }
}

/// The claim of a group's DMA (from 5.19): `iommu_group_claim_dma_owner`.
pub(crate) fn check_claim(group: &Group, behaviours: &Behaviours) -> Result<(), AddGroupError> {
    let Some(iommu) = group.iommu() else {
        return Ok(());
    };
    if behaviours.ownership == Ownership::Viability {
        return Ok(());
    }
    if let Some((device, driver)) = group.kernel_owned() {
        return Err(AddGroupError::KernelOwned {
            group: group.id,
            device: device.to_owned(),
            driver: driver.to_owned(),
        });
    }
    let refused = match behaviours.direct_regions {
        DirectRegions::RefuseClaim => Some(Errno::EINVAL),
        DirectRegions::VtdRefusesClaim => {
            iommu.driver().refuses_direct_regions().then_some(Errno::EPERM)
        }
        DirectRegions::VtdRefusesAttach => None,
    };
    match (&group.locked_region, refused) {
        (Some((region, device)), Some(errno)) => Err(AddGroupError::DirectRegion {
            group: group.id,
            device: device.clone(),
            region: *region,
            errno,
        }),
        _ => Ok(()),
    }
}
