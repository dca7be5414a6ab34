// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: locked memory is counted and limited as in the kernel (spec 5.3, 5.4).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{DeviceMemory, RAM, Rig, memory, process};
use vfio_type1::{Access, Errno, Kernel, MapDma, MapError, Process, UnmapDma};

#[test]
fn the_limit_counts_whole_pages_and_may_be_reached() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.process.set_cap_ipc_lock(false);
    rig.process.set_memlock(3 * 4096 + 4095);
    rig.map(0, 0x3000).unwrap();
    let error = rig.map(0x10_0000, 0x1000).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOMEM);
    let message = "3 pages are locked and 1 more would pass the limit of 3 pages";
    assert!(error.to_string().contains(message), "{error}");
    rig.container.unmap(&rig.process, &UnmapDma::all()).unwrap();
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn the_capability_lifts_the_limit_but_the_pages_count() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.process.set_memlock(0);
    rig.map(0, 0x3000).unwrap();
    assert_eq!(rig.process.locked_pages(), 3);
    rig.process.set_cap_ipc_lock(false);
    rig.process.set_memlock(4 * 4096);
    rig.map(0x10_0000, 0x1000).unwrap();
    assert!(rig.map(0x20_0000, 0x1000).is_err(), "a later mapping sees the total");
}

#[test]
fn a_page_mapped_twice_counts_twice_and_mlock_shares_the_account() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.process.lock_pages(5);
    rig.map(0, 0x1000).unwrap();
    rig.map(0x1000, 0x1000).unwrap();
    assert_eq!(rig.process.locked_pages(), 7);
}

#[test]
fn memory_of_other_devices_is_not_charged() {
    let rig = Rig::plain(Kernel::NEWEST);
    let process = Process::new(Arc::new(DeviceMemory(memory())));
    process.set_cap_ipc_lock(false);
    process.set_memlock(0);
    let bar = MapDma::new(0, RAM, 0x10_0000, Access::ReadWrite);
    rig.container.map(&process, &bar).unwrap();
    assert_eq!((process.locked_pages(), rig.container.mappings()[0].locked_pages), (0, 0));
    rig.container.unmap(&process, &UnmapDma::all()).unwrap();
    assert_eq!(process.locked_pages(), 0);
}

#[test]
fn what_comes_first_in_the_range_decides() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.process.set_cap_ipc_lock(false);
    // The last two of four pages are not there.
    let map = |pages: u64| {
        let vaddr = RAM + (1 << 30) - pages * 4096;
        let request = MapDma::new(0, vaddr, 4 * 4096, Access::Read);
        rig.container.map(&rig.process, &request).unwrap_err().errno()
    };
    rig.process.set_memlock(4096);
    assert_eq!(map(2), Errno::ENOMEM);
    rig.process.set_memlock(2 * 4096);
    assert_eq!(map(2), Errno::EFAULT);
    assert_eq!(rig.process.locked_pages(), 0);
}

#[test]
fn a_new_vaddr_from_another_process_moves_the_charge() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0, 0x3000).unwrap();
    rig.container.unmap(&rig.process, &UnmapDma::all().vaddr_only()).unwrap();
    let heir = process();
    heir.set_cap_ipc_lock(false);
    heir.set_memlock(2 * 4096);
    let update = MapDma::update_vaddr(0, RAM, 0x3000);
    let error = rig.container.map(&heir, &update).unwrap_err();
    assert!(matches!(error, MapError::TakeOver(_)), "{error}");
    assert_eq!((rig.process.locked_pages(), heir.locked_pages()), (3, 0));
    heir.set_memlock(3 * 4096);
    rig.container.map(&heir, &update).unwrap();
    assert_eq!((rig.process.locked_pages(), heir.locked_pages()), (0, 3));
}

#[test]
fn nobody_is_credited_for_a_process_that_exited() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0, 0x3000).unwrap();
    rig.process.exit();
    let other = process();
    assert_eq!(rig.container.unmap(&other, &UnmapDma::all()), Ok(0x3000));
    assert_eq!((rig.process.locked_pages(), other.locked_pages()), (3, 0));
}

#[test]
fn up_to_5_19_another_process_unmaps_nothing() {
    let rig = Rig::plain(Kernel::V5_10);
    rig.map(0, 0x1000).unwrap();
    let other = process();
    let everything = UnmapDma::new(0, 0x10_0000);
    assert_eq!(rig.container.unmap(&other, &everything), Ok(0));
    assert_eq!(rig.container.unmap(&rig.process, &everything), Ok(0x1000));
}
