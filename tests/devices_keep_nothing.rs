// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: what a device keeps of translations and processes shows in no answer, and keeps nothing
//! alive.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{RAM, Rig, device_name, group, memory, process, vtd};
use vfio_type1::{
    Access, BusMaster, DirtyPages, DmaAccess, Fault, GroupId, Iova, Kernel, MapDma, Memory,
    ModelMemory, PinFault, PinnedRun, Process, UnmapDma, UserBitmap, Vaddr, VaddrRange, Vfio,
    extension,
};

const PAGE: u64 = 0x1000;

/// Groups in one container, each with a device.
fn rig(process: &Arc<Process>, groups: u32) -> Rig {
    let iommu = vtd(48);
    let vfio = Vfio::new(Kernel::V7_3, (1..=groups).map(|n| group(&iommu, n, Vec::new()))).unwrap();
    let container = vfio.open_container();
    let open = |number| {
        let group = vfio.open_group(GroupId::Numbered(number), process).unwrap();
        group.set_container(&container, process).unwrap();
        group
    };
    let groups = (1..=groups).map(open).collect();
    container.set_iommu(process, extension::TYPE1V2).unwrap();
    Rig { container, process: Arc::clone(process), groups, vfio }
}

impl Rig {
    fn map_for(&self, process: &Arc<Process>, iova: u64, access: Access) {
        let request = MapDma::new(iova, RAM, PAGE, access);
        self.container.map(process, &request).unwrap();
    }

    fn unmap_for(&self, process: &Arc<Process>, iova: u64) {
        self.container.unmap(process, &UnmapDma::new(iova, PAGE)).unwrap();
    }

    fn master(&self, group: u32) -> BusMaster {
        self.vfio.bus_master(&device_name(group)).unwrap()
    }
}

/// Asks often enough that the translation is kept.
fn warm(master: &BusMaster, iova: u64) {
    (0..4).for_each(|_| master.check(Iova(iova), 1, DmaAccess::Read).unwrap());
}

#[test]
fn a_kept_translation_allows_no_more_than_a_new_one() {
    let rig = rig(&process(), 1);
    rig.map_for(&rig.process, 0x1000, Access::Read);
    rig.map_for(&rig.process, 0x2000, Access::Read);
    let master = rig.master(1).with_address_bits(13);
    warm(&master, 0x1000);
    let check = |at, length, access| master.check(Iova(at), length, access).is_ok();
    assert!(check(0x1fff, 1, DmaAccess::Read));
    assert!(!check(0x1000, 1, DmaAccess::Write), "the mapping is for reading");
    assert!(!check(0x1fff, 2, DmaAccess::Read), "the second byte is beyond the mask");
    let wide = rig.master(1);
    warm(&wide, 0x1000);
    assert!(wide.check(Iova(0x1fff), 2, DmaAccess::Read).is_ok(), "in two mappings");
    assert!(wide.check(Iova(0x1fff), 0x1002, DmaAccess::Read).is_err(), "and one byte behind them");
    master.set_enabled(false);
    assert!(!check(0x1000, 1, DmaAccess::Read), "bus mastering is off");
    let mut seen = false;
    assert!(master.translate_each(Iova(0x1000), 1, DmaAccess::Read, |_, _| seen = true).is_err());
    assert!(!seen);
}

#[test]
fn a_device_whose_group_has_left_finds_nothing_at_once() {
    let rig = rig(&process(), 2);
    rig.map_for(&rig.process, 0x1000, Access::ReadWrite);
    let (leaves, stays) = (rig.master(1), rig.master(2));
    warm(&leaves, 0x1000);
    warm(&stays, 0x1000);
    rig.groups[0].unset_container().unwrap();
    assert!(leaves.check(Iova(0x1000), 1, DmaAccess::Read).is_err());
    assert!(stays.check(Iova(0x1000), 1, DmaAccess::Read).is_ok());
}

#[test]
fn one_process_is_not_taken_for_another() {
    let [first, second] = [process(), process()];
    let rig = rig(&first, 1);
    let master = rig.master(1);
    for (byte, process) in [(1, &first), (2, &second), (3, &first)] {
        process.memory().write(Vaddr(RAM), &[byte]).unwrap();
        rig.map_for(process, 0x1000, Access::Read);
        for _ in 0..4 {
            let mut read = [0];
            master.read(Iova(0x1000), &mut read).unwrap();
            assert_eq!(read, [byte]);
        }
        rig.unmap_for(process, 0x1000);
    }
}

#[test]
fn memory_goes_with_the_last_mapping() {
    let (keeper, memory) = (process(), memory());
    let rig = rig(&keeper, 1);
    let master = rig.master(1);
    let alive = Arc::downgrade(&memory);
    let process = Process::new(memory);
    rig.map_for(&process, 0x1000, Access::ReadWrite);
    (0..4).for_each(|_| master.write(Iova(0x1000), &[1]).unwrap());
    rig.unmap_for(&process, 0x1000);
    drop(process);
    assert!(alive.upgrade().is_none());
}

#[test]
fn a_process_is_kept_once() {
    let process = process();
    let rig = rig(&process, 1);
    let pages = || (0..300).map(|page| 0x1000 + page * 0x10_1000);
    pages().for_each(|iova| rig.map_for(&process, iova, Access::ReadWrite));
    let master = rig.master(1);
    let before = Arc::strong_count(&process);
    (0..4).flat_map(|_| pages()).for_each(|iova| master.write(Iova(iova), &[1]).unwrap());
    assert!(Arc::strong_count(&process) <= before + 1);
}

#[test]
fn who_gets_the_pieces_may_unmap_them() {
    let (done, all) = mpsc::channel();
    for watch in [false, true] {
        let done = done.clone();
        thread::spawn(move || {
            let rig = rig(&process(), 1);
            rig.vfio.set_watch(watch);
            rig.map_for(&rig.process, 0x1000, Access::Read);
            let master = rig.master(1);
            let unmap = |_, _| rig.unmap_for(&rig.process, 0x1000);
            master.translate_each(Iova(0x1000), 16, DmaAccess::Read, unmap).unwrap();
            done.send(watch).unwrap();
        });
    }
    let timeout = Duration::from_secs(20);
    assert!((0..2).all(|_| all.recv_timeout(timeout).is_ok()), "a call waits for itself");
}

/// Memory that panics when a bitmap is written to it.
struct Panics(Arc<ModelMemory>);

/// Where it does.
const BITMAP: u64 = RAM + 0x10000;

impl Memory for Panics {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read(from, into)
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        assert!(to.0 != BITMAP + 8, "the second mapping is reported");
        self.0.write(to, bytes)
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        self.0.pin(pages, access)
    }
}

#[test]
fn after_a_call_that_panicked_nothing_old_is_reached() {
    let [panics, other] = [Process::new(Arc::new(Panics(memory()))), process()];
    let rig = rig(&other, 1);
    rig.container.dirty_pages(&other, &DirtyPages::Start).unwrap();
    // In words of their own in the bitmap.
    rig.map_for(&panics, 0x1000, Access::ReadWrite);
    rig.map_for(&other, 0x1000 + 64 * PAGE, Access::ReadWrite);
    panics.memory().write(Vaddr(RAM), &[1]).unwrap();
    other.memory().write(Vaddr(RAM), &[2]).unwrap();
    let master = rig.master(1);
    let read = || {
        let mut byte = [0];
        master.read(Iova(0x1000), &mut byte).unwrap();
        byte[0]
    };
    assert_eq!([(); 4].map(|()| read()), [1; 4]);
    let request = UnmapDma::new(0x1000, 65 * PAGE);
    let request = request.with_bitmap(UserBitmap::new(PAGE, 65, BITMAP));
    let unmap = || rig.container.unmap(&panics, &request);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(unmap)).is_err());
    rig.map_for(&other, 0x1000, Access::ReadWrite);
    assert_eq!(read(), 2);
}
