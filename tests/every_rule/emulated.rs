// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules for drivers of emulated devices.

use std::sync::Arc;

use vfio_type1::{Access, Errno, Iova, MapDma, Process, UnmapDma, extension};

use crate::common::{DeviceMemory, RAM, Rig, device_name, emulated, group, memory, msi, vtd};
use crate::{Broken, K, broken};

pub(crate) fn break_emulated(broken: &mut Broken) {
    let host = vec![group(&vtd(48), 1, vec![msi()]), emulated(2)];
    let rig = Rig::new(K, extension::TYPE1V2, host);
    let real = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    let pin = |device: &vfio_type1::OpenDevice, iova, pages, access| {
        device.pin_pages(Iova(iova), pages, access)
    };
    broken!(broken, "PinPagesError", pin(&real, 0, 1, Access::Read), EINVAL);
    drop(real);
    let device = rig.groups[1].open_device(&device_name(2), &rig.process).unwrap();
    broken!(broken, "PinPagesError", pin(&device, 0, 0, Access::Read), EINVAL);
    broken!(broken, "PinPagesError", pin(&device, 0, 1, Access::Read), EINVAL);
    device.on_unmap(|_, _| {});
    broken!(broken, "PinPagesError", pin(&device, 0, 513, Access::Read), E2BIG);
    broken!(broken, "PinPagesError", pin(&device, u64::MAX, 2, Access::Read), EOVERFLOW);
    broken!(broken, "PinPagesError", pin(&device, 0, 1, Access::Read), EINVAL);
    let read = MapDma::new(0, RAM, 0x1000, Access::Read);
    rig.container.map(&rig.process, &read).unwrap();
    broken!(broken, "PinPagesError", pin(&device, 0, 1, Access::ReadWrite), EPERM);
    let mut byte = [0];
    let rw = |iova: u64, byte: &mut [u8]| device.dma_read(Iova(iova), byte);
    broken!(broken, "DmaRwError", rw(0x10_0000, &mut byte), EINVAL);
    broken!(broken, "DmaRwError", rw(0x10_0000, &mut []), EINVAL);
    broken!(broken, "DmaRwError", device.dma_write(Iova(0), &[1]), EPERM);

    // Without an IOMMU group nothing is looked at when it is mapped, so faults come later.
    rig.groups[0].unset_container().unwrap();
    let nowhere = MapDma::new(0x10_0000, 0x1000, 0x1000, Access::ReadWrite);
    rig.container.map(&rig.process, &nowhere).unwrap();
    broken!(broken, "PinPagesError", pin(&device, 0x10_0000, 1, Access::Read), EFAULT);
    broken!(broken, "DmaRwError", rw(0x10_0000, &mut byte), EFAULT);
    rig.process.exit();
    broken!(broken, "DmaRwError", rw(0, &mut byte), EPERM);

    let rig = Rig::new(K, extension::TYPE1V2, vec![emulated(2)]);
    let bar = Process::new(Arc::new(DeviceMemory(memory())));
    rig.container.map(&bar, &read).unwrap();
    let device = rig.groups[0].open_device(&device_name(2), &rig.process).unwrap();
    device.on_unmap(|_, _| {});
    broken!(broken, "PinPagesError", pin(&device, 0, 1, Access::Read), EINVAL);

    let v1 = Rig::new(K, extension::TYPE1, vec![emulated(2)]);
    let device = v1.groups[0].open_device(&device_name(2), &v1.process).unwrap();
    device.on_unmap(|_, _| {});
    broken!(broken, "PinPagesError", pin(&device, 0, 1, Access::Read), EACCES);
}

pub(crate) fn break_emulated_without_vaddr(broken: &mut Broken) {
    // Addresses are taken away first, the emulated device comes back afterwards: the kernel
    // refuses that, so the state is one that only a device opened before can see.
    let rig = Rig::new(K, extension::TYPE1V2, vec![group(&vtd(48), 1, vec![msi()]), emulated(2)]);
    let device = rig.groups[1].open_device(&device_name(2), &rig.process).unwrap();
    device.on_unmap(|_, _| {});
    drop(device);
    rig.groups[1].unset_container().unwrap();
    rig.map(0, 0x1000).unwrap();
    rig.container.unmap(&rig.process, &UnmapDma::all().vaddr_only()).unwrap();
    // Any device's driver may copy.
    let real = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    broken!(broken, "DmaRwError", real.dma_write(Iova(0), &[1]), EBUSY);
    let error = rig.groups[1].set_container(&rig.container, &rig.process).unwrap_err();
    broken.add("SetContainerError", &error, error.errno(), Errno::EBUSY);
}
