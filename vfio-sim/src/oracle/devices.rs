// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sections 2.6 and 7.6: open devices, and what the drivers of emulated ones do.

use vfio_type1::{Access, Binding, Errno};

use super::files::Driver;
use super::pin::check_limit;
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::type1::{Type1, Version};
use super::{Oracle, Process};

/// What an open device's driver does when a mapping goes whose pages are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnmap {
    /// It lets go of each page once.
    LetsGo,
    /// It does nothing, which is a bug.
    Ignores,
}

#[derive(Debug)]
pub(super) struct Device {
    /// What was told to the caller when it was opened.
    number: usize,
    callback: Option<OnUnmap>,
}

impl Oracle {
    /// 2.6. The number is the caller's name for the open device.
    pub fn open_device(
        &mut self,
        group: usize,
        caller: usize,
        name: &str,
        number: usize,
    ) -> Answer<()> {
        let early = self.host.release.from(5, 19);
        if early {
            self.check_name(group, name)?;
        }
        // 4.
        let Some(container) = self.files[group].container else {
            return refuse("NoContainer", Errno::EINVAL);
        };
        if matches!(self.containers[container].driver, Driver::Unset) {
            return refuse("NoDriver", Errno::EINVAL);
        }
        let facts = &self.host.groups[group];
        if !early && facts.kernel_owned() {
            return refuse("NotViable", Errno::EINVAL);
        }
        // 5.
        if facts.is_noiommu() && !self.processes[caller].sys_rawio {
            return refuse("NeedsRawIo", Errno::EPERM);
        }
        if !early {
            self.check_name(group, name)?;
        }
        self.files[group].devices.push(Device { number, callback: None });
        Ok(())
    }

    /// 2.6 step 2.
    fn check_name(&self, group: usize, name: &str) -> Answer<()> {
        let known =
            |(known, binding): &(String, Binding)| known == name && *binding == Binding::Vfio;
        if self.host.groups[group].devices.iter().any(known) {
            return Ok(());
        }
        refuse("NoDevice", Errno::ENODEV)
    }

    /// An open device's driver asks to be told when mappings go.
    pub fn on_unmap(&mut self, group: usize, number: usize, callback: OnUnmap) {
        for device in &mut self.files[group].devices {
            if device.number == number {
                device.callback = Some(callback);
            }
        }
    }

    /// Closes a device (2.7).
    pub fn close_device(&mut self, group: usize, number: usize) {
        self.files[group].devices.retain(|device| device.number != number);
        self.leave_if_closed(group);
    }

    /// Who is told when mappings of a container go.
    pub(super) fn callbacks(&self, container: usize) -> Vec<OnUnmap> {
        let files = self.files.iter().filter(|file| file.container == Some(container));
        files.flat_map(|file| &file.devices).filter_map(|device| device.callback).collect()
    }

    /// 7.6, pin_pages, for an open device.
    pub fn pin_pages(
        &mut self,
        group: usize,
        number: usize,
        iova: u64,
        pages: u64,
        access: Access,
    ) -> Answer<()> {
        let device = self.files[group].devices.iter().find(|device| device.number == number);
        let told = device.is_some_and(|device| device.callback.is_some());
        if !matches!(self.host.groups[group].kind, vfio_type1::GroupKind::Emulated) {
            return refuse("NotEmulated", Errno::EINVAL);
        }
        if pages == 0 {
            return refuse("NoPages", Errno::EINVAL);
        }
        if !told {
            return refuse("NoCallback", Errno::EINVAL);
        }
        if pages > 512 {
            return refuse_with("TooMany", Errno::E2BIG, [pages]);
        }
        let wraps = if self.host.release.from(6, 18) { Errno::EOVERFLOW } else { Errno::EINVAL };
        let (processes, type1) = self.driver_of(group)?;
        if type1.version == Version::V1 {
            return refuse("V1", Errno::EACCES);
        }
        if iova.checked_add(pages * 4096 - 1).is_none() {
            return refuse("Wraps", wraps);
        }
        type1.pin_pages(processes, iova, pages, access)
    }

    /// 7.6, unpin_pages.
    pub fn unpin_pages(&mut self, group: usize, iova: u64, pages: u64) {
        let Ok((processes, type1)) = self.driver_of(group) else { return };
        for page in 0..if pages > 512 { 0 } else { pages } {
            let Some(here) = iova.checked_add(page * 4096) else { return };
            let Some(at) = type1.mapping_at(here) else { return };
            type1.unpin_page(processes, at, here);
        }
    }

    /// 7.6, dma_rw: writes `bytes`.
    pub fn dma_write(&mut self, group: usize, iova: u64, bytes: &[u8]) -> Answer<()> {
        self.dma_rw(group, iova, &mut bytes.to_vec(), true)
    }

    /// 7.6, dma_rw: reads `length` bytes.
    pub fn dma_read(&mut self, group: usize, iova: u64, length: u64) -> Answer<Vec<u8>> {
        let mut bytes: Vec<u8> = (0..length).map(|_| 0).collect();
        self.dma_rw(group, iova, &mut bytes, false)?;
        Ok(bytes)
    }

    /// 7.6: "no driver".
    fn driver_of(&mut self, group: usize) -> Answer<(&mut [Process], &mut Type1)> {
        let container = self.files[group].container;
        let type1 = container.and_then(|container| self.type1(container).ok());
        let no_driver = || Refusal::new("NoDriver", Errno::ENOTTY);
        type1.map(|(_, processes, type1)| (processes, type1)).ok_or_else(no_driver)
    }

    fn dma_rw(&mut self, group: usize, iova: u64, bytes: &mut [u8], write: bool) -> Answer<()> {
        if bytes.is_empty() {
            return refuse("Empty", Errno::EINVAL);
        }
        let (processes, type1) = self.driver_of(group)?;
        if type1.invalid() > 0 {
            return refuse_with("VaddrsInvalid", Errno::EBUSY, [type1.invalid()]);
        }
        type1.dma_rw(processes, iova, bytes, write)
    }
}

impl Type1 {
    fn mapping_at(&self, iova: u64) -> Option<usize> {
        self.mappings.iter().position(|mapping| mapping.iova.holds(iova))
    }

    /// 7.6, pin_pages, page by page.
    fn pin_pages(
        &mut self,
        processes: &mut [Process],
        iova: u64,
        pages: u64,
        access: Access,
    ) -> Answer<()> {
        if self.invalid() > 0 {
            return refuse_with("VaddrsInvalid", Errno::EBUSY, [self.invalid()]);
        }
        let page = self.page_or_cpu();
        let mut done = Vec::new();
        for here in (0..pages).map(|number| iova + number * 4096) {
            if let Err(refusal) = self.pin_page(processes, here, access, page) {
                // What was pinned by this call is released. It stays dirty.
                for here in done {
                    if let Some(at) = self.mapping_at(here) {
                        self.unpin_page(processes, at, here);
                    }
                }
                return Err(refusal);
            }
            done.push(here);
        }
        Ok(())
    }

    /// Pins one page, and sets its dirty bit if it was not pinned before.
    fn pin_page(
        &mut self,
        processes: &mut [Process],
        here: u64,
        access: Access,
        page: u64,
    ) -> Answer<()> {
        let Some(at) = self.mapping_at(here) else {
            return refuse_with("NotMapped", Errno::EINVAL, [here]);
        };
        let without_iommu = self.domains.is_empty();
        let mapping = &mut self.mappings[at];
        let reads = mapping.access.reads() || !access.reads();
        let writes = mapping.access.writes() || !access.writes();
        if !reads || !writes {
            return refuse_with("NoAccess", Errno::EPERM, [here]);
        }
        if let Some(count) = mapping.pins.get_mut(&here) {
            *count += 1;
            return Ok(());
        }
        let owner = &processes[mapping.owner];
        if owner.exited {
            return refuse_with("Pin/NoProcess", Errno::ENODEV, [here]);
        }
        let vaddr = mapping.vaddr + (here - mapping.iova.first);
        // 5.2: pinned as the mapping's flags say, not as the device asks.
        if owner.memory.area(vaddr, mapping.access.writes()).is_none() {
            return refuse_with("Pin/Fault", Errno::EFAULT, [here]);
        }
        if without_iommu {
            check_limit(owner, mapping.exempt, 1).map_err(|mut error| {
                error.numbers = vec![here];
                error.inside("Pin")
            })?;
            let charged = mapping.charged + 1;
            mapping.charge(processes, charged);
        }
        mapping.pins.insert(here, 1);
        mapping.mark_dirty(here, here, page);
        Ok(())
    }

    /// Drops one reference to a page.
    pub(super) fn unpin_page(&mut self, processes: &mut [Process], at: usize, here: u64) {
        let without_iommu = self.domains.is_empty();
        let mapping = &mut self.mappings[at];
        let Some(count) = mapping.pins.get_mut(&here) else { return };
        *count -= 1;
        if *count == 0 {
            mapping.pins.remove(&here);
            if without_iommu {
                let charged = mapping.charged - 1;
                mapping.charge(processes, charged);
            }
        }
    }

    /// 7.6, dma_rw, mapping by mapping.
    fn dma_rw(
        &mut self,
        processes: &mut [Process],
        mut iova: u64,
        bytes: &mut [u8],
        write: bool,
    ) -> Answer<()> {
        let page = self.page_or_cpu();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(at) = self.mapping_at(iova) else {
                return refuse_with("NotMapped", Errno::EINVAL, [iova]);
            };
            let mapping = &mut self.mappings[at];
            if !mapping.access.reads() || (write && !mapping.access.writes()) {
                return refuse_with("NoAccess", Errno::EPERM, [iova]);
            }
            let owner = &mut processes[mapping.owner];
            if owner.exited {
                return refuse_with("NoProcess", Errno::EPERM, [iova]);
            }
            let in_mapping = (mapping.iova.last - iova).saturating_add(1);
            let length = usize::try_from(in_mapping).unwrap_or(usize::MAX).min(rest.len());
            let (chunk, behind) = rest.split_at_mut(length);
            let last = iova + (chunk.iter().map(|_| 1).sum::<u64>() - 1);
            let vaddr = mapping.vaddr + (iova - mapping.iova.first);
            let copied = if write {
                owner.memory.write(vaddr, chunk)
            } else {
                let read = owner.memory.read(vaddr, last - iova + 1);
                read.map(|read| chunk.copy_from_slice(&read))
            };
            if copied.is_err() {
                return refuse_with("Fault", Errno::EFAULT, [iova]);
            }
            if write {
                mapping.mark_dirty(iova, last, page);
            }
            iova = last.wrapping_add(1);
            rest = behind;
        }
        Ok(())
    }
}
