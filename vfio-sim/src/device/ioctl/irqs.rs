// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SET_IRQS in bytes (`vfio_pci_ioctl_set_irqs`, `vfio_set_irqs_validate_and_prepare`).

use vfio_type1::Memory;
use vfio_type1::abi::{ArgumentError, Bytes, behind};

use super::DeviceIoctlError;
use super::layout::irq_set;
use crate::device::interrupts::IrqIndex;
use crate::device::irq_error::IrqError;
use crate::device::pci_device::PciDevice;
use crate::device::set_irqs::{Action, Data, Resolve, SetIrqs};

impl PciDevice {
    pub(super) fn ioctl_set_irqs(
        &self,
        memory: &dyn Memory,
        arg: u64,
        resolve: Resolve<'_>,
    ) -> Result<(), DeviceIoctlError> {
        let header = Header::read(memory, arg)?;
        let index = header.check_index()?;
        self.check_irqs(index, header.start, header.count)?;
        let data = header.read_data(memory, arg)?;
        let request = SetIrqs {
            flags: header.flags,
            index,
            action: header.action(),
            start: header.start as usize,
            count: header.count as usize,
            data,
        };
        Ok(self.apply_irqs(&request, resolve)?)
    }
}

/// `struct vfio_irq_set` without its data.
struct Header {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

impl Header {
    fn read(memory: &dyn Memory, arg: u64) -> Result<Self, ArgumentError> {
        let bytes = Bytes::<{ irq_set::SIZE }>::read_sized(memory, arg)?;
        Ok(Self {
            argsz: bytes.argsz(),
            flags: bytes.u32_at(irq_set::FLAGS),
            index: bytes.u32_at(irq_set::INDEX),
            start: bytes.u32_at(irq_set::START),
            count: bytes.u32_at(irq_set::COUNT),
        })
    }

    fn check_index(&self) -> Result<IrqIndex, IrqError> {
        let (index, start, count) = (self.index, self.start, self.count);
        let index = IrqIndex::from_number(index).ok_or(IrqError::UnknownIndex { index })?;
        if count >= u32::MAX - start {
            return Err(IrqError::Wraps { start, count });
        }
        let known = irq_set::DATA_MASK | irq_set::ACTION_MASK;
        match self.flags & !known {
            0 => Ok(index),
            flags => Err(IrqError::UnknownFlags { flags, known }),
        }
    }

    fn action(&self) -> Option<Action> {
        match self.flags & irq_set::ACTION_MASK {
            irq_set::MASK => Some(Action::Mask),
            irq_set::UNMASK => Some(Action::Unmask),
            irq_set::TRIGGER => Some(Action::Trigger),
            _ => None,
        }
    }

    /// Reads the data. There are no more vectors than a device has, so they are few.
    fn read_data(&self, memory: &dyn Memory, arg: u64) -> Result<Data, DeviceIoctlError> {
        let size = match self.flags & irq_set::DATA_MASK {
            irq_set::DATA_NONE => return Ok(Data::None),
            irq_set::DATA_BOOL => 1,
            irq_set::DATA_EVENTFD => 4,
            _ => return Err(IrqError::DataKind { flags: self.flags }.into()),
        };
        let (argsz, count) = (self.argsz, self.count);
        let needed = irq_set::SIZE + size * count as usize;
        if (argsz as usize) < needed {
            return Err(IrqError::DataTooShort { argsz, count, needed }.into());
        }
        let mut bytes = vec![0; needed - irq_set::SIZE];
        let at = behind(arg, irq_set::SIZE);
        memory.read(at, &mut bytes).map_err(ArgumentError::Fault)?;
        if size == 1 {
            return Ok(Data::Bools(bytes.iter().map(|byte| *byte != 0).collect()));
        }
        let (fds, _) = bytes.as_chunks::<4>();
        Ok(Data::EventFds(fds.iter().map(|fd| i32::from_le_bytes(*fd)).collect()))
    }
}
