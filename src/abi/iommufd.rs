// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The iommufd's ioctls (`iommufd_fops_ioctl` in `drivers/iommu/iommufd/main.c`,
//! `include/uapi/linux/iommufd.h`): which commands there are, and how long their structures are.
//!
//! A structure begins with its size as the program knows it. A longer one than the kernel knows must end
//! in zeroes, a shorter one is filled up with them, down to what the first version had.

use std::sync::Arc;

use super::argument::{ArgumentError, Bytes, behind};
use super::compat::CompatIoctlError;
use super::layout::command;
use crate::addr::{Iova, Vaddr};
use crate::errno::Errno;
use crate::iommufd::{
    AllowIovasError, DestroyError, HwptAllocError, Iommufd, NativeMapError, NativeUnmapError,
    NoCompatIoas, NoSuchDevice, NoSuchIoas, OptionError,
};
use crate::memory::Memory;
use crate::process::Process;

/// Why an iommufd's ioctl failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IommufdIoctlError {
    /// One of type1's commands failed, or a command that iommufd does not know either.
    #[error(transparent)]
    Compat(#[from] CompatIoctlError),
    /// The command is none of iommufd's, though its number could be. ENOTTY.
    #[error("an iommufd knows no command {command:#x}")]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// A command of iommufd's that is not here. EOPNOTSUPP.
    #[error("iommufd's command {command:#x}{} is not modelled", command::in_brackets(*.command))]
    NotModelled {
        /// The command given.
        command: u32,
    },
    /// The argument, or a part of it, cannot be read or written. EFAULT.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The structure is shorter than it ever was. EINVAL.
    #[error("size is {size}; set it to {minimum} or more")]
    TooShort {
        /// The size given, in bytes.
        size: u32,
        /// The least that is accepted, in bytes.
        minimum: usize,
    },
    /// The structure is longer than this kernel knows it, and does not end in zeroes. E2BIG.
    #[error("of {size} bytes this kernel knows {known}; the others must be 0")]
    UnknownTail {
        /// The size given, in bytes.
        size: u32,
        /// What the kernel knows, in bytes.
        known: usize,
    },
    /// A field has a value that means nothing: flags, a reserved field, an operation, an option.
    /// EOPNOTSUPP.
    #[error("{field} is {value:#x}, which iommufd does not know")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u64,
    },
    /// There is no such address space. ENOENT.
    #[error(transparent)]
    NoSuchIoas(#[from] NoSuchIoas),
    /// There is no compatibility address space. ENODEV.
    #[error(transparent)]
    NoCompatIoas(#[from] NoCompatIoas),
    /// DESTROY was refused.
    #[error(transparent)]
    Destroy(#[from] DestroyError),
    /// IOAS_IOVA_RANGES: there are more ranges than fit. EMSGSIZE; those that fit have been written, and
    /// how many there are.
    #[error("there are {ranges} ranges, and room for {room}; ask again with that many")]
    MoreRanges {
        /// How many there are.
        ranges: u32,
        /// How many fit.
        room: u32,
    },
    /// IOAS_ALLOW_IOVAS was refused.
    #[error(transparent)]
    Allow(#[from] AllowIovasError),
    /// IOAS_MAP was refused.
    #[error(transparent)]
    Map(#[from] NativeMapError),
    /// IOAS_MAP was done, but its result could not be written. EFAULT.
    #[error("iova {iova} is mapped, but the result could not be written: {error}")]
    MapResult {
        /// Where.
        iova: Iova,
        /// What went wrong.
        error: ArgumentError,
    },
    /// IOAS_UNMAP was refused.
    #[error(transparent)]
    Unmap(#[from] NativeUnmapError),
    /// IOAS_UNMAP was done, but its result could not be written. EFAULT.
    #[error("{unmapped:#x} bytes were unmapped, but the result could not be written: {error}")]
    UnmapResult {
        /// Bytes of mappings removed.
        unmapped: u64,
        /// What went wrong.
        error: ArgumentError,
    },
    /// OPTION was refused.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// HWPT_ALLOC was refused.
    #[error(transparent)]
    Hwpt(#[from] HwptAllocError),
    /// GET_HW_INFO: there is no such device. ENOENT.
    #[error(transparent)]
    NoSuchDevice(#[from] NoSuchDevice),
}

impl IommufdIoctlError {
    /// Whether the program asks for what a kernel may have, and this crate has not.
    pub fn is_not_modelled(&self) -> bool {
        matches!(self, Self::NotModelled { .. } | Self::Hwpt(HwptAllocError::NotModelled { .. }))
    }

    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Compat(error) => error.errno(),
            Self::UnknownCommand { .. } => Errno::ENOTTY,
            Self::NotModelled { .. } | Self::UnknownValue { .. } => Errno::EOPNOTSUPP,
            Self::Argument(error)
            | Self::MapResult { error, .. }
            | Self::UnmapResult { error, .. } => error.errno(),
            Self::TooShort { .. } => Errno::EINVAL,
            Self::UnknownTail { .. } => Errno::E2BIG,
            Self::NoSuchIoas(error) => error.errno(),
            Self::NoCompatIoas(error) => error.errno(),
            Self::Destroy(error) => error.errno(),
            Self::MoreRanges { .. } => Errno::EMSGSIZE,
            Self::Allow(error) => error.errno(),
            Self::Map(error) => error.errno(),
            Self::Unmap(error) => error.errno(),
            Self::Option(error) => error.errno(),
            Self::Hwpt(error) => error.errno(),
            Self::NoSuchDevice(error) => error.errno(),
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
        // The kernel looks at the low byte of the command, which is its number.
        let last = self.kernel().behaviours().last_iommufd_command.unwrap_or_default();
        let numbers = command::IOMMU_DESTROY & 0xff..=last & 0xff;
        if !numbers.contains(&(command & 0xff)) {
            return Ok(self.ioctl_compat(caller, command, arg)?);
        }
        let size = Bytes::<4>::read(caller.memory(), arg, 0)?.u32_at(0);
        if !(command::IOMMU_DESTROY..=last).contains(&command) {
            return Err(IommufdIoctlError::UnknownCommand { command });
        }
        let argument = Argument { memory: caller.memory(), at: arg, size };
        self.ioctl_native(caller, command, &argument).map(|()| 0)
    }
}

/// An argument in the caller's memory, of the size that it states.
pub(super) struct Argument<'a> {
    pub(super) memory: &'a dyn Memory,
    pub(super) at: u64,
    /// In bytes.
    size: u32,
}

/// How much of a long argument is looked at, or written, together.
pub(super) const CHUNK: usize = 4096;

impl Argument<'_> {
    /// The structure, of which the kernel knows `N` bytes, and at least `minimum` must be there
    /// (`copy_struct_from_user`).
    pub(super) fn read<const N: usize>(
        &self,
        minimum: usize,
    ) -> Result<Bytes<N>, IommufdIoctlError> {
        let size = self.size;
        if (size as usize) < minimum {
            return Err(IommufdIoctlError::TooShort { size, minimum });
        }
        self.check_tail(N)?;
        let mut bytes = [0; N];
        let given = &mut bytes[..N.min(size as usize)];
        self.memory.read(Vaddr(self.at), given).map_err(ArgumentError::Fault)?;
        Ok(Bytes::from(bytes))
    }

    /// What lies behind the bytes that are known must be zero.
    fn check_tail(&self, known: usize) -> Result<(), IommufdIoctlError> {
        let size = self.size as usize;
        for from in (known..size).step_by(CHUNK) {
            let mut tail = [0; CHUNK];
            let tail = &mut tail[..CHUNK.min(size - from)];
            let read = self.memory.read(behind(self.at, from), tail);
            // What stands before a fault counts first.
            if tail.iter().any(|byte| *byte != 0) {
                return Err(IommufdIoctlError::UnknownTail { size: self.size, known });
            }
            read.map_err(ArgumentError::Fault)?;
        }
        Ok(())
    }

    /// Writes the structure back, as far as the caller has it.
    pub(super) fn write<const N: usize>(&self, bytes: &Bytes<N>) -> Result<(), ArgumentError> {
        let bytes = &bytes.as_slice()[..N.min(self.size as usize)];
        self.memory.write(Vaddr(self.at), bytes).map_err(ArgumentError::Fault)
    }
}
