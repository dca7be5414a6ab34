// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DIRTY_PAGES (spec 7.2).

use vfio_type1::abi::command;
use vfio_type1::{Access, DirtyPages, Kernel, MapDma, Vaddr, VaddrRange, extension};

use crate::common::bytes::{Bytes, Door, Refusal, release};
use crate::common::{RAM, group, msi, vtd};
use crate::errno::{EACCES, EFAULT, EINVAL, ENOMEM, ENOTTY, EOVERFLOW};
use crate::{Knob, NOWHERE, Rule, Settings, WRAPS, check, issue, low, rule};

/// The mapping that is asked about.
const IOVA: u64 = 0x20_0000;
const SIZE: u64 = 0x2000;
const BITMAP: u64 = RAM + (64 << 20);
const LAST_PAGE: u64 = 0u64.wrapping_sub(0x1000);
/// For [`Knob::Mapped`]: there is a mapping of 2^31 pages too.
const LARGE: u64 = 1;
const LARGE_SIZE: u64 = 1 << 43;

fn rules(kernel: Kernel) -> Vec<Rule> {
    use Knob::{Allocation, Argsz, Bytes, Driver, Flags, Mapped, Tracking, Type};
    let mut rules = vec![rule(0, "Unset", EINVAL, &[(Driver, 0)])];
    if release(kernel) < (5, 8) {
        // Nothing else is looked at, so nothing else need be wrong.
        rules.push(rule(1, "UnknownCommand", ENOTTY, &[]));
    }
    rules.extend([
        rule(10, "V1", EACCES, &[(Type, extension::TYPE1)]),
        rule(20, "Fault", EFAULT, &[(Bytes, 7)]),
        rule(30, "TooShort", EINVAL, &[(Argsz, 7)]),
        rule(30, "NotOneFlag", EINVAL, &[(Flags, 8)]),
        rule(40, "NotOneFlag", EINVAL, &[(Flags, 0)]),
        rule(40, "NotOneFlag", EINVAL, &[(Flags, 3)]),
        rule(50, "TooLargeToTrack", EINVAL, &[(Flags, 1), (Tracking, 0), (Mapped, LARGE)]),
        rule(50, "NoMemory", ENOMEM, &[(Flags, 1), (Tracking, 0), (Allocation, 1)]),
    ]);
    rules.extend(get_bitmap_rules());
    let wraps = if release(kernel) >= (6, 18) { EOVERFLOW } else { EINVAL };
    let over_the_top = [(Flags, 4), (Knob::Iova, LAST_PAGE), (Knob::Size, 0x2000)];
    rules.push(rule(90, "Wraps", wraps, &[(Flags, 4), (Knob::Size, WRAPS)]));
    rules.push(rule(90, "Wraps", wraps, &over_the_top));
    if release(kernel) < (6, 18) {
        let top = [(Flags, 4), (Knob::Iova, LAST_PAGE), (Knob::Size, 0x1000)];
        rules.push(rule(90, "ReachesTop", EINVAL, &top));
    }
    rules
}

fn get_bitmap_rules() -> [Rule; 20] {
    use Knob::{Argsz, BitmapBytes, BitmapData, BitmapPage, Bytes, Flags, Iova, Size, Tracking};
    [
        rule(60, "TooShort", EINVAL, &[(Flags, 4), (Argsz, 47)]),
        rule(70, "Fault", EFAULT, &[(Flags, 4), (Bytes, 47)]),
        rule(80, "SizeZero", EINVAL, &[(Flags, 4), (Size, 0)]),
        rule(100, "BeyondUser", EINVAL, &[(Flags, 4), (BitmapData, WRAPS)]),
        // A page size of 0 counts as one of a byte.
        rule(110, "TooSmall", EINVAL, &[(Flags, 4), (BitmapPage, 0), (BitmapBytes, 8)]),
        rule(120, "WrongPageSize", EINVAL, &[(Flags, 4), (BitmapPage, 0), (BitmapBytes, 4096)]),
        rule(110, "NoPages", EINVAL, &[(Flags, 4), (BitmapPage, 1 << 20)]),
        rule(110, "TooSmall", EINVAL, &[(Flags, 4), (BitmapBytes, 0)]),
        rule(110, "TooLarge", EINVAL, &[(Flags, 4), (BitmapBytes, 1 << 29)]),
        rule(110, "NoPages", EINVAL, &[(Flags, 4), (Size, 0x1000), (BitmapPage, 0x2000)]),
        rule(110, "NoPages", EINVAL, &[(Flags, 4), (Size, 0x1800), (BitmapPage, 0x2000)]),
        rule(120, "WrongPageSize", EINVAL, &[(Flags, 4), (BitmapPage, 0x2000)]),
        rule(130, "Misaligned", EINVAL, &[(Flags, 4), (Iova, IOVA + 0x800)]),
        rule(130, "Misaligned", EINVAL, &[(Flags, 4), (Size, 0x1800)]),
        rule(140, "TrackingOff", EINVAL, &[(Flags, 4), (Tracking, 0)]),
        rule(150, "Cuts", EINVAL, &[(Flags, 4), (Iova, IOVA + 0x1000)]),
        rule(150, "Cuts", EINVAL, &[(Flags, 4), (Iova, IOVA - 0x1000), (Size, SIZE)]),
        rule(150, "Cuts", EINVAL, &[(Flags, 4), (Size, 0x1000)]),
        rule(150, "Cuts", EINVAL, &[(Flags, 4), (Iova, IOVA + 0x1000), (Size, 0x1000)]),
        rule(160, "BitmapFault", EFAULT, &[(Flags, 4), (BitmapData, NOWHERE)]),
    ]
}

fn dirty(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let kind = settings.or(Knob::Type, extension::TYPE1V2);
    let door = Door::new(kernel, kind, vec![group(&vtd(48), 1, vec![msi()])]);
    let (container, process) = (&door.rig.container, &door.rig.process);
    door.rig.map(IOVA, SIZE).unwrap();
    if settings.is(Knob::Mapped, LARGE) {
        let vaddr = 0x4000_0000_0000;
        let memory = VaddrRange::from_size(Vaddr(vaddr), LARGE_SIZE).unwrap();
        door.memory.add(memory, true).unwrap();
        container.map(process, &MapDma::new(1 << 44, vaddr, LARGE_SIZE, Access::Read)).unwrap();
    }
    let can_track = release(kernel) >= (5, 8) && kind == extension::TYPE1V2;
    if settings.or(Knob::Tracking, 1) == 1 && can_track {
        container.dirty_pages(process, &DirtyPages::Start).unwrap();
    }
    if settings.is(Knob::Driver, 0) {
        door.rig.groups[0].unset_container().unwrap();
    }
    let bytes = Bytes::header(low(settings, Knob::Argsz, 48), low(settings, Knob::Flags, 4))
        .u64(settings.or(Knob::Iova, IOVA))
        .u64(settings.or(Knob::Size, SIZE))
        .u64(settings.or(Knob::BitmapPage, 0x1000))
        .u64(settings.or(Knob::BitmapBytes, 8))
        .u64(settings.or(Knob::BitmapData, BITMAP));
    issue(door, settings, command::IOMMU_DIRTY_PAGES, &bytes.0)
}

#[test]
fn of_two_broken_rules_of_dirty_pages_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &rules(kernel), dirty);
        assert!(pairs > 100, "{kernel}: {pairs} pairs");
    }
}
