// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: drivers of emulated (mdev) devices can pin, unpin and copy as in the kernel, and are
//! told before their pages go (spec 7.6).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{RAM, ROM, Rig, device_name, emulated, group, msi, vtd};
use vfio_type1::{
    Access, DirtyPages, Errno, GroupId, Iova, IovaRange, Kernel, MAX_PIN_PAGES, MapDma, OpenDevice,
    UnmapDma, UserBitmap, Vaddr, Vfio, extension,
};

fn rig(kernel: Kernel) -> Rig {
    Rig::new(kernel, extension::TYPE1V2, vec![emulated(5)])
}

/// A device whose driver lets go of everything it is asked for.
fn device(rig: &Rig) -> OpenDevice {
    let group = rig.groups.iter().find(|group| group.id() == GroupId::Numbered(5)).unwrap();
    let device = group.open_device(&device_name(5), &rig.process).unwrap();
    device.on_unmap(|unpinner, iova| unpinner.unpin(iova));
    device
}

#[test]
fn with_emulated_groups_alone_nothing_is_checked_or_pinned() {
    let rig = rig(Kernel::V7_3);
    let nowhere = MapDma::new(0xfee0_0000, 0x1000, 0x1000, Access::ReadWrite);
    rig.container.map(&rig.process, &nowhere).unwrap();
    assert_eq!(rig.process.locked_pages(), 0);
    assert_eq!(rig.valid(), []);
    assert!(rig.container.check_extension(extension::DMA_CC));
    assert!(!rig.container.check_extension(extension::UPDATE_VADDR));
    let refused = rig.container.unmap(&rig.process, &UnmapDma::all().vaddr_only()).unwrap_err();
    assert_eq!(refused.errno(), Errno::EBUSY);
}

#[test]
fn pins_are_counted_and_charged_once() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    rig.map(0x10_0000, 0x4000).unwrap();
    device.pin_pages(Iova(0x10_1000), 2, Access::ReadWrite).unwrap();
    device.pin_pages(Iova(0x10_2000), 2, Access::Read).unwrap();
    assert_eq!(rig.process.locked_pages(), 3);
    device.unpin_pages(Iova(0x10_1000), 2);
    assert_eq!(rig.process.locked_pages(), 2, "the page pinned twice is still pinned");
    device.unpin_pages(Iova(0x10_2000), 2);
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn letting_go_stops_at_the_first_page_without_a_mapping_and_at_the_top() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    let top = u64::MAX - 0xfff;
    for page in [0x10_0000, 0x10_2000, top] {
        rig.map(page, 0x1000).unwrap();
        device.pin_pages(Iova(page), 1, Access::Read).unwrap();
    }
    device.unpin_pages(Iova(0x10_0000), 3);
    assert_eq!(rig.process.locked_pages(), 2, "what lies behind the hole stays pinned");
    device.unpin_pages(Iova(top), 2);
    assert_eq!(rig.process.locked_pages(), 1);
    device.unpin_pages(Iova(0x10_2000), MAX_PIN_PAGES + 1);
    assert_eq!(rig.process.locked_pages(), 1, "more pages than can be pinned are not looked at");
    device.unpin_pages(Iova(0x10_2000), MAX_PIN_PAGES);
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn an_iommu_group_that_joins_counts_against_the_owners_limit_too() {
    let other = common::process();
    let vfio = Vfio::new(Kernel::V7_3, vec![emulated(5), group(&vtd(48), 1, vec![msi()])]).unwrap();
    let container = vfio.open_container();
    let mdev = vfio.open_group(GroupId::Numbered(5), &other).unwrap();
    mdev.set_container(&container, &other).unwrap();
    container.set_iommu(&other, extension::TYPE1V2).unwrap();
    let owner = common::process();
    owner.set_cap_ipc_lock(false);
    owner.set_memlock(3 << 12);
    let request = MapDma::new(0, RAM, 0x5000, Access::ReadWrite);
    container.map(&owner, &request).unwrap();
    let real = vfio.open_group(GroupId::Numbered(1), &other).unwrap();
    let error = real.set_container(&container, &other).unwrap_err();
    assert_eq!((error.errno(), owner.locked_pages()), (Errno::ENOMEM, 0));
    owner.set_memlock(5 << 12);
    real.set_container(&container, &other).unwrap();
    assert_eq!((owner.locked_pages(), other.locked_pages()), (5, 0));
}

#[test]
fn refusals_pin_nothing() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    rig.map(0x10_0000, 0x2000).unwrap();
    let read_only = MapDma::new(0x20_0000, ROM, 0x1000, Access::Read);
    rig.container.map(&rig.process, &read_only).unwrap();
    let pin =
        |iova, pages, access| device.pin_pages(Iova(iova), pages, access).unwrap_err().errno();
    assert_eq!(pin(0x10_0000, 0, Access::Read), Errno::EINVAL);
    assert_eq!(pin(0x10_0000, 513, Access::Read), Errno::E2BIG);
    assert_eq!(pin(0x10_0000, 3, Access::Read), Errno::EINVAL);
    assert_eq!(pin(0x20_0000, 1, Access::ReadWrite), Errno::EPERM);
    assert_eq!(pin(u64::MAX - 0xfff, 2, Access::Read), Errno::EOVERFLOW);
    rig.process.set_cap_ipc_lock(false);
    rig.process.set_memlock(4096);
    let second = MapDma::new(0x30_0000, RAM, 0x2000, Access::Read);
    rig.container.map(&rig.process, &second).unwrap();
    assert_eq!(pin(0x30_0000, 2, Access::Read), Errno::ENOMEM);
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn unmapping_tells_the_device_first() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    rig.map(0x10_0000, 0x4000).unwrap();
    device.pin_pages(Iova(0x10_1000), 1, Access::Read).unwrap();
    assert_eq!(rig.container.unmap(&rig.process, &UnmapDma::all()), Ok(0x4000));
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn a_driver_that_does_not_let_go_is_told_again_ten_times() {
    let rig = rig(Kernel::V7_3);
    let told = Arc::new(AtomicU32::new(0));
    let device = rig.groups[0].open_device(&device_name(5), &rig.process).unwrap();
    let count = Arc::clone(&told);
    device.on_unmap(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    rig.map(0x10_0000, 0x1000).unwrap();
    device.pin_pages(Iova(0x10_0000), 1, Access::Read).unwrap();
    let error = rig.container.unmap(&rig.process, &UnmapDma::all()).unwrap_err();
    assert_eq!(told.load(Ordering::Relaxed), 11);
    assert!(error.to_string().contains("its unmap callback must unpin them"), "{error}");
    assert_eq!(rig.mapped().len(), 1);
}

#[test]
fn copies_cross_mappings_and_need_permissions() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    rig.map(0x10_0000, 0x1000).unwrap();
    let next = MapDma::new(0x10_1000, RAM + 0x8000, 0x1000, Access::ReadWrite);
    rig.container.map(&rig.process, &next).unwrap();
    device.dma_write(Iova(0x10_0ffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 2];
    rig.process.memory().read(Vaddr(RAM + 0x8000), &mut bytes).unwrap();
    assert_eq!(bytes, [3, 4]);
    let mut back = [0; 4];
    device.dma_read(Iova(0x10_0ffe), &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);

    let write_only = MapDma::new(0x20_0000, RAM, 0x1000, Access::Write);
    rig.container.map(&rig.process, &write_only).unwrap();
    let errno = |error: vfio_type1::DmaRwError| error.errno();
    // Any access needs READ (spec 7.6).
    assert_eq!(errno(device.dma_write(Iova(0x20_0000), &[1]).unwrap_err()), Errno::EPERM);
    assert_eq!(errno(device.dma_read(Iova(0x30_0000), &mut back).unwrap_err()), Errno::EINVAL);
    rig.process.exit();
    assert_eq!(errno(device.dma_read(Iova(0x10_0000), &mut back).unwrap_err()), Errno::EPERM);
}

#[test]
fn only_pinned_and_written_pages_are_dirty() {
    let rig = rig(Kernel::V7_3);
    let device = device(&rig);
    rig.map(0x10_0000, 0x8000).unwrap();
    rig.container.dirty_pages(&rig.process, &DirtyPages::Start).unwrap();
    device.pin_pages(Iova(0x10_1000), 1, Access::Read).unwrap();
    device.dma_write(Iova(0x10_3fff), &[0, 0]).unwrap();
    let dirty = || {
        let bitmap = UserBitmap { page_size: 0x1000, bytes: 8, data: Vaddr(RAM + 0x10_0000) };
        let get = DirtyPages::GetBitmap { iova: Iova(0x10_0000), size: 0x8000, bitmap };
        rig.container.dirty_pages(&rig.process, &get).unwrap();
        let mut bytes = [0; 8];
        rig.process.memory().read(bitmap.data, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    assert_eq!(dirty(), 0b1_1010);
    assert_eq!(dirty(), 0b0_0010, "the pinned page may be written at any time");
}

#[test]
fn an_iommu_group_that_joins_pins_what_is_mapped() {
    let host = vec![group(&vtd(48), 1, vec![msi()]), emulated(5)];
    let rig = Rig::new(Kernel::V7_3, extension::TYPE1V2, host);
    rig.groups[0].unset_container().unwrap();
    let device = device(&rig);
    rig.map(0x10_0000, 0x4000).unwrap();
    device.pin_pages(Iova(0x10_0000), 1, Access::Read).unwrap();
    assert_eq!(rig.process.locked_pages(), 1);
    let join = || rig.groups[0].set_container(&rig.container, &rig.process);

    let bad = MapDma::new(0x20_0000, 0x1000, 0x1000, Access::Read);
    rig.container.map(&rig.process, &bad).unwrap();
    assert_eq!(join().unwrap_err().errno(), Errno::EFAULT);
    assert_eq!(rig.process.locked_pages(), 1, "nothing of the attempt stays");
    rig.container.unmap(&rig.process, &UnmapDma::new(0x20_0000, 0x1000)).unwrap();

    join().unwrap();
    assert_eq!(rig.process.locked_pages(), 4, "the page pinned before counts once");
    rig.groups[0].unset_container().unwrap();
    assert_eq!(rig.process.locked_pages(), 1);
    assert_eq!(rig.valid(), [IovaRange::full()], "spec 3.7");
}

#[test]
fn a_range_beyond_the_iommu_is_its_drivers_to_refuse() {
    for (kernel, errno) in [(Kernel::V6_12, Errno::EFAULT), (Kernel::V7_3, Errno::ERANGE)] {
        let host = vec![group(&vtd(39), 1, vec![msi()]), emulated(5)];
        let rig = Rig::new(kernel, extension::TYPE1V2, host);
        // Start anew with the emulated group alone: no list, so no conflict with one either.
        rig.groups.iter().for_each(|group| group.unset_container().unwrap());
        rig.groups[1].set_container(&rig.container, &rig.process).unwrap();
        rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
        rig.map(1 << 39, 0x1000).unwrap();
        let refused = rig.groups[0].set_container(&rig.container, &rig.process).unwrap_err();
        assert_eq!(refused.errno(), errno, "{refused}");
    }
}

#[test]
fn a_callback_may_own_another_device() {
    let rig = Rig::new(Kernel::V7_3, extension::TYPE1V2, vec![emulated(5), emulated(6)]);
    let owned = rig.groups[1].open_device(&device_name(6), &rig.process).unwrap();
    owned.on_unmap(|unpinner, iova| unpinner.unpin(iova));
    let device = rig.groups[0].open_device(&device_name(5), &rig.process).unwrap();
    device.on_unmap(move |_, iova| owned.unpin_pages(iova.first(), 1));
    device.pin_pages(Iova(0), 1, Access::Read).unwrap_err();
    rig.map(0, 0x1000).unwrap();
    device.pin_pages(Iova(0), 1, Access::Read).unwrap();
    assert_eq!(rig.container.unmap(&rig.process, &UnmapDma::all()), Ok(0x1000));
    // Closing the one closes the other, from within.
    drop(device);
}
