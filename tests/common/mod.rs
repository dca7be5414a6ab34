// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tests share: small hosts, and a process with memory.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod bytes;

use std::sync::Arc;

use vfio_type1::{
    Access, Container, DeviceDescription, Fault, FixedIommu, GroupDescription, GroupId, GroupKind,
    Iommu, IommuDriver, Iova, IovaRange, Kernel, MapDma, Memory, ModelMemory, OpenGroup, PageSizes,
    PinFault, PinnedRun, Process, RegionKind, ReservedRegion, Vaddr, VaddrRange, Vfio, extension,
};

/// Where the test process has read-write memory: 1 GiB.
pub(crate) const RAM: u64 = 0x1000_0000_0000;
/// Where it has read-only memory: 1 MiB.
pub(crate) const ROM: u64 = 0x2000_0000_0000;

pub(crate) fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(Iova(first), Iova(last)).unwrap()
}

/// An IOMMU of `width` bits.
pub(crate) fn iommu(driver: IommuDriver, width: u32) -> FixedIommu {
    FixedIommu {
        driver,
        aperture: range(0, u64::MAX >> (64 - width)),
        page_sizes: PageSizes(0x4020_1000),
        coherent: false,
        isolated_msi: true,
    }
}

pub(crate) fn vtd(width: u32) -> Arc<dyn Iommu> {
    Arc::new(iommu(IommuDriver::IntelVtd, width))
}

/// The window that every x86 device reserves.
pub(crate) fn msi() -> ReservedRegion {
    ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi)
}

/// Group `number` behind `iommu`: one device, `0000:00:<number>.0`, with these regions.
pub(crate) fn group(
    iommu: &Arc<dyn Iommu>,
    number: u32,
    regions: Vec<ReservedRegion>,
) -> GroupDescription {
    let device = DeviceDescription::new(device_name(number), regions);
    GroupDescription::behind(Arc::clone(iommu), number, [device])
}

/// Group `number` of an emulated device.
pub(crate) fn emulated(number: u32) -> GroupDescription {
    let device = DeviceDescription::new(device_name(number), Vec::new());
    GroupDescription { number, kind: GroupKind::Emulated, devices: vec![device] }
}

pub(crate) fn device_name(number: u32) -> String {
    format!("0000:00:{number:02x}.0")
}

/// A privileged process with [`RAM`] and [`ROM`].
pub(crate) fn process() -> Arc<Process> {
    Process::new(memory())
}

pub(crate) fn memory() -> Arc<ModelMemory> {
    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(RAM), 1 << 30).unwrap(), true).unwrap();
    memory.add(VaddrRange::from_size(Vaddr(ROM), 1 << 20).unwrap(), false).unwrap();
    Arc::new(memory)
}

/// Memory of another device, of which no page counts as locked.
pub(crate) struct DeviceMemory(pub(crate) Arc<ModelMemory>);

impl Memory for DeviceMemory {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read(from, into)
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write(to, bytes)
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        self.0.pin(pages, access).map(|run| PinnedRun { charged: false, ..run })
    }
}

/// A container with groups in it. The groups are dropped last, as their drop empties it.
pub(crate) struct Rig {
    pub(crate) container: Container,
    pub(crate) process: Arc<Process>,
    pub(crate) groups: Vec<OpenGroup>,
    pub(crate) vfio: Vfio,
}

impl Rig {
    /// All groups of the host in one container of `kind` (1 or 3).
    pub(crate) fn new(kernel: Kernel, kind: u64, host: Vec<GroupDescription>) -> Self {
        let vfio = Vfio::new(kernel, host).unwrap();
        let process = process();
        let container = vfio.open_container();
        let ids: Vec<GroupId> = vfio.groups().collect();
        let groups: Vec<OpenGroup> = ids
            .into_iter()
            .map(|id| {
                let group = vfio.open_group(id, &process).unwrap();
                group.set_container(&container, &process).unwrap();
                group
            })
            .collect();
        container.set_iommu(&process, kind).unwrap();
        Self { container, process, groups, vfio }
    }

    /// The usual one: type1v2 on a 48-bit VT-d with one group.
    pub(crate) fn plain(kernel: Kernel) -> Self {
        Self::new(kernel, extension::TYPE1V2, vec![group(&vtd(48), 1, vec![msi()])])
    }

    pub(crate) fn map(&self, iova: u64, size: u64) -> Result<(), vfio_type1::MapError> {
        let request = MapDma::new(iova, RAM, size, Access::ReadWrite);
        self.container.map(&self.process, &request)
    }

    pub(crate) fn valid(&self) -> Vec<IovaRange> {
        self.container.info().unwrap().iova_ranges
    }

    pub(crate) fn mapped(&self) -> Vec<IovaRange> {
        self.container.mappings().iter().map(|mapping| mapping.iova).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        assert_eq!(self.container.check_invariants(), Ok(()));
    }
}
