// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of iommufd: of address spaces, of the devices on them, and of what type1's calls mean
//! there.

use std::sync::Arc;

use vfio_type1::{
    Access, Behaviours, Binding, DeviceDescription, Errno, FixedIommu, GroupDescription, GroupId,
    GroupKind, IoasMap, Iommu, IommuDriver, IommuOption, Iommufd, Iova, IovaRange, Kernel, MapDma,
    OpenCdev, PageSizes, Process, RegionKind, ReservedRegion, UnmapDma, Vaddr, Vfio, extension,
};

use crate::common::{
    DeviceMemory, RAM, ROM, device_name, emulated, group, iommu, memory, msi, process, vtd,
};
use crate::{Broken, K, broken};

/// An IOMMU that maps nothing.
#[derive(Debug)]
struct Stubborn(FixedIommu);

impl Iommu for Stubborn {
    fn driver(&self) -> IommuDriver {
        self.0.driver
    }
    fn aperture(&self) -> IovaRange {
        self.0.aperture
    }
    fn page_sizes(&self) -> PageSizes {
        self.0.page_sizes
    }
    fn enforces_coherency(&self) -> bool {
        false
    }
    fn isolates_msi(&self) -> bool {
        true
    }
    fn can_map(&self, _iova: IovaRange, _behaviours: &Behaviours) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
}

/// An IOMMU that makes no domain.
#[derive(Debug)]
struct Exhausted(FixedIommu);

impl Iommu for Exhausted {
    fn driver(&self) -> IommuDriver {
        IommuDriver::AmdVi
    }
    fn aperture(&self) -> IovaRange {
        self.0.aperture
    }
    fn page_sizes(&self) -> PageSizes {
        self.0.page_sizes
    }
    fn enforces_coherency(&self) -> bool {
        false
    }
    fn isolates_msi(&self) -> bool {
        true
    }
    fn can_make_domain(&self) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
}

/// A host with devices of all sorts, one a group, by the number of the group.
fn host() -> Vec<GroupDescription> {
    let narrow = vtd(39);
    let stubborn: Arc<dyn Iommu> = Arc::new(Stubborn(FixedIommu {
        driver: IommuDriver::SmmuV3,
        ..iommu(IommuDriver::SmmuV3, 48)
    }));
    let exhausted: Arc<dyn Iommu> = Arc::new(Exhausted(iommu(IommuDriver::AmdVi, 48)));
    let large: Arc<dyn Iommu> =
        Arc::new(FixedIommu { page_sizes: PageSizes(0x1_0000), ..iommu(IommuDriver::Virtio, 48) });
    let open: Arc<dyn Iommu> =
        Arc::new(FixedIommu { isolated_msi: false, ..iommu(IommuDriver::AmdVi, 48) });
    let mut pair = group(&vtd(48), 8, vec![msi()]);
    pair.devices.push(DeviceDescription::new("0000:00:08.1", vec![msi()]));
    let mut used = group(&vtd(48), 9, vec![]);
    used.devices.push(DeviceDescription {
        binding: Binding::Kernel("ahci".to_owned()),
        ..DeviceDescription::new("0000:00:1f.2", vec![])
    });
    let mut unbound = group(&vtd(48), 10, vec![]);
    unbound.devices[0].binding = Binding::Unbound;
    let noiommu = GroupDescription {
        number: 0,
        kind: GroupKind::NoIommu,
        devices: vec![DeviceDescription::new("0000:01:00.0", Vec::new())],
    };
    vec![
        group(&vtd(48), 1, vec![msi()]),
        emulated(2),
        group(&narrow, 3, vec![msi()]),
        group(&stubborn, 4, vec![]),
        group(&exhausted, 5, vec![]),
        group(&large, 6, vec![]),
        group(&open, 7, vec![]),
        pair,
        used,
        unbound,
        noiommu,
    ]
}

struct Scene {
    vfio: Vfio,
    process: Arc<Process>,
    iommufd: Iommufd,
    ioas: u32,
}

impl Scene {
    fn new() -> Self {
        let vfio = Vfio::new(K, host()).unwrap();
        let iommufd = vfio.open_iommu().unwrap();
        let ioas = iommufd.ioas_alloc();
        Self { vfio, process: process(), iommufd, ioas }
    }

    /// A device, opened by its own node and bound.
    fn device(&self, number: u32) -> OpenCdev {
        let device = self.vfio.open_cdev(&device_name(number)).unwrap();
        device.bind(&self.iommufd).unwrap();
        device
    }

    fn map(&self, iova: u64, vaddr: u64, size: u64) -> Result<Iova, vfio_type1::NativeMapError> {
        let anywhere = IoasMap::anywhere(self.ioas, vaddr, size, Access::ReadWrite);
        self.iommufd.ioas_map(&self.process, &anywhere.at(iova))
    }

    fn unmap_all(&self) {
        self.iommufd.ioas_unmap(self.ioas, 0, u64::MAX).unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        assert_eq!(self.iommufd.check_invariants(), Ok(()));
    }
}

/// Notes the rule of the address space inside a refusal.
fn inner(broken: &mut Broken, enumeration: &str, error: &impl std::fmt::Debug) {
    broken.add_inner(enumeration, error);
}

pub(crate) fn break_ioas_map(broken: &mut Broken) {
    let scene = Scene::new();
    let mut refused = |request: &IoasMap, errno: Errno| {
        let error = scene.iommufd.ioas_map(&scene.process, request).unwrap_err();
        broken.add("NativeMapError", &error, error.errno(), errno);
        broken.add_inner("IoasMapError", &error);
        assert!(!error.to_string().is_empty());
    };
    let at = |iova: u64, vaddr: u64, size: u64| {
        IoasMap::anywhere(scene.ioas, vaddr, size, Access::ReadWrite).at(iova)
    };
    refused(&IoasMap { flags: 8, ..at(0, RAM, 0x1000) }, Errno::EOPNOTSUPP);
    refused(&at(u64::MAX, RAM, 0x1000), Errno::EOVERFLOW);
    refused(&IoasMap { flags: 1, ..at(0, RAM, 0x1000) }, Errno::EINVAL);
    refused(&IoasMap { ioas: 99, ..at(0, RAM, 0x1000) }, Errno::ENOENT);
    refused(&at(0, u64::MAX, 0x1000), Errno::EOVERFLOW);
    refused(&at(0, RAM, 0), Errno::EINVAL);
    refused(&at(0, 0, u64::MAX - 0xfff), Errno::EINVAL);
    let anywhere =
        |vaddr: u64, size: u64| IoasMap::anywhere(scene.ioas, vaddr, size, Access::ReadWrite);
    refused(&anywhere(RAM, 1 << 63), Errno::EOVERFLOW);
    scene.iommufd.allow_iovas(scene.ioas, &[(Iova(0x1000), Iova(0x1fff))]).unwrap();
    refused(&anywhere(RAM, 0x2000), Errno::ENOSPC);
    scene.iommufd.allow_iovas(scene.ioas, &[]).unwrap();

    let device = scene.device(1);
    device.attach(scene.ioas).unwrap();
    scene.map(0x1000, RAM, 0x1000).unwrap();
    refused(&at(0, RAM, 0x800), Errno::EINVAL);
    refused(&at(0x800, RAM, 0x1000), Errno::EINVAL);
    refused(&at(u64::MAX - 0xfff, RAM, 0x2000), Errno::EOVERFLOW);
    refused(&at(0xfee0_0000, RAM, 0x1000), Errno::EINVAL);
    refused(&at(0x1000, RAM, 0x1000), Errno::EEXIST);
    refused(&at(0x4000, RAM + 0x800, 0x1000), Errno::EINVAL);
    refused(&anywhere(RAM + 0x800, 0x1000), Errno::EINVAL);
    refused(&at(0x4000, 0x1000, 0x1000), Errno::EFAULT);
    scene.vfio.inject("map:1".parse().unwrap());
    refused(&at(0x4000, RAM, 0x1000), Errno::ENOMEM);
    scene.vfio.inject("allocation:1".parse().unwrap());
    refused(&at(0x4000, RAM, 0x1000), Errno::ENOMEM);
    scene.vfio.inject("".parse().unwrap());
    drop(device);
    scene.unmap_all();
    let stubborn = scene.device(4);
    stubborn.attach(scene.ioas).unwrap();
    refused(&at(0x4000, RAM, 0x1000), Errno::EIO);
}

pub(crate) fn break_ioas_unmap(broken: &mut Broken) {
    let scene = Scene::new();
    scene.map(0x1000, RAM, 0x2000).unwrap();
    let unmap = |ioas: u32, iova: u64, size: u64| scene.iommufd.ioas_unmap(ioas, iova, size);
    broken!(broken, "NativeUnmapError", unmap(99, 0, 0x1000), ENOENT);
    broken!(broken, "NativeUnmapError", unmap(scene.ioas, 1, u64::MAX), EOVERFLOW);
    for (iova, size, errno) in [
        (0, 0, Errno::EINVAL),
        (u64::MAX - 1, 4, Errno::EOVERFLOW),
        (0x2000, 0x1000, Errno::ENOENT),
    ] {
        let error = unmap(scene.ioas, iova, size).unwrap_err();
        broken.add("NativeUnmapError", &error, error.errno(), errno);
        inner(broken, "IoasUnmapError", &error);
    }
    broken!(broken, "DestroyError", scene.iommufd.destroy(99), ENOENT);
    let device = scene.device(1);
    device.attach(scene.ioas).unwrap();
    broken!(broken, "DestroyError", scene.iommufd.destroy(scene.ioas), EBUSY);

    let allow = |ioas: u32, ranges: &[(u64, u64)]| {
        let ranges: Vec<(Iova, Iova)> = ranges.iter().map(|(a, b)| (Iova(*a), Iova(*b))).collect();
        scene.iommufd.allow_iovas(ioas, &ranges)
    };
    broken!(broken, "AllowIovasError", allow(99, &[]), ENOENT);
    broken!(broken, "AllowIovasError", allow(scene.ioas, &[(5, 5)]), EINVAL);
    broken!(broken, "AllowIovasError", allow(scene.ioas, &[(0, 9), (5, 14)]), EINVAL);
    let error =
        broken!(broken, "AllowIovasError", allow(scene.ioas, &[(0, 0xfee0_0000)]), EADDRINUSE);
    assert!(error.to_string().contains("MSI window"), "{error}");

    let option = |option, value| scene.iommufd.set_option(option, value);
    broken!(broken, "OptionError", option(IommuOption::RlimitMode, 1), EBUSY);
    broken!(broken, "OptionError", option(IommuOption::HugePages(99), 1), ENOENT);
    broken!(broken, "OptionError", option(IommuOption::HugePages(scene.ioas), 2), EINVAL);
    let error =
        broken!(broken, "OptionError", option(IommuOption::HugePages(scene.ioas), 0), EINVAL);
    inner(broken, "LargePagesError", &error);
}

pub(crate) fn break_ioas_attach(broken: &mut Broken) {
    let scene = Scene::new();
    let mut refused = |device: &OpenCdev, object: u32, errno: Errno| {
        let error = device.attach(object).unwrap_err();
        broken.add("AttachCdevError", &error, error.errno(), errno);
        broken.0.insert(crate::variant_after(&error, "IoasAttachError", "error: "), errno);
        assert!(!error.to_string().is_empty());
    };
    let unbound = scene.vfio.open_cdev(&device_name(1)).unwrap();
    refused(&unbound, scene.ioas, Errno::EINVAL);
    let device = scene.device(1);
    let id = scene.iommufd.ioas_alloc() - 1;
    refused(&device, 99, Errno::ENOENT);
    refused(&device, id, Errno::EINVAL);
    scene.map(0xfee0_0000, RAM, 0x1000).unwrap();
    refused(&device, scene.ioas, Errno::EADDRINUSE);
    scene.unmap_all();
    scene.iommufd.allow_iovas(scene.ioas, &[(Iova(0), Iova(0xffff_ffff))]).unwrap();
    refused(&device, scene.ioas, Errno::EADDRINUSE);
    scene.iommufd.allow_iovas(scene.ioas, &[(Iova(1 << 48), Iova(2 << 48))]).unwrap();
    refused(&device, scene.ioas, Errno::EADDRINUSE);
    scene.iommufd.allow_iovas(scene.ioas, &[]).unwrap();
    scene.map(1 << 48, RAM, 0x1000).unwrap();
    refused(&device, scene.ioas, Errno::EADDRINUSE);
    scene.unmap_all();
    scene.map(0x1000, RAM, 0x800).unwrap();
    refused(&device, scene.ioas, Errno::EADDRINUSE);
    scene.unmap_all();
    scene.map(0x1000, 0x1000, 0x1000).unwrap();
    refused(&device, scene.ioas, Errno::EFAULT);
    scene.unmap_all();
    scene.map(0x1000, RAM, 0x1000).unwrap();
    scene.vfio.inject("allocation:1".parse().unwrap());
    refused(&device, scene.ioas, Errno::ENOMEM);
    scene.vfio.inject("".parse().unwrap());
    refused(&scene.device(4), scene.ioas, Errno::EIO);
    refused(&scene.device(5), scene.ioas, Errno::ENOMEM);
    refused(&scene.device(6), scene.ioas, Errno::EINVAL);

    let domain = device.attach(scene.ioas).unwrap();
    refused(&scene.device(4), domain, Errno::EINVAL);
    let other = scene.iommufd.ioas_alloc();
    let first = scene.device(8);
    first.attach(scene.ioas).unwrap();
    let second = scene.vfio.open_cdev("0000:00:08.1").unwrap();
    second.bind(&scene.iommufd).unwrap();
    refused(&second, other, Errno::EINVAL);
}

pub(crate) fn break_cdevs(broken: &mut Broken) {
    let scene = Scene::new();
    let old = Vfio::new(Kernel::V6_1, host()).unwrap();
    assert_eq!(old.open_iommu().unwrap_err().errno(), Errno::ENOENT);
    let open = |name: &str| scene.vfio.open_cdev(name);
    broken!(broken, "OpenCdevError", old.open_cdev(&device_name(1)), ENOENT);
    broken!(broken, "OpenCdevError", open("0000:ff:00.0"), ENOENT);
    broken!(broken, "OpenCdevError", open(&device_name(10)), ENOENT);

    let device = open(&device_name(1)).unwrap();
    assert_eq!(device.detach().unwrap_err().errno(), Errno::EINVAL);
    let container = scene.vfio.open_container();
    let target = || vfio_type1::FdTarget::Container(container.clone());
    broken!(broken, "BindCdevError", device.bind_fd(-1, target()), EINVAL);
    let group = scene.vfio.open_group(GroupId::Numbered(1), &scene.process).unwrap();
    broken!(broken, "BindCdevError", device.bind(&scene.iommufd), EBUSY);
    drop(group);
    broken!(broken, "BindCdevError", device.bind_fd(9, vfio_type1::FdTarget::Closed), EBADF);
    broken!(broken, "BindCdevError", device.bind_fd(9, target()), EBADFD);
    device.bind(&scene.iommufd).unwrap();
    broken!(broken, "BindCdevError", device.bind(&scene.iommufd), EINVAL);
    let again = open(&device_name(1)).unwrap();
    broken!(broken, "BindCdevError", again.bind(&scene.iommufd), EINVAL);
    let group = scene.vfio.open_group(GroupId::Numbered(1), &scene.process);
    broken!(broken, "OpenGroupError", group, EBUSY);
    let unsafe_device = open(&device_name(7)).unwrap();
    let error = broken!(broken, "BindCdevError", unsafe_device.bind(&scene.iommufd), EPERM);
    broken.0.insert(crate::variant_after(&error, "BindError", "error: "), error.errno());
    let error = open(&device_name(9)).unwrap().bind(&scene.iommufd).unwrap_err();
    broken.add("BindCdevError", &error, error.errno(), Errno::EPERM);
    broken.0.insert(crate::variant_after(&error, "BindError", "error: "), error.errno());

    // Two devices of a group, each in another iommufd.
    let _first = scene.device(8);
    let second = open("0000:00:08.1").unwrap();
    let error = second.bind(&scene.vfio.open_iommu().unwrap()).unwrap_err();
    assert_eq!(error.errno(), Errno::EPERM);
    broken.0.insert(crate::variant_after(&error, "AddGroupError", "Claim("), error.errno());
}

pub(crate) fn break_groups_on_iommufds(broken: &mut Broken) {
    let scene = Scene::new();
    scene.vfio.set_noiommu(true);
    let open =
        |number: u32| scene.vfio.open_group(GroupId::Numbered(number), &scene.process).unwrap();
    let noiommu = scene.vfio.open_group(GroupId::NoIommu(0), &scene.process).unwrap();
    let plain = open(1);
    plain.set_iommufd(&scene.iommufd, &scene.process).unwrap();
    let other_kind = noiommu.set_iommufd(&scene.iommufd, &scene.process);
    broken!(broken, "SetContainerError", other_kind, EINVAL);
    let bare = scene.vfio.open_iommu().unwrap();
    noiommu.set_iommufd(&bare, &scene.process).unwrap();
    bare.set_compat_ioas(bare.ioas_alloc()).unwrap();
    let device = noiommu.open_device("0000:01:00.0", &scene.process);
    broken!(broken, "OpenDeviceError", device, EPERM);
    let msi = open(7);
    msi.set_iommufd(&scene.iommufd, &scene.process).unwrap();
    let device = msi.open_device(&device_name(7), &scene.process);
    broken!(broken, "OpenDeviceError", device, EPERM);
    scene.iommufd.clear_compat_ioas();
    let error = plain.open_device(&device_name(1), &scene.process);
    let error = broken!(broken, "OpenDeviceError", error, ENODEV);
    broken.0.insert(crate::variant_after(&error, "IoasAttachError", "error: "), error.errno());
}

pub(crate) fn break_compat(broken: &mut Broken) {
    let scene = Scene::new();
    let (iommufd, process) = (&scene.iommufd, &scene.process);
    let map = |flags, iova: u64, vaddr: u64, size| {
        let request = MapDma { iova: Iova(iova), vaddr: Vaddr(vaddr), size, flags };
        iommufd.map(process, &request)
    };
    assert_eq!(iommufd.info().unwrap_err().errno(), Errno::ENODEV);
    broken!(broken, "CompatMapError", map(MapDma::VADDR, 0, RAM, 0x1000), EINVAL);
    broken!(broken, "CompatMapError", map(3, 0, RAM, 0x1000), ENODEV);
    let unmap = |request: UnmapDma| iommufd.unmap(&request);
    broken!(broken, "CompatUnmapError", unmap(UnmapDma::all().vaddr_only()), EINVAL);
    broken!(broken, "CompatUnmapError", unmap(UnmapDma::all()), ENODEV);
    broken!(broken, "CompatSetIommuError", iommufd.set_iommu(process, extension::TYPE1), ENODEV);
    iommufd.set_compat_ioas(scene.ioas).unwrap();
    broken!(broken, "CompatSetIommuError", iommufd.set_iommu(process, 0), EINVAL);
    let with_size = UnmapDma { size: 1, ..UnmapDma::all() };
    broken!(broken, "CompatUnmapError", unmap(with_size), EINVAL);

    map(3, 0x1800, RAM, 0x1000).unwrap();
    let error = iommufd.set_iommu(process, extension::TYPE1);
    let error = broken!(broken, "CompatSetIommuError", error, EADDRINUSE);
    inner(broken, "LargePagesError", &error);
    unmap(UnmapDma::all()).unwrap();
    iommufd.set_iommu(process, extension::TYPE1).unwrap();
    map(3, 0x1000, RAM, 0x3000).unwrap();
    let error = broken!(broken, "CompatUnmapError", unmap(UnmapDma::new(0x1000, 0x1800)), EINVAL);
    inner(broken, "IoasUnmapError", &error);

    let device = scene.device(1);
    device.attach(scene.ioas).unwrap();
    let error = broken!(broken, "CompatMapError", map(0, 0x8000, RAM, 0x1000), EINVAL);
    inner(broken, "IoasMapError", &error);

    let noiommu = Vfio::new(K, host()).unwrap();
    noiommu.set_noiommu(true);
    let group = noiommu.open_group(GroupId::NoIommu(0), process).unwrap();
    let bare = noiommu.open_iommu().unwrap();
    group.set_iommufd(&bare, process).unwrap();
    bare.set_iommu(process, extension::NOIOMMU).unwrap();
    process.set_cap_sys_rawio(false);
    broken!(broken, "CompatSetIommuError", bare.set_iommu(process, extension::NOIOMMU), EPERM);
}

pub(crate) fn break_accesses(broken: &mut Broken) {
    let scene = Scene::new();
    let (iommufd, process) = (&scene.iommufd, &scene.process);
    let group = scene.vfio.open_group(GroupId::Numbered(2), process).unwrap();
    group.set_iommufd(iommufd, process).unwrap();
    iommufd.set_iommu(process, extension::TYPE1).unwrap();
    let device = group.open_device(&device_name(2), process).unwrap();
    device.on_unmap(|_, _| {});
    let pin = |iova: u64, access| device.pin_pages(Iova(iova), 1, access);
    let mut note = |error: vfio_type1::PinPagesError, errno: Errno| {
        broken.add("PinPagesError", &error, error.errno(), errno);
        broken.add_inner("AccessError", &error);
    };
    note(pin(0, Access::Read).unwrap_err(), Errno::ENOENT);
    let wraps = device.pin_pages(Iova(u64::MAX), 2, Access::Read).unwrap_err();
    note(wraps, Errno::EOVERFLOW);
    let map = |iova: u64, vaddr: u64, access| {
        iommufd.map(process, &MapDma::new(iova, vaddr, 0x2000, access)).unwrap();
    };
    map(0, RAM, Access::Read);
    map(0x4000, 0x1000, Access::ReadWrite);
    note(pin(0, Access::ReadWrite).unwrap_err(), Errno::EPERM);
    note(pin(0x4000, Access::Read).unwrap_err(), Errno::EFAULT);
    let error = device.dma_read(Iova(0x4000), &mut [0]).unwrap_err();
    broken.add("DmaRwError", &error, error.errno(), Errno::EFAULT);
    inner(broken, "AccessError", &error);

    pin(0x1000, Access::Read).unwrap();
    let error = iommufd.unmap(&UnmapDma::new(0x1000, 0x1000)).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    inner(broken, "IoasUnmapError", &error);
    let error = iommufd.unmap(&UnmapDma::all()).unwrap_err();
    assert_eq!(error.errno(), Errno::EDEADLK);
    inner(broken, "IoasUnmapError", &error);
}

pub(crate) fn break_memory_of_devices(broken: &mut Broken) {
    let scene = Scene::new();
    let device = scene.device(1);
    device.attach(scene.ioas).unwrap();
    let bar = Process::new(Arc::new(DeviceMemory(memory())));
    let request = IoasMap::anywhere(scene.ioas, RAM, 0x1000, Access::Read).at(0);
    let error = scene.iommufd.ioas_map(&bar, &request).unwrap_err();
    broken.add("NativeMapError", &error, error.errno(), Errno::EFAULT);
    scene.iommufd.ioas_map(&scene.process, &IoasMap { vaddr: Vaddr(ROM), ..request }).unwrap();
    let rmrr = ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct);
    let vfio = Vfio::new(K, [group(&vtd(48), 1, vec![rmrr])]).unwrap();
    let device = vfio.open_cdev(&device_name(1)).unwrap();
    assert_eq!(device.bind(&vfio.open_iommu().unwrap()).unwrap_err().errno(), Errno::EINVAL);
}
