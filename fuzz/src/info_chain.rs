// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hosts with many regions: GET_INFO's bytes, read by an independent reader, say what the typed door
//! says, and stand where each kernel puts them.

use std::sync::Arc;

use vfio_type1::abi::command;
use vfio_type1::{
    Container, DeviceDescription, GroupDescription, Iommu, IommuDriver, Iova, IovaRange, Kernel,
    OpenGroup, Process, RegionKind, ReservedRegion, Vaddr, Vfio, extension,
};

use crate::chain;
use crate::input::Input;
use crate::machine::{self, RAM};

const CANARY: u8 = 0xa5;
/// Where the answer goes; longer than any that comes up.
const BUFFER: usize = 1 << 16;

/// The target.
pub fn info_chain(data: &[u8]) {
    let mut input = Input::new(data);
    let kernel = input.pick(&Kernel::ALL);
    let argsz = match input.byte() {
        short @ 0..=200 => u32::from(short),
        more => u32::from(more) << 8,
    };
    let mut groups = vec![group(1, &mut input)];
    while groups.len() < 4 && !input.is_empty() {
        groups.push(group(groups.len() as u32 + 1, &mut input));
    }
    // What is left on both sides of such a region overlaps, in the kernel too.
    let wraps = |region: &ReservedRegion| region.last.0 < region.first.0.saturating_sub(1);
    let devices = groups.iter().flat_map(|group| &group.devices);
    let wrap = devices.flat_map(|device| &device.regions).any(wraps);
    let Ok(vfio) = Vfio::new(kernel, groups) else { return };
    let process = Process::new(machine::memory());
    let container = vfio.open_container();
    // A group that is refused stays out; the list must be right for those that are in.
    let groups = join(&vfio, &container, &process);
    let Ok(info) = container.info() else { return };
    let apart = info.iova_ranges.windows(2).all(|pair| pair[0].last() < pair[1].first());
    assert!(apart || wrap, "ranges ascend and lie apart: {:?}", info.iova_ranges);

    let bytes = ask(&container, &process, argsz);
    if argsz < 16 {
        assert!(bytes.is_none(), "argsz {argsz} is too short");
        return;
    }
    let bytes = bytes.expect("GET_INFO of an argsz that is long enough");
    let shape = Shape::of(&kernel, info.iova_ranges.len());
    let answer = chain::read(&bytes[..argsz as usize]).expect("the answer can be read");
    assert_eq!(answer.page_sizes, info.page_sizes.0);
    let Some(shape) = shape.filter(|shape| shape.needed <= argsz) else {
        assert_eq!(answer.order, []);
        let needed = Shape::of(&kernel, info.iova_ranges.len()).map_or(argsz, |s| s.needed);
        assert_eq!(answer.argsz, needed);
        assert!(bytes[24..].iter().all(|byte| *byte == CANARY), "nothing behind the header");
        return;
    };
    let ranges: Vec<IovaRange> = answer
        .ranges
        .iter()
        .filter_map(|&(first, last)| IovaRange::new(Iova(first), Iova(last)))
        .collect();
    assert_eq!(answer.ranges.len(), ranges.len(), "each range ascends");
    assert_eq!(ranges, info.iova_ranges);
    assert_eq!(answer.argsz, argsz);
    assert_eq!(answer.order, shape.order);
    assert_eq!(answer.entries_left, info.entries_left.filter(|_| shape.full));
    let lowest = info.page_sizes.0 & info.page_sizes.0.wrapping_neg();
    assert_eq!(answer.migration, shape.full.then_some((lowest, 0x1000_0000)));
    assert!(bytes[shape.needed as usize..].iter().all(|byte| *byte == CANARY));
    drop(groups);
}

/// What docs/type1.md 7.1 says of a kernel's chain with `ranges` ranges; `None` for no chain.
struct Shape {
    order: Vec<(u16, usize)>,
    needed: u32,
    /// MIGRATION and DMA_AVAIL are there.
    full: bool,
}

impl Shape {
    fn of(kernel: &Kernel, ranges: usize) -> Option<Self> {
        let (before, at): (&[(u16, usize)], usize) = match kernel.name() {
            "4.19" => return None,
            "2018-v6" => (&[], 24),
            "5.10" | "6.1" => (&[(2, 24), (3, 56)], 68),
            _ => (&[(2, 24), (3, 56)], 72),
        };
        let full = !before.is_empty();
        let mut order = before.to_vec();
        let mut needed = at;
        if ranges != 0 {
            order.push((1, at));
            needed += 16 + 16 * ranges;
        }
        let needed = u32::try_from(needed).expect("a short chain");
        (!order.is_empty()).then_some(Self { order, needed, full })
    }
}

fn group(number: u32, input: &mut Input<'_>) -> GroupDescription {
    let drivers = [IommuDriver::Virtio, IommuDriver::IntelVtd, IommuDriver::AmdVi];
    let (driver, shift) = (input.pick(&drivers), input.byte() % 64);
    let first = if shift % 4 == 3 { input.word() } else { 0 };
    let last = u64::MAX >> (shift / 4);
    let iommu: Arc<dyn Iommu> =
        machine::iommu(driver, first.min(last), last, !0xfff << (input.byte() % 4));
    let count = input.byte() % 48;
    let regions = (0..count).map(|_| region(input)).collect();
    GroupDescription::behind(
        iommu,
        number,
        [DeviceDescription::new(machine::device(number), regions)],
    )
}

/// Any region, also one whose end lies before its start.
fn region(input: &mut Input<'_>) -> ReservedRegion {
    let kind = input.pick(&RegionKind::ALL);
    let (first, length) = (input.word(), input.word());
    ReservedRegion::from_length(first, length, kind)
}

/// Puts the groups into the container that it takes, the first one before SET_IOMMU.
fn join(vfio: &Vfio, container: &Container, process: &Arc<Process>) -> Vec<OpenGroup> {
    let mut groups = Vec::new();
    for id in vfio.groups() {
        let Ok(group) = vfio.open_group(id, process) else { continue };
        if group.set_container(container, process).is_ok() {
            groups.push(group);
        }
        // Refused for a group that cannot be attached; the next one may be better.
        if container.info().is_err() && container.set_iommu(process, extension::TYPE1V2).is_err() {
            groups.clear();
        }
        assert_eq!(container.check_invariants(), Ok(()));
    }
    groups
}

/// The buffer after GET_INFO, or nothing if it was refused, which must leave it alone.
fn ask(container: &Container, process: &Arc<Process>, argsz: u32) -> Option<Vec<u8>> {
    let mut before = vec![CANARY; BUFFER];
    before[..4].copy_from_slice(&argsz.to_le_bytes());
    let mut after = vec![0; BUFFER];
    process.memory().write(Vaddr(RAM), &before).expect("the buffer is in memory");
    let result = container.ioctl(process, command::IOMMU_GET_INFO, RAM);
    process.memory().read(Vaddr(RAM), &mut after).expect("the buffer is in memory");
    match result {
        Ok(_) => Some(after),
        Err(_) => {
            assert_eq!(after, before, "a refusal writes nothing");
            None
        }
    }
}
