// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of MAP_DMA.

use std::sync::Arc;

use vfio_type1::{
    Access, DirtyPages, Errno, FixedIommu, Iommu, IommuDriver, Kernel, MapDma, PageSizes, UnmapDma,
    extension,
};

use crate::common::{RAM, ROM, Rig, emulated, group, iommu, process};
use crate::{Broken, K, broken, variant_after};

pub(crate) fn break_map(broken: &mut Broken) {
    let rig = Rig::plain(K);
    let map = |request: MapDma| rig.container.map(&rig.process, &request);
    let request = |iova, vaddr, size| MapDma::new(iova, vaddr, size, Access::ReadWrite);
    let flags = |flags| map(MapDma { flags, ..request(0, RAM, 0x1000) });
    broken!(broken, "MapError", flags(8), EINVAL);
    broken!(broken, "MapError", map(request(0, RAM, 0)), EINVAL);
    let wraps = request(u64::MAX - 0xfff, RAM, 0x2000);
    broken!(broken, "MapError", map(wraps), EOVERFLOW);
    broken!(broken, "MapError", map(request(0, u64::MAX - 0xfff, 0x2000)), EOVERFLOW);
    broken!(broken, "MapError", flags(0), EINVAL);
    broken!(broken, "MapError", flags(5), EINVAL);
    broken!(broken, "MapError", map(request(0x800, RAM, 0x1000)), EINVAL);
    let update = |iova, size| map(MapDma::update_vaddr(iova, RAM, size));
    broken!(broken, "MapError", update(0, 0x1000), ENOENT);
    map(request(0x1000, RAM, 0x2000)).unwrap();
    broken!(broken, "MapError", map(request(0, RAM, 0x2000)), EEXIST);
    broken!(broken, "MapError", update(0x1000, 0x2000), EINVAL);
    rig.container.unmap(&rig.process, &UnmapDma::all().vaddr_only()).unwrap();
    broken!(broken, "MapError", update(0x1000, 0x1000), EINVAL);
    let heir = process();
    heir.set_cap_ipc_lock(false);
    heir.set_memlock(0);
    let taken = rig.container.map(&heir, &MapDma::update_vaddr(0x1000, RAM, 0x2000));
    broken!(broken, "MapError", taken, ENOMEM);
    broken!(broken, "MapError", map(request(0xfee0_0000, RAM, 0x1000)), EINVAL);
    let error = broken!(broken, "MapError", map(request(0, ROM, 0x1000)), EFAULT);
    broken.0.insert(variant_after(&error, "PinError", "error: "), Errno::EFAULT);
    rig.process.set_cap_ipc_lock(false);
    rig.process.set_memlock(0);
    let error = map(request(0, RAM, 0x1000)).unwrap_err();
    broken.0.insert(variant_after(&error, "PinError", "error: "), Errno::ENOMEM);
    rig.process.exit();
    let error = map(request(0, RAM, 0x1000)).unwrap_err();
    broken.0.insert(variant_after(&error, "PinError", "error: "), error.errno());
}

pub(crate) fn break_map_on_odd_hosts(broken: &mut Broken) {
    // Before the valid list, the IOMMU driver refuses what it cannot translate.
    let rig = Rig::plain(Kernel::V4_19);
    broken!(broken, "MapError", rig.map(1 << 48, 0x1000), EFAULT);

    let rig = Rig::plain(K);
    rig.groups[0].unset_container().unwrap();
    rig.vfio.set_dma_entry_limit(1);
    rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
    rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    rig.map(0, 0x1000).unwrap();
    broken!(broken, "MapError", rig.map(0x1000, 0x1000), ENOSPC);

    let sizes = |sizes, driver| -> Arc<dyn Iommu> {
        Arc::new(FixedIommu { page_sizes: PageSizes(sizes), ..iommu(driver, 48) })
    };
    let small = sizes(0x1000, IommuDriver::Virtio);
    let large = sizes(0x1_0000, IommuDriver::SmmuV3);
    let host = vec![group(&small, 1, vec![]), group(&large, 2, vec![])];
    let rig = Rig::new(K, extension::TYPE1V2, host);
    broken!(broken, "MapError", rig.map(0, 0x1_0000), EINVAL);

    let rig = Rig::new(K, extension::TYPE1V2, vec![emulated(1)]);
    rig.container.dirty_pages(&rig.process, &DirtyPages::Start).unwrap();
    broken!(broken, "MapError", rig.map(0, 1 << 43), EINVAL);
}
