// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MAP_DMA (spec 5.1) and GET_INFO (spec 7.1).

use vfio_type1::abi::command;
use vfio_type1::{Access, DirtyPages, Kernel, MapDma, UnmapDma, Vaddr, VaddrRange, extension};

use crate::common::bytes::{Bytes, Door, Refusal, release};
use crate::common::{RAM, group, msi, vtd};
use crate::errno::{EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, ENOSPC, EOVERFLOW};
use crate::{Knob, NOWHERE, READ_ONLY, Rule, Settings, WRAPS, check, issue, low, rule};

const IOVA: u64 = 0x20_0000;
const SIZE: u64 = 0x2000;
/// Memory of 2^31 pages: one more than a bitmap covers.
const LARGE: u64 = 0x4000_0000_0000;
const LARGE_SIZE: u64 = 1 << 43;
/// The page below the MSI window: a range of two pages from here is half valid.
const HALF_VALID: u64 = 0xfedf_f000;
/// The first address beyond the IOMMU.
const BEYOND: u64 = 1 << 48;

/// For [`Knob::Mapped`]: the first page of the range is mapped.
const FIRST_PAGE: u64 = 1;
/// More than the range is mapped, or just the range, and has lost its process address.
const LOST_MORE: u64 = 2;
const LOST: u64 = 3;

fn map_rules(kernel: Kernel) -> Vec<Rule> {
    use Knob::{
        Allocation, Argsz, Bytes, Driver, Flags, Full, Iova, Mapped, Memlock, Size, Tracking, Vaddr,
    };
    let since = |major, minor| release(kernel) >= (major, minor);
    let wraps = if since(6, 18) { EOVERFLOW } else { EINVAL };
    let mut rules = vec![
        rule(0, "Unset", EINVAL, &[(Driver, 0)]),
        rule(1, "Fault", EFAULT, &[(Bytes, 31)]),
        rule(2, "TooShort", EINVAL, &[(Argsz, 31)]),
        rule(2, "UnknownFlags", EINVAL, &[(Flags, 8)]),
        rule(4, "SizeZero", EINVAL, &[(Size, 0)]),
        // Up to 6.17 these two come behind step 7. As the errno is the same, no program can tell, and
        // the emulator names them here for every kernel.
        rule(5, "IovaWraps", wraps, &[(Size, WRAPS)]),
        rule(5, "VaddrWraps", wraps, &[(Vaddr, WRAPS)]),
        rule(6, "NoAccess", EINVAL, &[(Flags, 0)]),
        rule(7, "Misaligned", EINVAL, &[(Iova, IOVA + 0x800)]),
        rule(7, "Misaligned", EINVAL, &[(Vaddr, RAM + 0x800)]),
        rule(7, "Misaligned", EINVAL, &[(Size, 0x1800)]),
        rule(8, "Exists", EEXIST, &[(Mapped, FIRST_PAGE), (Flags, 3)]),
        rule(11, "NoMemory", ENOMEM, &[(Allocation, 1), (Flags, 3)]),
        rule(12, "Pin", EFAULT, &[(Vaddr, NOWHERE), (Flags, 3)]),
        rule(12, "Pin", ENOMEM, &[(Memlock, 1), (Flags, 3)]),
    ];
    if since(5, 12) {
        rules.extend([
            rule(6, "VaddrWithAccess", EINVAL, &[(Flags, 5)]),
            rule(8, "NothingToUpdate", ENOENT, &[(Flags, 4), (Mapped, 0)]),
            rule(8, "StillValid", EINVAL, &[(Flags, 4), (Mapped, FIRST_PAGE)]),
            rule(8, "UpdateNotExact", EINVAL, &[(Flags, 4), (Mapped, LOST_MORE)]),
            rule(8, "OverMemlock", ENOMEM, &[(Flags, 4), (Mapped, LOST), (Memlock, 1)]),
        ]);
    } else {
        rules.push(rule(2, "UnknownFlags", EINVAL, &[(Flags, 4)]));
    }
    if since(5, 1) {
        rules.push(rule(9, "TableFull", ENOSPC, &[(Full, 1), (Flags, 3)]));
    }
    match kernel.name() {
        "4.19" => rules.push(rule(12, "Iommu", EFAULT, &[(Iova, BEYOND), (Mapped, 0), (Flags, 3)])),
        _ => rules.extend([
            rule(10, "NotValid", EINVAL, &[(Iova, HALF_VALID), (Flags, 3)]),
            rule(10, "NotValid", EINVAL, &[(Iova, BEYOND), (Mapped, 0), (Flags, 3)]),
        ]),
    }
    if since(5, 8) {
        let large =
            [(Iova, 1 << 44), (Vaddr, LARGE), (Size, LARGE_SIZE), (Tracking, 1), (Flags, 3)];
        rules.push(rule(13, "TooLargeToTrack", EINVAL, &large));
    }
    rules
}

/// What is in the range before the request, by a caller who may lock as much as it likes.
fn prepare(door: &Door, settings: &Settings, iova: u64) {
    let (container, process) = (&door.rig.container, &door.rig.process);
    let size = match settings.or(Knob::Mapped, 0) {
        FIRST_PAGE => 0x1000,
        LOST => SIZE,
        LOST_MORE => 2 * SIZE,
        _ => return,
    };
    container.map(process, &MapDma::new(iova, RAM, size, Access::ReadWrite)).unwrap();
    if size != 0x1000 {
        container.unmap(process, &UnmapDma::new(iova, size).vaddr_only()).unwrap();
    }
}

fn map(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let door = limited_door(kernel, settings);
    let rig = &door.rig;
    let vaddrs = VaddrRange::from_size(Vaddr(LARGE), LARGE_SIZE).unwrap();
    door.memory.add(vaddrs, true).unwrap();
    let iova = settings.or(Knob::Iova, IOVA);
    prepare(&door, settings, iova & !0xfff);
    if settings.is(Knob::Tracking, 1) {
        rig.container.dirty_pages(&rig.process, &DirtyPages::Start).unwrap();
    }
    if settings.is(Knob::Driver, 0) {
        rig.groups[0].unset_container().unwrap();
    }
    let bytes = Bytes::header(low(settings, Knob::Argsz, 32), low(settings, Knob::Flags, 3))
        .u64(settings.or(Knob::Vaddr, RAM))
        .u64(iova)
        .u64(settings.or(Knob::Size, SIZE));
    issue(door, settings, command::IOMMU_MAP_DMA, &bytes.0)
}

/// A container in which one mapping, not in the range, and those of [`prepare`] fill the table.
fn limited_door(kernel: Kernel, settings: &Settings) -> Door {
    let door = Door::new(kernel, extension::TYPE1V2, vec![group(&vtd(48), 1, vec![msi()])]);
    let rig = &door.rig;
    if settings.is(Knob::Full, 1) {
        rig.groups[0].unset_container().unwrap();
        rig.vfio.set_dma_entry_limit(if settings.or(Knob::Mapped, 0) == 0 { 1 } else { 2 });
        rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
        rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    }
    rig.map(0x10_0000, 0x1000).unwrap();
    door
}

/// GET_INFO has one rule more than an argument can break: there may be no memory for the chain.
fn info_rules(kernel: Kernel) -> Vec<Rule> {
    use Knob::{Allocation, Argsz, Bytes, Driver};
    let mut rules = vec![
        rule(0, "Unset", EINVAL, &[(Driver, 0)]),
        rule(1, "Fault", EFAULT, &[(Bytes, 15)]),
        rule(2, "TooShort", EINVAL, &[(Argsz, 15)]),
        rule(5, "Fault", EFAULT, &[(Bytes, READ_ONLY)]),
    ];
    if kernel.name() != "4.19" {
        rules.push(rule(3, "OutOfMemory", ENOMEM, &[(Allocation, 1)]));
    }
    rules
}

fn info(kernel: Kernel, settings: &Settings) -> Result<i32, Refusal> {
    let door = limited_door(kernel, settings);
    if settings.is(Knob::Driver, 0) {
        door.rig.groups[0].unset_container().unwrap();
    }
    let mut bytes = Bytes::header(low(settings, Knob::Argsz, 256), 0).0;
    bytes.resize(256, 0);
    issue(door, settings, command::IOMMU_GET_INFO, &bytes)
}

#[test]
fn of_two_broken_rules_of_map_the_first_answers() {
    for kernel in Kernel::ALL {
        let pairs = check(kernel, &map_rules(kernel), map);
        assert!(pairs > 100, "{kernel}: {pairs} pairs");
    }
}

#[test]
fn of_two_broken_rules_of_get_info_the_first_answers() {
    for kernel in Kernel::ALL {
        assert!(check(kernel, &info_rules(kernel), info) > 8, "{kernel}");
    }
}
