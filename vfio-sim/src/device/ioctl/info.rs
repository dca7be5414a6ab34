// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told of a device, its regions and its interrupts (`vfio_pci_ioctl_get_info`,
//! `vfio_pci_ioctl_get_region_info`, `vfio_pci_ioctl_get_irq_info`).

use vfio_type1::abi::{ArgumentError, Bytes, behind};
use vfio_type1::{DeviceInfoSize, Memory};

use super::DeviceIoctlError;
use super::layout::{device_info, irq_info, region_info};
use crate::device::interrupts::IrqIndex;
use crate::device::model::BarContent;
use crate::device::pci_device::PciDevice;
use crate::device::region::CONFIG_REGION;

/// BARs, ROM, configuration space, VGA.
const REGIONS: u32 = 9;
/// A region has so many bits of the offsets in a device's file.
const OFFSET_BITS: u32 = 40;

/// Where a region begins in the file of a device, in bytes (`VFIO_PCI_INDEX_TO_OFFSET`).
pub fn region_offset(region: u8) -> u64 {
    u64::from(region) << OFFSET_BITS
}

/// The region that an offset in the file of a device lies in, and the offset in the region.
pub fn region_at(offset: u64) -> Option<(u8, u64)> {
    let region = u8::try_from(offset >> OFFSET_BITS).ok()?;
    Some((region, offset & ((1 << OFFSET_BITS) - 1)))
}

impl PciDevice {
    pub(super) fn ioctl_info(&self, memory: &dyn Memory, arg: u64) -> Result<(), ArgumentError> {
        let argsz = Bytes::<{ device_info::MINIMUM }>::read_sized(memory, arg)?.argsz();
        let mut answer = Bytes::<{ device_info::SIZE }>::zeroed();
        let reset = if self.can_be_reset() { device_info::FLAG_RESET } else { 0 };
        answer.set_u32(0, argsz);
        answer.set_u32(device_info::FLAGS, device_info::FLAG_PCI | reset);
        answer.set_u32(device_info::REGIONS, REGIONS);
        answer.set_u32(device_info::IRQS, IrqIndex::ALL.map(|_| 1).iter().sum());
        let room = argsz as usize;
        let written = match self.kernel().behaviours().device_info_size {
            DeviceInfoSize::WithCapOffset if room >= device_info::WITHOUT_PAD => {
                device_info::WITHOUT_PAD
            }
            DeviceInfoSize::Short | DeviceInfoSize::WithCapOffset => device_info::MINIMUM,
            DeviceInfoSize::Room => room,
        };
        answer.write_first(written, memory, arg)
    }

    pub(super) fn ioctl_region_info(
        &self,
        memory: &dyn Memory,
        arg: u64,
    ) -> Result<(), DeviceIoctlError> {
        let mut bytes = Bytes::<{ region_info::SIZE }>::read_sized(memory, arg)?;
        let index = bytes.u32_at(region_info::INDEX);
        let region = u8::try_from(index).ok().filter(|region| *region <= CONFIG_REGION);
        let region = region.ok_or(DeviceIoctlError::NoRegion { index })?;
        let size = self.region_size(region);
        let mut flags = 0;
        if size != 0 {
            flags |= region_info::FLAG_READ | region_info::FLAG_WRITE;
        }
        if self.can_mmap(region) {
            flags |= region_info::FLAG_MMAP;
            if self.has_msix_table(region) {
                flags |= region_info::FLAG_CAPS;
                add_msix_mappable(&mut bytes, memory, arg)?;
            }
        }
        bytes.set_u32(region_info::FLAGS, flags);
        bytes.set_u64(region_info::LENGTH, size);
        bytes.set_u64(region_info::OFFSET, region_offset(region));
        Ok(bytes.write(memory, arg)?)
    }

    fn has_msix_table(&self, region: u8) -> bool {
        let function = self.function();
        let mut bars = function.bars.iter().filter(|bar| bar.index == region);
        function.msix_vectors != 0 && bars.any(|bar| bar.content == BarContent::MsixTable)
    }

    pub(super) fn ioctl_irq_info(
        &self,
        memory: &dyn Memory,
        arg: u64,
    ) -> Result<(), DeviceIoctlError> {
        let mut bytes = Bytes::<{ irq_info::SIZE }>::read_sized(memory, arg)?;
        let number = bytes.u32_at(irq_info::INDEX);
        let index = IrqIndex::from_number(number);
        let index = index.filter(|index| *index != IrqIndex::Error || self.function().express);
        let index = index.ok_or(DeviceIoctlError::NoIrqs { index: number })?;
        let resizable = index == IrqIndex::Msix && self.kernel().behaviours().dynamic_msix;
        let flags = match index {
            IrqIndex::Line => irq_info::FLAG_MASKABLE | irq_info::FLAG_AUTOMASKED,
            _ if resizable => 0,
            _ => irq_info::FLAG_NORESIZE,
        };
        bytes.set_u32(irq_info::FLAGS, flags | irq_info::FLAG_EVENTFD);
        bytes.set_u32(irq_info::COUNT, u32::from(self.irq_count(index)));
        Ok(bytes.write(memory, arg)?)
    }
}

/// Writes the capability behind the structure if there is room, and asks for room if not.
fn add_msix_mappable(
    bytes: &mut Bytes<{ region_info::SIZE }>,
    memory: &dyn Memory,
    arg: u64,
) -> Result<(), ArgumentError> {
    if bytes.argsz() < region_info::WITH_CAPABILITY {
        bytes.set_u32(0, region_info::WITH_CAPABILITY);
        bytes.set_u32(region_info::CAP_OFFSET, 0);
        return Ok(());
    }
    let mut capability = Bytes::<{ region_info::CAPABILITY }>::zeroed();
    capability.set_u32(0, region_info::MSIX_MAPPABLE | region_info::VERSION << 16);
    capability.write(memory, behind(arg, region_info::SIZE).0)?;
    bytes.set_u32(region_info::CAP_OFFSET, region_info::CAPABILITY_AT);
    Ok(())
}
