// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: type1's calls on an iommufd do what section 9 of `docs/type1.md` says, with random programs as
//! with chosen ones.
//!
//! The model below is naive and its own: lists of mappings and of what is reserved, searched from one end
//! to the other. It shares values with the crate, and no logic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{RAM, device_name, emulated, group, memory, msi, process, range, vtd};
use proptest::prelude::*;
use vfio_type1::abi::command;
use vfio_type1::{
    Access, CompatUnmapError, Errno, FaultCause, GroupDescription, GroupId, Iommufd, Iova, Kernel,
    MapDma, Memory as _, OpenDevice, OpenGroup, Process, RegionKind, ReservedRegion, UnmapDma,
    Vaddr, Vfio, extension,
};

const PAGE: u64 = 0x1000;
/// What device 1 reserves beside the MSI window.
const HOLE: (u64, u64) = (0x10_0000, 0x10_ffff);

/// Two devices behind VT-d, the second with fewer bits, and an emulated one.
fn host() -> Vec<GroupDescription> {
    let hole = ReservedRegion::new(HOLE.0, HOLE.1, RegionKind::Reserved);
    let relaxable = ReservedRegion::new(0x20_0000, 0x20_ffff, RegionKind::DirectRelaxable);
    vec![
        group(&vtd(48), 1, vec![msi(), hole]),
        group(&vtd(39), 2, vec![relaxable, msi()]),
        emulated(3),
    ]
}

struct Scene {
    process: Arc<Process>,
    iommufd: Iommufd,
    groups: Vec<OpenGroup>,
    devices: [Option<OpenDevice>; 3],
    vfio: Vfio,
}

impl Scene {
    /// All groups in one iommufd, no device open.
    fn new(kind: u64) -> Self {
        let vfio = Vfio::new(Kernel::V7_3, host()).unwrap();
        let process = process();
        let iommufd = vfio.open_iommu().unwrap();
        let open = |number| vfio.open_group(GroupId::Numbered(number), &process).unwrap();
        let groups: Vec<OpenGroup> = (1..=3).map(open).collect();
        groups.iter().for_each(|group| group.set_iommufd(&iommufd, &process).unwrap());
        iommufd.set_iommu(&process, kind).unwrap();
        Self { process, iommufd, groups, devices: [None, None, None], vfio }
    }

    fn open(&mut self, at: usize) -> Result<(), Errno> {
        let name = device_name(u32::try_from(at).unwrap() + 1);
        let device = self.groups[at].open_device(&name, &self.process);
        self.devices[at] = Some(device.map_err(|error| error.errno())?);
        Ok(())
    }

    fn map(&self, iova: u64, vaddr: u64, size: u64, flags: u32) -> Result<(), Errno> {
        let request = MapDma { iova: Iova(iova), vaddr: Vaddr(vaddr), size, flags };
        self.iommufd.map(&self.process, &request).map_err(|error| error.errno())
    }

    fn unmap(&self, iova: u64, size: u64) -> (Result<(), Errno>, Option<u64>) {
        answer(self.iommufd.unmap(&UnmapDma::new(iova, size)))
    }

    fn mapped(&self) -> Vec<(u64, u64)> {
        let mappings = self.iommufd.mappings(self.iommufd.compat_ioas().unwrap());
        mappings.iter().map(|one| (one.iova.first().0, one.iova.last().0)).collect()
    }
}

/// An UNMAP's errno, and the size that is written back.
fn answer(result: Result<u64, CompatUnmapError>) -> (Result<(), Errno>, Option<u64>) {
    match result {
        Ok(bytes) => (Ok(()), Some(bytes)),
        Err(error) => (Err(error.errno()), error.written_size()),
    }
}

/// An address space as the document describes it. Ranges are first and last addresses.
struct Model {
    v1: bool,
    /// With the process address of the first byte, and the flags.
    mappings: Vec<(u64, u64, u64, u32)>,
    open: [bool; 3],
    /// How many bits each domain translates, and its devices.
    domains: Vec<(u32, Vec<usize>)>,
}

impl Model {
    fn reserved(&self) -> Vec<(u64, u64)> {
        let mut reserved = Vec::new();
        for at in (0..2).filter(|at| self.open[*at]) {
            reserved.extend(reserved_by(at));
        }
        reserved.extend(self.domains.iter().map(|(bits, _)| (1 << bits, u64::MAX)));
        reserved
    }

    fn alignment(&self) -> u64 {
        if self.v1 || self.open.contains(&true) { PAGE } else { 1 }
    }

    fn overlapping(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let mut touching: Vec<(u64, u64)> = self.mappings.iter().map(|m| (m.0, m.1)).collect();
        touching.retain(|mapping| mapping.0 <= last && first <= mapping.1);
        touching.into_iter().min()
    }

    fn map(&mut self, iova: u64, vaddr: u64, size: u64, flags: u32) -> Result<(), Errno> {
        let alignment = self.alignment();
        if flags & !3 != 0 {
            return Err(Errno::EINVAL);
        }
        if vaddr.checked_add(size).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        if size == 0
            || size > u64::MAX - PAGE
            || !size.is_multiple_of(alignment)
            || !iova.is_multiple_of(alignment)
        {
            return Err(Errno::EINVAL);
        }
        let last = iova.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
        if self.reserved().iter().any(|hole| hole.0 <= last && iova <= hole.1) {
            return Err(Errno::EINVAL);
        }
        if self.overlapping(iova, last).is_some() {
            return Err(Errno::EEXIST);
        }
        if !(vaddr % PAGE).is_multiple_of(alignment) {
            return Err(Errno::EINVAL);
        }
        if self.open[0] || self.open[1] {
            check_memory(vaddr, size)?;
            if flags == 0 {
                return Err(Errno::EINVAL);
            }
        }
        self.mappings.push((iova, last, vaddr, flags));
        Ok(())
    }

    /// Splits the mapping that holds `at` and the address behind it.
    fn cut(&mut self, at: u64) -> Result<(), Errno> {
        let Some(index) = self.mappings.iter().position(|m| m.0 <= at && at <= m.1) else {
            return Ok(());
        };
        let (first, last, vaddr, flags) = self.mappings[index];
        if at == first || at == last {
            return Ok(());
        }
        let upper = vaddr + (at + 1 - first);
        if !(at + 1).is_multiple_of(PAGE) || !upper.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        self.mappings[index].1 = at;
        self.mappings.push((at + 1, last, upper, flags));
        Ok(())
    }

    fn unmap(&mut self, iova: u64, size: u64) -> (Result<(), Errno>, Option<u64>) {
        if self.v1 {
            let ends = [Some(iova.wrapping_add(size).wrapping_sub(1)), iova.checked_sub(1)];
            for end in ends.into_iter().flatten() {
                if let Err(errno) = self.cut(end) {
                    return (Err(errno), None);
                }
            }
        }
        if size == 0 {
            return (Err(Errno::EINVAL), Some(0));
        }
        let Some(last) = iova.checked_add(size - 1) else {
            return (Err(Errno::EOVERFLOW), Some(0));
        };
        let mut bytes = 0;
        while let Some((low, high)) = self.overlapping(iova, last) {
            if low < iova || high > last {
                return (Err(Errno::ENOENT), Some(bytes));
            }
            self.mappings.retain(|mapping| mapping.0 != low);
            bytes += high - low + 1;
        }
        (Ok(()), Some(bytes))
    }

    fn open(&mut self, at: usize) -> Result<(), Errno> {
        let mut holes = if at < 2 { reserved_by(at) } else { Vec::new() };
        // A domain that translates no more than the device's IOMMU can is good for the device too.
        let bits = if at == 0 { 48 } else { 39 };
        let shares = at < 2 && self.domains.iter().any(|domain| domain.0 <= bits);
        if at < 2 && !shares {
            holes.push((1 << bits, u64::MAX));
        }
        if holes.iter().any(|hole| self.overlapping(hole.0, hole.1).is_some()) {
            return Err(Errno::EADDRINUSE);
        }
        if shares {
            let shared = self.domains.iter_mut().find(|domain| domain.0 <= bits).unwrap();
            shared.1.push(at);
            self.open[at] = true;
            return Ok(());
        }
        let aligned = |m: &(u64, u64, u64, u32)| {
            m.0.is_multiple_of(PAGE) && m.1 % PAGE == PAGE - 1 && m.2.is_multiple_of(PAGE)
        };
        if !self.mappings.iter().all(aligned) {
            return Err(Errno::EADDRINUSE);
        }
        if at < 2 {
            let fill = self.domains.is_empty();
            self.mappings.sort_unstable();
            for (first, last, vaddr, flags) in &self.mappings {
                if fill {
                    check_memory(*vaddr, last - first + 1)?;
                }
                if *flags == 0 {
                    return Err(Errno::EINVAL);
                }
            }
        }
        if at < 2 {
            self.domains.push((bits, vec![at]));
        }
        self.open[at] = true;
        Ok(())
    }

    fn close(&mut self, at: usize) {
        self.domains.iter_mut().for_each(|domain| domain.1.retain(|member| *member != at));
        self.domains.retain(|domain| !domain.1.is_empty());
        self.open[at] = false;
    }
}

/// What a device reserves.
fn reserved_by(at: usize) -> Vec<(u64, u64)> {
    let msi = (0xfee0_0000, 0xfeef_ffff);
    match at {
        0 => vec![msi, HOLE],
        _ => vec![msi],
    }
}

fn check_memory(vaddr: u64, size: u64) -> Result<(), Errno> {
    let inside = vaddr >= RAM && vaddr + size <= RAM + (1 << 30);
    if inside { Ok(()) } else { Err(Errno::EFAULT) }
}

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, u64, u32),
    Unmap(u64, u64),
    UnmapAll,
    Open(usize),
    Close(usize),
}

/// Addresses in a small part of the space, mostly pages; and its edges.
fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..16u64).prop_map(|page| page * PAGE),
        2 => (0..16u64).prop_map(|page| page * PAGE + 0x800),
        2 => (0xfeu64..0x112).prop_map(|page| page * PAGE),
        1 => prop::sample::select(vec![
            0xfedf_f000, 0xfee0_0000, (1 << 39) - PAGE, 1 << 39, 1 << 48, u64::MAX - 0xfff, u64::MAX,
        ]),
    ]
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (1..8u64).prop_map(|pages| pages * PAGE),
        2 => prop::sample::select(vec![0, 1, 0x800, 0x1800, 1 << 40, 1 << 63, u64::MAX]),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let vaddr = prop_oneof![
        8 => (0..64u64).prop_map(|page| RAM + page * PAGE),
        1 => Just(RAM + 0x800),
        1 => prop::sample::select(vec![0, RAM + (1 << 30) - PAGE, u64::MAX - 0xfff]),
    ];
    let flags = prop_oneof![12 => Just(3), 1 => 0..5u32];
    prop_oneof![
        10 => (addresses(), vaddr, sizes(), flags).prop_map(|(i, v, s, f)| Step::Map(i, v, s, f)),
        6 => (addresses(), sizes()).prop_map(|(iova, size)| Step::Unmap(iova, size)),
        1 => Just(Step::UnmapAll),
        3 => (0..3usize).prop_map(Step::Open),
        2 => (0..3usize).prop_map(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_programs_meet_the_rules_of_the_document(
        v1: bool,
        program in prop::collection::vec(steps(), 0..48),
    ) {
        let mut scene = Scene::new(if v1 { extension::TYPE1 } else { extension::TYPE1V2 });
        let mut model =
            Model { v1, mappings: Vec::new(), open: [false; 3], domains: Vec::new() };
        for step in program {
            match step {
                Step::Map(iova, vaddr, size, flags) => {
                    let expected = model.map(iova, vaddr, size, flags);
                    prop_assert_eq!(scene.map(iova, vaddr, size, flags), expected, "{:x?}", step);
                }
                Step::Unmap(iova, size) => {
                    let expected = model.unmap(iova, size);
                    prop_assert_eq!(scene.unmap(iova, size), expected, "{:x?}", step);
                }
                Step::UnmapAll => {
                    let bytes = model.mappings.iter().map(|m| m.1 - m.0 + 1).sum();
                    model.mappings.clear();
                    let all = answer(scene.iommufd.unmap(&UnmapDma::all()));
                    prop_assert_eq!(all, (Ok(()), Some(bytes)));
                }
                Step::Open(at) if scene.devices[at].is_none() => {
                    prop_assert_eq!(scene.open(at), model.open(at), "{:?}", step);
                }
                Step::Open(_) => {}
                Step::Close(at) => {
                    scene.devices[at] = None;
                    model.close(at);
                }
            }
            let mut mapped: Vec<(u64, u64)> = model.mappings.iter().map(|m| (m.0, m.1)).collect();
            mapped.sort_unstable();
            prop_assert_eq!(scene.mapped(), mapped);
            prop_assert_eq!(scene.iommufd.check_invariants(), Ok(()));
            for range in scene.iommufd.mappable() {
                for (first, last) in model.reserved() {
                    prop_assert!(!range.overlaps(&common::range(first, last)));
                }
            }
        }
    }
}

#[test]
fn a_group_is_usable_without_being_attached() {
    let mut scene = Scene::new(extension::TYPE1V2);
    // Nothing is attached, so anything goes, and nothing is pinned.
    scene.map(0xfee0_0000, 0x1000, 0x800, 3).unwrap();
    assert!(scene.groups[0].status().viable && scene.groups[0].status().container_set);
    assert_eq!(scene.open(0), Err(Errno::EADDRINUSE));
    scene.unmap(0xfee0_0000, 0x800).0.unwrap();
    scene.open(0).unwrap();
    // The group may leave while its device is open; the device stays.
    scene.groups[0].unset_container().unwrap();
    let status = scene.groups[0].status();
    assert!(!status.viable && !status.container_set);
    scene.map(0, RAM, PAGE, 3).unwrap();
    let bus = scene.vfio.bus_master(&device_name(1)).unwrap();
    assert!(bus.write(Iova(0), &[1]).is_ok());
    scene.devices[0] = None;
    assert!(scene.groups[0].status().viable);
    let fault = bus.write(Iova(0), &[1]).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::NotAttached { .. }), "{fault}");
    assert_eq!(scene.mapped(), [(0, PAGE - 1)]);
}

#[test]
fn version_1_cuts_what_devices_go_on_using() {
    let mut scene = Scene::new(extension::TYPE1);
    scene.process.set_cap_ipc_lock(false);
    scene.open(0).unwrap();
    scene.map(0, RAM, 4 * PAGE, 3).unwrap();
    let bus = scene.vfio.bus_master(&device_name(1)).unwrap();
    assert_eq!(scene.process.user_locked_pages(), 4);
    assert_eq!(scene.unmap(PAGE, PAGE), (Ok(()), Some(PAGE)));
    assert_eq!(scene.mapped(), [(0, PAGE - 1), (2 * PAGE, 4 * PAGE - 1)]);
    assert_eq!(scene.process.user_locked_pages(), 3);
    bus.write(Iova(2 * PAGE), &[5]).unwrap();
    let mut byte = [0];
    scene.process.memory().read(Vaddr(RAM + 2 * PAGE), &mut byte).unwrap();
    assert_eq!(byte, [5]);
    assert!(bus.write(Iova(PAGE), &[5]).is_err());
    assert_eq!(scene.unmap(0, 1 << 40), (Ok(()), Some(3 * PAGE)));
    assert_eq!(scene.process.user_locked_pages(), 0);
}

#[test]
fn emulated_devices_pin_and_are_told_to_let_go() {
    let mut scene = Scene::new(extension::TYPE1V2);
    scene.process.set_cap_ipc_lock(false);
    scene.open(2).unwrap();
    scene.map(0, RAM, 4 * PAGE, 3).unwrap();
    let device = scene.devices[2].take().unwrap();
    device.on_unmap(|unpinner, mapping| {
        assert_eq!(mapping, range(0, 4 * PAGE - 1));
        unpinner.unpin(mapping);
    });
    // The request starts with the page that the address lies in.
    device.pin_pages(Iova(0x1800), 2, Access::ReadWrite).unwrap();
    assert_eq!(scene.process.user_locked_pages(), 2);
    device.dma_write(Iova(0x1ffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 4];
    device.dma_read(Iova(0x1ffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    scene.open(0).unwrap();
    assert_eq!(scene.process.user_locked_pages(), 4);
    scene.devices[0] = None;
    assert_eq!(scene.process.user_locked_pages(), 2);
    device.unpin_pages(Iova(0x1800), 1);
    assert_eq!(scene.process.user_locked_pages(), 1);
    assert_eq!(scene.unmap(0, 4 * PAGE), (Ok(()), Some(4 * PAGE)));
    assert_eq!(scene.process.user_locked_pages(), 0);
}

#[test]
fn extensions_are_an_iommufds() {
    let scene = Scene::new(extension::TYPE1V2);
    let has = |extension| scene.iommufd.check_extension(extension);
    let known: Vec<u64> = (0..12).filter(|extension| has(*extension) == Ok(true)).collect();
    assert_eq!(known, [1, 3, 4, 8, 9]);
    scene.iommufd.clear_compat_ioas();
    assert_eq!(has(4).unwrap_err().errno(), Errno::ENODEV);
    assert_eq!(has(1), Ok(true));
}

/// What GET_INFO leaves of `argsz` bytes of canaries, in memory that ends behind them.
fn info(scene: &Scene, argsz: usize) -> Vec<u8> {
    let memory = memory();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let at = RAM + (1 << 30) - argsz as u64;
    let mut argument = vec![0xa5; argsz];
    argument[..4].copy_from_slice(&u32::try_from(argsz).unwrap().to_le_bytes());
    memory.poke(Vaddr(at), &argument).unwrap();
    scene.iommufd.ioctl(&process, command::IOMMU_GET_INFO, at).unwrap();
    memory.read(Vaddr(at), &mut argument).unwrap();
    argument
}

#[test]
fn info_writes_each_part_that_fits() {
    let mut scene = Scene::new(extension::TYPE1V2);
    scene.open(1).unwrap();
    let full = info(&scene, 88);
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!([word(&full, 0), word(&full, 4), word(&full, 16)], [88, 3, 24]);
    assert_eq!(
        [word(&full, 28), word(&full, 32), word(&full, 44), word(&full, 48)],
        [40, !0, 0, 2]
    );
    for argsz in 16..=96 {
        let bytes = info(&scene, argsz);
        // The parts: header, entries available, the link, each range, and the head of the ranges.
        let mut expected = vec![0xa5; argsz];
        let mut part = |from: usize, to: usize, needs: usize| {
            if argsz >= needs {
                expected[from..to.min(argsz)].copy_from_slice(&full[from..to.min(argsz)]);
            }
        };
        part(0, 24.min(argsz), 16);
        part(24, 36, 36);
        part(56, 72, 72);
        part(72, 88, 88);
        part(40, 56, 88);
        if (36..40).contains(&argsz) {
            // The link to a capability that is not there.
            expected[28..32].copy_from_slice(&[0; 4]);
        }
        if (16..88).contains(&argsz) {
            let header = 20.min(argsz);
            expected[16..header].fill(0);
        }
        assert_eq!(bytes, expected, "argsz {argsz}");
    }
}
