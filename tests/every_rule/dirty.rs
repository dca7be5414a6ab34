// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of DIRTY_PAGES and of bitmaps.

use vfio_type1::abi::command;
use vfio_type1::{DirtyPages, Errno, Iova, Kernel, UserBitmap, Vaddr, extension};

use crate::common::{RAM, ROM, Rig, emulated};
use crate::{Broken, K, broken};

pub(crate) fn break_dirty(broken: &mut Broken) {
    let rig = Rig::plain(K);
    rig.map(0x1_0000, 0x4000).unwrap();
    let dirty = |request: &DirtyPages| rig.container.dirty_pages(&rig.process, request);
    let good = UserBitmap { page_size: 0x1000, bytes: 64, data: Vaddr(RAM) };
    let get = |iova, size, bitmap| dirty(&DirtyPages::GetBitmap { iova: Iova(iova), size, bitmap });
    let off = broken!(broken, "DirtyError", get(0x1_0000, 0x4000, good), EINVAL);
    broken.add_inner("BitmapError", &off);
    dirty(&DirtyPages::Start).unwrap();
    let old = Rig::plain(Kernel::V6_12);
    let top = DirtyPages::GetBitmap { iova: Iova(u64::MAX - 0xfff), size: 0x1000, bitmap: good };
    broken!(broken, "DirtyError", old.container.dirty_pages(&old.process, &top), EINVAL);
    broken!(broken, "DirtyError", get(0, 0, good), EINVAL);
    broken!(broken, "DirtyError", get(u64::MAX - 0xfff, 0x2000, good), EOVERFLOW);
    broken!(broken, "DirtyError", get(0x1_0800, 0x1000, good), EINVAL);
    broken!(broken, "DirtyError", get(0x1_1000, 0x1000, good), EINVAL);
    let fault = UserBitmap { data: Vaddr(ROM), ..good };
    broken!(broken, "DirtyError", get(0x1_0000, 0x4000, fault), EFAULT);
    let bad_bitmaps = [
        UserBitmap { data: Vaddr(u64::MAX), ..good },
        UserBitmap { page_size: 1 << 30, ..good },
        UserBitmap { bytes: 0, ..good },
        UserBitmap { bytes: (1 << 28) + 8, ..good },
        UserBitmap { page_size: 0x2000, ..good },
    ];
    for bitmap in bad_bitmaps {
        broken.add_inner("BitmapError", &get(0x1_0000, 0x4000, bitmap).unwrap_err());
    }
    let mut flags = vec![8, 0, 0, 0, 3, 0, 0, 0];
    flags.resize(16, 0);
    rig.process.memory().write(Vaddr(RAM), &flags).unwrap();
    let error = rig.container.ioctl(&rig.process, command::IOMMU_DIRTY_PAGES, RAM).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    broken.add_inner("DirtyError", &error);

    let v1 = Rig::new(K, extension::TYPE1, vec![emulated(1)]);
    let start = |rig: &Rig| rig.container.dirty_pages(&rig.process, &DirtyPages::Start);
    broken!(broken, "DirtyError", start(&v1), EACCES);
    let old = Rig::plain(Kernel::V4_19);
    broken!(broken, "DirtyError", start(&old), ENOTTY);
    let large = Rig::new(K, extension::TYPE1V2, vec![emulated(1)]);
    large.map(0, 1 << 43).unwrap();
    broken!(broken, "DirtyError", start(&large), EINVAL);
}
