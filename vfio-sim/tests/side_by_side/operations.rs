// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations that are done on both. They name addresses by what lies there ("two pages below the third
//! boundary"), so that they hit something on whatever host they run.

use vfio_sim::oracle::OnUnmap;
use vfio_type1::Access;

/// Slots for open containers.
pub(crate) const SLOTS: usize = 2;
/// Processes that call.
pub(crate) const PROCESSES: usize = 2;

/// One step. Groups, mappings and boundaries are counted modulo how many there are.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Files(Files),
    Call(Call),
    Device(Device),
    Set(Setting),
}

/// Containers, groups and devices as files.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    OpenContainer {
        slot: usize,
    },
    CloseContainer {
        slot: usize,
    },
    OpenGroup {
        group: usize,
        caller: usize,
    },
    CloseGroup {
        group: usize,
    },
    SetContainer {
        group: usize,
        caller: usize,
        target: Aim,
        door: Door,
    },
    UnsetContainer {
        group: usize,
    },
    Status {
        group: usize,
        door: Door,
    },
    SetIommu {
        slot: usize,
        caller: usize,
        kind: u64,
        door: Door,
    },
    /// Opens a group, puts it into the container, sets the driver: each if it is not done yet.
    Assign {
        group: usize,
        slot: usize,
        kind: u64,
    },
    OpenDevice {
        group: usize,
        caller: usize,
        device: u32,
        told: Option<OnUnmap>,
    },
    /// Opens the first device of each emulated group.
    OpenEmulated,
    CloseDevice {
        device: usize,
    },
}

/// A request to a container.
#[derive(Clone, Debug)]
#[rustfmt::skip]
pub(crate) enum Call {
    Map { slot: usize, caller: usize, place: Place, extent: Extent, to: To, flags: u32, door: Door },
    Unmap { slot: usize, caller: usize, place: Place, extent: Extent, flags: u32, bitmap: Bitmap, door: Door },
    Track { slot: usize, on: bool, door: Door },
    GetBitmap { slot: usize, caller: usize, place: Place, extent: Extent, bitmap: Bitmap, door: Door },
    DirtyFlags { slot: usize, flags: u32, door: Door },
    GetInfo { slot: usize, argsz: u32, door: Door },
    Command { slot: usize, command: u32, arg: u64 },
}

/// What the driver of an open device does.
#[derive(Clone, Debug)]
pub(crate) enum Device {
    OnUnmap { device: usize, does: OnUnmap },
    Pin { device: usize, place: Place, pages: u64, access: Access },
    Unpin { device: usize, place: Place, pages: u64 },
    DmaRead { device: usize, place: Place, length: u64 },
    DmaWrite { device: usize, place: Place, length: u64 },
}

/// Limits, capabilities, module parameters, and the end of the second process.
#[derive(Clone, Debug)]
pub(crate) enum Setting {
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
    Bytes {
        argsz: i32,
        cut: u64,
        read_only: bool,
    },
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
    /// It ends where user addresses do, or one byte behind, as `fill` says.
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
