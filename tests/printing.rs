// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: whatever a test holds can be printed when it fails, and says which one it is; and names in
//! messages are those of `vfio.h`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{Rig, device_name, emulated, group, msi, vtd};
use vfio_type1::abi::command;
use vfio_type1::{Container, Errno, GroupId, Iova, Kernel, MemoryChange};

fn rig() -> Rig {
    Rig::new(Kernel::V7_3, 3, vec![group(&vtd(39), 1, vec![msi()]), emulated(2)])
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
}

#[test]
fn a_faults_history_can_be_printed_and_compared() {
    let rig = rig();
    let bus = rig.vfio.bus_master(&device_name(1)).unwrap();
    rig.map(0x1000, 0x1000).unwrap();
    let request = vfio_type1::UnmapDma::new(0x1000, 0x1000);
    rig.container.unmap(&rig.process, &request).unwrap();
    let read = || bus.read(Iova(0x1000), &mut [0]).unwrap_err();
    let (first, second) = (read(), read());
    assert_eq!(first, second);
    rig.map(0x8000, 0x1000).unwrap();
    assert_ne!(first, read(), "one call more ago");
    assert!(read().to_string().contains("0x1000..0x1fff was unmapped 1 call ago"));
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
