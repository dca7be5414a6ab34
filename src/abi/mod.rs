// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The byte door: VFIO ioctls as a program issues them (`include/uapi/linux/vfio.h`).
//!
//! [`Container::ioctl`], [`OpenGroup::ioctl`], [`Iommufd::ioctl`] and [`OpenCdev::ioctl`] take a command
//! and an argument, read the request from the caller's memory, hand it to the typed door, and write back
//! what the kernel writes back. This layer knows bytes, sizes and their order; every other rule is behind
//! the typed door.
//!
//! [`Bytes`] is for whoever adds another door of this kind, as `vfio-sim` does for devices.
//!
//! Sizes and offsets are held against `vfio-bindings` when this crate is compiled.
//!
//! [`Container::ioctl`]: crate::Container::ioctl
//! [`Iommufd::ioctl`]: crate::Iommufd::ioctl
//! [`OpenCdev::ioctl`]: crate::OpenCdev::ioctl
//! [`OpenGroup::ioctl`]: crate::OpenGroup::ioctl

mod argument;
mod cdev;
mod chain;
mod compat;
mod container;
mod group;
mod hwpt;
mod iommufd;
mod layout;
mod native;

pub use argument::{ArgumentError, Bytes, behind};
pub use cdev::CdevIoctlError;
pub use compat::CompatIoctlError;
pub use container::ContainerIoctlError;
pub use group::{GroupIoctlError, GroupReply};
pub use iommufd::IommufdIoctlError;
pub use layout::command;

use crate::errno::Errno;
use crate::kernel::Kernel;

/// An operation on an open VFIO file that is not an ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// `read` or `write`.
    ReadOrWrite,
    /// `mmap`.
    Mmap,
    /// `lseek`.
    Seek,
}

/// What every container answers to an operation that is not an ioctl (spec 1.1).
pub fn container_file_errno(kernel: &Kernel, operation: FileOperation) -> Errno {
    match operation {
        FileOperation::Mmap if kernel.behaviours().mmap_is_enodev => Errno::ENODEV,
        FileOperation::ReadOrWrite | FileOperation::Mmap => Errno::EINVAL,
        FileOperation::Seek => Errno::ESPIPE,
    }
}
