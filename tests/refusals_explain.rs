// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a refusal names the rule, the region, whose device it is, and what would fit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{RAM, ROM, Rig, device_name, group, msi, vtd};
use vfio_type1::{Access, Kernel, MapDma, RegionKind, ReservedRegion, UnmapDma, extension};

#[test]
fn a_reserved_region_is_named_with_its_device_and_a_place_that_fits() {
    let rig = Rig::plain(Kernel::NEWEST);
    let error = rig.map(0xfee0_0000, 0x1_0000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "iova 0xfee00000..0xfee0ffff touches the MSI window 0xfee00000..0xfeefffff of group 1 \
         (0000:00:01.0); nearest free range of this size starts at 0xfedf0000"
    );
}

#[test]
fn mappings_are_in_the_way_of_the_place_that_fits() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0xfedf_0000, 0x1_0000).unwrap();
    rig.map(0xfef0_0000, 0x1_0000).unwrap();
    let error = rig.map(0xfee0_0000, 0x1_0000).unwrap_err().to_string();
    assert!(error.ends_with("starts at 0xfede0000"), "{error}");
}

#[test]
fn every_obstacle_of_a_long_range_is_named() {
    let hole = ReservedRegion::new(0xfd_0000_0000, 0xff_ffff_ffff, RegionKind::Reserved);
    let host = vec![group(&vtd(39), 3, vec![msi()]), group(&vtd(48), 4, vec![msi(), hole])];
    let rig = Rig::new(Kernel::V6_12, extension::TYPE1V2, host);
    let error = rig.map(0, 1 << 41).unwrap_err().to_string();
    let parts = [
        // Both groups reserve it; one name is enough.
        format!("the MSI window 0xfee00000..0xfeefffff of group 3 ({})", device_name(3)),
        format!("the reserved region 0xfd00000000..0xffffffffff of group 4 ({})", device_name(4)),
        "reaches outside 0x0..0x7fffffffff, the aperture of group 3's Intel VT-d".to_owned(),
        "no range of this size is free".to_owned(),
    ];
    for part in parts {
        assert!(error.contains(&part), "{part}\nnot in: {error}");
    }
}

#[test]
fn an_address_that_the_kernel_dropped_says_so() {
    // The list's own quirk (spec 3.7): the edge that a group trimmed stays trimmed without it.
    let low = ReservedRegion::new(0, 0xffff, RegionKind::Reserved);
    let host = vec![group(&vtd(48), 1, vec![msi()]), group(&vtd(48), 2, vec![low])];
    let rig = Rig::new(Kernel::V6_12, extension::TYPE1V2, host);
    rig.groups[1].unset_container().unwrap();
    let error = rig.map(0, 0x1000).unwrap_err().to_string();
    let message = "iova 0x0..0xfff was dropped from the valid list when a group came or went";
    assert!(error.starts_with(message), "{error}");
}

#[test]
fn messages_carry_the_numbers_and_what_to_do() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0x10_0000, 0x10_0000).unwrap();
    let map = |iova, vaddr, size| {
        let request = MapDma::new(iova, vaddr, size, Access::ReadWrite);
        rig.container.map(&rig.process, &request).unwrap_err().to_string()
    };
    assert_eq!(
        map(0x18_0000, RAM, 0x1000),
        "iova 0x180000..0x180fff overlaps the mapping 0x100000..0x1fffff -> vaddr 0x100000000000; \
         unmap that first"
    );
    assert_eq!(
        map(0x18_0800, RAM, 0x1000),
        "iova 0x180800, vaddr 0x100000000000 and size 0x1000 must be multiples of the page 0x1000"
    );
    assert_eq!(
        map(0, ROM, 0x2000),
        "iova 0x0..0x1fff: the page at 0x200000000000 cannot be pinned: EFAULT"
    );
    let cut = rig.container.unmap(&rig.process, &UnmapDma::new(0x18_0000, 0x1000)).unwrap_err();
    assert_eq!(
        cut.to_string(),
        "iova 0x180000..0x180fff cuts the mapping 0x100000..0x1fffff at 0x180000; \
         unmap whole mappings, this kernel interface does not split them"
    );
}

#[test]
fn a_refused_map_changes_nothing() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0x1000, 0x1000).unwrap();
    let before = (rig.container.info().unwrap(), rig.container.mappings());
    let locked = rig.process.locked_pages();
    for (iova, size) in [(0x1000, 0x1000), (0xfee0_0000, 0x1000), (0, 0), (0x800, 0x1000)] {
        rig.map(iova, size).unwrap_err();
    }
    rig.map(0x10_0000, 1 << 31).unwrap_err();
    assert_eq!((rig.container.info().unwrap(), rig.container.mappings()), before);
    assert_eq!(rig.process.locked_pages(), locked);
}
