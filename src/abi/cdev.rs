// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ioctls of a device opened by its own node, as far as they are about iommufd
//! (`vfio_df_ioctl_bind_iommufd` and its neighbours in `drivers/vfio/device_cdev.c`; spec 9).

use super::argument::{ArgumentError, Bytes, behind};
use super::layout::{attach_iommufd, bind_iommufd, command};
use crate::cdev::{AttachCdevError, BindCdevError, NotBound, OpenCdev};
use crate::errno::Errno;
use crate::group::FdTarget;
use crate::process::Process;

/// Why an ioctl of such a device failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdevIoctlError {
    /// The command is none of those about iommufd, and the device is bound: what else it knows, its driver
    /// decides. ENOTTY.
    #[error("command {command:#x} is for the device's driver")]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// The device is not bound. EINVAL, whatever the command.
    #[error(transparent)]
    NotBound(#[from] NotBound),
    /// The argument cannot be read or written, or is too short.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A flag that is not known, or that asks for a token. EINVAL.
    #[error("flags {flags:#x} has bits that are not known")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
    },
    /// A flag that asks for an address space of a process of the device (PASID). EOPNOTSUPP.
    #[error("flags {flags:#x} ask for a PASID, which the device does not have")]
    NoPasid {
        /// The flags given.
        flags: u32,
    },
    /// BIND_IOMMUFD was refused.
    #[error(transparent)]
    Bind(#[from] BindCdevError),
    /// ATTACH_IOMMUFD_PT was refused.
    #[error(transparent)]
    Attach(#[from] AttachCdevError),
}

impl CdevIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownCommand { .. } => Errno::ENOTTY,
            Self::NotBound(error) => error.errno(),
            Self::Argument(error) => error.errno(),
            Self::UnknownFlags { .. } => Errno::EINVAL,
            Self::NoPasid { .. } => Errno::EOPNOTSUPP,
            Self::Bind(error) => error.errno(),
            Self::Attach(error) => error.errno(),
        }
    }
}

impl OpenCdev {
    /// An ioctl on the device's file descriptor: `command` as the kernel gets it, and the address of the
    /// argument in the caller's memory. `resolve` says what a file descriptor of the caller refers to.
    ///
    /// Once the device is bound, a command that is not about iommufd is
    /// [`CdevIoctlError::UnknownCommand`]: it is for the device's driver.
    pub fn ioctl(
        &self,
        caller: &Process,
        command: u32,
        arg: u64,
        resolve: impl FnOnce(i32) -> FdTarget,
    ) -> Result<i32, CdevIoctlError> {
        if command == command::DEVICE_BIND_IOMMUFD {
            return self.ioctl_bind(caller, arg, resolve).map(|()| 0);
        }
        self.check_bound()?;
        match command {
            command::DEVICE_ATTACH_IOMMUFD_PT => self.ioctl_attach(caller, arg)?,
            command::DEVICE_DETACH_IOMMUFD_PT => {
                let memory = caller.memory();
                let request = Bytes::<{ attach_iommufd::SIZE_TO_DETACH }>::read_sized(memory, arg)?;
                check_flags(request.u32_at(attach_iommufd::FLAGS))?;
                self.detach()?;
            }
            _ => return Err(CdevIoctlError::UnknownCommand { command }),
        }
        Ok(0)
    }

    fn ioctl_bind(
        &self,
        caller: &Process,
        arg: u64,
        resolve: impl FnOnce(i32) -> FdTarget,
    ) -> Result<(), CdevIoctlError> {
        let memory = caller.memory();
        let request = Bytes::<{ bind_iommufd::SIZE }>::read_sized(memory, arg)?;
        let flags = request.u32_at(bind_iommufd::FLAGS);
        if flags != 0 {
            return Err(CdevIoctlError::UnknownFlags { flags });
        }
        let fd = request.u32_at(bind_iommufd::IOMMUFD).cast_signed();
        let device = self.bind_fd(fd, resolve(fd))?;
        let at = behind(arg, bind_iommufd::DEVICE);
        let written = memory.write(at, &device.to_le_bytes());
        Ok(written.inspect_err(|_| self.unbind()).map_err(ArgumentError::Fault)?)
    }

    fn ioctl_attach(&self, caller: &Process, arg: u64) -> Result<(), CdevIoctlError> {
        let memory = caller.memory();
        let request = Bytes::<{ attach_iommufd::SIZE }>::read_sized(memory, arg)?;
        check_flags(request.u32_at(attach_iommufd::FLAGS))?;
        let attached = self.attach(request.u32_at(attach_iommufd::OBJECT))?;
        let at = behind(arg, attach_iommufd::OBJECT);
        let undo = |_: &_| {
            // It is bound, or it could not have been attached.
            let _ = self.detach();
        };
        let written = memory.write(at, &attached.to_le_bytes());
        Ok(written.inspect_err(undo).map_err(ArgumentError::Fault)?)
    }
}

/// One flag is known, and means something that is not here.
fn check_flags(flags: u32) -> Result<(), CdevIoctlError> {
    const PASID: u32 = 1;
    match flags {
        0 => Ok(()),
        PASID => Err(CdevIoctlError::NoPasid { flags }),
        _ => Err(CdevIoctlError::UnknownFlags { flags }),
    }
}
