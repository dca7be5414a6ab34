// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The model of the DMA API against single facts, against a naive model, and its VFIO side against
//! the emulator.

use proptest::prelude::*;
use vfio_type1::{DEFAULT_DMA_ENTRY_LIMIT, IommuDriver, Iova, PageSizes, RegionKind};

use super::*;
use crate::assign::Selection;
use crate::host::{HostDevice, HostGroupKind, HostIommu, HostRegion};
use crate::hosts;
use crate::pci::{Bar, BarKind, HostBridge, PciFunction};
use crate::platform::{Platform, Stated, Widths};

/// A page of the tests: small, so that the naive model can look at every byte.
const PAGE: u64 = 16;
/// All that the tests take lies below.
const TOP: u64 = 0x400;

type Ends = (u64, u64);
/// The bits of its mask, and its regions.
type DeviceFacts = (Option<u32>, Vec<(Ends, RegionKind)>);

fn range((first, last): Ends) -> IovaRange {
    IovaRange::new(Iova(first), Iova(last)).unwrap()
}

/// A group of devices behind an SMMU, each with its mask and regions.
#[derive(Clone, Debug)]
struct Facts {
    aperture: Ends,
    windows: Vec<Ends>,
    dma_ranges: Vec<Ends>,
    devices: Vec<DeviceFacts>,
}

impl Facts {
    fn of_one(mask: Option<u32>, regions: &[(Ends, RegionKind)]) -> Self {
        Self {
            aperture: (0, 0xffff),
            windows: Vec::new(),
            dma_ranges: Vec::new(),
            devices: vec![(mask, regions.to_vec())],
        }
    }

    fn host(&self) -> Host {
        let widths = Widths { aperture: range(self.aperture), page_sizes: PageSizes(PAGE) };
        let stated = Stated {
            driver: IommuDriver::SmmuV3,
            coherent: false,
            isolated_msi: true,
            widths,
            newer: Vec::new(),
        };
        let device = |(at, (mask, regions)): (usize, &DeviceFacts)| HostDevice {
            name: format!("0000:00:0{at}.0"),
            description: String::new(),
            driver: Some("vfio-pci".to_owned()),
            pci: PciFunction { dma_mask_bits: *mask, ..PciFunction::default() },
            model: None,
            regions: regions.iter().map(region).collect(),
        };
        Host {
            name: "test".to_owned(),
            description: String::new(),
            source: String::new(),
            page_size: PageSize::P4K,
            allow_unsafe_interrupts: false,
            dma_entry_limit: DEFAULT_DMA_ENTRY_LIMIT,
            reserve_dma_masks: false,
            iommus: vec![HostIommu { name: String::new(), platform: Platform::Stated(stated) }],
            groups: vec![HostGroup {
                number: 1,
                kind: HostGroupKind::Iommu(0),
                devices: self.devices.iter().enumerate().map(device).collect(),
            }],
            bridges: vec![HostBridge {
                segment: 0,
                buses: (0, 255),
                windows: self.windows.iter().copied().map(range).collect(),
                dma_ranges: self.dma_ranges.iter().copied().map(range).collect(),
            }],
        }
    }

    fn views(&self, kernel: Kernel) -> Vec<Result<View, NoView>> {
        let host = self.host();
        views(&host, &kernel, &host.groups[0])
    }

    /// What is left of the addresses below 64K: for the DMA API, and for VFIO.
    fn left(&self, kernel: Kernel) -> (Vec<Ends>, Vec<Ends>) {
        let view = self.views(kernel).remove(0).unwrap();
        let ends = |ranges: Vec<IovaRange>| {
            ranges.iter().map(|range| (range.first().0, range.last().0)).collect()
        };
        (ends(view.usable()), ends(view.valid()))
    }
}

fn region((ends, kind): &(Ends, RegionKind)) -> HostRegion {
    HostRegion::always(ReservedRegion::from_range(range(*ends), *kind))
}

#[test]
fn page_0_is_never_given_out() {
    let facts = Facts::of_one(None, &[]);
    assert_eq!(facts.left(Kernel::V7_3), (vec![(0x10, 0xffff)], vec![(0, 0xffff)]));
    // An aperture that begins in it changes nothing; one above it needs no such rule.
    let inside = Facts { aperture: (0x8, 0xffff), ..facts.clone() };
    assert_eq!(inside.left(Kernel::V7_3), (vec![(0x10, 0xffff)], vec![(0x8, 0xffff)]));
    let above = Facts { aperture: (0x28, 0xffff), ..facts };
    assert_eq!(above.left(Kernel::V7_3), (vec![(0x20, 0xffff)], vec![(0x28, 0xffff)]));
}

#[test]
fn relaxable_regions_and_software_msi_are_the_two_views_differences() {
    let regions = [
        ((0x100, 0x1ff), RegionKind::DirectRelaxable),
        ((0x300, 0x3ff), RegionKind::SoftwareMsi),
        ((0x508, 0x5f7), RegionKind::Reserved),
    ];
    let facts = Facts::of_one(None, &regions);
    let dma_api = vec![(0x10, 0xff), (0x200, 0x4ff), (0x600, 0xffff)];
    let vfio = vec![(0, 0x2ff), (0x400, 0x507), (0x5f8, 0xffff)];
    assert_eq!(facts.left(Kernel::V7_3), (dma_api.clone(), vfio));
    // 4.19 keeps no list, and the series of 2018 knows no relaxable regions.
    assert_eq!(facts.left(Kernel::V4_19), (dma_api.clone(), vec![(0, 0xffff)]));
    let vfio = vec![(0, 0xff), (0x200, 0x2ff), (0x400, 0x507), (0x5f8, 0xffff)];
    assert_eq!(facts.left(Kernel::SERIES_2018_V6), (dma_api, vfio));
}

#[test]
fn masks_limit_the_dma_api_only() {
    let left = |bits| Facts::of_one(Some(bits), &[]).left(Kernel::V7_3);
    assert_eq!(left(12), (vec![(0x10, 0xfff)], vec![(0, 0xffff)]));
    assert_eq!(left(64), (vec![(0x10, 0xffff)], vec![(0, 0xffff)]));
    // A mask within page 0 leaves nothing.
    assert_eq!(left(3), (vec![], vec![(0, 0xffff)]));
}

#[test]
fn by_the_policy_of_2020_masks_limit_vfio_too() {
    let mut facts = Facts::of_one(Some(12), &[]);
    facts.devices.push((Some(10), Vec::new()));
    let mut host = facts.host();
    host.reserve_dma_masks = true;
    for view in views(&host, &Kernel::V7_3, &host.groups[0]) {
        assert_eq!(view.unwrap().valid(), [range((0, 0x3ff))]);
    }
}

#[test]
fn the_first_device_of_a_group_reserves_for_all() {
    let mut facts = Facts::of_one(None, &[((0x100, 0x1ff), RegionKind::Direct)]);
    facts.devices.push((None, vec![((0x300, 0x3ff), RegionKind::Direct)]));
    for view in facts.views(Kernel::V5_10) {
        let view = view.unwrap();
        assert_eq!(view.usable(), [range((0x10, 0xff)), range((0x200, 0xffff))]);
        assert_eq!(view.valid().len(), 3);
    }
}

#[test]
fn dma_ranges_can_make_a_device_unusable() {
    let facts =
        |dma_ranges: &[Ends]| Facts { dma_ranges: dma_ranges.to_vec(), ..Facts::of_one(None, &[]) };
    let errno =
        |facts: &Facts, kernel| facts.views(kernel).remove(0).err().and_then(|error| error.errno());
    let overlapping = facts(&[(0x100, 0x2ff), (0x2ff, 0x3ff)]);
    assert_eq!(errno(&overlapping, Kernel::V7_3), Some(Errno::EINVAL));
    assert_eq!(errno(&overlapping, Kernel::V4_19), None);
    let outside = facts(&[(0x1_0000, 0x1_ffff)]);
    assert_eq!(errno(&outside, Kernel::V6_1), Some(Errno::EFAULT));
    assert_eq!(errno(&facts(&[(0x100, 0x1ff)]), Kernel::V7_3), None);
}

#[test]
fn allocators_of_drivers_avoid_bars_instead_of_bridge_windows() {
    let mut facts = Facts::of_one(None, &[]);
    facts.windows.push((0x100, 0x1ff));
    let mut host = facts.host();
    if let Platform::Stated(stated) = &mut host.iommus[0].platform {
        stated.driver = IommuDriver::IntelVtd;
    }
    let bar = |ends, kind| Bar { range: range(ends), kind };
    let memory = BarKind::Memory { wide: false, prefetchable: false };
    let pci = &mut host.groups[0].devices[0].pci;
    pci.bars = [(0, bar((0x300, 0x37f), memory)), (1, bar((0x500, 0x53f), BarKind::Io))].into();
    pci.rom = Some(range((0x600, 0x6ff)));
    let usable = |kernel| views(&host, &kernel, &host.groups[0]).remove(0).unwrap().usable();
    let bars = [(0x10, 0x2ff), (0x380, 0x5ff), (0x700, 0xffff)].map(range);
    assert_eq!(usable(Kernel::V5_10), bars);
    assert_eq!(usable(Kernel::V6_1), [(0x10, 0xff), (0x200, 0xffff)].map(range));
}

#[test]
fn a_host_bridge_concerns_the_devices_behind_it() {
    let mut facts = Facts::of_one(None, &[]);
    facts.windows.push((0x100, 0x1ff));
    let mut host = facts.host();
    let usable =
        |host: &Host| views(host, &Kernel::V7_3, &host.groups[0])[0].as_ref().unwrap().usable();
    assert_eq!(usable(&host).len(), 2);
    host.bridges[0].buses = (1, 255);
    assert_eq!(usable(&host).len(), 1);
    host.bridges[0] = HostBridge { segment: 1, buses: (0, 255), ..host.bridges[0].clone() };
    assert_eq!(usable(&host).len(), 1);
}

/// What the DMA API gives out, byte by byte, by the words of spec 10.
fn naive_dma_api(facts: &Facts, device: usize, old: bool, byte: u64) -> bool {
    let page = byte / PAGE;
    let in_pages = |(first, last): &Ends| (first / PAGE..=last / PAGE).contains(&page);
    let mask = facts.devices[device].0.map_or(u64::MAX, |bits| (1 << bits) - 1);
    let reserved = facts.devices[0].1.iter().filter(|(_, kind)| *kind != RegionKind::SoftwareMsi);
    page >= 1.max(facts.aperture.0 / PAGE)
        && page * PAGE <= mask.min(facts.aperture.1)
        && !facts.windows.iter().any(in_pages)
        && !reserved.map(|(ends, _)| ends).any(in_pages)
        && (facts.dma_ranges.is_empty() || naive_inbound(&facts.dma_ranges, old, page))
}

/// Whether the host bridge's inbound windows leave a page.
fn naive_inbound(inbound: &[Ends], old: bool, page: u64) -> bool {
    let within = |byte: u64| inbound.iter().any(|(first, last)| (*first..=*last).contains(&byte));
    if old {
        let first = inbound.iter().map(|ends| ends.0).min().unwrap();
        let last = inbound.iter().map(|ends| ends.1).max().unwrap();
        return (first / PAGE..=last / PAGE).contains(&page);
    }
    let begins = |byte: u64| inbound.iter().any(|ends| ends.0 == byte);
    let taken = |byte: u64| {
        let behind_gap = byte > 0 && !within(byte - 1);
        !within(byte) || begins(byte) && behind_gap
    };
    let first = page * PAGE;
    !(first..=first + (PAGE - 1)).any(taken)
}

fn naive_vfio(facts: &Facts, old: bool, byte: u64) -> bool {
    let mut regions = facts.devices.iter().flat_map(|(_, regions)| regions);
    let holds = |(first, last): &Ends| (*first..=*last).contains(&byte);
    holds(&facts.aperture)
        && (old || !regions.any(|(ends, kind)| *kind != RegionKind::DirectRelaxable && holds(ends)))
}

fn ends() -> impl Strategy<Value = Ends> {
    (0..TOP, 0..TOP).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

/// Short ranges, so that several leave something.
fn short() -> impl Strategy<Value = Ends> {
    (0..TOP, 0..0x60u64).prop_map(|(first, span)| (first, first + span))
}

fn facts() -> impl Strategy<Value = Facts> {
    let kind = prop::sample::select(RegionKind::ALL.to_vec());
    let device = (prop::option::of(1..12u32), prop::collection::vec((short(), kind), 0..3));
    (
        prop_oneof![ends(), Just((0, u64::MAX))],
        prop::collection::vec(short(), 0..3),
        prop::collection::vec(short(), 0..4),
        prop::collection::vec(device, 1..3),
    )
        .prop_map(|(aperture, windows, dma_ranges, devices)| Facts {
            aperture,
            windows,
            dma_ranges,
            devices,
        })
}

proptest! {
    #[test]
    fn both_views_are_what_a_naive_model_finds(facts in facts(), old: bool) {
        let kernel = if old { Kernel::V4_19 } else { Kernel::V7_3 };
        let overlap = |a: &Ends, b: &Ends| a.0 <= b.1 && b.0 <= a.1;
        let inbound = &facts.dma_ranges;
        let overlapping = !old
            && (1..inbound.len()).any(|at| inbound[..at].iter().any(|b| overlap(&inbound[at], b)));
        let lowest = inbound.iter().map(|ends| ends.0).min();
        let highest = inbound.iter().map(|ends| ends.1).max();
        let span = lowest.zip(highest);
        let outside = span.is_some_and(|span| !overlap(&span, &facts.aperture));
        for (device, view) in facts.views(kernel).into_iter().enumerate() {
            let view = match view {
                Ok(view) => view,
                Err(error) => {
                    let expected = if outside { Errno::EFAULT } else { Errno::EINVAL };
                    prop_assert!(outside || overlapping);
                    prop_assert_eq!(error.errno(), Some(expected));
                    continue;
                }
            };
            prop_assert!(!outside && !overlapping);
            let (usable, valid) = (view.usable(), view.valid());
            let bytes = (0..2 * TOP).chain([u64::MAX - PAGE, u64::MAX]);
            for byte in bytes {
                let has = |ranges: &[IovaRange]| ranges.iter().any(|r| r.contains(Iova(byte)));
                prop_assert_eq!(has(&usable), naive_dma_api(&facts, device, old, byte), "{:#x}", byte);
                prop_assert_eq!(has(&valid), naive_vfio(&facts, old, byte), "{:#x}", byte);
            }
        }
    }
}

/// Ranges that touch are one.
fn joined(ranges: Vec<IovaRange>) -> Vec<IovaRange> {
    let mut joined: Vec<IovaRange> = Vec::new();
    for range in ranges {
        let touching = joined.pop_if(|last| last.next() == Some(range.first()));
        let first = touching.map_or(range.first(), |before| before.first());
        joined.extend(IovaRange::new(first, range.last()));
    }
    joined
}

#[test]
fn the_vfio_side_is_what_the_emulator_maps() {
    let mut compared = 0;
    for host in hosts::known().map(Result::unwrap) {
        for kernel in Kernel::ALL {
            for reserve_dma_masks in [false, true] {
                let host = Host { reserve_dma_masks, ..host.clone() };
                let vfio = host.boot(kernel).unwrap();
                for group in &host.groups {
                    let Ok(assigned) = Selection::of_group(&host, group).assign(&vfio) else {
                        continue;
                    };
                    for view in views(&host, &kernel, group).into_iter().flatten() {
                        let mappable = joined(assigned.container.mappable());
                        assert_eq!(view.valid(), mappable, "{}, {kernel}", host.name);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 300, "{compared}");
}
