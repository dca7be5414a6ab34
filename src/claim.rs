// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who owns the DMA of a group: the claim of a container or an iommufd (spec 2.4 step 5).
//!
//! From 5.19 a group that joins a container is claimed (`iommu_group_claim_dma_owner` in
//! `drivers/iommu/iommu.c`): none of its devices may do DMA for the kernel or, from 6.6, for the
//! firmware. Before, only opening a device asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Another container, or an iommufd, owns the group's DMA (from 5.19). EPERM.
    #[error(
        "the DMA of group {group} belongs to another container or iommufd; \
         close the devices that are open there"
    )]
    Owned {
        /// The group.
        group: GroupId,
    },
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
            Self::MixedKinds | Self::Owned { .. } | Self::KernelOwned { .. } => Errno::EPERM,
            Self::DirectRegion { errno, .. } => *errno,
            Self::Attach { error, .. } => error.errno(),
        }
    }
}

/// Who has claimed a group, and how many times over. Nothing else happens under its lock.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Option<(usize, u32)>>);

impl Claims {
    pub(crate) fn is_claimed(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(usize, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group's DMA, claimed; given back when it is dropped. A group without an IOMMU has none to claim.
#[derive(Debug)]
pub(crate) struct Claim {
    group: Arc<Group>,
}

impl Claim {
    /// Claims a group for `owner`, who may have claimed it before (from 5.19):
    /// `iommu_group_claim_dma_owner`, `iommu_device_claim_dma_owner`.
    pub(crate) fn take(
        group: &Arc<Group>,
        owner: usize,
        behaviours: &Behaviours,
    ) -> Result<Self, AddGroupError> {
        if group.iommu().is_none() {
            return Ok(Self { group: Arc::clone(group) });
        }
        let mut claims = group.claims.lock();
        let count = match *claims {
            Some((by, count)) if by == owner => count,
            Some(_) => return Err(AddGroupError::Owned { group: group.id }),
            None => 0,
        };
        if count == 0 {
            check_claim(group, behaviours)?;
        }
        *claims = Some((owner, count + 1));
        drop(claims);
        Ok(Self { group: Arc::clone(group) })
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.group.claims.lock();
        *claims = claims.and_then(|(owner, count)| (count > 1).then(|| (owner, count - 1)));
    }
}

fn check_claim(group: &Group, behaviours: &Behaviours) -> Result<(), AddGroupError> {
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
