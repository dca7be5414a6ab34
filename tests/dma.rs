// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: devices reach memory only through their group's domain, and a fault tells why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{RAM, ROM, Rig, device_name, emulated, group, msi, vtd};
use vfio_type1::{
    Access, DmaAccess, FaultCause, GroupId, Iova, Kernel, MAX_FAULTS, MapDma, RemovedBy, UnmapDma,
    Vaddr, Vfio, extension,
};

const NIC: &str = "0000:00:01.0";

fn vfio() -> Vfio {
    let iommu = vtd(39);
    let groups = [group(&iommu, 1, vec![msi()]), group(&iommu, 2, vec![msi()]), emulated(3)];
    Vfio::new(Kernel::V7_3, groups).unwrap()
}

/// A container with group 1 in it.
fn rig() -> Rig {
    let vfio = vfio();
    let process = common::process();
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
    group.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    Rig { container, process, groups: vec![group], vfio }
}

fn map(rig: &Rig, iova: u64, vaddr: u64, size: u64, access: Access) {
    rig.container.map(&rig.process, &MapDma::new(iova, vaddr, size, access)).unwrap();
}

fn unmap(rig: &Rig, iova: u64, size: u64) -> u64 {
    rig.container.unmap(&rig.process, &UnmapDma::new(iova, size)).unwrap()
}

#[test]
fn what_is_mapped_can_be_read_and_written() {
    let rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    // Two mappings side by side, their memory in the other order.
    map(&rig, 0x10000, RAM + 0x1000, 0x1000, Access::ReadWrite);
    map(&rig, 0x11000, RAM, 0x1000, Access::ReadWrite);
    let bytes: Vec<u8> = (0..=255).collect();
    nic.write(Iova(0x10f80), &bytes).unwrap();
    let mut back = vec![0; 256];
    nic.read(Iova(0x10f80), &mut back).unwrap();
    assert_eq!(back, bytes);
    rig.process.memory().read(Vaddr(RAM + 0x1f80), &mut back[..128]).unwrap();
    assert_eq!(back[..128], bytes[..128]);
    rig.process.memory().read(Vaddr(RAM), &mut back[..128]).unwrap();
    assert_eq!(back[..128], bytes[128..]);
    nic.read(Iova(0x5000), &mut []).unwrap();
    assert!(rig.vfio.take_faults().kept.is_empty());
    assert!(rig.vfio.bus_master("0000:00:09.0").is_none());
}

#[test]
fn a_fault_tells_where_and_why() {
    let rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    map(&rig, 0x10000, RAM, 0x2000, Access::ReadWrite);
    map(&rig, 0x20000, ROM, 0x1000, Access::Read);
    map(&rig, 0x30000, RAM, 0x1000, Access::Write);
    let cause = |fault: vfio_type1::DmaFault| (fault.iova.0, fault.cause);

    // What lies below the fault is done.
    let mut bytes = [7; 32];
    let (at, why) = cause(nic.write(Iova(0x11ff0), &bytes).unwrap_err());
    assert_eq!((at, why), (0x12000, FaultCause::NeverMapped));
    nic.read(Iova(0x11ff0), &mut bytes[..16]).unwrap();
    assert_eq!(bytes[..16], [7; 16]);

    let (at, why) = cause(nic.write(Iova(0x20010), &[1]).unwrap_err());
    let (allowed, mapping) = (Access::Read, common::range(0x20000, 0x20fff));
    assert_eq!((at, why), (0x20010, FaultCause::NotAllowed { mapping, allowed }));
    assert!(matches!(
        cause(nic.read(Iova(0x30000), &mut bytes).unwrap_err()).1,
        FaultCause::NotAllowed { allowed: Access::Write, .. }
    ));
    assert!(matches!(
        cause(nic.read(Iova(0xfee0_0000), &mut bytes).unwrap_err()).1,
        FaultCause::Reserved { owner, .. } if owner == NIC
    ));
    assert!(matches!(
        cause(nic.read(Iova(1 << 39), &mut bytes).unwrap_err()).1,
        FaultCause::BeyondAperture { .. }
    ));
    let past = nic.read(Iova(u64::MAX), &mut bytes).unwrap_err();
    assert_eq!(past.cause, FaultCause::PastTheEnd);

    let narrow = rig.vfio.bus_master(NIC).unwrap().with_address_bits(16);
    let fault = narrow.read(Iova(0xfff0), &mut bytes).unwrap_err();
    assert_eq!((fault.iova, &fault.cause), (Iova(0x10000), &FaultCause::BeyondMask { bits: 16 }));
    assert_eq!(
        fault.to_string(),
        "0000:00:01.0 cannot read at 0x10000: the device has 16 address bits only"
    );
    assert_eq!(rig.vfio.take_faults().kept.len(), 7);

    nic.set_enabled(false);
    let fault = nic.read(Iova(0x10000), &mut bytes).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "0000:00:01.0 cannot read at 0x10000: its bus mastering is off; \
         set bit 2 of its command register"
    );
    nic.set_enabled(true);
    nic.read(Iova(0x10000), &mut bytes).unwrap();
}

#[test]
fn a_stale_address_is_told_from_a_wild_one() {
    let rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    map(&rig, 0x10000, RAM, 0x1000, Access::ReadWrite);
    map(&rig, 0x11000, RAM, 0x1000, Access::ReadWrite);
    assert_eq!(unmap(&rig, 0x10000, 0x2000), 0x2000);
    map(&rig, 0x40000, RAM, 0x1000, Access::ReadWrite);
    map(&rig, 0x41000, RAM, 0x1000, Access::ReadWrite);
    let fault = nic.write(Iova(0x11008), &[1]).unwrap_err();
    let FaultCause::Unmapped(removal) = &fault.cause else { panic!("{fault}") };
    assert_eq!((removal.by, removal.calls_ago), (RemovedBy::Unmap, 2));
    assert_eq!(removal.range, common::range(0x10000, 0x11fff));
    assert!(fault.to_string().contains("was unmapped 2 calls ago, by thread"), "{fault}");
    let wild = nic.write(Iova(0x12008), &[1]).unwrap_err();
    assert_eq!(wild.cause, FaultCause::NeverMapped);
}

#[test]
fn a_group_reaches_memory_only_while_it_is_attached() {
    let mut rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    let other = rig.vfio.bus_master(&device_name(2)).unwrap();
    let mdev = rig.vfio.bus_master(&device_name(3)).unwrap();
    map(&rig, 0x10000, RAM, 0x1000, Access::ReadWrite);
    nic.write(Iova(0x10000), &[1]).unwrap();
    let blocked = |group| FaultCause::NotAttached { group: GroupId::Numbered(group) };
    assert_eq!(other.write(Iova(0x10000), &[1]).unwrap_err().cause, blocked(2));
    let no_iommu = FaultCause::NoIommu { group: GroupId::Numbered(3) };
    assert_eq!(mdev.write(Iova(0x10000), &[1]).unwrap_err().cause, no_iommu);

    // The last group takes the mappings with it, and a new start does not bring them back.
    rig.groups.clear();
    assert_eq!(nic.write(Iova(0x10000), &[1]).unwrap_err().cause, blocked(1));
    let group = rig.vfio.open_group(GroupId::Numbered(1), &rig.process).unwrap();
    group.set_container(&rig.container, &rig.process).unwrap();
    assert_eq!(nic.write(Iova(0x10000), &[1]).unwrap_err().cause, blocked(1));
    rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    let fault = nic.write(Iova(0x10000), &[1]).unwrap_err();
    let FaultCause::Unmapped(removal) = fault.cause else { panic!("{fault}") };
    assert_eq!(removal.by, RemovedBy::LastGroup);
}

#[test]
fn a_new_process_address_is_used_at_once() {
    let rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    map(&rig, 0x10000, RAM, 0x1000, Access::ReadWrite);
    nic.write(Iova(0x10000), &[1]).unwrap();
    let lose = UnmapDma::new(0x10000, 0x1000).vaddr_only();
    rig.container.unmap(&rig.process, &lose).unwrap();
    // The device goes on meanwhile: its pages are pinned.
    nic.write(Iova(0x10000), &[2]).unwrap();
    let again = MapDma::update_vaddr(0x10000, RAM + 0x1000, 0x1000);
    rig.container.map(&rig.process, &again).unwrap();
    nic.write(Iova(0x10000), &[3]).unwrap();
    let mut byte = [0];
    rig.process.memory().read(Vaddr(RAM + 0x1000), &mut byte).unwrap();
    assert_eq!(byte, [3]);
}

#[test]
fn the_log_keeps_the_newest_faults() {
    let rig = rig();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    for at in 0..MAX_FAULTS as u64 + 3 {
        nic.write(Iova(at << 12), &[0]).unwrap_err();
    }
    nic.check(Iova(0), 1, DmaAccess::Read).unwrap_err();
    let faults = rig.vfio.take_faults();
    assert_eq!((faults.kept.len(), faults.dropped), (MAX_FAULTS, 3));
    assert_eq!(faults.kept[0].iova, Iova(3 << 12));
    assert!(rig.vfio.take_faults().kept.is_empty());
}
