// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of UNMAP_DMA.

use vfio_type1::{Access, DirtyPages, Iova, Kernel, UnmapDma, UserBitmap, Vaddr, extension};

use crate::common::{RAM, ROM, Rig, device_name, emulated};
use crate::{Broken, K, broken};

pub(crate) fn break_unmap(broken: &mut Broken) {
    let rig = Rig::plain(K);
    rig.map(0x1_0000, 0x4000).unwrap();
    let unmap = |request: UnmapDma| rig.container.unmap(&rig.process, &request);
    let request = |iova: u64, size| UnmapDma::new(iova, size);
    broken!(broken, "UnmapError", unmap(UnmapDma { flags: 8, ..request(0, 0) }), EINVAL);
    broken!(broken, "UnmapError", unmap(UnmapDma { flags: 3, ..request(0, 0) }), EINVAL);
    broken!(broken, "UnmapError", unmap(request(0x800, 0x1000)), EINVAL);
    broken!(broken, "UnmapError", unmap(UnmapDma { size: 1, ..UnmapDma::all() }), EINVAL);
    broken!(broken, "UnmapError", unmap(request(0, 0)), EINVAL);
    broken!(broken, "UnmapError", unmap(request(0, 0x800)), EINVAL);
    broken!(broken, "UnmapError", unmap(request(u64::MAX - 0xfff, 0x2000)), EOVERFLOW);
    let old = Rig::plain(Kernel::V4_19);
    let top = request(u64::MAX - 0xfff, 0x1000);
    broken!(broken, "UnmapError", old.container.unmap(&old.process, &top), EINVAL);
    broken!(broken, "UnmapError", unmap(request(0x1_1000, 0x1000)), EINVAL);
    let bitmap = |page_size, data| UserBitmap { page_size, bytes: 8, data: Vaddr(data) };
    let off = unmap(request(0x1_0000, 0x4000).with_bitmap(bitmap(0x1000, RAM)));
    broken!(broken, "UnmapError", off, EINVAL);
    rig.container.dirty_pages(&rig.process, &DirtyPages::Start).unwrap();
    let fault = unmap(request(0x1_0000, 0x4000).with_bitmap(bitmap(0x1000, ROM)));
    broken!(broken, "UnmapError", fault, EFAULT);
    unmap(UnmapDma::all().vaddr_only()).unwrap();
    broken!(broken, "UnmapError", unmap(UnmapDma::all().vaddr_only()), EINVAL);

    let rig = Rig::new(K, extension::TYPE1V2, vec![emulated(1)]);
    let device = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    device.on_unmap(|_, _| {});
    rig.map(0, 0x1000).unwrap();
    device.pin_pages(Iova(0), 1, Access::Read).unwrap();
    let unmap = |request: UnmapDma| rig.container.unmap(&rig.process, &request);
    broken!(broken, "UnmapError", unmap(UnmapDma::all().vaddr_only()), EBUSY);
    broken!(broken, "UnmapError", unmap(UnmapDma::all()), EBUSY);
}
