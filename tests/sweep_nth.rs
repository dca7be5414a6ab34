// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: whichever MAP, pin or allocation fails, the ioctl that meets it returns its errno, writes
//! nothing and changes nothing; tried again it is fully done. Every ioctl, every kernel, v1 and v2.
//!
//! `injection` holds the typed calls and emulated devices to the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::bytes::{Bytes, CANARY, CONTAINER_FD, Door, Place, release};
use common::{RAM, Rig, device_name, group, iommu, msi, process};
use vfio_type1::abi::command;
use vfio_type1::{
    DirtyPages, Errno, FaultPlan, GroupId, GroupStatus, Info, Iommu, IommuDriver, Iova, Kernel,
    MappingInfo, NoType1, Point, UserBitmap, Vaddr, VaddrRange, Vfio, extension,
};

const BITMAP: u64 = RAM + (64 << 20);
/// Two pages whose memory is pinned in two runs.
const SEAM: u64 = RAM + (1 << 30) - 0x1000;

/// A kernel, and the type of the container.
type Setting = (Kernel, u64);

fn settings() -> impl Iterator<Item = Setting> {
    let kinds = [extension::TYPE1, extension::TYPE1V2];
    Kernel::ALL.into_iter().flat_map(move |kernel| kinds.map(|kind| (kernel, kind)))
}

fn tracks((kernel, kind): Setting) -> bool {
    release(kernel) >= (5, 8) && kind == extension::TYPE1V2
}

/// What the program does next.
enum Step {
    /// An ioctl on bytes.
    Bytes(&'static str, u32, Vec<u8>),
    /// An ioctl on a number.
    Number(&'static str, u32, u64),
    /// The other group joins the container.
    OtherJoins,
}

/// Every ioctl there is. The group joins an empty container, leaves one that goes on, and joins that
/// again, so its mappings are entered anew.
fn script(setting: Setting) -> Vec<Step> {
    use Step::{Number, OtherJoins};
    let bytes = |name, command, bytes: Bytes| Step::Bytes(name, command, bytes.0);
    let map = |name, iova, vaddr| {
        let request = Bytes::header(32, 3).u64(vaddr).u64(iova).u64(0x2000);
        bytes(name, command::IOMMU_MAP_DMA, request)
    };
    let fd = || Bytes::default().u32(CONTAINER_FD.cast_unsigned());
    let range = |argsz, flags| Bytes::header(argsz, flags).u64(0x10_0000).u64(0x2000);
    let bitmap = |request: Bytes| request.u64(0x1000).u64(8).u64(BITMAP);
    let info = Bytes([Bytes::header(256, 0).0, vec![CANARY; 248]].concat());
    let name = Bytes([device_name(1).as_bytes(), b"\0"].concat());
    let mut steps = vec![
        Number("GET_API_VERSION", command::GET_API_VERSION, 0),
        bytes("SET_CONTAINER", command::GROUP_SET_CONTAINER, fd()),
        Number("SET_IOMMU", command::SET_IOMMU, setting.1),
        Number("CHECK_EXTENSION", command::CHECK_EXTENSION, extension::TYPE1),
        map("MAP", 0x10_0000, RAM),
        map("MAP of two runs", 0x20_0000, SEAM),
        bytes("GET_INFO", command::IOMMU_GET_INFO, info),
        bytes("GET_STATUS", command::GROUP_GET_STATUS, Bytes::header(8, 0)),
        bytes("GET_DEVICE_FD", command::GROUP_GET_DEVICE_FD, name),
    ];
    if tracks(setting) {
        steps.extend([
            bytes("START", command::IOMMU_DIRTY_PAGES, Bytes::header(8, 1)),
            map("MAP while tracking", 0x30_0000, RAM),
            bytes("GET_BITMAP", command::IOMMU_DIRTY_PAGES, bitmap(range(48, 4))),
            bytes("UNMAP with a bitmap", command::IOMMU_UNMAP_DMA, bitmap(range(48, 1))),
        ]);
    } else {
        steps.push(bytes("UNMAP", command::IOMMU_UNMAP_DMA, range(24, 0)));
    }
    steps.extend([
        OtherJoins,
        Number("UNSET_CONTAINER", command::GROUP_UNSET_CONTAINER, 0),
        bytes("SET_CONTAINER of a live one", command::GROUP_SET_CONTAINER, fd()),
        map("MAP in two domains", 0x40_0000, RAM),
    ]);
    steps
}

/// A program with two groups, behind IOMMUs that share no domain, in no container yet.
fn program(kernel: Kernel) -> Door {
    let behind = |driver, width| -> Arc<dyn Iommu> { Arc::new(iommu(driver, width)) };
    let host = [
        group(&behind(IommuDriver::IntelVtd, 39), 1, vec![msi()]),
        group(&behind(IommuDriver::AmdVi, 48), 2, vec![msi()]),
    ];
    let vfio = Vfio::new(kernel, host).unwrap();
    let process = process();
    let open = |number| vfio.open_group(GroupId::Numbered(number), &process).unwrap();
    let groups = vec![open(1), open(2)];
    let door = Door::of(Rig { container: vfio.open_container(), process, groups, vfio });
    let behind_ram = VaddrRange::from_size(Vaddr(RAM + (1 << 30)), 1 << 20).unwrap();
    door.memory.add(behind_ram, true).unwrap();
    door
}

/// What must be the same after a call that failed.
#[derive(Debug, PartialEq)]
struct State {
    groups: Vec<GroupId>,
    status: GroupStatus,
    info: Result<Info, NoType1>,
    mappings: Vec<MappingInfo>,
    locked_pages: u64,
    /// Dirty tracking is on.
    tracked: bool,
}

impl State {
    fn of(door: &Door) -> Self {
        let Rig { container, process, groups, .. } = &door.rig;
        assert_eq!(container.check_invariants(), Ok(()));
        // Where nothing is mapped, nothing is reported, if there is anyone to report.
        let (iova, bitmap) = (Iova(0x5000_0000), UserBitmap::new(0x1000, 1, BITMAP));
        let probe = DirtyPages::GetBitmap { iova, size: 0x1000, bitmap };
        Self {
            groups: container.groups(),
            status: groups[0].status(),
            info: container.info(),
            mappings: container.mappings(),
            locked_pages: process.locked_pages(),
            tracked: container.dirty_pages(process, &probe).is_ok(),
        }
    }
}

/// Does a step; a failure is returned only if the argument is as it was.
fn take(door: &Door, step: &Step) -> Result<(), (&'static str, Errno)> {
    match step {
        Step::Bytes(name, command, bytes) => {
            let answer = door.call(*command, Place::Inside, bytes);
            let errno = answer.errno();
            if errno.is_err() {
                assert_eq!(answer.bytes, *bytes, "{name} failed and wrote");
            }
            errno.map(drop).map_err(|errno| (*name, errno))
        }
        Step::Number(name, command, value) => {
            door.ioctl(*command, *value).map(drop).map_err(|refusal| (*name, refusal.errno))
        }
        Step::OtherJoins => {
            let Rig { groups, container, process, .. } = &door.rig;
            let joined = groups[1].set_container(container, process);
            joined.map_err(|error| ("the other group", error.errno()))
        }
    }
}

/// Runs the script; what fails is tried again at once. Returns what failed.
fn run(door: &Door, setting: Setting) -> Vec<(&'static str, Errno)> {
    let mut failed = Vec::new();
    for step in script(setting) {
        let before = State::of(door);
        if let Err(failure) = take(door, &step) {
            assert_eq!(State::of(door), before, "{setting:?}, {failure:?}");
            failed.push(failure);
            assert_eq!(take(door, &step), Ok(()), "{setting:?}, once more");
        }
    }
    failed
}

/// The errno of a failure that a plan does not give another one.
fn errno(kernel: Kernel, point: Point, what: &str) -> Errno {
    match point {
        Point::Pin => Errno::EFAULT,
        Point::Allocation if what.contains("domain") && release(kernel) <= (6, 1) => Errno::EIO,
        Point::Map | Point::Allocation => Errno::ENOMEM,
    }
}

/// Lets the passages of `point` fail, one a run, until there are no more. Returns the steps that
/// failed.
fn sweep(setting: Setting, point: Point) -> Vec<&'static str> {
    let end = {
        let door = program(setting.0);
        assert_eq!(run(&door, setting), []);
        State::of(&door)
    };
    let one = |nth| {
        let door = program(setting.0);
        door.rig.vfio.inject(FaultPlan::default().fail(point, nth, None).unwrap());
        let failed = run(&door, setting);
        let injected = door.rig.vfio.injected().pop()?;
        let context = format!("{setting:?}, {injected}: {}", injected.what);
        if let [(name, got)] = failed[..] {
            assert_eq!(got, errno(setting.0, point, &injected.what), "{context}");
            assert_eq!(State::of(&door), end, "{context}");
            return Some(name);
        }
        // A group that leaves is not told that there is no memory for the new list (5.6).
        assert_eq!((failed, &injected.what[..]), (vec![], "allocating the valid IOVA list"));
        Some("nothing")
    };
    (1..).map_while(one).collect()
}

/// How many allocations each step meets (5.6). A group takes an entry, a domain, the two lists, and
/// page tables for each mapping there is.
fn allocations(setting: Setting) -> [(&'static str, usize); 10] {
    let lists = if setting.0.name() == "4.19" { 0 } else { 2 };
    let chain = usize::from(setting.0.name() != "4.19");
    let tracked = usize::from(tracks(setting));
    let mappings = 1 + tracked;
    [
        ("SET_IOMMU", 1 + 2 + lists),
        ("MAP", 2),
        ("MAP of two runs", 3),
        ("GET_INFO", chain),
        ("START", 2 * tracked),
        ("MAP while tracking", 3 * tracked),
        ("the other group", 2 + lists + mappings),
        ("SET_CONTAINER of a live one", 2 + lists + mappings),
        ("MAP in two domains", 3 + tracked),
        ("nothing", chain),
    ]
}

#[test]
fn whatever_fails_the_ioctl_has_done_nothing_and_can_be_tried_again() {
    for setting in settings() {
        let mut maps = vec!["MAP", "MAP of two runs"];
        maps.extend(tracks(setting).then_some("MAP while tracking"));
        maps.push("MAP in two domains");
        assert_eq!(sweep(setting, Point::Map), maps, "{setting:?}");

        maps.insert(1, "MAP of two runs");
        assert_eq!(sweep(setting, Point::Pin), maps, "{setting:?}");

        let failures = sweep(setting, Point::Allocation);
        let count = |step| failures.iter().filter(|failed| **failed == step).count();
        let expected = allocations(setting);
        assert_eq!(expected.map(|(step, _)| (step, count(step))), expected, "{setting:?}");
        let total: usize = expected.iter().map(|(_, times)| times).sum();
        assert_eq!(failures.len(), total, "{setting:?}: {failures:?}");
    }
}
