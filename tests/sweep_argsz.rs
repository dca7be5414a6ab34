// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: for every `argsz` from 0 to one more than everything, wherever the argument lies, an
//! ioctl reads and writes the bytes that each kernel does, and no other.
//!
//! What is expected is written down here from `docs/type1.md` (0.4, 1.2, 2.3, 5.1, 6.1, 7.1, 7.2),
//! not asked of the code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::bytes::{Answer, Bytes, CANARY, Door, END, Place, release};
use common::{RAM, Rig, group, msi, range, vtd};
use vfio_type1::abi::command;
use vfio_type1::{DirtyPages, Errno, IovaRange, Kernel, Memory as _, Vaddr, extension};

/// The mapping that is there, of two pages, and the one that MAP makes.
const MAPPED: u64 = 0x10_0000;
const FREE: u64 = 0x20_0000;
/// Where dirty pages are reported to: eight bytes, and canaries behind them.
const BITMAP: u64 = RAM + (64 << 20);

/// An ioctl whose argument begins with `argsz`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    GetStatus,
    GetInfo,
    Map,
    Unmap,
    UnmapReporting,
    Start,
    Stop,
    GetBitmap,
}

use Call::{GetBitmap, GetInfo, GetStatus, Map, Start, Stop, Unmap, UnmapReporting};

const CALLS: [Call; 8] = [GetStatus, GetInfo, Map, Unmap, UnmapReporting, Start, Stop, GetBitmap];

impl Call {
    fn command(self) -> u32 {
        match self {
            GetStatus => command::GROUP_GET_STATUS,
            GetInfo => command::IOMMU_GET_INFO,
            Map => command::IOMMU_MAP_DMA,
            Unmap | UnmapReporting => command::IOMMU_UNMAP_DMA,
            Start | Stop | GetBitmap => command::IOMMU_DIRTY_PAGES,
        }
    }

    /// The least `argsz`, which is also what the kernel reads (0.4).
    fn least(self) -> usize {
        match self {
            GetStatus | Start | Stop => 8,
            GetInfo => 16,
            Unmap => 24,
            Map => 32,
            UnmapReporting | GetBitmap => 48,
        }
    }

    fn is_dirty(self) -> bool {
        matches!(self, Start | Stop | GetBitmap)
    }

    /// A request that goes through, if `argsz` lets it.
    fn bytes(self, kernel: Kernel, argsz: usize) -> Vec<u8> {
        let header = |flags| Bytes::header(u32::try_from(argsz).unwrap(), flags);
        let mapped = |header: Bytes| header.u64(MAPPED).u64(0x2000);
        let bitmap = |range: Bytes| range.u64(0x1000).u64(8).u64(BITMAP);
        match self {
            GetStatus => header(0x5a5a_5a5a).0,
            GetInfo => {
                let mut bytes = header(0x5a5a_5a5a).0;
                bytes.resize(Info::of(kernel).need + 1, CANARY);
                bytes
            }
            Map => header(3).u64(RAM).u64(FREE).u64(0x1000).0,
            Unmap => mapped(header(0)).0,
            UnmapReporting => bitmap(mapped(header(1))).0,
            Start => header(1).0,
            Stop => header(2).0,
            GetBitmap => bitmap(mapped(header(4))).0,
        }
    }

    /// Why the kernel has no such request, or none on such a container (6.1, 7.2).
    fn refusal(self, kernel: Kernel, kind: u64) -> Option<Errno> {
        let tracks = release(kernel) >= (5, 8);
        match self {
            Start | Stop | GetBitmap if !tracks => Some(Errno::ENOTTY),
            Start | Stop | GetBitmap if kind == extension::TYPE1 => Some(Errno::EACCES),
            // The flag is not known yet, or tracking is off, as it must be in v1.
            UnmapReporting if !tracks || kind == extension::TYPE1 => Some(Errno::EINVAL),
            _ => None,
        }
    }
}

/// What GET_INFO answers on a VT-d of 39 bits whose MSI window is reserved (7.1).
struct Info {
    /// The least `argsz` for everything.
    need: usize,
    /// What stands from offset 24 on, in words of four bytes.
    chain: &'static [u32],
}

const MIGRATION: [u32; 6] = [0, 0, 0x1000, 0, 0x1000_0000, 0];
const RANGES: [u32; 8] = [0, 0, 0xfedf_ffff, 0, 0xfef0_0000, 0, 0xffff_ffff, 0x7f];

impl Info {
    fn of(kernel: Kernel) -> Self {
        const M: [u32; 6] = MIGRATION;
        const R: [u32; 8] = RANGES;
        #[rustfmt::skip]
        const ALIGNED: [u32; 24] = [
            0x0001_0002, 56, M[0], M[1], M[2], M[3], M[4], M[5],
            0x0001_0003, 72, 65534, 0,
            0x0001_0001, 0, 2, 0, R[0], R[1], R[2], R[3], R[4], R[5], R[6], R[7],
        ];
        #[rustfmt::skip]
        const PACKED: [u32; 23] = [
            0x0001_0002, 56, M[0], M[1], M[2], M[3], M[4], M[5],
            0x0001_0003, 68, 65534,
            0x0001_0001, 0, 2, 0, R[0], R[1], R[2], R[3], R[4], R[5], R[6], R[7],
        ];
        #[rustfmt::skip]
        const RANGES_ONLY: [u32; 12] =
            [0x0001_0001, 0, 2, 0, R[0], R[1], R[2], R[3], R[4], R[5], R[6], R[7]];
        let (need, chain): (usize, &[u32]) = match kernel.name() {
            "4.19" => (16, &[]),
            "2018-v6" => (40 + 2 * 16, &RANGES_ONLY),
            "5.10" | "6.1" => (84 + 2 * 16, &PACKED),
            _ => (88 + 2 * 16, &ALIGNED),
        };
        Self { need, chain }
    }

    /// How much of the header is written (7.1 step 5, 8).
    fn header(kernel: Kernel, argsz: usize) -> usize {
        match kernel.name() {
            "4.19" => 16,
            "2018-v6" | "5.10" | "6.1" => {
                if argsz >= 20 {
                    20
                } else {
                    16
                }
            }
            _ => argsz.min(24),
        }
    }

    /// The bytes after a call that goes through.
    fn answer(kernel: Kernel, argsz: usize, before: &[u8]) -> Vec<u8> {
        let Self { need, chain } = Self::of(kernel);
        let (fits, has_chain) = (argsz >= need, !chain.is_empty());
        let told = if fits { argsz } else { need };
        let header = Bytes::header(u32::try_from(told).unwrap(), if has_chain { 3 } else { 1 })
            .u64(0x4020_1000)
            .u32(if fits && has_chain { 24 } else { 0 })
            .u32(0);
        let mut after = before.to_vec();
        let written = Self::header(kernel, argsz);
        after[..written].copy_from_slice(&header.0[..written]);
        if fits {
            let chain = chain.iter().flat_map(|word| word.to_le_bytes());
            after.iter_mut().skip(24).zip(chain).for_each(|(byte, wanted)| *byte = wanted);
        }
        after
    }
}

/// A container with one mapping, and tracking on where there is such a thing.
fn door(kernel: Kernel, kind: u64) -> Door {
    let door = Door::new(kernel, kind, vec![group(&vtd(39), 1, vec![msi()])]);
    let Rig { container, process, .. } = &door.rig;
    door.rig.map(MAPPED, 0x2000).unwrap();
    if GetBitmap.refusal(kernel, kind).is_none() {
        container.dirty_pages(process, &DirtyPages::Start).unwrap();
    }
    door.memory.poke(Vaddr(BITMAP), &[CANARY; 16]).unwrap();
    door
}

/// What a call leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    errno: Result<i32, Errno>,
    bytes: Vec<u8>,
    mapped: Vec<IovaRange>,
    bitmap: [u8; 16],
}

const UNREPORTED: [u8; 16] = [CANARY; 16];

impl Outcome {
    fn of(door: &Door, answer: &Answer) -> Self {
        let mut bitmap = [0; 16];
        door.memory.read(Vaddr(BITMAP), &mut bitmap).unwrap();
        Self {
            errno: answer.errno(),
            bytes: answer.bytes.clone(),
            mapped: door.rig.mapped(),
            bitmap,
        }
    }

    fn unchanged(errno: Errno, bytes: Vec<u8>) -> Self {
        let mapped = vec![range(MAPPED, MAPPED + 0x1fff)];
        Self { errno: Err(errno), bytes, mapped, bitmap: UNREPORTED }
    }

    /// What the documents say of a call whose argument can be read.
    fn expected(setting: (Kernel, u64), call: Call, argsz: usize, place: Place) -> Self {
        let (kernel, kind) = setting;
        let before = call.bytes(kernel, argsz);
        if let Some(errno) = call.refusal(kernel, kind) {
            return Self::unchanged(errno, before);
        }
        if argsz < call.least() {
            return Self::unchanged(Errno::EINVAL, before);
        }
        let mut after = Self { errno: Ok(0), ..Self::unchanged(Errno::EINVAL, before.clone()) };
        match call {
            GetStatus => after.bytes[4..].copy_from_slice(&[3, 0, 0, 0]),
            GetInfo => after.bytes = Info::answer(kernel, argsz, &before),
            Map => after.mapped.push(range(FREE, FREE + 0xfff)),
            Unmap | UnmapReporting => after.mapped.clear(),
            Start | Stop | GetBitmap => {}
        }
        if matches!(call, UnmapReporting | GetBitmap) {
            after.bitmap[..8].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
        }
        let writes = !(call == Map || call.is_dirty());
        if place == Place::ReadOnly && writes {
            // An UNMAP has happened all the same (6.1).
            return Self { errno: Err(Errno::EFAULT), bytes: before, ..after };
        }
        after
    }
}

fn settings() -> impl Iterator<Item = (Kernel, u64)> {
    let kinds = [extension::TYPE1, extension::TYPE1V2];
    Kernel::ALL.into_iter().flat_map(move |kernel| kinds.map(|kind| (kernel, kind)))
}

#[test]
fn every_argsz_is_answered_as_documented() {
    for (kernel, kind) in settings() {
        for call in CALLS {
            let full = call.bytes(kernel, 0).len();
            for argsz in (0..=full + 1).chain([4096, u32::MAX as usize]) {
                for place in Place::ALL {
                    let door = door(kernel, kind);
                    let answer = door.call(call.command(), place, &call.bytes(kernel, argsz));
                    let expected = Outcome::expected((kernel, kind), call, argsz, place);
                    let outcome = Outcome::of(&door, &answer);
                    assert_eq!(
                        outcome, expected,
                        "{kernel}, type {kind}, {call:?}, {argsz}, {place:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_argument_that_ends_early_faults_and_changes_nothing() {
    for (kernel, kind) in settings() {
        for call in CALLS.into_iter().filter(|call| *call != GetInfo) {
            for length in 0..call.least() {
                let door = door(kernel, kind);
                let bytes = call.bytes(kernel, call.least())[..length].to_vec();
                let answer = door.call(call.command(), Place::AtEnd, &bytes);
                let errno = match call.refusal(kernel, kind) {
                    // V1 reports nothing, but reads the request before it says so. DIRTY_PAGES
                    // does not, nor does a kernel that knows neither flag nor command.
                    Some(_) if call == UnmapReporting && length < 24 => Errno::EFAULT,
                    Some(_) if call == UnmapReporting && release(kernel) >= (5, 8) => Errno::EFAULT,
                    Some(errno) => errno,
                    None => Errno::EFAULT,
                };
                let expected = Outcome::unchanged(errno, bytes);
                let outcome = Outcome::of(&door, &answer);
                assert_eq!(outcome, expected, "{kernel}, type {kind}, {call:?}, {length}");
            }
        }
    }
}

#[test]
fn information_is_written_header_last() {
    for kernel in Kernel::ALL {
        let need = Info::of(kernel).need;
        let all = [16, 17, 20, 24, need - 1, need, need + 1];
        for argsz in all.into_iter().filter(|argsz| *argsz >= 16) {
            // What is touched: the header alone, or all.
            let touched = if argsz < need { Info::header(kernel, argsz) } else { need };
            for length in 0..=need + 1 {
                let door = door(kernel, extension::TYPE1V2);
                let before = GetInfo.bytes(kernel, argsz)[..length].to_vec();
                let answer = door.call(command::IOMMU_GET_INFO, Place::AtEnd, &before);
                let context = format!("{kernel}, argsz {argsz}, {length} bytes");
                if length >= touched.max(16) {
                    let mut after = Info::answer(kernel, argsz, &GetInfo.bytes(kernel, argsz));
                    after.truncate(length);
                    assert_eq!((answer.errno(), answer.bytes), (Ok(0), after), "{context}");
                    continue;
                }
                assert_eq!(answer.errno(), Err(Errno::EFAULT), "{context}");
                if length < 16 || argsz >= need {
                    let header = length.min(24);
                    assert_eq!(answer.bytes[..header], before[..header], "{context}");
                }
            }
        }
    }
}

#[test]
fn without_a_driver_no_argument_is_looked_at() {
    for kernel in Kernel::ALL {
        let door = Door::of(Rig::plain(kernel));
        door.rig.groups[0].unset_container().unwrap();
        for call in CALLS.into_iter().filter(|call| *call != GetStatus) {
            for argsz in 0..=call.least() + 1 {
                for place in Place::ALL {
                    let before = call.bytes(kernel, argsz);
                    let answer = door.call(call.command(), place, &before);
                    let expected = (Err(Errno::EINVAL), before);
                    let context = format!("{kernel}, {call:?}, {argsz}, {place:?}");
                    assert_eq!((answer.errno(), answer.bytes), expected, "{context}");
                }
            }
            for arg in [0, END, u64::MAX] {
                let errno = door.ioctl(call.command(), arg).unwrap_err().errno;
                assert_eq!(errno, Errno::EINVAL, "{kernel}, {call:?}");
            }
        }
    }
}

#[test]
fn arguments_without_argsz_are_read_as_far_as_they_go() {
    for kernel in Kernel::ALL {
        let door = door(kernel, extension::TYPE1V2);
        // The group is in a container, and the descriptor is not open. Which is looked at first
        // changed (2.4).
        let errno = if release(kernel) >= (6, 1) { Errno::EBADF } else { Errno::EINVAL };
        let fd = 9i32.to_le_bytes();
        for place in Place::ALL {
            let answer = door.call(command::GROUP_SET_CONTAINER, place, &fd);
            assert_eq!((answer.errno(), &answer.bytes[..]), (Err(errno), &fd[..]), "{kernel}");
        }
        for length in 0..4 {
            let answer = door.call(command::GROUP_SET_CONTAINER, Place::AtEnd, &fd[..length]);
            assert_eq!(answer.errno(), Err(Errno::EFAULT), "{kernel}, {length}");
        }
        let name = b"0000:00:01.0\0";
        for length in 0..name.len() {
            let answer = door.call(command::GROUP_GET_DEVICE_FD, Place::AtEnd, &name[..length]);
            assert_eq!(answer.errno(), Err(Errno::EFAULT), "{kernel}, {length}");
        }
        for place in Place::ALL {
            assert_eq!(door.call(command::GROUP_GET_DEVICE_FD, place, name).errno(), Ok(3));
        }
    }
}

#[test]
fn the_longest_name_is_a_page_with_its_end() {
    for kernel in Kernel::ALL {
        let door = door(kernel, extension::TYPE1V2);
        for (length, errno) in [(4095, Errno::ENODEV), (4096, Errno::EINVAL)] {
            let mut name = vec![b'a'; length];
            name.push(0);
            door.memory.poke(Vaddr(RAM), &name).unwrap();
            let refusal = door.ioctl(command::GROUP_GET_DEVICE_FD, RAM).unwrap_err();
            assert_eq!(refusal.errno, errno, "{kernel}, {length}");
        }
    }
}
