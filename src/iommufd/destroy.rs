// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `IOMMU_DESTROY` (`iommufd_destroy` in `drivers/iommu/iommufd/main.c`): address spaces and domains that
//! nobody uses. Devices, and domains that the program did not ask for, go by themselves.

use super::Iommufd;
use super::objects::Object;
use crate::errno::Errno;

/// Why an object cannot be destroyed: one variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestroyError {
    /// The iommufd has no such object. ENOENT.
    #[error("the iommufd has no object {id}")]
    NoSuchObject {
        /// The number given.
        id: u32,
    },
    /// Something uses the object. EBUSY.
    #[error("object {id} is in use: {advice}")]
    InUse {
        /// The number given.
        id: u32,
        /// What it is in use by, and what to do.
        advice: &'static str,
    },
}

impl DestroyError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchObject { .. } => Errno::ENOENT,
            Self::InUse { .. } => Errno::EBUSY,
        }
    }
}

impl Iommufd {
    /// `IOMMU_DESTROY`: destroys an address space that nothing uses, with its mappings, or a domain made by
    /// [`Self::hwpt_alloc`] that no device is attached to. Nothing else can be destroyed.
    pub fn destroy(&self, id: u32) -> Result<(), DestroyError> {
        let mut state = self.context.lock();
        let objects = &mut state.objects;
        let in_use = |advice| Err(DestroyError::InUse { id, advice });
        let of_ioas = match objects.get(id).ok_or(DestroyError::NoSuchObject { id })? {
            Object::Ioas(ioas) if ioas.is_used() => {
                return in_use("devices are attached to it, or page tables translate by it");
            }
            Object::Ioas(_) => None,
            Object::Domain { ioas } => Some(*ioas),
            Object::Device(_) => return in_use("close the device, and it goes by itself"),
        };
        if let Some(ioas) = of_ioas.and_then(|ioas| objects.ioas_mut(ioas)) {
            if ioas.domain(id).is_some_and(|domain| domain.automatic) {
                return in_use("close or detach its devices, and it goes by itself");
            }
            if ioas.domain(id).is_some_and(|domain| !domain.groups.is_empty()) {
                return in_use("detach its devices first, or attach them elsewhere");
            }
            ioas.remove_domain(id);
        }
        let gone = objects.remove(id);
        state.compat = state.compat.filter(|compat| *compat != id);
        drop(state);
        // What it owns (processes, their memory) is not ours to run under a lock.
        drop(gone);
        Ok(())
    }
}
