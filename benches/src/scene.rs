// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host with NICs behind VT-d, each in a group of its own, and all groups in one container.

use std::sync::Arc;

use vfio_type1::{
    Access, BusMaster, Container, DeviceDescription, Fault, FixedIommu, GroupDescription, GroupId,
    Iommu, IommuDriver, Iova, IovaRange, Kernel, MapDma, Memory, OpenGroup, PageSizes, PinFault,
    PinnedRun, Process, RegionKind, ReservedRegion, UnmapDma, Vaddr, VaddrRange, Vfio, extension,
};

use crate::pages::{Order, PAGE, vaddr};

/// Guest memory as a VMM has it: every page can be pinned and counts as locked, and there is no lock.
/// It reads as zeroes.
#[derive(Debug)]
pub struct GuestMemory;

/// The answer to `Memory::pin` that every page is there.
pub fn accept(pages: VaddrRange) -> PinnedRun {
    PinnedRun { last: pages.last(), charged: true }
}

impl Memory for GuestMemory {
    fn read(&self, _: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _: Vaddr, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn pin(&self, pages: VaddrRange, _: Access) -> Result<PinnedRun, PinFault> {
        Ok(accept(pages))
    }
}

/// The host, and a process with its container.
#[derive(Debug)]
pub struct Scene {
    /// The driver.
    pub vfio: Vfio,
    /// The container, of type1v2.
    pub container: Container,
    /// The process that maps.
    pub process: Arc<Process>,
    /// The groups in the container.
    pub groups: Vec<OpenGroup>,
}

impl Scene {
    /// A host with `nics` NICs, and nothing mapped.
    pub fn new(memory: Arc<dyn Memory>, nics: u32) -> Self {
        let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
        Self::with_regions(memory, &vec![vec![msi]; index(nics)])
    }

    /// A host with a NIC for each list of reserved regions, and nothing mapped.
    pub fn with_regions(memory: Arc<dyn Memory>, regions: &[Vec<ReservedRegion>]) -> Self {
        let iommu = iommu();
        let group = |(number, regions): (u32, &Vec<ReservedRegion>)| {
            let nic = DeviceDescription::new(name(number), regions.clone());
            GroupDescription::behind(Arc::clone(&iommu), number, [nic])
        };
        let groups = (0..).zip(regions).map(group);
        let vfio = Vfio::new(Kernel::NEWEST, groups).expect("each group is there once");
        let process = Process::new(memory);
        let container = vfio.open_container();
        let open = |number| vfio.open_group(GroupId::Numbered(number), &process);
        let groups = (0..).zip(regions).map(|(number, _)| open(number));
        let groups: Vec<OpenGroup> = groups.collect::<Result<_, _>>().expect("none is open");
        for group in &groups {
            group.set_container(&container, &process).expect("the group is free");
        }
        container.set_iommu(&process, extension::TYPE1V2).expect("the groups have an IOMMU");
        Self { vfio, container, process, groups }
    }

    /// The DMA side of a NIC, numbered from 0.
    pub fn nic(&self, number: u32) -> BusMaster {
        self.vfio.bus_master(&name(number)).expect("the host has the NIC")
    }

    /// Maps a page.
    pub fn map(&self, iova: u64) {
        let request = MapDma::new(iova, vaddr(iova), PAGE, Access::ReadWrite);
        self.container.map(&self.process, &request).expect("the page is free");
    }

    /// Unmaps a page.
    pub fn unmap(&self, iova: u64) {
        let request = UnmapDma::new(iova, PAGE);
        let bytes = self.container.unmap(&self.process, &request);
        assert_eq!(bytes.expect("the page is mapped as a whole"), PAGE);
    }

    /// Maps pages.
    pub fn fill(&self, count: u64, order: Order) {
        order.pages(count).into_iter().for_each(|iova| self.map(iova));
    }
}

fn iommu() -> Arc<dyn Iommu> {
    Arc::new(FixedIommu {
        driver: IommuDriver::IntelVtd,
        aperture: IovaRange::from_size(Iova(0), 1 << 48).expect("48 bits fit"),
        page_sizes: PageSizes(0x4020_1000),
        coherent: true,
        isolated_msi: true,
    })
}

fn name(number: u32) -> String {
    format!("0000:00:{:02x}.0", number + 3)
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("the target has 64 bits")
}
