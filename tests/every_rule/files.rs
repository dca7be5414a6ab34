// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of containers, groups and devices as files, and of hosts.

use std::fmt::Debug;

use vfio_type1::{
    Access, Binding, DeviceDescription, DirtyPages, Errno, FdTarget, GroupDescription, GroupId,
    GroupKind, Iova, IovaRange, Kernel, MapDma, RegionKind, ReservedRegion, UnmapDma, Vaddr,
    VaddrRange, Vfio,
};

use crate::common::{self, RAM, group, msi, process, vtd};
use crate::{Broken, K, variant_after};

fn noiommu(number: u32) -> GroupDescription {
    let devices = vec![DeviceDescription::new("0000:01:00.0", Vec::new())];
    GroupDescription { number, kind: GroupKind::NoIommu, devices }
}

pub(crate) fn break_files(broken: &mut Broken) {
    let mut used = group(&vtd(48), 3, vec![]);
    used.devices.push(DeviceDescription {
        binding: Binding::Kernel("ahci".to_owned()),
        ..DeviceDescription::new("0000:00:1f.2", vec![])
    });
    let rmrr = ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct);
    let mut unbound = group(&vtd(48), 4, vec![]);
    unbound.devices[0].binding = Binding::Unbound;
    let host = [
        group(&vtd(48), 1, vec![msi()]),
        group(&vtd(48), 2, vec![rmrr]),
        used,
        unbound,
        noiommu(0),
    ];
    let vfio = Vfio::new(K, host.clone()).unwrap();
    vfio.set_noiommu(true);
    let (process, container) = (process(), vfio.open_container());
    let open = |id| vfio.open_group(id, &process);
    let mut plain = |enumeration, error: &dyn Debug, errno, expected| {
        broken.add(enumeration, &error, errno, expected);
    };
    let error = open(GroupId::Numbered(9)).unwrap_err();
    plain("OpenGroupError", &error, error.errno(), Errno::ENOENT);
    let error = open(GroupId::Numbered(4)).unwrap_err();
    plain("OpenGroupError", &error, error.errno(), Errno::ENOENT);
    let first = open(GroupId::Numbered(1)).unwrap();
    let error = open(GroupId::Numbered(1)).unwrap_err();
    plain("OpenGroupError", &error, error.errno(), Errno::EBUSY);
    let free = open(GroupId::NoIommu(0)).unwrap();
    process.set_cap_sys_rawio(false);
    drop(free);
    let error = open(GroupId::NoIommu(0)).unwrap_err();
    plain("OpenGroupError", &error, error.errno(), Errno::EPERM);
    process.set_cap_sys_rawio(true);
    let free = open(GroupId::NoIommu(0)).unwrap();

    let error = first.unset_container().unwrap_err();
    plain("UnsetContainerError", &error, error.errno(), Errno::EINVAL);
    let device = |name: &str| first.open_device(name, &process).unwrap_err();
    for (name, errno) in [
        ("bogus", Errno::ENODEV),
        ("0000:00:01.0 vf_token=1", Errno::EINVAL),
        ("0000:00:01.0", Errno::EINVAL),
    ] {
        let error = device(name);
        plain("OpenDeviceError", &error, error.errno(), errno);
    }
    let error = container.set_iommu(&process, 3).unwrap_err();
    plain("SetIommuError", &error, error.errno(), Errno::EINVAL);
    let error = container.info().unwrap_err();
    plain("NoType1", &error, error.errno(), Errno::EINVAL);
    let request = MapDma::new(0, RAM, 0x1000, Access::Read);
    let error = container.map(&process, &request).unwrap_err();
    plain("MapError", &error, error.errno(), Errno::EINVAL);
    let error = container.unmap(&process, &UnmapDma::all()).unwrap_err();
    plain("UnmapError", &error, error.errno(), Errno::EINVAL);
    let error = container.dirty_pages(&process, &DirtyPages::Stop).unwrap_err();
    plain("DirtyError", &error, error.errno(), Errno::EINVAL);

    let set = |fd, target| first.set_container_fd(fd, target, &process);
    for (fd, target, errno) in [
        (-1, FdTarget::Closed, Errno::EBADF),
        (9, FdTarget::Closed, Errno::EBADF),
        (9, FdTarget::Other, Errno::EBADFD),
    ] {
        let error = set(fd, target).unwrap_err();
        plain("SetContainerError", &error, error.errno(), errno);
    }
    for (number, errno) in [(2, Errno::EINVAL), (3, Errno::EPERM)] {
        let group = open(GroupId::Numbered(number)).unwrap();
        let error = group.set_container(&container, &process).unwrap_err();
        assert_eq!(error.errno(), errno);
        let name = variant_after(&error, "AddGroupError", "Refused(");
        let variant = name.rsplit(':').next().unwrap().to_owned();
        plain("AddGroupError", &Named(variant), errno, errno);
    }
    first.set_container(&container, &process).unwrap();
    let error = first.set_container(&container, &process).unwrap_err();
    plain("SetContainerError", &error, error.errno(), Errno::EINVAL);
    let error = free.set_container(&container, &process).unwrap_err();
    let name = variant_after(&error, "AddGroupError", "Refused(");
    plain(
        "AddGroupError",
        &Named(name.rsplit(':').next().unwrap().to_owned()),
        error.errno(),
        Errno::EPERM,
    );
    let error = device("0000:00:01.0");
    plain("OpenDeviceError", &error, error.errno(), Errno::EINVAL);
    for (kind, errno) in [(99, Errno::ENODEV), (9, Errno::EINVAL)] {
        let error = container.set_iommu(&process, kind).unwrap_err();
        plain("SetIommuError", &error, error.errno(), errno);
    }
    container.set_iommu(&process, 3).unwrap();
    let error = container.set_iommu(&process, 3).unwrap_err();
    plain("SetIommuError", &error, error.errno(), Errno::EINVAL);
    let opened = first.open_device("0000:00:01.0", &process).unwrap();
    let error = first.unset_container().unwrap_err();
    plain("UnsetContainerError", &error, error.errno(), Errno::EBUSY);
    drop(opened);

    let other = vfio.open_container();
    process.set_cap_sys_rawio(false);
    let error = free.set_container(&other, &process).unwrap_err();
    plain("SetContainerError", &error, error.errno(), Errno::EPERM);
    process.set_cap_sys_rawio(true);
    free.set_container(&other, &process).unwrap();
    process.set_cap_sys_rawio(false);
    let error = other.set_iommu(&process, 8).unwrap_err();
    plain("SetIommuError", &error, error.errno(), Errno::EPERM);
    process.set_cap_sys_rawio(true);
    other.set_iommu(&process, 8).unwrap();
    let error = other.info().unwrap_err();
    plain("NoType1", &error, error.errno(), Errno::ENOTTY);
    let unmapped = free.open_device("0000:01:00.0", &process).unwrap();
    let error = unmapped.dma_write(Iova(0), &[1]).unwrap_err();
    plain("DmaRwError", &error, error.errno(), Errno::ENOTTY);
    drop(unmapped);
    process.set_cap_sys_rawio(false);
    let error = free.open_device("0000:01:00.0", &process).unwrap_err();
    plain("OpenDeviceError", &error, error.errno(), Errno::EPERM);
    drop((first, free));

    let old = Vfio::new(Kernel::V5_10, host).unwrap();
    let container = old.open_container();
    let used = old.open_group(GroupId::Numbered(3), &process).unwrap();
    used.set_container(&container, &process).unwrap();
    container.set_iommu(&process, 3).unwrap();
    let error = used.open_device("0000:00:03.0", &process).unwrap_err();
    plain("OpenDeviceError", &error, error.errno(), Errno::EINVAL);
}

/// Prints as the variant it names.
struct Named(String);

impl Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn break_descriptions(broken: &mut Broken) {
    let einval = Errno::EINVAL;
    let mut empty = group(&vtd(48), 1, vec![]);
    empty.devices.clear();
    let mut renamed = group(&vtd(48), 1, vec![]);
    renamed.devices[0].name = "0000:00:02.0".to_owned();
    let plain = || group(&vtd(48), 1, vec![]);
    for host in [vec![empty], vec![plain(), plain()], vec![plain(), renamed]] {
        broken.add("HostError", &Vfio::new(K, host).unwrap_err(), einval, einval);
    }
    for (first, size) in [(0x800, 0x1000), (RAM, 0x1000)] {
        let memory = common::memory();
        let error = memory.add(VaddrRange::from_size(Vaddr(first), size).unwrap(), true);
        broken.add("AreaError", &error.unwrap_err(), einval, einval);
    }
    for size in [0, 2] {
        let error = IovaRange::from_size(Iova(u64::MAX), size).unwrap_err();
        broken.add("RangeError", &error, einval, einval);
    }
}
