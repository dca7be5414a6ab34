// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a device model written against `vm-memory` sees guest memory through its domain, with
//! permissions and dirty bitmaps, and the last page of the address space does no harm.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{NIC, Rig, rig};
use vfio_type1::{Access, MapDma, MemoryChange, UnmapDma, VaddrRange};
use vfio_vmm::{DeviceIommu, GuestRam};
use vm_memory::bitmap::{AtomicBitmap, Bitmap as _};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemory, GuestMemoryBackend as _, GuestMemoryMmap, IommuMemory,
    Permissions,
};

type Ram = GuestMemoryMmap<AtomicBitmap>;
type Seen = IommuMemory<Ram, DeviceIommu<Ram>>;

/// Two regions of 64 KiB, the upper one at 1 MiB; and what the NIC sees of them.
fn guest() -> (Rig, Ram, Arc<GuestRam<Ram>>, Seen) {
    let ram = Ram::from_ranges(&[(GuestAddress(0), 0x10000), (GuestAddress(0x10_0000), 0x10000)])
        .unwrap();
    let memory = GuestRam::new(ram.clone()).unwrap();
    let rig = rig(Arc::clone(&memory) as Arc<_>);
    let iommu = DeviceIommu::new(rig.vfio.bus_master(NIC).unwrap(), Arc::clone(&memory));
    let bitmap = AtomicBitmap::new(0x4_0000, 4096.try_into().unwrap());
    let seen = IommuMemory::new(ram.clone(), iommu, true, bitmap);
    (rig, ram, memory, seen)
}

fn map(rig: &Rig, memory: &GuestRam<Ram>, iova: u64, guest: u64, size: u64, access: Access) {
    let vaddr = memory.vaddr_of(GuestAddress(guest)).unwrap();
    rig.container.map(&rig.process, &MapDma::new(iova, vaddr, size, access)).unwrap();
}

#[test]
fn a_device_sees_the_guest_through_its_domain() {
    let (rig, ram, memory, seen) = guest();
    map(&rig, &memory, 0x20000, 0x10_0000, 0x1000, Access::ReadWrite);
    map(&rig, &memory, 0x21000, 0x3000, 0x1000, Access::ReadWrite);
    // One access, two mappings, two regions.
    seen.write_slice(&[7; 32], GuestAddress(0x20ff0)).unwrap();
    let mut back = [0; 16];
    ram.read_slice(&mut back, GuestAddress(0x10_0ff0)).unwrap();
    assert_eq!(back, [7; 16]);
    ram.read_slice(&mut back, GuestAddress(0x3000)).unwrap();
    assert_eq!(back, [7; 16]);
    // What it wrote is marked by its own addresses.
    assert!(seen.bitmap().dirty_at(0x20ff0) && seen.bitmap().dirty_at(0x21000));
    assert!(!seen.bitmap().dirty_at(0x22000));

    rig.container.unmap(&rig.process, &UnmapDma::new(0x20000, 0x1000)).unwrap();
    let error = seen.write_slice(&[1], GuestAddress(0x20ff0)).unwrap_err().to_string();
    assert!(error.contains("was unmapped by the last call"), "{error}");
}

#[test]
fn permissions_are_those_of_the_mapping() {
    let (rig, _, memory, seen) = guest();
    map(&rig, &memory, 0x20000, 0, 0x1000, Access::Read);
    assert!(seen.check_range(GuestAddress(0x20000), 0x1000, Permissions::Read));
    assert!(!seen.check_range(GuestAddress(0x20000), 0x1000, Permissions::ReadWrite));
    assert!(!seen.check_range(GuestAddress(0x20000), 0x1001, Permissions::Read));
    let error = seen.write_slice(&[1], GuestAddress(0x20000)).unwrap_err().to_string();
    assert!(error.contains("is read-only"), "{error}");
}

#[test]
fn the_last_page_does_no_harm() {
    let (rig, _, memory, seen) = guest();
    let last_page = u64::MAX - 0xfff;
    map(&rig, &memory, last_page, 0, 0x1000, Access::ReadWrite);
    seen.write_slice(&[3; 16], GuestAddress(last_page)).unwrap();
    let error = seen.write_slice(&[3; 16], GuestAddress(u64::MAX - 15)).unwrap_err();
    assert!(error.to_string().contains("the last byte of the space"), "{error}");
    // The bus master itself can.
    let master = rig.vfio.bus_master(NIC).unwrap();
    master.write(vfio_type1::Iova(u64::MAX - 15), &[4; 16]).unwrap();
    let mut byte = [0];
    memory.backend().read_slice(&mut byte, GuestAddress(0xfff)).unwrap();
    assert_eq!(byte, [4]);
}

#[test]
fn writes_of_a_bus_master_mark_the_backend() {
    let (rig, ram, memory, _) = guest();
    map(&rig, &memory, 0x20000, 0x4000, 0x2000, Access::ReadWrite);
    let master = rig.vfio.bus_master(NIC).unwrap();
    master.write(vfio_type1::Iova(0x21000), &[1; 8]).unwrap();
    let region = ram.find_region(GuestAddress(0)).unwrap();
    let bitmap = vm_memory::GuestMemoryRegion::bitmap(region);
    assert!(bitmap.dirty_at(0x5000) && !bitmap.dirty_at(0x4000));
}

#[test]
fn a_balloon_under_a_live_mapping_is_found() {
    let (rig, _, memory, seen) = guest();
    map(&rig, &memory, 0x20000, 0x4000, 0x2000, Access::ReadWrite);
    rig.vfio.set_watch(true);
    let page = VaddrRange::from_size(memory.vaddr_of(GuestAddress(0x5000)).unwrap(), 0x1000);
    memory.record(page.unwrap(), MemoryChange::Replaced);
    seen.write_slice(&[1; 8], GuestAddress(0x20000)).unwrap();
    assert!(rig.vfio.take_findings().kept.is_empty());
    seen.write_slice(&[1; 8], GuestAddress(0x21000)).unwrap();
    let findings = rig.vfio.take_findings();
    assert!(findings.kept[0].to_string().contains("replaced by other pages since"));
}
