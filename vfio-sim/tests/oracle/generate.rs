// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generated programs: what every program does first, then anything.

use proptest::prelude::*;
use vfio_sim::oracle::OnUnmap;
use vfio_type1::Access;

use crate::composite::{composite, mapped};
use crate::side_by_side::operations::{
    Aim, Bitmap, BitmapPage, BitmapSize, Call, Device, Door, Extent, Files, Operation, PROCESSES,
    Place, SLOTS, Setting, To,
};

/// A run of operations.
pub(crate) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = operation().prop_map(|operation| vec![operation]);
    let some = prop_oneof![12 => one, 1 => composite()];
    (start(), mapped(), prop::collection::vec(some, 1..30)).prop_map(|(start, mapped, rest)| {
        start.into_iter().chain(mapped).chain(rest.into_iter().flatten()).collect()
    })
}

/// What every program does first, so that most runs get to mapping. Groups join before the driver
/// is set, or after.
fn start() -> impl Strategy<Value = Vec<Operation>> {
    let kind = prop_oneof![12 => Just(3), 3 => Just(1), 1 => Just(6)];
    let interrupts = prop_oneof![8 => Just(true), 1 => Just(false)];
    let privileged = any::<bool>().prop_map(|limited| !limited);
    let mappings = prop_oneof![4 => Just(65535), 1 => 1..6_u32];
    (0..=2_usize, 0..=2_usize, kind, interrupts, any::<bool>(), privileged, mappings).prop_map(
        |(before, after, kind, allow, open, has, mappings)| {
            let mut all = vec![
                Operation::Set(Setting::UnsafeInterrupts { allow }),
                Operation::Set(Setting::NoIommuMode { enable: true }),
                Operation::Set(Setting::EntryLimit { mappings }),
                Operation::Set(Setting::IpcLock { process: 0, has }),
                Operation::Set(Setting::Memlock { process: 0, pages: 200 }),
                Operation::Set(Setting::IpcLock { process: 1, has }),
                Operation::Set(Setting::Memlock { process: 1, pages: 3 }),
                Operation::Files(Files::OpenContainer { slot: 0 }),
            ];
            for group in 0..before {
                all.push(Operation::Files(Files::OpenGroup { group, caller: 0 }));
                let (target, door) = (Aim::Slot(0), Door::Typed);
                all.push(Operation::Files(Files::SetContainer { group, caller: 0, target, door }));
            }
            for group in before..=before + after {
                all.push(Operation::Files(Files::Assign { group, slot: 0, kind }));
            }
            if open {
                all.push(Operation::Files(Files::OpenEmulated));
            }
            all
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => map().prop_map(Operation::Call).boxed(),
        5 => unmap().prop_map(Operation::Call).boxed(),
        6 => dirty().prop_map(Operation::Call).boxed(),
        7 => files().prop_map(Operation::Files).boxed(),
        4 => devices().prop_map(Operation::Device).boxed(),
        2 => settings().prop_map(Operation::Set).boxed(),
    ]
}

fn files() -> impl Strategy<Value = Files> {
    let told = prop::option::of(on_unmap());
    let device = prop_oneof![6 => Just(0), 1 => 0..3_u32];
    let kind = prop_oneof![4 => Just(3), 2 => Just(1), 4 => 0..12_u64, 1 => Just(1 << 32 | 3)];
    let target = prop_oneof![
        16 => slot().prop_map(Aim::Slot),
        1 => Just(Aim::Closed),
        1 => Just(Aim::Other),
        1 => Just(Aim::Negative),
    ];
    prop_oneof![
        1 => any_slot().prop_map(|slot| Files::OpenContainer { slot }),
        1 => any_slot().prop_map(|slot| Files::CloseContainer { slot }),
        20 => (group(), slot(), prop_oneof![4 => Just(3), 1 => Just(1)])
            .prop_map(|(group, slot, kind)| Files::Assign { group, slot, kind }),
        4 => (group(), caller()).prop_map(|(group, caller)| Files::OpenGroup { group, caller }),
        2 => group().prop_map(|group| Files::CloseGroup { group }),
        8 => (group(), caller(), target, door()).prop_map(|(group, caller, target, door)| {
            Files::SetContainer { group, caller, target, door }
        }),
        4 => group().prop_map(|group| Files::UnsetContainer { group }),
        1 => (group(), door()).prop_map(|(group, door)| Files::Status { group, door }),
        5 => (slot(), caller(), kind, door())
            .prop_map(|(slot, caller, kind, door)| Files::SetIommu { slot, caller, kind, door }),
        6 => Just(Files::OpenEmulated),
        9 => (group(), caller(), device, told).prop_map(|(group, caller, device, told)| {
            Files::OpenDevice { group, caller, device, told }
        }),
        6 => (0..4_usize).prop_map(|device| Files::CloseDevice { device }),
    ]
}

fn map() -> impl Strategy<Value = Call> {
    let flags = prop_oneof![12 => 1..=3_u32, 1 => 0..16_u32];
    let map = (slot(), caller(), place(), extent(), to(), flags, door()).prop_map(
        |(slot, caller, place, extent, to, flags, door)| Call::Map {
            slot,
            caller,
            place,
            extent,
            to,
            flags,
            door,
        },
    );
    // New process addresses mostly go to mappings that are there.
    let exact = (0..6_usize).prop_map(|at| Extent::Mappings(at, at));
    let extent = prop_oneof![3 => exact, 1 => (1..6_u64).prop_map(Extent::Pages)];
    let update = (slot(), 0..PROCESSES, place(), extent, to(), door()).prop_map(
        |(slot, caller, place, extent, to, door)| {
            let flags = 4;
            Call::Map { slot, caller, place, extent, to, flags, door }
        },
    );
    prop_oneof![3 => map, 1 => update]
}

fn unmap() -> impl Strategy<Value = Call> {
    let flags = prop_oneof![
        6 => Just(0),
        4 => Just(1),
        1 => Just(2),
        3 => Just(4),
        1 => Just(6),
        1 => 0..16_u32,
    ];
    (slot(), caller(), place(), extent(), flags, bitmap(), door()).prop_map(
        |(slot, caller, place, extent, flags, bitmap, door)| {
            // ALL takes no range.
            let all = flags & 2 != 0 && place.pages == 0;
            let extent = if all { Extent::Bytes(0) } else { extent };
            let place =
                if all { Place { free: false, boundary: 0, pages: 0, bytes: 0 } } else { place };
            Call::Unmap { slot, caller, place, extent, flags, bitmap, door }
        },
    )
}

fn dirty() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => (slot(), prop_oneof![4 => Just(true), 1 => Just(false)], door())
            .prop_map(|(slot, on, door)| Call::Track { slot, on, door }),
        6 => (slot(), caller(), place(), extent(), bitmap(), door()).prop_map(
            |(slot, caller, place, extent, bitmap, door)| Call::GetBitmap {
                slot, caller, place, extent, bitmap, door
            }
        ),
        1 => (slot(), 0..16_u32, door())
            .prop_map(|(slot, flags, door)| Call::DirtyFlags { slot, flags, door }),
        1 => (slot(), prop_oneof![0..200_u32, any::<u32>()], door())
            .prop_map(|(slot, argsz, door)| Call::GetInfo { slot, argsz, door }),
        1 => (slot(), prop_oneof![0x3b60..0x3b80_u32, any::<u32>()], 0..12_u64)
            .prop_map(|(slot, command, arg)| Call::Command { slot, command, arg }),
    ]
}

fn devices() -> impl Strategy<Value = Device> {
    let access = prop_oneof![
        4 => Just(Access::Read),
        1 => Just(Access::ReadWrite),
        1 => Just(Access::Write),
    ];
    let at = || (place(), rarely()).prop_map(|(place, any)| Place { free: !any, ..place });
    let pages = || prop_oneof![12 => 1..5_u64, 1 => 0..600_u64, 1 => Just(0)];
    let length = || prop_oneof![4 => 1..64_u64, 1 => 0..0x3000_u64];
    prop_oneof![
        3 => (0..4_usize, on_unmap()).prop_map(|(device, does)| Device::OnUnmap { device, does }),
        12 => (0..4_usize, at(), pages(), access).prop_map(|(device, place, pages, access)| {
            Device::Pin { device, place, pages, access }
        }),
        2 => (0..4_usize, at(), pages())
            .prop_map(|(device, place, pages)| Device::Unpin { device, place, pages }),
        1 => (0..4_usize, at(), length())
            .prop_map(|(device, place, length)| Device::DmaRead { device, place, length }),
        2 => (0..4_usize, at(), length())
            .prop_map(|(device, place, length)| Device::DmaWrite { device, place, length }),
    ]
}

fn on_unmap() -> impl Strategy<Value = OnUnmap> {
    prop_oneof![6 => Just(OnUnmap::LetsGo), 1 => Just(OnUnmap::Ignores)]
}

/// True once in eight times; shrinks to false.
fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![7 => Just(false), 1 => Just(true)]
}

fn settings() -> impl Strategy<Value = Setting> {
    prop_oneof![
        4 => (caller(), prop_oneof![4 => 0..60_u64, 1 => Just(u64::MAX >> 12)])
            .prop_map(|(process, pages)| Setting::Memlock { process, pages }),
        4 => (caller(), any::<bool>())
            .prop_map(|(process, has)| Setting::IpcLock { process, has }),
        1 => (caller(), any::<bool>()).prop_map(|(process, has)| Setting::RawIo { process, has }),
        1 => any::<bool>().prop_map(|allow| Setting::UnsafeInterrupts { allow }),
        1 => any::<bool>().prop_map(|enable| Setting::NoIommuMode { enable }),
        2 => (0..6_u32).prop_map(|mappings| Setting::EntryLimit { mappings }),
        1 => Just(Setting::Exit),
    ]
}

fn slot() -> impl Strategy<Value = usize> {
    prop_oneof![24 => Just(0), 1 => 0..SLOTS]
}

fn any_slot() -> impl Strategy<Value = usize> {
    (0..SLOTS).prop_map(|slot| SLOTS - 1 - slot)
}

fn group() -> impl Strategy<Value = usize> {
    0..4_usize
}

fn caller() -> impl Strategy<Value = usize> {
    prop_oneof![5 => Just(0), 1 => 0..PROCESSES]
}

fn place() -> impl Strategy<Value = Place> {
    let pages = prop_oneof![4 => Just(0), 3 => -3..=3_i64, 1 => -70..=70_i64];
    let bytes = prop_oneof![12 => Just(0), 1 => -0x1000..=0x1000_i64];
    (any::<bool>(), 0..80_usize, pages, bytes).prop_map(|(free, boundary, pages, bytes)| Place {
        free,
        boundary,
        pages,
        bytes,
    })
}

fn extent() -> impl Strategy<Value = Extent> {
    prop_oneof![
        12 => (1..6_u64).prop_map(Extent::Pages),
        3 => (1..200_u64).prop_map(Extent::Pages),
        1 => (0..6_u64).prop_map(Extent::Ragged),
        6 => (0..4_usize).prop_map(Extent::ToBoundary),
        10 => (0..6_usize, 0..3_usize).prop_map(|(from, more)| Extent::Mappings(from, from + more)),
        1 => Just(Extent::Huge),
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63)].prop_map(Extent::Bytes),
    ]
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        12 => (0..64_u64).prop_map(To::Ram),
        2 => (0..8_u64).prop_map(To::RamEnd),
        2 => (0..8_u64).prop_map(To::End),
        2 => Just(To::Huge),
        1 => prop_oneof![Just(0), Just(0x1001), Just(0_u64.wrapping_sub(0x1000))]
            .prop_map(To::Exactly),
    ]
}

fn bitmap() -> impl Strategy<Value = Bitmap> {
    let room =
        prop_oneof![8 => Just(512), 1 => (0..8_u64).prop_map(|words| 8 * words), 1 => 0..64_u64];
    let size = prop_oneof![
        12 => Just(BitmapSize::Right),
        1 => Just(BitmapSize::OneWordLess),
        1 => prop_oneof![Just(0), Just(1 << 28), Just((1 << 28) + 1), Just(u64::MAX), 0..64_u64]
            .prop_map(BitmapSize::Bytes),
    ];
    let page = prop_oneof![
        12 => Just(BitmapPage::Right),
        1 => prop_oneof![Just(0), Just(0x1000), Just(0x3000), Just(1 << 63), Just(1)]
            .prop_map(BitmapPage::Bytes),
    ];
    let beyond_user = prop_oneof![20 => Just(false), 1 => Just(true)];
    let fill = prop_oneof![2 => Just(0), 1 => any::<u8>()];
    (room, size, page, beyond_user, fill).prop_map(|(room, size, page, beyond_user, fill)| Bitmap {
        room,
        size,
        page,
        beyond_user,
        fill,
    })
}

fn door() -> impl Strategy<Value = Door> {
    let argsz = prop_oneof![8 => Just(0), 1 => -30..30_i32];
    let cut = prop_oneof![10 => Just(0), 1 => 0..50_u64];
    let bytes = (argsz, cut, prop_oneof![8 => Just(false), 1 => Just(true)]);
    prop_oneof![
        2 => Just(Door::Typed),
        1 => bytes.prop_map(|(argsz, cut, read_only)| Door::Bytes { argsz, cut, read_only }),
    ]
}
