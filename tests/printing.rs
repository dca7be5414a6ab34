// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: whatever a test holds can be printed when it fails, and says which one it is; and names in
//! messages are those of `vfio.h`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{Rig, device_name, emulated, group, msi, vtd};
use vfio_type1::abi::command;
use vfio_type1::{
    Access, Container, DeviceDescription, Errno, GroupDescription, GroupId, GroupKind, Iova,
    Kernel, MapDma, MemoryChange, UnmapDma, Vfio, extension,
};

fn rig() -> Rig {
    Rig::new(Kernel::V7_3, 3, vec![group(&vtd(39), 1, vec![msi()]), emulated(2)])
}

/// A group without an IOMMU.
fn bare(number: u32) -> GroupDescription {
    let devices = vec![DeviceDescription::new(device_name(number), Vec::new())];
    GroupDescription { number, kind: GroupKind::NoIommu, devices }
}

#[test]
fn handles_say_which_ones_they_are() {
    let rig = rig();
    let name = device_name(1);
    let device = rig.groups[0].open_device(&name, &rig.process).unwrap();
    let bus = rig.vfio.bus_master(&name).unwrap();
    assert_eq!((bus.device(), bus.group()), (name.as_str(), GroupId::Numbered(1)));
    let printed = [
        (format!("{:?}", rig.vfio), "kernel: Kernel(7.3), groups: 2"),
        (format!("{:?}", rig.container), "type1 V2"),
        (format!("{:?}", rig.groups[0]), "container_set: true"),
        (format!("{device:?}"), name.as_str()),
        (format!("{bus:?}"), name.as_str()),
        (format!("{:?}", rig.process), "locked_pages: 0"),
    ];
    for (text, expected) in printed {
        assert!(text.contains(expected), "{text} lacks {expected}");
    }
    let empty: Container = rig.vfio.open_container();
    assert!(format!("{empty:?}").contains("none"), "{empty:?}");
    let vfio = Vfio::new(Kernel::V7_3, vec![bare(4)]).unwrap();
    vfio.set_noiommu(true);
    let group = vfio.open_group(GroupId::NoIommu(4), &rig.process).unwrap();
    let container = vfio.open_container();
    group.set_container(&container, &rig.process).unwrap();
    container.set_iommu(&rig.process, extension::NOIOMMU).unwrap();
    assert!(format!("{container:?}").contains("noiommu"), "{container:?}");
}

#[test]
fn a_faults_history_can_be_printed_and_compared() {
    let rig = rig();
    let bus = rig.vfio.bus_master(&device_name(1)).unwrap();
    rig.map(0x1000, 0x1000).unwrap();
    rig.container.unmap(&rig.process, &UnmapDma::new(0x1000, 0x1000)).unwrap();
    let read = || bus.read(Iova(0x1000), &mut [0]).unwrap_err();
    let (first, second) = (read(), read());
    assert_eq!(first, second);
    rig.map(0x8000, 0x1000).unwrap();
    assert_ne!(first, read(), "one call more ago");
    assert!(read().to_string().contains("0x1000..0x1fff was unmapped 1 call ago"));
}

#[test]
fn a_fault_tells_the_last_thing_that_happened_to_an_address() {
    let rig = rig();
    let bus = rig.vfio.bus_master(&device_name(1)).unwrap();
    let says = |expected: &str| {
        let fault = bus.read(Iova(0x5000), &mut [0]).unwrap_err();
        assert!(fault.to_string().contains(expected), "{fault} lacks {expected}");
        fault
    };
    // Refused: the process has no memory there.
    let request = MapDma::new(0x5000, 0x1000, 0x1000, Access::Write);
    rig.container.map(&rig.process, &request).unwrap_err();
    let (one, same) = (
        says("refused with EFAULT by the last call"),
        says("refused with EFAULT by the last call"),
    );
    assert_eq!(one, same);
    rig.map(0x9000, 0x1000).unwrap();
    assert_ne!(one, says("refused with EFAULT 1 call ago"));
    rig.map(0x5000, 0x1000).unwrap();
    rig.container.unmap(&rig.process, &UnmapDma::new(0x5000, 0x1000)).unwrap();
    says("0x5000..0x5fff was unmapped by the last call");

    // Of a refusal and what came after it, the later one is told.
    rig.map(0x5000, 0x1000).unwrap();
    rig.map(0x5000, 0x1000).unwrap_err();
    rig.groups.iter().for_each(|group| group.unset_container().unwrap());
    rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
    rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    says("went when the container's last group left");
}

#[test]
fn a_thread_without_a_name_is_not_named() {
    let rig = rig();
    let bus = rig.vfio.bus_master(&device_name(1)).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            rig.map(0x1000, 0x1000).unwrap();
            rig.container.unmap(&rig.process, &UnmapDma::new(0x1000, 0x1000)).unwrap();
        });
    });
    let fault = bus.read(Iova(0x1000), &mut [0]).unwrap_err().to_string();
    assert!(fault.contains("unmapped by the last call") && !fault.contains("thread"), "{fault}");
}

#[test]
fn what_may_be_done_with_memory_is_said_in_words() {
    let words = [Access::Read, Access::Write, Access::ReadWrite].map(|access| access.to_string());
    assert_eq!(words, ["read-only", "write-only", "read-write"]);
    let vfio = Vfio::new(Kernel::V7_3, vec![bare(4), emulated(7)]).unwrap();
    let refused = vfio.open_group(GroupId::Numbered(5), &common::process()).unwrap_err();
    assert_eq!(refused.to_string(), "the host has no group 5; it has 7, noiommu-4");
}

#[test]
fn kernels_and_errnos_have_names() {
    assert_eq!(Kernel::default().name(), Kernel::NEWEST.name());
    assert_eq!(format!("{:>6}|{:?}", Kernel::V6_1, Kernel::V6_1), "   6.1|Kernel(6.1)");
    assert_eq!(
        (Errno::EINVAL.to_string(), Errno(4095).to_string()),
        ("EINVAL".into(), "errno 4095".into())
    );
    assert_eq!(std::io::Error::from(Errno::ENOENT).kind(), std::io::ErrorKind::NotFound);
    let changes = [MemoryChange::Unmapped, MemoryChange::Replaced, MemoryChange::Freed];
    let words = changes.map(|change| change.to_string());
    assert_eq!(words, ["unmapped from the process", "replaced by other pages", "freed"]);
}

#[test]
fn commands_are_named_as_in_the_header() {
    // 0x3b64 is VFIO_GET_API_VERSION; the number of each is 100 plus its place (docs/type1.md 0.3).
    let names: Vec<Option<&str>> = (0x3b64..=0x3b75).map(command::name).collect();
    let expected = [
        "GET_API_VERSION",
        "CHECK_EXTENSION",
        "SET_IOMMU",
        "GROUP_GET_STATUS",
        "GROUP_SET_CONTAINER",
        "GROUP_UNSET_CONTAINER",
        "GROUP_GET_DEVICE_FD",
        "",
        "",
        "",
        "",
        "",
        "IOMMU_GET_INFO",
        "IOMMU_MAP_DMA",
        "IOMMU_UNMAP_DMA",
        "",
        "",
        "IOMMU_DIRTY_PAGES",
    ];
    for (name, expected) in names.into_iter().zip(expected) {
        assert_eq!(name.map_or("", |name| name.strip_prefix("VFIO_").unwrap()), expected);
    }
}

#[test]
fn a_driver_says_what_it_holds() {
    let rig = rig();
    rig.map(0x4000, 0x2000).unwrap();
    let mapping = rig.container.mapping_at(Iova(0x5fff)).unwrap();
    assert_eq!(mapping.iova, common::range(0x4000, 0x5fff));
    assert!(rig.container.mapping_at(Iova(0x6000)).is_none());
    let text = rig.groups[0].reserved_regions();
    assert_eq!(Some(text), rig.vfio.reserved_regions(GroupId::Numbered(1)));
}
