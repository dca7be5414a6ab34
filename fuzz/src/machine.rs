// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A few small hosts, and a process whose memory has an end.

use std::sync::Arc;

use vfio_type1::{
    DeviceDescription, FixedIommu, GroupDescription, GroupKind, Iommu, IommuDriver, Iova,
    IovaRange, ModelMemory, PageSizes, Process, RegionKind, ReservedRegion, Vaddr, VaddrRange,
};

/// Where the process has 1 MiB of read-write memory.
pub(crate) const RAM: u64 = 0x1000_0000_0000;
/// Where it has 64 KiB of read-only memory.
pub(crate) const ROM: u64 = 0x2000_0000_0000;
/// Where two pages of read-write memory end, with nothing behind.
pub(crate) const END: u64 = 0x3000_0000_0000;

pub(crate) fn memory() -> Arc<ModelMemory> {
    let memory = ModelMemory::new();
    for (first, size, writable) in
        [(RAM, 1 << 20, true), (ROM, 1 << 16, false), (END - 0x2000, 0x2000, true)]
    {
        let range = VaddrRange::from_size(Vaddr(first), size).expect("the ranges are not empty");
        memory.add(range, writable).expect("the ranges lie apart");
    }
    Arc::new(memory)
}

/// A process with a capability less and a limit, beside a privileged one.
pub(crate) fn processes() -> [Arc<Process>; 2] {
    let plain = Process::new(memory());
    plain.set_cap_ipc_lock(false);
    plain.set_cap_sys_rawio(false);
    plain.set_memlock(64 << 12);
    [Process::new(memory()), plain]
}

pub(crate) fn iommu(driver: IommuDriver, first: u64, last: u64, pages: u64) -> Arc<dyn Iommu> {
    let aperture = IovaRange::new(Iova(first), Iova(last)).unwrap_or(IovaRange::full());
    Arc::new(FixedIommu {
        driver,
        aperture,
        page_sizes: PageSizes(pages),
        coherent: driver == IommuDriver::AmdVi,
        isolated_msi: true,
    })
}

pub(crate) fn device(number: u32) -> String {
    format!("0000:00:{number:02x}.0")
}

fn group(number: u32, kind: GroupKind, regions: Vec<ReservedRegion>) -> GroupDescription {
    let device = DeviceDescription::new(device(number), regions);
    GroupDescription { number, kind, devices: vec![device] }
}

/// One of the hosts.
pub(crate) fn host(choice: u8) -> Vec<GroupDescription> {
    let vtd = |width: u32| iommu(IommuDriver::IntelVtd, 0, u64::MAX >> (64 - width), 0x4020_1000);
    let msi = || ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let behind = |iommu: &Arc<dyn Iommu>| GroupKind::Iommu(Arc::clone(iommu));
    match choice % 5 {
        0 => vec![group(1, behind(&vtd(48)), vec![msi()]), group(2, GroupKind::Emulated, vec![])],
        1 => {
            let amd = iommu(IommuDriver::AmdVi, 0, u64::MAX, 0xffff_ffff_ffff_f000);
            let hole = ReservedRegion::new(0xfd_0000_0000, 0xff_ffff_ffff, RegionKind::Reserved);
            let narrow = group(2, behind(&vtd(39)), vec![msi()]);
            vec![group(1, behind(&amd), vec![msi(), hole]), narrow]
        }
        2 => {
            // Pages of 64 KiB, and regions at both ends of the space.
            let wide = iommu(IommuDriver::Virtio, 0, u64::MAX, !0xffff);
            let low = ReservedRegion::new(0, 0xfff, RegionKind::Reserved);
            let high = ReservedRegion::new(u64::MAX - 0xfff, u64::MAX, RegionKind::SoftwareMsi);
            let plain = iommu(IommuDriver::Virtio, 0x1_0000, u64::MAX, !0xfff);
            vec![group(1, behind(&wide), vec![]), group(2, behind(&plain), vec![low, high])]
        }
        3 => vec![group(1, GroupKind::Emulated, vec![]), group(2, GroupKind::Emulated, vec![])],
        _ => vec![group(1, GroupKind::NoIommu, vec![]), group(2, behind(&vtd(39)), vec![msi()])],
    }
}
