// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of the byte door.

use vfio_type1::abi::command;
use vfio_type1::{FdTarget, Vaddr};

use crate::common::{self, RAM, ROM, Rig};
use crate::{Broken, K, broken};

pub(crate) fn break_bytes(broken: &mut Broken) {
    let rig = Rig::plain(K);
    let call = |command, arg| rig.container.ioctl(&rig.process, command, arg);
    let bytes = |bytes: &[u8]| rig.process.memory().write(Vaddr(RAM), bytes).unwrap();
    broken!(broken, "ContainerIoctlError", call(0x3b7f, 0), ENOTTY);
    let fault = broken!(broken, "ContainerIoctlError", call(command::IOMMU_MAP_DMA, 0), EFAULT);
    broken.add_inner("ArgumentError", &fault);
    bytes(&[31, 0, 0, 0]);
    let short = call(command::IOMMU_MAP_DMA, RAM).unwrap_err();
    broken.add_inner("ArgumentError", &short);
    bytes(&[32, 0, 0, 0]);
    broken!(broken, "ContainerIoctlError", call(command::IOMMU_MAP_DMA, RAM), EINVAL);
    broken!(broken, "ContainerIoctlError", call(command::IOMMU_UNMAP_DMA, RAM), EINVAL);
    broken!(broken, "ContainerIoctlError", call(command::IOMMU_DIRTY_PAGES, RAM), EINVAL);
    broken!(broken, "ContainerIoctlError", call(command::SET_IOMMU, 3), EINVAL);
    let empty = rig.vfio.open_container();
    let unset = empty.ioctl(&rig.process, command::IOMMU_GET_INFO, RAM);
    broken!(broken, "ContainerIoctlError", unset, EINVAL);
    let memory = common::memory();
    let mut unmap = [0; 24];
    unmap[0] = 24;
    unmap[4] = 2;
    memory.poke(Vaddr(ROM), &unmap).unwrap();
    let process = vfio_type1::Process::new(memory);
    let result = rig.container.ioctl(&process, command::IOMMU_UNMAP_DMA, ROM);
    broken!(broken, "ContainerIoctlError", result, EFAULT);

    let group = &rig.groups[0];
    let call = |command, arg| group.ioctl(&rig.process, command, arg, |_| FdTarget::Closed);
    broken!(broken, "GroupIoctlError", call(command::IOMMU_GET_INFO, 0), ENOTTY);
    broken!(broken, "GroupIoctlError", call(command::GROUP_GET_STATUS, 0), EFAULT);
    broken!(broken, "GroupIoctlError", call(command::GROUP_SET_CONTAINER, RAM), EBADF);
    bytes(b"bogus\0");
    broken!(broken, "GroupIoctlError", call(command::GROUP_GET_DEVICE_FD, RAM), ENODEV);
    bytes(&[b'a'; 4096]);
    broken!(broken, "GroupIoctlError", call(command::GROUP_GET_DEVICE_FD, RAM), EINVAL);
    group.unset_container().unwrap();
    broken!(broken, "GroupIoctlError", call(command::GROUP_UNSET_CONTAINER, 0), EINVAL);
}
