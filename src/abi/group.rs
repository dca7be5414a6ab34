// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The group's ioctls (`vfio_group_fops_unl_ioctl` in the kernel; spec 2.2 to 2.6).

use super::argument::{ArgumentError, Bytes, behind};
use super::layout::{command, group_status};
use crate::device::OpenDevice;
use crate::errno::Errno;
use crate::group::{FdTarget, OpenGroup, SetContainerError, UnsetContainerError};
use crate::memory::Memory;
use crate::open_device::OpenDeviceError;
use crate::process::Process;

/// What a group's ioctl returns when it succeeds.
#[derive(Debug)]
pub enum GroupReply {
    /// It is done; the ioctl returns 0.
    Done,
    /// An open device, for which the caller makes a file descriptor.
    Device(OpenDevice),
}

/// Why a group's ioctl failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupIoctlError {
    /// The command is none of a group's. ENOTTY.
    #[error("a group knows no command {command:#x}")]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// The argument cannot be read or written, or is too short.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The device name has no end within a page. EINVAL.
    #[error("the device name is longer than {longest} bytes")]
    NameTooLong {
        /// The longest name, with its NUL: a page.
        longest: u64,
    },
    /// SET_CONTAINER was refused.
    #[error(transparent)]
    SetContainer(#[from] SetContainerError),
    /// UNSET_CONTAINER was refused.
    #[error(transparent)]
    UnsetContainer(#[from] UnsetContainerError),
    /// GET_DEVICE_FD was refused.
    #[error(transparent)]
    OpenDevice(#[from] OpenDeviceError),
}

impl GroupIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownCommand { .. } => Errno::ENOTTY,
            Self::Argument(error) => error.errno(),
            Self::NameTooLong { .. } => Errno::EINVAL,
            Self::SetContainer(error) => error.errno(),
            Self::UnsetContainer(error) => error.errno(),
            Self::OpenDevice(error) => error.errno(),
        }
    }
}

impl OpenGroup {
    /// An ioctl on the group's file descriptor: `command` as the kernel gets it, and the argument,
    /// an address in the caller's memory. `resolve` says what a file descriptor of the caller
    /// refers to.
    pub fn ioctl(
        &self,
        caller: &Process,
        command: u32,
        arg: u64,
        resolve: impl FnOnce(i32) -> FdTarget,
    ) -> Result<GroupReply, GroupIoctlError> {
        let memory = caller.memory();
        match command {
            command::GROUP_GET_STATUS => self.ioctl_status(memory, arg)?,
            command::GROUP_SET_CONTAINER => {
                let fd = Bytes::<4>::read(memory, arg, 0)?.u32_at(0).cast_signed();
                self.set_container_fd(fd, resolve(fd), caller)?;
            }
            command::GROUP_UNSET_CONTAINER => self.unset_container()?,
            command::GROUP_GET_DEVICE_FD => {
                let name = read_name(memory, arg, self.longest_name())?;
                return Ok(GroupReply::Device(self.open_device(&name, caller)?));
            }
            _ => return Err(GroupIoctlError::UnknownCommand { command }),
        }
        Ok(GroupReply::Done)
    }

    fn ioctl_status(&self, memory: &dyn Memory, arg: u64) -> Result<(), ArgumentError> {
        let mut bytes = Bytes::<{ group_status::SIZE }>::read_sized(memory, arg)?;
        let status = self.status();
        let mut flags = 0;
        if status.viable {
            flags |= group_status::VIABLE;
        }
        if status.container_set {
            flags |= group_status::CONTAINER_SET;
        }
        bytes.set_u32(group_status::FLAGS, flags);
        bytes.write(memory, arg)
    }
}

/// Reads a NUL-terminated name. Bytes that are no text cannot name a device, so they are replaced.
fn read_name(memory: &dyn Memory, arg: u64, longest: u64) -> Result<String, GroupIoctlError> {
    let mut name = Vec::new();
    while (name.len() as u64) < longest {
        let mut byte = [0];
        memory.read(behind(arg, name.len()), &mut byte).map_err(ArgumentError::Fault)?;
        if byte == [0] {
            return Ok(String::from_utf8_lossy(&name).into_owned());
        }
        name.extend(byte);
    }
    Err(GroupIoctlError::NameTooLong { longest })
}
