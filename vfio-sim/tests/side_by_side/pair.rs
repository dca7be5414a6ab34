// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator and the oracle side by side: each operation is done on both and compared, then
//! all that can be seen from outside is.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use vfio_sim::oracle::{Answer, Oracle, OracleInfo, OracleMapping, Span};
use vfio_type1::{
    Container, GroupId, GroupKind, IovaRange, MappingInfo, ModelMemory, OpenDevice, OpenGroup,
    Process, Vaddr, VaddrRange, Vfio,
};

use super::aim::{ARGUMENT, BITMAP, HUGE, HUGE_BYTES, PAGE, RAM, RAM_BYTES, READ_ONLY, ROM_BYTES};
use super::hosts::Scene;
use super::operations::{Operation, PROCESSES, SLOTS};
use super::rules::Rule;

/// A device that both have open.
pub(crate) struct Opened {
    pub(crate) group: usize,
    pub(crate) number: usize,
    pub(crate) device: OpenDevice,
}

pub(crate) struct Pair {
    pub(crate) oracle: Oracle,
    pub(crate) vfio: Vfio,
    pub(crate) ids: Vec<GroupId>,
    /// Which groups are emulated.
    pub(crate) emulated: Vec<bool>,
    pub(crate) groups: Vec<Option<OpenGroup>>,
    /// What each slot holds: the emulator's container, and the oracle's number for it.
    pub(crate) containers: Vec<Option<(Container, usize)>>,
    pub(crate) devices: Vec<Opened>,
    pub(crate) made: usize,
    pub(crate) processes: Vec<(Arc<Process>, Arc<ModelMemory>)>,
    pub(crate) exited: bool,
    /// Where the host's regions and apertures begin, and what follows their ends.
    pub(crate) boundaries: Vec<u64>,
}

/// Agreement, or what differs.
pub(crate) type Difference = Result<(), String>;

/// How often each answer was seen.
static TALLY: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn tally(what: &str, answer: &str) {
    *TALLY.lock().unwrap().entry(format!("{what}: {answer}")).or_default() += 1;
}

/// Prints what was seen (`--nocapture` shows it).
pub(crate) fn print_tally() {
    for (answer, count) in &*TALLY.lock().unwrap() {
        println!("{count:9} {answer}");
    }
}

/// Which of these answers a request never had, at either door. At the byte door the rule stands
/// inside that of the request: `Map/Exists`.
pub(crate) fn never_seen(request: &str, answers: &[&'static str]) -> Vec<&'static str> {
    let tally = TALLY.lock().unwrap();
    let answered: Vec<&str> = tally.keys().filter_map(|seen| rule_of(seen, request)).collect();
    answers.iter().copied().filter(|answer| !answered.contains(answer)).collect()
}

/// The rule in a line of the tally, if the line is the request's.
fn rule_of<'a>(seen: &'a str, request: &str) -> Option<&'a str> {
    let (what, answer) = seen.split_once(": ")?;
    match what.strip_prefix("VFIO_IOMMU_") {
        Some(name) if name == request => Some(answer.split_once('/').map_or(answer, |(_, r)| r)),
        _ => (what == request).then_some(answer),
    }
}

/// Holds two answers against each other.
pub(crate) fn agree<T: PartialEq + Debug, E: Rule>(
    what: &str,
    emulator: Result<T, E>,
    oracle: Answer<T>,
) -> Difference {
    let emulator = emulator.map_err(Rule::refusal);
    let answer = oracle.as_ref().map_or_else(|refusal| refusal.rule.as_str(), |_| "ok");
    tally(what, answer);
    same(what, &emulator, &oracle)
}

pub(crate) fn same<T: PartialEq + Debug>(what: &str, emulator: &T, oracle: &T) -> Difference {
    if emulator == oracle {
        return Ok(());
    }
    Err(format!("{what}\nemulator {emulator:x?}\noracle   {oracle:x?}"))
}

fn span(range: &IovaRange) -> Span {
    Span { first: range.first().0, last: range.last().0 }
}

impl Pair {
    pub(crate) fn new(scene: &Scene) -> Self {
        let groups = scene.describe();
        let ids: Vec<GroupId> = groups.iter().map(|group| group.id()).collect();
        let emulated = groups.iter().map(|group| matches!(group.kind, GroupKind::Emulated));
        let emulated = emulated.collect();
        let mut oracle = Oracle::new(&scene.kernel, &groups);
        let regions = groups.iter().flat_map(|group| &group.devices).flat_map(|d| &d.regions);
        let mut boundaries: Vec<u64> =
            regions.flat_map(|region| [region.first.0, region.last.0.wrapping_add(1)]).collect();
        let apertures = scene.iommus.iter().map(|iommu| iommu.plain.aperture);
        boundaries
            .extend(apertures.flat_map(|range| [range.first().0, range.last().0.wrapping_add(1)]));
        let vfio = Vfio::new(scene.kernel, groups).unwrap();
        let processes = (0..PROCESSES).map(|_| process(&mut oracle)).collect();
        Self {
            oracle,
            vfio,
            emulated,
            groups: ids.iter().map(|_| None).collect(),
            ids,
            containers: (0..SLOTS).map(|_| None).collect(),
            devices: Vec::new(),
            made: 0,
            processes,
            exited: false,
            boundaries,
        }
    }

    /// Runs a program on both; the error is the first difference.
    pub(crate) fn run(scene: &Scene, operations: &[Operation]) -> Difference {
        let mut pair = Self::new(scene);
        pair.compare_regions()?;
        for operation in operations {
            pair.step(operation)?;
            if pair.outgrew_bitmaps() {
                break;
            }
        }
        Ok(())
    }

    /// The groups' merged regions.
    pub(crate) fn compare_regions(&self) -> Difference {
        for (at, id) in self.ids.iter().enumerate() {
            let emulator = self.vfio.merged_regions(*id);
            same("regions", &emulator, &self.oracle.regions(at).to_vec())?;
        }
        Ok(())
    }

    /// Whether a container's page has changed under its dirty bitmaps. The kernel does not make them
    /// anew and may write behind them, so nothing is promised from here on.
    pub(crate) fn outgrew_bitmaps(&self) -> bool {
        self.containers.iter().flatten().any(|(_, number)| self.oracle.outgrew_bitmaps(*number))
    }

    /// A process that has exited calls nothing: the first one does it instead.
    pub(crate) fn caller(&self, caller: usize) -> usize {
        if self.exited { 0 } else { caller }
    }

    /// One operation on both, and the comparison.
    pub(crate) fn step(&mut self, operation: &Operation) -> Difference {
        tally("all", "steps");
        let mapped: usize = (0..SLOTS).map(|slot| self.mappings(slot).len()).sum();
        tally("steps with so many mappings", &mapped.min(5).to_string());
        self.apply(operation)
            .and_then(|()| self.compare())
            .map_err(|difference| format!("after {operation:x?}:\n{difference}"))
    }

    fn apply(&mut self, operation: &Operation) -> Difference {
        match operation {
            Operation::Files(files) => self.files(files),
            Operation::Call(call) => self.call(call),
            Operation::Device(device) => self.device(device),
            Operation::Set(setting) => {
                self.set(setting);
                Ok(())
            }
        }
    }

    /// All that can be seen from outside.
    fn compare(&mut self) -> Difference {
        for (at, (process, _)) in self.processes.iter().enumerate() {
            if process.is_alive() {
                let locked = self.oracle.locked_pages(at);
                same(&format!("locked pages of {at}"), &process.locked_pages(), &locked)?;
            }
        }
        for (at, file) in self.groups.iter().enumerate() {
            let Some(file) = file else { continue };
            let status = file.status();
            let status = (status.viable, status.container_set);
            same(&format!("status of group {at}"), &status, &self.oracle.status(at))?;
        }
        for slot in 0..SLOTS {
            self.compare_container(slot)?;
        }
        Ok(())
    }

    fn compare_container(&mut self, slot: usize) -> Difference {
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        container.check_invariants()?;
        let groups: Vec<GroupId> =
            self.oracle.groups(*number).into_iter().map(|group| self.ids[group]).collect();
        same("groups", &container.groups(), &groups)?;
        let mappings: Vec<OracleMapping> = container.mappings().iter().map(mapping).collect();
        same("mappings", &mappings, &self.oracle.mappings(*number))?;
        for id in 0..12 {
            let oracle = self.oracle.check_extension(*number, id);
            same(&format!("extension {id}"), &container.check_extension(id), &oracle)?;
        }
        let info = container.info().map(|info| OracleInfo {
            page_sizes: info.page_sizes.0,
            migration: info.migration.map(|m| (m.page_sizes.0, m.max_bitmap_bytes)),
            available: info.entries_left.map(u64::from),
            ranges: info.iova_ranges.iter().map(span).collect(),
        });
        same("info", &info.map_err(Rule::refusal), &self.oracle.info(*number))
    }
}

fn mapping(info: &MappingInfo) -> OracleMapping {
    OracleMapping {
        iova: span(&info.iova),
        vaddr: info.vaddr.0,
        access: info.access,
        vaddr_invalid: info.vaddr_invalid,
        charged: info.locked_pages,
    }
}

/// The same process for both.
fn process(oracle: &mut Oracle) -> (Arc<Process>, Arc<ModelMemory>) {
    let memory = Arc::new(ModelMemory::new());
    let number = oracle.add_process();
    let areas = [
        (RAM, RAM_BYTES, true),
        (RAM + RAM_BYTES, ROM_BYTES, false),
        (HUGE, HUGE_BYTES, true),
        (ARGUMENT, PAGE, true),
        (READ_ONLY, PAGE, false),
        (BITMAP, PAGE, true),
    ];
    for (first, size, writable) in areas {
        memory.add(VaddrRange::from_size(Vaddr(first), size).unwrap(), writable).unwrap();
        oracle.add_memory(number, first, first + (size - 1), writable);
    }
    (Process::new(Arc::clone(&memory) as Arc<_>), memory)
}
