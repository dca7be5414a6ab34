// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: every flag alone, every pair of flags and all known ones together do what each kernel
//! does with them, or are refused and change nothing (spec 5.1, 6.1, 7.2).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::bytes::{Bytes, Door, Place, release};
use common::{RAM, emulated, group, msi, range, vtd};
use vfio_type1::abi::command;
use vfio_type1::{Access, DirtyPages, Errno, IovaRange, Kernel, UnmapDma, Vaddr, extension};

const MAPPED: u64 = 0x10_0000;
const FREE: u64 = 0x20_0000;
const SIZE: u64 = 0x2000;
const BITMAP: u64 = RAM + (64 << 20);
const OTHER_RAM: u64 = RAM + (32 << 20);

/// A kernel, the type of the container, and whether an emulated group is in it beside the other.
#[derive(Clone, Copy, Debug)]
struct Setting {
    kernel: Kernel,
    kind: u64,
    emulated: bool,
}

impl Setting {
    fn all() -> impl Iterator<Item = Self> {
        let of = |kernel| {
            [(1, false), (1, true), (3, false), (3, true)].map(|(kind, emulated)| Self {
                kernel,
                kind,
                emulated,
            })
        };
        Kernel::ALL.into_iter().flat_map(of)
    }

    fn since(&self, major: u32, minor: u32) -> bool {
        release(self.kernel) >= (major, minor)
    }

    fn tracks(&self) -> bool {
        self.since(5, 8) && self.kind == extension::TYPE1V2
    }

    fn can_invalidate(&self) -> bool {
        self.since(5, 12) && !self.emulated
    }
}

/// A request that goes through with some flags, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Request {
    /// MAP where nothing is mapped.
    MapFree,
    /// MAP of the mapping that is there, which has lost its process address if it can.
    MapMapped,
    /// UNMAP of the mapping, with a bitmap behind the request.
    UnmapMapped,
    /// UNMAP of address 0 and size 0, as flag ALL wants it.
    UnmapNothing,
    /// DIRTY_PAGES with a range and a bitmap behind the request.
    Dirty,
}

use Request::{Dirty, MapFree, MapMapped, UnmapMapped, UnmapNothing};

const REQUESTS: [Request; 5] = [MapFree, MapMapped, UnmapMapped, UnmapNothing, Dirty];

/// What a call does to the mappings.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Nothing,
    Maps(Access),
    GivesVaddr,
    TakesVaddr,
    Removes,
}

use Effect::{GivesVaddr, Maps, Nothing, Removes, TakesVaddr};

type Answer = Result<Effect, Errno>;

const INVALID: Answer = Err(Errno::EINVAL);
const EXISTS: Answer = Err(Errno::EEXIST);
const BUSY: Answer = Err(Errno::EBUSY);

/// The answers to flags 0 to 7; flags beyond are EINVAL.
fn answers(request: Request, setting: Setting) -> [Answer; 8] {
    const NO: Answer = INVALID;
    let (read, write) = (Ok(Maps(Access::Read)), Ok(Maps(Access::Write)));
    let both = Ok(Maps(Access::ReadWrite));
    let reports = if setting.tracks() { Ok(Removes) } else { NO };
    let takes = if setting.emulated { BUSY } else { Ok(TakesVaddr) };
    let busy = if setting.emulated { BUSY } else { NO };
    let absent = Err(Errno::ENOENT);
    match request {
        MapFree if setting.since(5, 12) => [NO, read, write, both, absent, NO, NO, NO],
        MapFree => [NO, read, write, both, NO, NO, NO, NO],
        MapMapped if setting.can_invalidate() => {
            [NO, EXISTS, EXISTS, EXISTS, Ok(GivesVaddr), NO, NO, NO]
        }
        MapMapped => [NO, EXISTS, EXISTS, EXISTS, NO, NO, NO, NO],
        UnmapMapped if setting.since(5, 12) => [Ok(Removes), reports, NO, NO, takes, NO, busy, NO],
        UnmapMapped => [Ok(Removes), reports, NO, NO, NO, NO, NO, NO],
        UnmapNothing if setting.since(5, 12) => [NO, NO, Ok(Removes), NO, busy, NO, takes, NO],
        UnmapNothing => [NO; 8],
        Dirty if !setting.since(5, 8) => [Err(Errno::ENOTTY); 8],
        Dirty if !setting.tracks() => [Err(Errno::EACCES); 8],
        Dirty => [NO, Ok(Nothing), Ok(Nothing), NO, Ok(Nothing), NO, NO, NO],
    }
}

fn expected(request: Request, setting: Setting, flags: u32) -> Answer {
    let beyond = match answers(request, setting)[0] {
        // The command, or the container, is refused before its flags are looked at.
        Err(errno) if request == Dirty => Err(errno),
        _ => INVALID,
    };
    answers(request, setting).get(flags as usize).copied().unwrap_or(beyond)
}

fn bytes(request: Request, flags: u32) -> Vec<u8> {
    let header = Bytes::header(48, flags);
    match request {
        MapFree => header.u64(RAM).u64(FREE).u64(SIZE).0,
        MapMapped => header.u64(OTHER_RAM).u64(MAPPED).u64(SIZE).0,
        UnmapMapped | Dirty => header.u64(MAPPED).u64(SIZE).u64(0x1000).u64(8).u64(BITMAP).0,
        UnmapNothing => header.u64(0).u64(0).u64(0x1000).u64(8).u64(BITMAP).0,
    }
}

fn issue(door: &Door, request: Request, flags: u32) -> Result<i32, Errno> {
    let command = match request {
        MapFree | MapMapped => command::IOMMU_MAP_DMA,
        UnmapMapped | UnmapNothing => command::IOMMU_UNMAP_DMA,
        Dirty => command::IOMMU_DIRTY_PAGES,
    };
    door.call(command, Place::Inside, &bytes(request, flags)).errno()
}

/// A mapping: its addresses, its process address unless that is lost, and what it allows.
type Mapping = (IovaRange, Option<Vaddr>, Access);

fn mappings(door: &Door) -> Vec<Mapping> {
    let info =
        |m: vfio_type1::MappingInfo| (m.iova, (!m.vaddr_invalid).then_some(m.vaddr), m.access);
    door.rig.container.mappings().into_iter().map(info).collect()
}

/// One mapping, tracking on where there is such a thing, and for [`MapMapped`] no process address.
fn door(request: Request, setting: Setting) -> Door {
    let mut host = vec![group(&vtd(48), 1, vec![msi()])];
    host.extend(setting.emulated.then(|| emulated(2)));
    let door = Door::new(setting.kernel, setting.kind, host);
    let (container, process) = (&door.rig.container, &door.rig.process);
    door.rig.map(MAPPED, SIZE).unwrap();
    if setting.tracks() {
        container.dirty_pages(process, &DirtyPages::Start).unwrap();
    }
    if request == MapMapped && setting.can_invalidate() {
        container.unmap(process, &UnmapDma::all().vaddr_only()).unwrap();
    }
    door
}

fn after(effect: Effect, before: &[Mapping]) -> Vec<Mapping> {
    let mapped = range(MAPPED, MAPPED + SIZE - 1);
    match effect {
        Nothing => before.to_vec(),
        Maps(access) => {
            let new = (range(FREE, FREE + SIZE - 1), Some(Vaddr(RAM)), access);
            [before, &[new]].concat()
        }
        GivesVaddr => vec![(mapped, Some(Vaddr(OTHER_RAM)), Access::ReadWrite)],
        TakesVaddr => vec![(mapped, None, Access::ReadWrite)],
        Removes => Vec::new(),
    }
}

/// No flag, every flag alone, every pair, and the three known ones together.
fn all_flags() -> Vec<u32> {
    let bit = |n: u32| 1u32 << n;
    let pairs = (0..32).flat_map(|high| (0..high).map(move |low| bit(high) | bit(low)));
    [0, 7].into_iter().chain((0..32).map(bit)).chain(pairs).collect()
}

#[test]
fn every_flag_and_every_pair_is_answered_as_documented() {
    for setting in Setting::all() {
        for request in REQUESTS {
            let mut open = door(request, setting);
            for flags in all_flags() {
                let before = mappings(&open);
                let context = format!("{setting:?}, {request:?}, flags {flags:#x}");
                let answer = issue(&open, request, flags);
                let expected = expected(request, setting, flags);
                assert_eq!(answer, expected.map(|_| 0), "{context}");
                let effect = expected.unwrap_or(Nothing);
                assert_eq!(mappings(&open), after(effect, &before), "{context}");
                if expected.is_ok() {
                    open = door(request, setting);
                }
            }
        }
    }
}

#[test]
fn flags_that_only_the_kernel_sets_are_not_read() {
    for setting in Setting::all() {
        let door = door(UnmapMapped, setting);
        for flags in all_flags() {
            let bytes = Bytes::header(24, flags).u64(0).u64(0).0;
            let info = door.call(command::IOMMU_GET_INFO, Place::Inside, &bytes);
            let status = door.call(command::GROUP_GET_STATUS, Place::Inside, &bytes);
            assert_eq!((info.errno(), status.errno()), (Ok(0), Ok(0)), "{setting:?}, {flags:#x}");
            let info_flags = if setting.kernel.name() == "4.19" { 1 } else { 3 };
            assert_eq!(
                (info.bytes[4..8].to_vec(), status.bytes[4..8].to_vec()),
                (vec![info_flags, 0, 0, 0], vec![3, 0, 0, 0]),
                "{setting:?}, {flags:#x}"
            );
        }
    }
}

#[test]
fn every_bit_of_a_command_counts() {
    let known = [0x3b70, 0x3b71, 0x3b72, 0x3b75];
    for setting in Setting::all() {
        let door = door(UnmapMapped, setting);
        for command in known {
            let near = (0..32).map(|bit| command ^ 1 << bit);
            // One bit away lie other commands too: of containers, known here, and of groups.
            let is_known = |near: &u32| known.contains(near) || (0x3b64..=0x3b6a).contains(near);
            for other in near.filter(|near| !is_known(near)) {
                let errno = door.ioctl(other, 0).map_err(|refusal| refusal.errno);
                assert_eq!(errno, Err(Errno::ENOTTY), "{setting:?}, command {other:#x}");
            }
        }
    }
}
