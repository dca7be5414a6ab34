// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! UNMAP_DMA (spec 6.1 to 6.3).

use vfio_type1::abi::command;
use vfio_type1::{DirtyPages, Kernel, UnmapDma, extension};

use crate::common::bytes::{Bytes, Door, Refusal, release};
use crate::common::{RAM, emulated, group, msi, vtd};
use crate::errno::{EBUSY, EFAULT, EINVAL, EOVERFLOW};
use crate::{Knob, NOWHERE, READ_ONLY, Rule, Settings, WRAPS, check, issue, low, rule};

/// The mapping that the request names.
const IOVA: u64 = 0x20_0000;
const SIZE: u64 = 0x2000;
const BITMAP: u64 = RAM + (64 << 20);
const LAST_PAGE: u64 = 0u64.wrapping_sub(0x1000);

fn rules(kernel: Kernel) -> Vec<Rule> {
    use Knob::{Argsz, Bytes, Driver, Flags, Iova, Size};
    let since = |major, minor| release(kernel) >= (major, minor);
    let wraps = if since(6, 18) { EOVERFLOW } else { EINVAL };
    let mut rules = vec![
        rule(0, "Unset", EINVAL, &[(Driver, 0)]),
        rule(10, "Fault", EFAULT, &[(Bytes, 23)]),
        rule(20, "TooShort", EINVAL, &[(Argsz, 23)]),
        rule(20, "UnknownFlags", EINVAL, &[(Flags, 8)]),
        rule(20, "UnknownFlags", EINVAL, &[(Flags, 9), (Bytes, 47)]),
        rule(60, "MisalignedIova", EINVAL, &[(Iova, IOVA + 0x800)]),
        rule(71, "SizeZero", EINVAL, &[(Size, 0)]),
        rule(71, "MisalignedSize", EINVAL, &[(Size, 0x1800)]),
        rule(72, "Wraps", wraps, &[(Size, WRAPS)]),
        rule(72, "Wraps", wraps, &[(Iova, LAST_PAGE), (Size, 0x2000)]),
        rule(90, "Cuts", EINVAL, &[(Iova, IOVA + 0x1000)]),
        rule(90, "Cuts", EINVAL, &[(Size, 0x1000)]),
        // By now it is done.
        rule(110, "UnmapResult", EFAULT, &[(Bytes, READ_ONLY)]),
    ];
    if !since(5, 0) {
        rules.push(rule(72, "ReachesTop", EINVAL, &[(Iova, LAST_PAGE), (Size, 0x1000)]));
    }
    if since(5, 8) {
        rules.extend(bitmap_rules());
    } else {
        rules.push(rule(20, "UnknownFlags", EINVAL, &[(Flags, 1)]));
    }
    if since(5, 12) {
        rules.extend(rules_of_all_and_vaddr());
    } else {
        rules.push(rule(20, "UnknownFlags", EINVAL, &[(Flags, 2)]));
        rules.push(rule(20, "UnknownFlags", EINVAL, &[(Flags, 4)]));
    }
    rules
}

/// With flag GET_DIRTY_BITMAP, from 5.8.
fn bitmap_rules() -> [Rule; 15] {
    use Knob::{Argsz, BitmapBytes, BitmapData, BitmapPage, Bytes, Flags, Size, Tracking};
    [
        rule(41, "TooShort", EINVAL, &[(Flags, 1), (Argsz, 47)]),
        rule(42, "Fault", EFAULT, &[(Flags, 1), (Bytes, 47)]),
        rule(43, "BeyondUser", EINVAL, &[(Flags, 1), (BitmapData, WRAPS)]),
        rule(44, "NoPages", EINVAL, &[(Flags, 1), (BitmapPage, 1 << 20)]),
        rule(44, "TooSmall", EINVAL, &[(Flags, 1), (BitmapBytes, 0)]),
        rule(44, "TooLarge", EINVAL, &[(Flags, 1), (BitmapBytes, 1 << 29)]),
        // A page size of 0 counts as one of a byte.
        rule(44, "TooSmall", EINVAL, &[(Flags, 1), (BitmapPage, 0), (BitmapBytes, 8)]),
        rule(80, "WrongPageSize", EINVAL, &[(Flags, 1), (BitmapPage, 0), (BitmapBytes, 4096)]),
        // A bitmap cannot fit such sizes, whatever else is wrong with them.
        rule(44, "NoPages", EINVAL, &[(Flags, 1), (Size, 0)]),
        rule(44, "NoPages", EINVAL, &[(Flags, 1), (Size, 0x1000), (BitmapPage, 0x2000)]),
        rule(44, "NoPages", EINVAL, &[(Flags, 1), (Size, 0x1800), (BitmapPage, 0x2000)]),
        rule(44, "TooSmall", EINVAL, &[(Flags, 1), (Size, WRAPS)]),
        rule(80, "TrackingOff", EINVAL, &[(Flags, 1), (Tracking, 0)]),
        rule(80, "WrongPageSize", EINVAL, &[(Flags, 1), (BitmapPage, 0x2000)]),
        rule(100, "BitmapFault", EFAULT, &[(Flags, 1), (BitmapData, NOWHERE)]),
    ]
}

/// With flags ALL and VADDR, from 5.12.
fn rules_of_all_and_vaddr() -> [Rule; 7] {
    use Knob::{Argsz, Bytes, Emulated, Flags, Mapped};
    [
        rule(30, "BitmapWithOther", EINVAL, &[(Flags, 3)]),
        rule(30, "BitmapWithOther", EINVAL, &[(Flags, 5)]),
        // The bitmap is not looked for then.
        rule(30, "BitmapWithOther", EINVAL, &[(Flags, 3), (Argsz, 47)]),
        rule(30, "BitmapWithOther", EINVAL, &[(Flags, 5), (Bytes, 47)]),
        rule(50, "EmulatedGroup", EBUSY, &[(Flags, 4), (Emulated, 1)]),
        rule(70, "AllWithRange", EINVAL, &[(Flags, 2)]),
        rule(100, "AlreadyInvalid", EINVAL, &[(Flags, 4), (Mapped, LOST), (Emulated, 0)]),
    ]
}

/// For [`Knob::Mapped`]: the mapping has lost its process address.
const LOST: u64 = 1;

fn unmap(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let mut host = vec![group(&vtd(48), 1, vec![msi()])];
    host.extend(settings.is(Knob::Emulated, 1).then(|| emulated(2)));
    let door = Door::new(kernel, extension::TYPE1V2, host);
    let (container, process) = (&door.rig.container, &door.rig.process);
    door.rig.map(IOVA, SIZE).unwrap();
    if settings.is(Knob::Mapped, LOST) {
        container.unmap(process, &UnmapDma::all().vaddr_only()).unwrap();
    }
    if settings.or(Knob::Tracking, 1) == 1 && release(kernel) >= (5, 8) {
        container.dirty_pages(process, &DirtyPages::Start).unwrap();
    }
    if settings.is(Knob::Driver, 0) {
        door.rig.groups.iter().for_each(|group| group.unset_container().unwrap());
    }
    let bytes = Bytes::header(low(settings, Knob::Argsz, 48), low(settings, Knob::Flags, 0))
        .u64(settings.or(Knob::Iova, IOVA))
        .u64(settings.or(Knob::Size, SIZE))
        .u64(settings.or(Knob::BitmapPage, 0x1000))
        .u64(settings.or(Knob::BitmapBytes, 8))
        .u64(settings.or(Knob::BitmapData, BITMAP));
    issue(door, settings, command::IOMMU_UNMAP_DMA, &bytes.0)
}

#[test]
fn of_two_broken_rules_of_unmap_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &rules(kernel), unmap);
        assert!(pairs > 50, "{kernel}: {pairs} pairs");
    }
}
