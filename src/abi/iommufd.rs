// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The iommufd's ioctls (`iommufd_fops_ioctl` in `drivers/iommu/iommufd/main.c`; spec 9).

use std::sync::Arc;

use super::compat::CompatIoctlError;
use crate::errno::Errno;
use crate::iommufd::Iommufd;
use crate::process::Process;

/// Why an iommufd's ioctl failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IommufdIoctlError {
    /// One of type1's commands failed.
    #[error(transparent)]
    Compat(#[from] CompatIoctlError),
}

impl IommufdIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Compat(error) => error.errno(),
        }
    }
}

impl Iommufd {
    /// An ioctl on the iommufd's file descriptor: `command` as the kernel gets it, and the argument, a
    /// number or an address in the caller's memory. Returns what the ioctl returns.
    pub fn ioctl(
        &self,
        caller: &Arc<Process>,
        command: u32,
        arg: u64,
    ) -> Result<i32, IommufdIoctlError> {
        Ok(self.ioctl_compat(caller, command, arg)?)
    }
}
