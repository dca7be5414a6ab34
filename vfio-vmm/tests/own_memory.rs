// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program that tells what becomes of its own memory has its stale mappings found.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{NIC, rig};
use vfio_type1::{Access, Iova, MapDma, MemoryChange, Mistake, UnmapDma, Vaddr, VaddrRange};
use vfio_vmm::OwnMemory;

#[test]
#[expect(unsafe_code, reason = "the memory that devices reach is raw memory")]
fn a_buffer_freed_under_a_live_mapping_is_found() {
    // SAFETY: the device only reads, and by system calls.
    let memory = unsafe { OwnMemory::checked() };
    let rig = rig(Arc::clone(&memory) as Arc<_>);
    let nic = rig.vfio.bus_master(NIC).unwrap();
    rig.vfio.set_watch(true);

    let buffer = vec![1_u8; 2 * 4096];
    let start = buffer.as_ptr().expose_provenance() as u64;
    let page = VaddrRange::from_size(Vaddr(start.next_multiple_of(4096)), 4096).unwrap();
    let map = MapDma::new(0x1000, page.first(), 4096, Access::Read);
    rig.container.map(&rig.process, &map).unwrap();
    nic.read(Iova(0x1000), &mut [0; 16]).unwrap();
    assert!(rig.vfio.take_findings().kept.is_empty());

    memory.record(page, MemoryChange::Freed);
    drop(buffer);
    // Whether there still is memory is the allocator's business.
    let _ = nic.read(Iova(0x1000), &mut [0; 16]);
    let found = rig.vfio.take_findings().kept.pop_front().unwrap().mistake;
    assert!(matches!(found, Mistake::StaleMapping { change: MemoryChange::Freed, .. }), "{found}");

    rig.container.unmap(&rig.process, &UnmapDma::new(0x1000, 4096)).unwrap();
    nic.read(Iova(0x1000), &mut [0; 16]).unwrap_err();
    assert!(rig.vfio.take_findings().kept.is_empty());
}
