// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's byte door: VFIO ioctls on a device's file (`vfio_pci_core_ioctl` and
//! `vfio_pci_core_ioctl_feature` in the kernel's `drivers/vfio/pci/vfio_pci_core.c`).
//!
//! This file owns the commands and their errors, `info` what is told of a device, `irqs` SET_IRQS; what
//! that does to the interrupts is in `set_irqs`. Where a region lies in the file is here too: programs mmap and
//! pread it there.

mod info;
mod irqs;
mod layout;

use vfio_type1::abi::{ArgumentError, Bytes};
use vfio_type1::{Errno, Memory, Process};

use crate::device::irq_error::IrqError;
use crate::device::listener::Listener;
use crate::device::pci_device::PciDevice;
use crate::device::set_irqs::NotEventFd;
use layout::{feature, hot_reset};

pub use info::{region_at, region_offset};
pub use layout::command;

/// Why a device's ioctl failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIoctlError {
    /// The command is none of a device's, or is not modelled. ENOTTY.
    #[error("a device knows no command {command:#x}")]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// The argument cannot be read or written, or is too short.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// GET_REGION_INFO: the device does not have the region. EINVAL.
    #[error("the device has no region {index}; 0 to 5 are BARs, 6 the ROM, 7 configuration space")]
    NoRegion {
        /// The index given.
        index: u32,
    },
    /// GET_IRQ_INFO: the device cannot have interrupts of this index. EINVAL.
    #[error("the device has no interrupts of index {index}; ERR 3 is for PCI Express devices")]
    NoIrqs {
        /// The index given.
        index: u32,
    },
    /// SET_IRQS was refused.
    #[error(transparent)]
    Irqs(#[from] IrqError),
    /// RESET: the device cannot be reset by itself. EINVAL.
    #[error("the device has no function level reset; GET_INFO says so by its flags")]
    CannotReset,
    /// PCI_HOT_RESET: no flags are defined. EINVAL.
    #[error("hot reset takes no flags, and these are {flags:#x}")]
    HotResetFlags {
        /// The flags given.
        flags: u32,
    },
    /// Neither the slot nor the bus of the device can be reset. ENODEV.
    #[error("simulated slots and buses cannot be reset; use VFIO_DEVICE_RESET")]
    NoHotReset,
    /// FEATURE: flags that are not defined, or GET and SET together without PROBE. EINVAL.
    #[error(
        "flags {flags:#x} must be a feature with one of GET {:#x} and SET {:#x}, or PROBE {:#x}",
        feature::GET,
        feature::SET,
        feature::PROBE
    )]
    FeatureFlags {
        /// The flags given.
        flags: u32,
    },
    /// FEATURE: the device does not have it. ENOTTY.
    #[error("the device does not have feature {number}")]
    NoFeature {
        /// The feature's number.
        number: u32,
    },
}

impl DeviceIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownCommand { .. } | Self::NoFeature { .. } => Errno::ENOTTY,
            Self::Argument(error) => error.errno(),
            Self::Irqs(error) => error.errno(),
            Self::NoRegion { .. }
            | Self::NoIrqs { .. }
            | Self::CannotReset
            | Self::HotResetFlags { .. }
            | Self::FeatureFlags { .. } => Errno::EINVAL,
            Self::NoHotReset => Errno::ENODEV,
        }
    }
}

impl PciDevice {
    /// An ioctl on the device's file descriptor: `command` as the kernel gets it, and the argument, an
    /// address in the caller's memory. `resolve` gives a duplicate of an eventfd of the caller. Returns what
    /// the ioctl returns.
    pub fn ioctl<L: Into<Listener>>(
        &self,
        caller: &Process,
        command: u32,
        arg: u64,
        resolve: impl Fn(i32) -> Result<L, NotEventFd>,
    ) -> Result<i32, DeviceIoctlError> {
        let memory = caller.memory();
        match command {
            command::GET_INFO => self.ioctl_info(memory, arg)?,
            command::GET_REGION_INFO => self.ioctl_region_info(memory, arg)?,
            command::GET_IRQ_INFO => self.ioctl_irq_info(memory, arg)?,
            command::SET_IRQS => {
                self.ioctl_set_irqs(memory, arg, &|fd| resolve(fd).map(Into::into))?;
            }
            command::RESET => self.ioctl_reset()?,
            command::GET_PCI_HOT_RESET_INFO => no_hot_reset(memory, arg, |_| Ok(()))?,
            command::PCI_HOT_RESET => no_hot_reset(memory, arg, |flags| match flags {
                0 => Ok(()),
                flags => Err(DeviceIoctlError::HotResetFlags { flags }),
            })?,
            command::FEATURE if self.kernel().behaviours().device_features => {
                no_feature(memory, arg)?;
            }
            _ => return Err(DeviceIoctlError::UnknownCommand { command }),
        }
        Ok(0)
    }

    fn ioctl_reset(&self) -> Result<(), DeviceIoctlError> {
        if !self.can_be_reset() {
            return Err(DeviceIoctlError::CannotReset);
        }
        self.reset();
        Ok(())
    }
}

/// Both hot reset commands end where the kernel looks for a slot or a bus that can be reset.
fn no_hot_reset(
    memory: &dyn Memory,
    arg: u64,
    check_flags: impl FnOnce(u32) -> Result<(), DeviceIoctlError>,
) -> Result<(), DeviceIoctlError> {
    let request = Bytes::<{ hot_reset::SIZE }>::read_sized(memory, arg)?;
    check_flags(request.u32_at(hot_reset::FLAGS))?;
    Err(DeviceIoctlError::NoHotReset)
}

/// No feature is there: no migration, no tokens, no low power states.
fn no_feature(memory: &dyn Memory, arg: u64) -> Result<(), DeviceIoctlError> {
    let request = Bytes::<{ feature::SIZE }>::read_sized(memory, arg)?;
    let flags = request.u32_at(feature::FLAGS);
    let unknown = flags & !(feature::NUMBER | feature::GET | feature::SET | feature::PROBE);
    let both = flags & feature::GET != 0 && flags & feature::SET != 0;
    if unknown != 0 || (both && flags & feature::PROBE == 0) {
        return Err(DeviceIoctlError::FeatureFlags { flags });
    }
    Err(DeviceIoctlError::NoFeature { number: flags & feature::NUMBER })
}
