// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the valid list shrinks and grows with the container's groups as the kernel's does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{Rig, group, msi, range, vtd};
use std::sync::Arc;
use vfio_type1::{
    Errno, FixedIommu, Iommu, IommuDriver, Kernel, RegionKind, ReservedRegion, extension,
};

fn region(first: u64, last: u64) -> ReservedRegion {
    ReservedRegion::new(first, last, RegionKind::Reserved)
}

const TOP: u64 = 0xffff_ffff_ffff;

#[test]
fn a_departed_group_gives_its_holes_back_but_not_the_edges() {
    let host = vec![
        group(&vtd(48), 1, vec![msi()]),
        group(&vtd(48), 2, vec![region(0, 0xffff), region(0x1_0000_0000, 0x1_ffff_ffff)]),
    ];
    let rig = Rig::new(Kernel::V6_12, extension::TYPE1V2, host);
    let with_both =
        [range(0x1_0000, 0xfedf_ffff), range(0xfef0_0000, 0xffff_ffff), range(0x2_0000_0000, TOP)];
    assert_eq!(rig.valid(), with_both);
    rig.groups[1].unset_container().unwrap();
    // Both groups shared a domain, so the lower edge stays trimmed (spec 3.7).
    assert_eq!(rig.valid(), [range(0x1_0000, 0xfedf_ffff), range(0xfef0_0000, TOP)]);
}

#[test]
fn a_departed_domain_gives_its_width_back() {
    // Another driver, so the groups do not share a domain.
    let narrow: Arc<dyn Iommu> = Arc::new(common::iommu(IommuDriver::Virtio, 39));
    let host = vec![group(&vtd(48), 1, vec![msi()]), group(&narrow, 2, vec![])];
    let rig = Rig::new(Kernel::V6_12, extension::TYPE1V2, host);
    assert_eq!(rig.valid().last(), Some(&range(0xfef0_0000, 0x7f_ffff_ffff)));
    rig.groups[1].unset_container().unwrap();
    assert_eq!(rig.valid().last(), Some(&range(0xfef0_0000, TOP)));
}

#[test]
fn a_mapping_in_the_way_refuses_the_group() {
    let narrow: Arc<dyn Iommu> = Arc::new(common::iommu(IommuDriver::Virtio, 39));
    let host = vec![
        group(&vtd(48), 1, vec![msi()]),
        group(&vtd(48), 2, vec![region(0x10_0000, 0x1f_ffff)]),
        group(&narrow, 3, vec![]),
    ];
    let rig = Rig::new(Kernel::V6_12, extension::TYPE1V2, host);
    rig.groups[1].unset_container().unwrap();
    rig.groups[2].unset_container().unwrap();
    rig.map(0x18_0000, 0x1000).unwrap();
    let refused = rig.groups[1].set_container(&rig.container, &rig.process).unwrap_err();
    assert_eq!(refused.errno(), Errno::EINVAL);
    let message = "mapping 0x180000..0x180fff overlaps the reserved region 0x100000..0x1fffff";
    assert!(refused.to_string().contains(message), "{refused}");

    rig.map(1 << 40, 0x1000).unwrap();
    let refused = rig.groups[2].set_container(&rig.container, &rig.process).unwrap_err();
    assert!(refused.to_string().contains("lies outside 0x0..0x7fffffffff"), "{refused}");
    assert_eq!(rig.valid(), [range(0, 0xfedf_ffff), range(0xfef0_0000, TOP)]);
}

#[test]
fn conflicts_at_the_top_are_seen_from_6_18() {
    let full = |page_sizes| -> Arc<dyn Iommu> {
        Arc::new(FixedIommu { page_sizes, ..common::iommu(IommuDriver::AmdVi, 64) })
    };
    let iommu = full(vfio_type1::PageSizes(0x1000));
    for (kernel, seen) in [(Kernel::V6_12, false), (Kernel::V7_2, true)] {
        let host = vec![
            group(&iommu, 1, vec![]),
            group(&iommu, 2, vec![region(u64::MAX - 0xffff, u64::MAX)]),
        ];
        let rig = Rig::new(kernel, extension::TYPE1V2, host);
        rig.groups[1].unset_container().unwrap();
        rig.groups[0].unset_container().unwrap();
        rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
        rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
        rig.map(u64::MAX - 0xfff, 0x1000).unwrap();
        let attached = rig.groups[1].set_container(&rig.container, &rig.process);
        assert_eq!(attached.is_err(), seen, "{kernel}");
    }
}

#[test]
fn nothing_left_is_refused() {
    let host = vec![group(&vtd(48), 1, vec![region(0, TOP)])];
    let vfio = vfio_type1::Vfio::new(Kernel::NEWEST, host).unwrap();
    let process = common::process();
    let container = vfio.open_container();
    let group = vfio.open_group(vfio.groups().next().unwrap(), &process).unwrap();
    group.set_container(&container, &process).unwrap();
    let refused = container.set_iommu(&process, extension::TYPE1V2).unwrap_err();
    assert_eq!(refused.errno(), Errno::EINVAL);
    // Nothing stays attached, and the type may be set again.
    assert_eq!(container.info().unwrap_err().errno(), Errno::EINVAL);
    assert!(container.set_iommu(&process, extension::TYPE1).is_err());
}
