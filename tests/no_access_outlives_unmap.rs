// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: when UNMAP, or the detach of a group, has returned, no access to what went is running or
//! will run.
//!
//! A thousand machines with threads of devices and of programs, as the scheduler has them.
//! `tests/loom.rs` tries every order on smaller ones; `tests/tsan.sh` runs this under
//! ThreadSanitizer.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{RAM, Rig, device_name, group, memory, vtd};
use vfio_type1::{
    Access, BusMaster, Container, Fault, GroupId, Iova, Kernel, MapDma, Memory, ModelMemory,
    PinFault, PinnedRun, Process, UnmapDma, Vaddr, VaddrRange, Vfio, extension,
};

const MACHINES: usize = 1000;
/// How often each program thread maps and unmaps.
const TURNS: u64 = 8;
const PAGE: u64 = 0x1000;
const PAGES: usize = 4;

/// Memory that knows which of its pages the program has to itself.
struct Watched {
    memory: Arc<ModelMemory>,
    closed: [AtomicBool; PAGES],
    late: AtomicU64,
}

impl Watched {
    fn new() -> Arc<Self> {
        let closed = std::array::from_fn(|_| AtomicBool::new(true));
        Arc::new(Self { memory: memory(), closed, late: AtomicU64::new(0) })
    }

    fn page(&self, at: Vaddr) -> &AtomicBool {
        &self.closed[usize::try_from((at.0 - RAM) / PAGE).unwrap()]
    }

    fn look(&self, at: Vaddr) {
        // Long enough for an UNMAP to run past an access that it should wait for.
        thread::yield_now();
        self.late.fetch_add(u64::from(self.page(at).load(Ordering::SeqCst)), Ordering::SeqCst);
    }
}

impl Memory for Watched {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.look(from);
        self.memory.read(from, into)?;
        self.look(from);
        Ok(())
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.look(to);
        self.memory.write(to, bytes)?;
        self.look(to);
        Ok(())
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        self.memory.pin(pages, access)
    }
}

/// Two groups in one container.
fn rig(process: &Arc<Process>) -> Rig {
    let iommu = vtd(39);
    let groups = [1, 2].map(|number| group(&iommu, number, Vec::new()));
    let vfio = Vfio::new(Kernel::V7_3, groups).unwrap();
    let container = vfio.open_container();
    let open = |number| {
        let group = vfio.open_group(GroupId::Numbered(number), process).unwrap();
        group.set_container(&container, process).unwrap();
        group
    };
    let groups = [1, 2].map(open).into();
    container.set_iommu(process, extension::TYPE1V2).unwrap();
    Rig { container, process: Arc::clone(process), groups, vfio }
}

/// Reads and writes until it is told to stop; returns how often it got through.
fn device(master: &BusMaster, stop: &AtomicBool) -> u64 {
    let (mut bytes, mut done) = ([0; 64], 0);
    for turn in 0_u64.. {
        let at = Iova(turn % PAGES as u64 * PAGE);
        let went = match turn % 3 {
            0 => master.read(at, &mut bytes),
            _ => master.write(at, &bytes),
        };
        done += u64::from(went.is_ok());
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::yield_now();
    }
    done
}

/// Maps and unmaps pages of its own: those with an even or an odd number.
fn program(container: &Container, process: &Arc<Process>, watched: &Watched, parity: u64) {
    for turn in 0..TURNS {
        let iova = (turn * 2 + parity) % PAGES as u64 * PAGE;
        let closed = watched.page(Vaddr(RAM + iova));
        closed.store(false, Ordering::SeqCst);
        let request = MapDma::new(iova, RAM + iova, PAGE, Access::ReadWrite);
        container.map(process, &request).unwrap();
        thread::yield_now();
        let removed = container.unmap(process, &UnmapDma::new(iova, PAGE)).unwrap();
        closed.store(true, Ordering::SeqCst);
        assert_eq!(removed, PAGE);
    }
}

/// One machine: three devices, two programs, and a group that leaves and comes back.
fn run(watched: &Watched, process: &Arc<Process>) -> u64 {
    let Rig { container, groups, vfio, .. } = &rig(process);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let devices = [1, 2, 2].map(|number| {
            let master = vfio.bus_master(&device_name(number)).unwrap();
            let stop = &stop;
            scope.spawn(move || device(&master, stop))
        });
        let programs =
            [0, 1].map(|parity| scope.spawn(move || program(container, process, watched, parity)));
        groups[1].unset_container().unwrap();
        groups[1].set_container(container, process).unwrap();
        programs.into_iter().for_each(|program| program.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        devices.into_iter().map(|device| device.join().unwrap()).sum()
    })
}

#[test]
fn no_access_outlives_unmap() {
    let watched = Watched::new();
    let process = Process::new(Arc::clone(&watched) as Arc<_>);
    let done: u64 = (0..MACHINES).map(|_| run(&watched, &process)).sum();
    assert_eq!(watched.late.load(Ordering::SeqCst), 0, "accesses after UNMAP had returned");
    assert!(done > MACHINES as u64, "the devices hardly ran: {done} accesses");
    assert_eq!(process.locked_pages(), 0);
}
