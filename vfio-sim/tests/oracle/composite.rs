// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that only mean something together, and that hardly ever follow each other by chance.

use proptest::prelude::*;
use vfio_sim::oracle::OnUnmap;
use vfio_type1::Access;

use crate::side_by_side::operations::{
    Aim, Bitmap, BitmapPage, BitmapSize, Call, Device, Door, Extent, Files, Operation, Place,
    Setting, To,
};

/// Groups of a host, at most.
const GROUPS: usize = 4;

const NO_RANGE: Place = Place { free: false, boundary: 0, pages: 0, bytes: 0 };
const WHOLE_BITMAP: Bitmap = Bitmap {
    room: 512,
    size: BitmapSize::Right,
    page: BitmapPage::Right,
    beyond_user: false,
    fill: 0,
};

/// Several steps in a row.
pub(crate) fn composite() -> impl Strategy<Value = Vec<Operation>> {
    prop_oneof![
        3 => takeover(),
        3 => regroup(),
        4 => taken_over_without_an_iommu(),
        3 => dirty_round(),
        2 => copy(),
        3 => holes(),
        1 => dead_owner(),
        1 => kept_pin(),
    ]
}

/// MAPs of a few pages that go through, some side by side and some with a hole between.
pub(crate) fn mapped() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(map_free(prop_oneof![6 => Just(0), 1 => Just(1)]), 2..=5)
}

fn map_free(caller: impl Strategy<Value = usize>) -> impl Strategy<Value = Operation> {
    let hole = prop_oneof![2 => Just(0), 1 => 1..3_i64];
    let flags = prop_oneof![5 => Just(3), 1 => 1..3_u32];
    (caller, 0..8_usize, hole, 1..5_u64, 0..64_u64, flags).prop_map(
        |(caller, boundary, pages, extent, to, flags)| {
            let place = Place { free: true, boundary, pages, bytes: 0 };
            let (slot, extent, to, door) = (0, Extent::Pages(extent), To::Ram(to), Door::Typed);
            Operation::Call(Call::Map { slot, caller, place, extent, to, flags, door })
        },
    )
}

/// A process's limit and whether it counts.
fn limits(process: usize) -> impl Strategy<Value = Vec<Operation>> {
    (any::<bool>(), 0..16_u64).prop_map(move |(has, pages)| {
        vec![
            Operation::Set(Setting::IpcLock { process, has }),
            Operation::Set(Setting::Memlock { process, pages }),
        ]
    })
}

/// One process takes the addresses of all mappings away, another one, with much room or little,
/// gives new ones. Some mappings may be left out, and some bounds may not be exact.
fn takeover() -> impl Strategy<Value = Vec<Operation>> {
    let extent = prop_oneof![3 => Just(None), 1 => (1..4_u64).prop_map(Some)];
    let updates = prop::collection::vec((extent, 0..64_u64), 2..=5);
    let exempt = prop_oneof![3 => limits(1), 1 => Just(Vec::new())];
    let caller = prop_oneof![3 => Just(1), 1 => Just(0)];
    (exempt, caller, updates).prop_map(|(mut all, caller, updates)| {
        all.push(unmap_vaddrs());
        for (at, (pages, to)) in updates.into_iter().enumerate() {
            if let Some(pages) = pages {
                all.push(update(caller, at, Extent::Pages(pages), to));
            }
            all.push(update(caller, at, Extent::Mappings(at, at), to));
        }
        all
    })
}

fn unmap_vaddrs() -> Operation {
    let (place, extent, bitmap) = (NO_RANGE, Extent::Bytes(0), WHOLE_BITMAP);
    let (slot, caller, flags, door) = (0, 0, 2 | 4, Door::Typed);
    Operation::Call(Call::Unmap { slot, caller, place, extent, flags, bitmap, door })
}

/// Every fourth boundary is where a mapping begins.
fn update(caller: usize, at: usize, extent: Extent, to: u64) -> Operation {
    let place = Place { boundary: 4 * at + 1, ..NO_RANGE };
    let (slot, to, flags, door) = (0, To::Ram(to), 4, Door::Typed);
    Operation::Call(Call::Map { slot, caller, place, extent, to, flags, door })
}

/// All groups come, some go again, emulated devices pin, and all come back: charges leave with the
/// last domain and return with the next.
fn regroup() -> impl Strategy<Value = Vec<Operation>> {
    let leaving = prop::collection::vec(any::<bool>(), GROUPS);
    let pins = prop::collection::vec(pin(), 0..4);
    let caller = prop_oneof![2 => Just(0), 1 => Just(1)];
    (limits(0), limits(1), leaving, pins, caller, any::<bool>()).prop_map(
        |(first, second, leaving, pins, caller, track)| {
            let mut all: Vec<Operation> = (0..GROUPS)
                .map(|group| Operation::Files(Files::Assign { group, slot: 0, kind: 3 }))
                .collect();
            all.push(Operation::Files(Files::OpenEmulated));
            if track {
                all.push(Operation::Call(Call::Track { slot: 0, on: true, door: Door::Typed }));
                all.push(get_all());
            }
            let leaving = leaving.into_iter().enumerate().filter(|(_, leaves)| *leaves);
            all.extend(leaving.map(|(group, _)| Operation::Files(Files::UnsetContainer { group })));
            all.push(get_all());
            all.extend(first.into_iter().chain(second).chain(pins));
            let (target, door) = (Aim::Slot(0), Door::Typed);
            all.extend((0..GROUPS).map(|group| {
                Operation::Files(Files::SetContainer { group, caller, target, door })
            }));
            all
        },
    )
}

/// A container begins anew with one group, what is mapped is taken over, and only then come the
/// emulated groups, which do not let that happen, and the first one leaves. Whether the mappings
/// count against a limit is now the second process's affair.
fn taken_over_without_an_iommu() -> impl Strategy<Value = Vec<Operation>> {
    let map = prop::collection::vec(map_free(Just(0)), 1..=3);
    let pins = prop::collection::vec(pin(), 1..4);
    (0..2_usize, any::<bool>(), map, takeover(), 0..6_u64, pins, 0..2_usize).prop_map(
        |(only, has, map, takeover, pages, pins, caller)| {
            let set = |process, has| Operation::Set(Setting::IpcLock { process, has });
            let memlock = |process, pages| Operation::Set(Setting::Memlock { process, pages });
            let files = Operation::Files;
            let assign = |group| files(Files::Assign { group, slot: 0, kind: 3 });
            let mut all = vec![files(Files::CloseDevice { device: 0 }); 8];
            all.extend((0..GROUPS).map(|group| files(Files::UnsetContainer { group })));
            all.extend([assign(only), set(0, has), set(1, !has)]);
            all.extend([0, 1].map(|process| memlock(process, 200)));
            all.extend(map);
            all.extend(takeover.into_iter().filter(|step| !matches!(step, Operation::Set(_))));
            all.extend((0..GROUPS).map(assign));
            all.push(files(Files::OpenEmulated));
            all.push(files(Files::UnsetContainer { group: only }));
            all.extend([0, 1].map(|process| memlock(process, pages)));
            all.extend(pins);
            let (target, door) = (Aim::Slot(0), Door::Typed);
            all.push(files(Files::SetContainer { group: only, caller, target, door }));
            all
        },
    )
}

fn on_mapping() -> impl Strategy<Value = Place> {
    (0..6_usize, 0..4_i64).prop_map(|(boundary, pages)| Place {
        free: true,
        boundary,
        pages,
        bytes: 0,
    })
}

fn pin() -> impl Strategy<Value = Operation> {
    (0..2_usize, on_mapping(), 1..3_u64).prop_map(|(device, place, pages)| {
        Operation::Device(Device::Pin { device, place, pages, access: Access::Read })
    })
}

/// Tracking on, pages made dirty, and what is dirty asked for twice: the second time it is less.
fn dirty_round() -> impl Strategy<Value = Vec<Operation>> {
    let touch = prop_oneof![1 => pin(), 2 => write()];
    prop::collection::vec(touch, 1..4).prop_map(|touches| {
        let mut all = vec![
            Operation::Files(Files::OpenEmulated),
            Operation::Call(Call::Track { slot: 0, on: true, door: Door::Typed }),
        ];
        all.extend(touches);
        all.extend([get_all(), get_all()]);
        all
    })
}

fn get_all() -> Operation {
    let (place, extent, bitmap) = (NO_RANGE, Extent::Mappings(0, 5), WHOLE_BITMAP);
    let (slot, caller, door) = (0, 0, Door::Typed);
    Operation::Call(Call::GetBitmap { slot, caller, place, extent, bitmap, door })
}

fn write() -> impl Strategy<Value = Operation> {
    (0..2_usize, on_mapping(), 1..0x40_u64).prop_map(|(device, place, length)| {
        Operation::Device(Device::DmaWrite { device, place, length })
    })
}

/// What a device writes it reads again.
fn copy() -> impl Strategy<Value = Vec<Operation>> {
    (on_mapping(), 1..0x1800_u64).prop_map(|(place, length)| {
        vec![
            Operation::Files(Files::OpenEmulated),
            Operation::Device(Device::DmaWrite { device: 0, place, length }),
            Operation::Device(Device::DmaRead { device: 0, place, length }),
        ]
    })
}

/// Pages pinned here and there, and let go of across what lies between them.
fn holes() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..6_usize, 0..4_i64).prop_map(|(boundary, pages)| {
        let place = Place { free: true, boundary, pages, bytes: 0 };
        Operation::Device(Device::Pin { device: 0, place, pages: 1, access: Access::Read })
    });
    let unpin = (on_mapping(), 2..12_u64)
        .prop_map(|(place, pages)| Operation::Device(Device::Unpin { device: 0, place, pages }));
    (prop::collection::vec(one, 3..10), unpin).prop_map(|(pins, unpin)| {
        let mut all = vec![Operation::Files(Files::OpenEmulated)];
        all.extend(pins);
        all.push(unpin);
        all
    })
}

/// The second process maps and ends; devices go on with what it mapped.
fn dead_owner() -> impl Strategy<Value = Vec<Operation>> {
    let read = (on_mapping(), 1..0x40_u64).prop_map(|(place, length)| {
        Operation::Device(Device::DmaRead { device: 0, place, length })
    });
    let touch = prop_oneof![2 => pin(), 2 => write(), 2 => read];
    (map_free(Just(1)), prop::collection::vec(touch, 1..6)).prop_map(|(map, touches)| {
        let privileged = Operation::Set(Setting::IpcLock { process: 1, has: true });
        let does = OnUnmap::LetsGo;
        let mut all = vec![
            privileged,
            map,
            Operation::Files(Files::OpenEmulated),
            Operation::Device(Device::OnUnmap { device: 0, does }),
            Operation::Set(Setting::Exit),
        ];
        all.extend(touches);
        all
    })
}

/// A device does not let go of what is to be unmapped.
fn kept_pin() -> impl Strategy<Value = Vec<Operation>> {
    (pin(), 0..2_usize).prop_map(|(pin, device)| {
        let (does, place, extent) = (OnUnmap::Ignores, NO_RANGE, Extent::Mappings(0, 5));
        let (slot, caller, flags, bitmap, door) = (0, 0, 0, WHOLE_BITMAP, Door::Typed);
        vec![
            Operation::Files(Files::OpenEmulated),
            Operation::Device(Device::OnUnmap { device, does }),
            pin,
            Operation::Call(Call::Unmap { slot, caller, place, extent, flags, bitmap, door }),
        ]
    })
}
