// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the watch reports each of these mistakes, once, and nothing for a program that does it
//! right: memory that goes under a live mapping, an address used although its MAP was refused, and
//! mappings lost with the last group or left at close.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{RAM, device_name, emulated, group, msi, range, vtd};
use vfio_type1::{
    Access, BusMaster, Container, Errno, FaultCause, GroupId, Iova, Kernel, LiveMappings,
    MAX_FINDINGS, MapDma, MapError, MemoryChange, Mistake, ModelMemory, NoType1, OpenGroup,
    Process, UnmapDma, Vaddr, VaddrRange, Vfio, extension,
};

const NIC: &str = "0000:00:01.0";

struct Rig {
    vfio: Vfio,
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    container: Container,
    groups: Vec<OpenGroup>,
    nic: BusMaster,
}

/// A watched container of `kind` with groups in it.
fn rig_of(kind: u64, groups: &[u32]) -> Rig {
    let iommu = vtd(39);
    let host = [group(&iommu, 1, vec![msi()]), group(&iommu, 2, vec![msi()]), emulated(3)];
    let vfio = Vfio::new(Kernel::V7_3, host).unwrap();
    vfio.set_watch(true);
    let memory = common::memory();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let nic = vfio.bus_master(NIC).unwrap();
    let mut rig = Rig { vfio, memory, process, container, groups: Vec::new(), nic };
    groups.iter().for_each(|number| rig.plug(*number));
    if !groups.is_empty() {
        rig.container.set_iommu(&rig.process, kind).unwrap();
    }
    rig
}

fn rig() -> Rig {
    rig_of(extension::TYPE1V2, &[1])
}

impl Rig {
    fn plug(&mut self, number: u32) {
        let group = self.vfio.open_group(GroupId::Numbered(number), &self.process).unwrap();
        group.set_container(&self.container, &self.process).unwrap();
        self.groups.push(group);
    }

    fn map(&self, iova: u64, vaddr: u64, size: u64) -> Result<(), MapError> {
        self.container.map(&self.process, &MapDma::new(iova, vaddr, size, Access::ReadWrite))
    }

    fn unmap(&self, iova: u64, size: u64) -> u64 {
        self.container.unmap(&self.process, &UnmapDma::new(iova, size)).unwrap()
    }

    fn found(&self) -> Vec<Mistake> {
        self.vfio.take_findings().kept.into_iter().map(|finding| finding.mistake).collect()
    }

    #[track_caller]
    fn finds_nothing(&self) {
        assert_eq!(self.found(), []);
    }
}

fn pages(first: u64, size: u64) -> VaddrRange {
    VaddrRange::from_size(Vaddr(first), size).unwrap()
}

#[test]
fn memory_that_goes_under_a_live_mapping_is_reported_once() {
    let rig = rig();
    rig.map(0x10000, RAM, 0x4000).unwrap();
    rig.nic.write(Iova(0x10000), &[1; 0x4000]).unwrap();
    rig.finds_nothing();

    // The page beside it is good.
    rig.memory.replace(pages(RAM + 0x1000, 0x1000)).unwrap();
    rig.nic.write(Iova(0x10ffe), &[2; 2]).unwrap();
    rig.finds_nothing();
    for _ in 0..3 {
        rig.nic.write(Iova(0x10ffe), &[2; 3]).unwrap();
    }
    let finding = rig.vfio.take_findings().kept.pop_front().unwrap();
    assert_eq!(finding.times, 3);
    let Mistake::StaleMapping { device, iova, mapping, memory, change, .. } = &finding.mistake
    else {
        panic!("{finding}")
    };
    assert_eq!((device.as_str(), *iova, *mapping), (NIC, Iova(0x10ffe), range(0x10000, 0x13fff)));
    assert_eq!((*memory, *change), (pages(RAM + 0x1000, 0x1000), MemoryChange::Replaced));
    assert_eq!(
        finding.to_string(),
        "0000:00:01.0: write at 0x10ffe goes through the mapping 0x10000..0x13fff, but the memory \
         0x100000001000..0x100000001fff behind it has been replaced by other pages since; \
         UNMAP before memory goes (seen 3 times)"
    );
    // The access went to what is there now.
    let mut byte = [0];
    rig.process.memory().read(Vaddr(RAM + 0x1000), &mut byte).unwrap();
    assert_eq!(byte, [2]);

    rig.memory.free(pages(RAM + 0x2010, 8));
    rig.nic.read(Iova(0x12000), &mut [0; 16]).unwrap();
    rig.finds_nothing();
    rig.nic.read(Iova(0x12000), &mut [0; 17]).unwrap();
    let found = rig.found();
    assert!(
        matches!(found[..], [Mistake::StaleMapping { change: MemoryChange::Freed, .. }]),
        "{found:?}"
    );

    // Where nothing is left, the device gets a fault too.
    rig.memory.remove(pages(RAM + 0x3000, 0x1000)).unwrap();
    let fault = rig.nic.read(Iova(0x13000), &mut [0; 4]).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::MemoryGone { .. }));
    let found = rig.found();
    assert!(
        matches!(found[..], [Mistake::StaleMapping { change: MemoryChange::Unmapped, .. }]),
        "{found:?}"
    );
}

#[test]
fn memory_that_goes_after_its_mapping_is_nobodys_mistake() {
    let rig = rig();
    rig.map(0x10000, RAM, 0x1000).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.unmap(0x10000, 0x1000);
    rig.memory.remove(pages(RAM, 0x1000)).unwrap();
    rig.memory.add(pages(RAM, 0x1000), true).unwrap();
    rig.map(0x10000, RAM, 0x1000).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.unmap(0x10000, 0x1000);
    assert!(rig.nic.write(Iova(0x10000), &[1]).is_err());
    rig.finds_nothing();
}

#[test]
fn memory_may_move_while_its_address_is_taken_away() {
    let rig = rig();
    rig.map(0x10000, RAM, 0x1000).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    let lose = UnmapDma::new(0x10000, 0x1000).vaddr_only();
    rig.container.unmap(&rig.process, &lose).unwrap();
    rig.memory.replace(pages(RAM, 0x1000)).unwrap();
    rig.memory.replace(pages(RAM + 0x1000, 0x1000)).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    let again = MapDma::update_vaddr(0x10000, RAM + 0x1000, 0x1000);
    rig.container.map(&rig.process, &again).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.finds_nothing();
    rig.memory.replace(pages(RAM + 0x1000, 0x1000)).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    assert_eq!(rig.found().len(), 1);
}

#[test]
fn memory_counts_from_when_its_pages_were_pinned() {
    // With an emulated group alone nothing is pinned yet.
    let mut rig = rig_of(extension::TYPE1V2, &[3]);
    rig.map(0x10000, RAM, 0x1000).unwrap();
    rig.memory.replace(pages(RAM, 0x1000)).unwrap();
    rig.plug(1);
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.finds_nothing();
    rig.memory.replace(pages(RAM, 0x1000)).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    assert_eq!(rig.found().len(), 1);
}

#[test]
fn an_address_whose_map_was_refused_is_told_from_a_wild_one() {
    let mut rig = rig_of(extension::TYPE1V2, &[]);
    assert_eq!(rig.map(0x10000, RAM, 0x4000).unwrap_err().errno(), Errno::EINVAL);
    rig.plug(1);
    rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    for _ in 0..2 {
        let fault = rig.nic.write(Iova(0x11000), &[1]).unwrap_err();
        let FaultCause::MapRefused(refusal) = &fault.cause else { panic!("{fault}") };
        assert_eq!((refusal.iova, refusal.vaddr), (range(0x10000, 0x13fff), Vaddr(RAM)));
        assert_eq!(*refusal.error, MapError::NoType1(NoType1::Unset));
        assert_eq!(refusal.thread.id(), std::thread::current().id());
        assert!(fault.to_string().contains("was refused with EINVAL 1 call ago"), "{fault}");
    }
    let finding = rig.vfio.take_findings().kept.pop_front().unwrap();
    assert_eq!(finding.times, 2);
    let Mistake::UsedAfterRefusal { device, iova, .. } = &finding.mistake else {
        panic!("{finding}")
    };
    assert_eq!((device.as_str(), *iova), (NIC, Iova(0x11000)));

    // A MAP that goes through settles what it covers, an UNMAP too, and nothing else.
    rig.map(0x10000, RAM, 0x1000).unwrap();
    assert_eq!(rig.unmap(0x12000, 0x1000), 0);
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    let cause = |at| rig.nic.write(Iova(at), &[1]).unwrap_err().cause;
    assert_eq!(cause(0x12000), FaultCause::NeverMapped);
    rig.finds_nothing();
    assert!(matches!(cause(0x11000), FaultCause::MapRefused(_)));
    assert!(matches!(cause(0x13fff), FaultCause::MapRefused(_)));
    assert_eq!(cause(0x14000), FaultCause::NeverMapped);
}

#[test]
fn a_fault_names_what_happened_last() {
    let rig = rig();
    rig.vfio.set_watch(false);
    let cause = || rig.nic.write(Iova(0x10000), &[1]).unwrap_err().cause;
    rig.map(0x10000, RAM, 0x2000).unwrap();
    rig.map(0x10000, RAM, 0x1000).unwrap_err();
    rig.unmap(0x10000, 0x2000);
    assert!(matches!(cause(), FaultCause::Unmapped(_)));
    rig.map(0x10000, RAM - 0x1000, 0x1000).unwrap_err();
    assert!(matches!(cause(), FaultCause::MapRefused(_)));
    // The MSI window, which no retry gets.
    rig.map(0xfee0_0000, RAM, 0x1000).unwrap_err();
    let fault = rig.nic.write(Iova(0xfee0_0000), &[1]).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::MapRefused(_)), "{fault}");

    // A MAP before the first group came counts too.
    let mut early = rig_of(extension::TYPE1V2, &[]);
    early.vfio.set_watch(false);
    early.map(0x10000, RAM, 0x1000).unwrap_err();
    early.plug(1);
    early.container.set_iommu(&early.process, extension::TYPE1V2).unwrap();
    let fault = early.nic.write(Iova(0x10000), &[1]).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::MapRefused(_)), "{fault}");
    rig.finds_nothing();
    early.finds_nothing();
}

#[test]
fn an_ignored_eexist_is_reported_although_the_access_goes_through() {
    let rig = rig();
    rig.map(0x10000, RAM, 0x4000).unwrap();
    // The device knows the mapping already.
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    assert_eq!(rig.map(0x12000, RAM + 0x8000, 0x1000).unwrap_err().errno(), Errno::EEXIST);
    rig.nic.write(Iova(0x11000), &[1]).unwrap();
    rig.nic.write(Iova(0x13000), &[1]).unwrap();
    rig.finds_nothing();
    // It says where in the access.
    rig.nic.write(Iova(0x11800), &[1; 0x1000]).unwrap();
    rig.nic.write(Iova(0x12000), &[1]).unwrap();
    let finding = rig.vfio.take_findings().kept.pop_front().unwrap();
    assert_eq!(finding.times, 2);
    let Mistake::ReachedOlderMapping { iova, reached, mapping, refusal, .. } = &finding.mistake
    else {
        panic!("{finding}")
    };
    assert_eq!((*iova, *reached), (Iova(0x12000), Vaddr(RAM + 0x2000)));
    assert_eq!((*mapping, refusal.vaddr), (range(0x10000, 0x13fff), Vaddr(RAM + 0x8000)));
    assert!(finding.to_string().contains("reaches vaddr 0x100000002000 by the older mapping"));
}

#[test]
fn an_eexist_that_does_no_harm_is_not_reported() {
    // The same memory again: the device reaches what the program means.
    let rig = rig();
    rig.map(0x10000, RAM, 0x4000).unwrap();
    rig.map(0x12000, RAM + 0x2000, 0x4000).unwrap_err();
    rig.nic.write(Iova(0x12000), &[1]).unwrap();
    rig.finds_nothing();
    assert!(rig.nic.write(Iova(0x14000), &[1]).is_err());
    assert_eq!(rig.found().len(), 1);

    // The program takes another place for it.
    rig.map(0x10000, RAM + 0x8000, 0x2000).unwrap_err();
    rig.map(0x20000, RAM + 0x9000, 0x1000).unwrap();
    rig.nic.write(Iova(0x11000), &[1]).unwrap();
    rig.finds_nothing();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    assert_eq!(rig.found().len(), 1);

    // It takes the old mapping away, and tries again.
    rig.unmap(0x10000, 0x4000);
    rig.map(0x10000, RAM + 0x8000, 0x2000).unwrap();
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.finds_nothing();
}

#[test]
fn an_unmap_that_removes_nothing_settles_a_refusal() {
    let rig = rig_of(extension::TYPE1, &[1]);
    rig.map(0x10000, RAM, 0x4000).unwrap();
    rig.map(0x12000, RAM + 0x8000, 0x2000).unwrap_err();
    assert_eq!(rig.unmap(0x12000, 0x1000), 0);
    rig.nic.write(Iova(0x12000), &[1]).unwrap();
    rig.finds_nothing();
    rig.nic.write(Iova(0x13000), &[1]).unwrap();
    assert_eq!(rig.found().len(), 1);
}

#[test]
fn mappings_that_go_with_the_last_group_are_told_from_leaks() {
    let live = LiveMappings { count: 2, bytes: 0x3000, hull: range(0x10000, 0x20fff) };
    let group = GroupId::Numbered(1);
    let rig = || {
        let rig = rig();
        rig.map(0x10000, RAM, 0x2000).unwrap();
        rig.map(0x20000, RAM, 0x1000).unwrap();
        rig
    };

    // The program goes on.
    let mut first = rig();
    first.groups.clear();
    first.plug(1);
    let Rig { vfio, container, groups, .. } = first;
    drop((container, groups));
    let finding = vfio.take_findings().kept.pop_front().unwrap();
    assert_eq!(finding.mistake, Mistake::Vanished { group, live });
    assert!(
        finding.to_string().contains("took 2 live mappings (0x3000 bytes in 0x10000..0x20fff)")
    );

    // It closes the container after its groups, or before, or a second descriptor of it.
    let Rig { vfio, container, groups, .. } = rig();
    drop(groups);
    drop(container);
    assert_eq!(vfio.take_findings().kept[0].mistake, Mistake::Leaked { group, live });
    let Rig { vfio, container, groups, .. } = rig();
    drop(container);
    drop(groups);
    assert_eq!(vfio.take_findings().kept[0].mistake, Mistake::Leaked { group, live });
    let Rig { vfio, container, groups, .. } = rig();
    let second = container.clone();
    drop((container, groups));
    assert_eq!(vfio.take_findings().kept[0].mistake, Mistake::Vanished { group, live });
    drop(second);
    assert!(vfio.take_findings().kept.is_empty());

    // It loses the same mappings twice, and closes the container the second time.
    let mut twice = rig();
    twice.groups.clear();
    twice.plug(1);
    twice.container.set_iommu(&twice.process, extension::TYPE1V2).unwrap();
    twice.map(0x10000, RAM, 0x2000).unwrap();
    twice.map(0x20000, RAM, 0x1000).unwrap();
    let Rig { vfio, container, groups, .. } = twice;
    drop((groups, container));
    let findings = vfio.take_findings().kept;
    let found: Vec<_> = findings.iter().map(|finding| (&finding.mistake, finding.times)).collect();
    let expected = [(Mistake::Vanished { group, live }, 1), (Mistake::Leaked { group, live }, 1)];
    assert_eq!(found, expected.each_ref().map(|(mistake, times)| (mistake, *times)));

    // It unmaps first; or another group stays.
    let Rig { vfio, container, groups, process, .. } = rig();
    container.unmap(&process, &UnmapDma::all()).unwrap();
    drop((groups, container));
    assert!(vfio.take_findings().kept.is_empty());
    let mut stays = rig();
    stays.plug(2);
    stays.groups.remove(0);
    stays.finds_nothing();
}

#[test]
fn the_watch_is_off_until_it_is_on() {
    let rig = rig();
    rig.vfio.set_watch(false);
    rig.map(0x10000, RAM, 0x1000).unwrap();
    rig.map(0x10000, RAM + 0x1000, 0x1000).unwrap_err();
    rig.memory.free(pages(RAM, 0x1000));
    rig.nic.write(Iova(0x10000), &[1]).unwrap();
    rig.finds_nothing();
    // What happened before counts all the same.
    rig.vfio.set_watch(true);
    rig.nic.check(Iova(0x10000), 1, vfio_type1::DmaAccess::Read).unwrap();
    rig.finds_nothing();
    rig.nic.translate(Iova(0x10000), 1, vfio_type1::DmaAccess::Read).unwrap();
    assert_eq!(rig.found().len(), 2);
}

#[test]
fn the_newest_findings_are_kept() {
    let rig = rig();
    let many = MAX_FINDINGS as u64 + 3;
    for page in 0..many {
        rig.map(page << 12, RAM, 0x1000).unwrap();
    }
    rig.memory.free(pages(RAM, 1));
    for page in 0..many {
        rig.nic.read(Iova(page << 12), &mut [0]).unwrap();
    }
    let findings = rig.vfio.take_findings();
    assert_eq!((findings.kept.len(), findings.dropped), (MAX_FINDINGS, 3));
    let Mistake::StaleMapping { iova, .. } = findings.kept[0].mistake else { panic!() };
    assert_eq!(iova, Iova(0x3000));
}

#[test]
fn devices_and_programs_do_not_block_each_other() {
    let rig = rig_of(extension::TYPE1V2, &[1, 2]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for device in [1, 2, 2] {
            let master = rig.vfio.bus_master(&device_name(device)).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = master.write(Iova(0x10000), &[0; 0x1800]);
                }
            });
        }
        for turn in 0..500 {
            rig.map(0x10000, RAM, 0x1000).unwrap();
            rig.map(0x10000, RAM + 0x4000, 0x2000).unwrap_err();
            rig.memory.replace(pages(RAM, 0x1000)).unwrap();
            if turn % 50 == 0 {
                rig.vfio.take_findings();
            }
            rig.unmap(0x10000, 0x1000);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let kinds = rig.found();
    assert!(kinds.len() <= 3 * 3, "{kinds:?}");
}
