// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generated hosts: IOMMUs, groups behind them, emulated groups and groups without an IOMMU, and
//! regions that touch, overlap, have no length or end at the top of the space.

use proptest::prelude::*;
use vfio_type1::{
    Binding, FixedIommu, IommuDriver, Iova, IovaRange, Kernel, PageSizes, RegionKind,
    ReservedRegion,
};

use crate::side_by_side::hosts::{GroupPlan, Kind, Scene, TestIommu};

pub(crate) fn scene() -> impl Strategy<Value = Scene> {
    let kernel = prop::sample::select(Kernel::ALL.to_vec());
    let iommus = prop::collection::vec(iommu(), 1..=2);
    let emulated = group().prop_map(|group| GroupPlan { kind: Kind::Emulated, ..group });
    let groups = prop_oneof![
        5 => prop::collection::vec(group(), 1..=4),
        1 => prop::collection::vec(emulated, 1..=2),
    ];
    (kernel, iommus, groups).prop_map(|(kernel, iommus, groups)| Scene { kernel, iommus, groups })
}

fn iommu() -> impl Strategy<Value = TestIommu> {
    let driver = prop::sample::select(vec![
        IommuDriver::IntelVtd,
        IommuDriver::AmdVi,
        IommuDriver::SmmuV3,
        IommuDriver::SmmuV2,
        IommuDriver::Virtio,
        IommuDriver::Other("test"),
    ]);
    let page_sizes = prop_oneof![
        6 => Just(0x4020_1000),
        2 => Just(0xffff_ffff_ffff_f000),
        1 => Just(0x0020_1000),
        1 => Just(0x0020_0000),
        1 => Just(0x4000),
        1 => Just(0x0001_0000),
        1 => Just(0x0020_0200),
    ];
    (driver, aperture(), page_sizes, any::<bool>(), rarely(), rarely()).prop_map(
        |(driver, aperture, page_sizes, coherent, open_msi, makes_no_domain)| TestIommu {
            plain: FixedIommu {
                driver,
                aperture,
                page_sizes: PageSizes(page_sizes),
                coherent,
                isolated_msi: !open_msi,
            },
            makes_no_domain,
        },
    )
}

/// True once in sixteen times; shrinks to false.
fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![15 => Just(false), 1 => Just(true)]
}

fn aperture() -> impl Strategy<Value = IovaRange> {
    let bounds = prop_oneof![
        3 => Just((0, (1 << 39) - 1)),
        3 => Just((0, u64::MAX)),
        2 => Just((0, 0x0f_ffff)),
        1 => Just((0x8000, 0x0f_ffff)),
        1 => Just((0x1234, 0xf_f0f0)),
        1 => Just((1 << 32, u64::MAX)),
        1 => prop_oneof![Just((0, 0)), (address(), address())],
    ];
    bounds.prop_map(|(one, other): (u64, u64)| {
        IovaRange::new(Iova(one.min(other)), Iova(one.max(other))).unwrap()
    })
}

fn group() -> impl Strategy<Value = GroupPlan> {
    let kind = prop_oneof![
        12 => (0..2_usize).prop_map(Kind::Iommu),
        8 => Just(Kind::Emulated),
        1 => Just(Kind::NoIommu),
    ];
    let binding = prop_oneof![
        40 => Just(Binding::Vfio),
        1 => Just(Binding::Unbound),
        1 => Just(Binding::NoDma),
        1 => Just(Binding::Kernel("nvme".to_owned())),
    ];
    let device = (binding, prop::collection::vec(region(), 0..=3));
    (kind, prop::collection::vec(device, 1..=2))
        .prop_map(|(kind, devices)| GroupPlan { kind, devices })
}

fn region() -> impl Strategy<Value = ReservedRegion> {
    let kind = prop_oneof![
        8 => Just(RegionKind::Msi),
        8 => Just(RegionKind::Reserved),
        6 => Just(RegionKind::DirectRelaxable),
        4 => Just(RegionKind::SoftwareMsi),
        1 => Just(RegionKind::Direct),
    ];
    let length = prop_oneof![
        3 => Just(0x1000),
        3 => 0..0x3000_u64,
        2 => Just(0x10_0000),
        1 => Just(0),
        1 => Just(1),
    ];
    prop_oneof![
        16 => (address(), length, kind.clone())
            .prop_map(|(first, length, kind)| ReservedRegion::from_length(first, length, kind)),
        1 => (address(), kind.clone())
            .prop_map(|(first, kind)| ReservedRegion::new(first, u64::MAX, kind)),
        1 => (address(), address(), kind)
            .prop_map(|(first, last, kind)| ReservedRegion::new(first, last, kind)),
    ]
}

/// Addresses that lie close together, so that ranges made of them meet.
fn address() -> impl Strategy<Value = u64> {
    let base = prop_oneof![
        4 => (0..16_u64).prop_map(|page| page << 12),
        2 => Just(0xfee0_0000),
        2 => Just(1 << 39),
        2 => Just(0x10_0000),
        2 => (1..4_u64).prop_map(|page| 0_u64.wrapping_sub(page << 12)),
    ];
    (base, prop_oneof![4 => Just(0), 1 => -2..=2_i64])
        .prop_map(|(base, offset)| base.wrapping_add_signed(offset))
}
