// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules that only a fault plan breaks, and those of plans.

use vfio_type1::abi::command;
use vfio_type1::{Access, DirtyPages, Errno, FaultPlan, Iova, extension};

use crate::common::{RAM, Rig, device_name, emulated};
use crate::{Broken, K, broken, variant_after};

pub(crate) fn break_on_demand(broken: &mut Broken) {
    let rig = Rig::plain(K);
    let plan = |text: &str| rig.vfio.inject(text.parse().unwrap());
    plan("map:1=ENOSPC,pin:1,allocation:2");
    broken!(broken, "MapError", rig.map(0, 0x1000), ENOSPC);
    let error = rig.map(0, 0x1000).unwrap_err();
    broken.0.insert(variant_after(&error, "PinError", "error: "), error.errno());
    broken!(broken, "MapError", rig.map(0, 0x1000), ENOMEM);
    rig.map(0, 0x1000).unwrap();
    plan("seed:1/1@allocation");
    let dirty = rig.container.dirty_pages(&rig.process, &DirtyPages::Start);
    broken!(broken, "DirtyError", dirty, ENOMEM);
    rig.process.memory().write(RAM.into(), &[0xff, 0, 0, 0]).unwrap();
    let info = rig.container.ioctl(&rig.process, command::IOMMU_GET_INFO, RAM);
    broken!(broken, "ContainerIoctlError", info, ENOMEM);
    rig.groups[0].unset_container().unwrap();
    rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
    let set = || rig.container.set_iommu(&rig.process, extension::TYPE1V2);
    broken!(broken, "SetIommuError", set(), ENOMEM);
    plan("allocation:2");
    let attach = set().unwrap_err();
    broken.0.insert(variant_after(&attach, "AttachError", "error: "), attach.errno());

    let rig = Rig::new(K, extension::TYPE1V2, vec![emulated(1)]);
    rig.map(0, 0x1000).unwrap();
    let device = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    device.on_unmap(|_, _| {});
    rig.vfio.inject("allocation:1".parse().unwrap());
    broken!(broken, "PinPagesError", device.pin_pages(Iova(0), 1, Access::Read), ENOMEM);
}

pub(crate) fn break_plans(broken: &mut Broken) {
    for text in ["unmap:1", "map:0", "map:1=EFOO", "allocation:1=EIO"] {
        let error = text.parse::<FaultPlan>().unwrap_err();
        broken.add("FaultPlanError", &error, Errno::EINVAL, Errno::EINVAL);
    }
}
