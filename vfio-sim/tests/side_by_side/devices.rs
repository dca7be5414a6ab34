// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What drivers of emulated devices do, and what an administrator sets, on both.

use vfio_sim::oracle::OnUnmap;
use vfio_type1::Iova;

use super::operations::{Device, Extent, Place, Setting};
use super::pair::{Difference, Pair, agree};

impl Pair {
    pub(crate) fn device(&mut self, operation: &Device) -> Difference {
        match *operation {
            Device::OnUnmap { device, does } => {
                self.on_unmap(device, does);
                Ok(())
            }
            Device::Pin { device, place, pages, access } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                let (opened, iova) = (&self.devices[at], iova & !0xfff);
                let emulator = opened.device.pin_pages(Iova(iova), pages, access);
                let (group, number) = (opened.group, opened.number);
                let oracle = self.oracle.pin_pages(group, number, iova, pages, access);
                agree("pin_pages", emulator, oracle)
            }
            Device::Unpin { device, place, pages } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                let (opened, iova) = (&self.devices[at], iova & !0xfff);
                opened.device.unpin_pages(Iova(iova), pages);
                self.oracle.unpin_pages(opened.group, iova, pages);
                Ok(())
            }
            Device::DmaRead { device, place, length } => self.dma_read(device, place, length),
            Device::DmaWrite { device, place, length } => self.dma_write(device, place, length),
        }
    }

    fn dma_read(&mut self, device: usize, place: Place, length: u64) -> Difference {
        let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
        // What lies behind the top of the space is not in the document.
        let length = length.min(u64::MAX - iova);
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let opened = &self.devices[at];
        let emulator = opened.device.dma_read(Iova(iova), &mut bytes).map(|()| bytes);
        agree("dma_read", emulator, self.oracle.dma_read(opened.group, iova, length))
    }

    fn dma_write(&mut self, device: usize, place: Place, length: u64) -> Difference {
        let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
        let length = length.min(u64::MAX - iova);
        let bytes: Vec<u8> = (0..length).map(|byte| byte.to_le_bytes()[0] ^ 0x5a).collect();
        let opened = &self.devices[at];
        let emulator = opened.device.dma_write(Iova(iova), &bytes);
        agree("dma_write", emulator, self.oracle.dma_write(opened.group, iova, &bytes))
    }

    pub(crate) fn on_unmap(&mut self, device: usize, does: OnUnmap) {
        if self.devices.is_empty() {
            return;
        }
        let opened = &self.devices[device % self.devices.len()];
        opened.device.on_unmap(move |unpinner, iova| {
            if does == OnUnmap::LetsGo {
                unpinner.unpin(iova);
            }
        });
        self.oracle.on_unmap(opened.group, opened.number, does);
    }

    /// An open device, an emulated one if there is one, and an address for it.
    fn on_device(&mut self, device: usize, place: Place) -> Option<(usize, u64)> {
        let emulated = |at: &usize| self.emulated[self.devices[*at].group];
        let mut candidates: Vec<usize> = (0..self.devices.len()).filter(emulated).collect();
        if candidates.is_empty() && !place.free {
            candidates = (0..self.devices.len()).collect();
        }
        let at = *candidates.get(device % candidates.len().max(1))?;
        let mappings = self.mappings(0);
        if !place.free || mappings.is_empty() {
            return Some((at, self.range(0, place, Extent::Pages(1)).0));
        }
        let mapping = mappings[place.boundary % mappings.len()];
        let offset = place.pages.rem_euclid(8) * 0x1000 + place.bytes;
        Some((at, mapping.iova.first.wrapping_add_signed(offset)))
    }

    pub(crate) fn set(&mut self, setting: &Setting) {
        match *setting {
            Setting::Memlock { process, pages } => {
                self.processes[process].0.set_memlock(pages << 12 | 0xfff);
                self.oracle.set_memlock(process, pages << 12 | 0xfff);
            }
            Setting::IpcLock { process, has } => {
                self.processes[process].0.set_cap_ipc_lock(has);
                self.oracle.set_ipc_lock(process, has);
            }
            Setting::RawIo { process, has } => {
                self.processes[process].0.set_cap_sys_rawio(has);
                self.oracle.set_sys_rawio(process, has);
            }
            Setting::UnsafeInterrupts { allow } => {
                self.vfio.set_allow_unsafe_interrupts(allow);
                self.oracle.set_allow_unsafe_interrupts(allow);
            }
            Setting::NoIommuMode { enable } => {
                self.vfio.set_noiommu(enable);
                self.oracle.set_noiommu_mode(enable);
            }
            Setting::EntryLimit { mappings } => {
                self.vfio.set_dma_entry_limit(mappings);
                self.oracle.set_dma_entry_limit(mappings);
            }
            Setting::Exit => {
                self.processes[1].0.exit();
                self.oracle.exit(1);
                self.exited = true;
            }
        }
    }
}
