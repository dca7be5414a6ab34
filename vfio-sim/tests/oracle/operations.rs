// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Generated operations. They name addresses by what lies there ("two pages below the third
//! boundary"), so that they hit something on whatever host they run.

use proptest::prelude::*;
use vfio_sim::oracle::OnUnmap;
use vfio_type1::Access;

/// Slots for open containers.
pub(crate) const SLOTS: usize = 2;
/// Processes that call.
pub(crate) const PROCESSES: usize = 2;

/// One call. Groups, mappings and boundaries are counted modulo how many there are.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    OpenContainer { slot: usize },
    CloseContainer { slot: usize },
    OpenGroup { group: usize, caller: usize },
    CloseGroup { group: usize },
    SetContainer { group: usize, caller: usize, target: Aim, door: Door },
    UnsetContainer { group: usize },
    Status { group: usize, door: Door },
    SetIommu { slot: usize, caller: usize, kind: u64, door: Door },
    Map { slot: usize, caller: usize, place: Place, extent: Extent, to: To, flags: u32, door: Door },
    Unmap { slot: usize, caller: usize, place: Place, extent: Extent, flags: u32, bitmap: Bitmap, door: Door },
    Track { slot: usize, on: bool, door: Door },
    GetBitmap { slot: usize, caller: usize, place: Place, extent: Extent, bitmap: Bitmap, door: Door },
    DirtyFlags { slot: usize, flags: u32, door: Door },
    GetInfo { slot: usize, argsz: u32, door: Door },
    Command { slot: usize, command: u32, arg: u64 },
    /// Opens a group, puts it into the container, sets the driver: each if it is not done yet.
    Assign { group: usize, slot: usize, kind: u64 },
    OpenDevice { group: usize, caller: usize, device: u32, told: Option<OnUnmap> },
    /// Opens the first device of each emulated group.
    OpenEmulated,
    OnUnmap { device: usize, does: OnUnmap },
    CloseDevice { device: usize },
    Pin { device: usize, place: Place, pages: u64, access: Access },
    Unpin { device: usize, place: Place, pages: u64 },
    DmaRead { device: usize, place: Place, length: u64 },
    DmaWrite { device: usize, place: Place, length: u64 },
    Memlock { process: usize, pages: u64 },
    IpcLock { process: usize, has: bool },
    RawIo { process: usize, has: bool },
    UnsafeInterrupts { allow: bool },
    NoIommuMode { enable: bool },
    EntryLimit { mappings: u32 },
    Exit,
}

/// What SET_CONTAINER is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    Slot(usize),
    Closed,
    Other,
    Negative,
}

/// Which way in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Typed,
    /// By bytes: `argsz` is off by this much, so many bytes lie behind the end of memory, and the
    /// memory may be read-only.
    Bytes { argsz: i32, cut: u64, read_only: bool },
}

/// An address: a boundary, and how far from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The boundary is where a valid range begins, or a mapping ends.
    pub(crate) free: bool,
    pub(crate) boundary: usize,
    pub(crate) pages: i64,
    pub(crate) bytes: i64,
}

/// How far a range reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// So many pages.
    Pages(u64),
    /// So many pages, and some bytes.
    Ragged(u64),
    /// To the n-th boundary above.
    ToBoundary(usize),
    /// From one mapping to another one; the place does not matter.
    Mappings(usize, usize),
    /// More pages than a dirty bitmap covers.
    Huge,
    Bytes(u64),
}

/// The process address of a MAP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// So many pages into memory that can be written.
    Ram(u64),
    /// So many pages before the end of that memory, where memory to read begins.
    RamEnd(u64),
    /// So many pages before the end of memory.
    End(u64),
    Huge,
    Exactly(u64),
}

/// A dirty bitmap: where it lies and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap {
    /// Bytes of memory from its start on; it faults behind them.
    pub(crate) room: u64,
    pub(crate) size: BitmapSize,
    pub(crate) page: BitmapPage,
    pub(crate) beyond_user: bool,
    /// What the buffer holds before.
    pub(crate) fill: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum BitmapSize {
    Right,
    OneWordLess,
    Bytes(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum BitmapPage {
    Right,
    Bytes(u64),
}

/// A run of operations.
pub(crate) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    (start(), prop::collection::vec(operation(), 1..40)).prop_map(|(mut all, rest)| {
        all.extend(rest);
        all
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
                Operation::UnsafeInterrupts { allow },
                Operation::NoIommuMode { enable: true },
                Operation::EntryLimit { mappings },
                Operation::IpcLock { process: 0, has },
                Operation::Memlock { process: 0, pages: 200 },
                Operation::IpcLock { process: 1, has },
                Operation::Memlock { process: 1, pages: 3 },
                Operation::OpenContainer { slot: 0 },
            ];
            for group in 0..before {
                all.push(Operation::OpenGroup { group, caller: 0 });
                let (target, door) = (Aim::Slot(0), Door::Typed);
                all.push(Operation::SetContainer { group, caller: 0, target, door });
            }
            for group in before..=before + after {
                all.push(Operation::Assign { group, slot: 0, kind });
            }
            if open {
                all.push(Operation::OpenEmulated);
            }
            all
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => map().boxed(),
        5 => unmap().boxed(),
        6 => dirty().boxed(),
        5 => files().boxed(),
        5 => devices().boxed(),
        2 => settings().boxed(),
    ]
}

fn files() -> impl Strategy<Value = Operation> {
    let kind = prop_oneof![4 => Just(3), 2 => Just(1), 4 => 0..12_u64, 1 => Just(1 << 32 | 3)];
    let target = prop_oneof![
        16 => slot().prop_map(Aim::Slot),
        1 => Just(Aim::Closed),
        1 => Just(Aim::Other),
        1 => Just(Aim::Negative),
    ];
    prop_oneof![
        1 => any_slot().prop_map(|slot| Operation::OpenContainer { slot }),
        1 => any_slot().prop_map(|slot| Operation::CloseContainer { slot }),
        20 => (group(), slot(), prop_oneof![4 => Just(3), 1 => Just(1)])
            .prop_map(|(group, slot, kind)| Operation::Assign { group, slot, kind }),
        4 => (group(), caller()).prop_map(|(group, caller)| Operation::OpenGroup { group, caller }),
        2 => group().prop_map(|group| Operation::CloseGroup { group }),
        8 => (group(), caller(), target, door()).prop_map(|(group, caller, target, door)| {
            Operation::SetContainer { group, caller, target, door }
        }),
        4 => group().prop_map(|group| Operation::UnsetContainer { group }),
        1 => (group(), door()).prop_map(|(group, door)| Operation::Status { group, door }),
        5 => (slot(), caller(), kind, door())
            .prop_map(|(slot, caller, kind, door)| Operation::SetIommu { slot, caller, kind, door }),
    ]
}

fn map() -> impl Strategy<Value = Operation> {
    let flags = prop_oneof![12 => 1..=3_u32, 1 => 0..16_u32];
    let map = (slot(), caller(), place(), extent(), to(), flags, door()).prop_map(
        |(slot, caller, place, extent, to, flags, door)| Operation::Map {
            slot,
            caller,
            place,
            extent,
            to,
            flags,
            door,
        },
    );
    // New process addresses go to mappings that are there.
    let update = (slot(), 0..PROCESSES, place(), 0..6_usize, to(), door()).prop_map(
        |(slot, caller, place, at, to, door)| {
            let (extent, flags) = (Extent::Mappings(at, at), 4);
            Operation::Map { slot, caller, place, extent, to, flags, door }
        },
    );
    prop_oneof![3 => map, 1 => update]
}

fn unmap() -> impl Strategy<Value = Operation> {
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
            let place = if all { Place { free: false, boundary: 0, pages: 0, bytes: 0 } } else { place };
            Operation::Unmap { slot, caller, place, extent, flags, bitmap, door }
        },
    )
}

fn dirty() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (slot(), prop_oneof![4 => Just(true), 1 => Just(false)], door())
            .prop_map(|(slot, on, door)| Operation::Track { slot, on, door }),
        6 => (slot(), caller(), place(), extent(), bitmap(), door()).prop_map(
            |(slot, caller, place, extent, bitmap, door)| Operation::GetBitmap {
                slot, caller, place, extent, bitmap, door
            }
        ),
        1 => (slot(), 0..16_u32, door())
            .prop_map(|(slot, flags, door)| Operation::DirtyFlags { slot, flags, door }),
        1 => (slot(), prop_oneof![0..200_u32, any::<u32>()], door())
            .prop_map(|(slot, argsz, door)| Operation::GetInfo { slot, argsz, door }),
        1 => (slot(), prop_oneof![0x3b60..0x3b80_u32, any::<u32>()], 0..12_u64)
            .prop_map(|(slot, command, arg)| Operation::Command { slot, command, arg }),
    ]
}

fn devices() -> impl Strategy<Value = Operation> {
    let does = prop_oneof![6 => Just(OnUnmap::LetsGo), 1 => Just(OnUnmap::Ignores)];
    let access =
        prop_oneof![4 => Just(Access::Read), 1 => Just(Access::ReadWrite), 1 => Just(Access::Write)];
    let at = || (place(), rarely()).prop_map(|(place, any)| Place { free: !any, ..place });
    let pages = || prop_oneof![8 => 1..5_u64, 1 => 0..600_u64];
    let length = || prop_oneof![4 => 1..64_u64, 1 => 0..0x3000_u64];
    prop_oneof![
        2 => Just(Operation::OpenEmulated),
        3 => (group(), caller(), prop_oneof![6 => Just(0), 1 => 0..3_u32], prop::option::of(does.clone()))
            .prop_map(|(group, caller, device, told)| Operation::OpenDevice { group, caller, device, told }),
        3 => (0..4_usize, does).prop_map(|(device, does)| Operation::OnUnmap { device, does }),
        2 => (0..4_usize).prop_map(|device| Operation::CloseDevice { device }),
        12 => (0..4_usize, at(), pages(), access).prop_map(|(device, place, pages, access)| {
            Operation::Pin { device, place, pages, access }
        }),
        2 => (0..4_usize, at(), pages())
            .prop_map(|(device, place, pages)| Operation::Unpin { device, place, pages }),
        1 => (0..4_usize, at(), length())
            .prop_map(|(device, place, length)| Operation::DmaRead { device, place, length }),
        2 => (0..4_usize, at(), length())
            .prop_map(|(device, place, length)| Operation::DmaWrite { device, place, length }),
    ]
}

/// True once in eight times; shrinks to false.
fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![7 => Just(false), 1 => Just(true)]
}

fn settings() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (caller(), prop_oneof![4 => 0..60_u64, 1 => Just(u64::MAX >> 12)])
            .prop_map(|(process, pages)| Operation::Memlock { process, pages }),
        4 => (caller(), any::<bool>())
            .prop_map(|(process, has)| Operation::IpcLock { process, has }),
        1 => (caller(), any::<bool>()).prop_map(|(process, has)| Operation::RawIo { process, has }),
        1 => any::<bool>().prop_map(|allow| Operation::UnsafeInterrupts { allow }),
        1 => any::<bool>().prop_map(|enable| Operation::NoIommuMode { enable }),
        2 => (0..6_u32).prop_map(|mappings| Operation::EntryLimit { mappings }),
        1 => Just(Operation::Exit),
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
    (any::<bool>(), 0..40_usize, pages, bytes)
        .prop_map(|(free, boundary, pages, bytes)| Place { free, boundary, pages, bytes })
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
    let room = prop_oneof![8 => Just(512), 1 => (0..8_u64).prop_map(|words| 8 * words), 1 => 0..64_u64];
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
