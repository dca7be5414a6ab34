// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: when UNMAP, or the detach of a group, has returned, no access to what went is running or
//! will run, in whichever order threads are scheduled.
//!
//! loom runs each model in every order that makes a difference:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p vfio-type1 --release --test loom --target-dir target/loom
//! ```
//!
//! It takes some minutes. That a translation is never torn is modelled in `src/version.rs`.

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use vfio_type1::{
    Access, BusMaster, Container, DeviceDescription, DmaAccess, Fault, FixedIommu,
    GroupDescription, GroupId, Iommu, IommuDriver, Iova, IovaRange, Kernel, MapDma, Memory,
    OpenGroup, PageSizes, PinFault, PinnedRun, Process, UnmapDma, Vaddr, VaddrRange, Vfio,
    extension,
};

/// Runs in every order in which threads are taken off the CPU twice at most.
fn model(run: impl Fn() + Sync + Send + 'static) {
    bounded(2, run);
}

/// Runs in every order in which a thread is taken off the CPU once at most: for three threads.
fn crowd(run: impl Fn() + Sync + Send + 'static) {
    bounded(1, run);
}

fn bounded(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(run);
}

const IOVA: u64 = 0x1000;
const PAGE: u64 = 0x1000;
/// The two pages of the process.
const OLD: u64 = 0x10000;
const NEW: u64 = 0x20000;

/// Memory that fails the model when a page is accessed which the program has been told is its own.
#[derive(Default)]
struct Watched {
    old_is_closed: AtomicBool,
    new_is_closed: AtomicBool,
    /// An access to the old page runs. Relaxed: who waits for its end must see what it did.
    old_is_running: AtomicBool,
}

impl Watched {
    fn page(&self, at: Vaddr) -> &AtomicBool {
        if at.0 < NEW { &self.old_is_closed } else { &self.new_is_closed }
    }

    fn close(&self, page: u64) {
        assert!(
            !self.old_is_running.load(Ordering::Relaxed),
            "an access is not seen to have ended"
        );
        self.page(Vaddr(page)).store(true, Ordering::SeqCst);
    }

    /// An access takes a while: UNMAP must neither come before its start nor before its end.
    fn access(&self, at: Vaddr) {
        assert!(!self.page(at).load(Ordering::SeqCst), "an access began after the end");
        let running = |running| match at.0 < NEW {
            true => self.old_is_running.store(running, Ordering::Relaxed),
            false => {}
        };
        running(true);
        thread::yield_now();
        running(false);
        assert!(!self.page(at).load(Ordering::SeqCst), "an access ran on after the end");
    }
}

impl Memory for Watched {
    fn read(&self, from: Vaddr, _into: &mut [u8]) -> Result<(), Fault> {
        self.access(from);
        Ok(())
    }

    fn write(&self, to: Vaddr, _bytes: &[u8]) -> Result<(), Fault> {
        self.access(to);
        Ok(())
    }

    fn pin(&self, pages: VaddrRange, _access: Access) -> Result<PinnedRun, PinFault> {
        Ok(PinnedRun { last: pages.last(), charged: true })
    }
}

/// Groups with a device each, in one container, and a page mapped.
struct Machine {
    vfio: Vfio,
    memory: Arc<Watched>,
    process: Arc<Process>,
    container: Container,
    groups: Vec<OpenGroup>,
}

impl Machine {
    fn new(groups: u32) -> Arc<Self> {
        let iommu: Arc<dyn Iommu> = Arc::new(FixedIommu {
            driver: IommuDriver::IntelVtd,
            aperture: IovaRange::new(Iova(0), Iova(0xffff)).unwrap(),
            page_sizes: PageSizes(PAGE),
            coherent: false,
            isolated_msi: true,
        });
        let group = |number: u32| {
            let device = DeviceDescription::new(number.to_string(), Vec::new());
            GroupDescription::behind(Arc::clone(&iommu), number, [device])
        };
        let vfio = Vfio::new(Kernel::NEWEST, (0..groups).map(group)).unwrap();
        let memory = Arc::new(Watched::default());
        let process = Process::new(Arc::clone(&memory) as Arc<dyn Memory>);
        let container = vfio.open_container();
        let open = |number| {
            let group = vfio.open_group(GroupId::Numbered(number), &process).unwrap();
            group.set_container(&container, &process).unwrap();
            group
        };
        let groups = (0..groups).map(open).collect();
        container.set_iommu(&process, extension::TYPE1V2).unwrap();
        let machine = Self { vfio, memory, process, container, groups };
        machine.map(OLD);
        Arc::new(machine)
    }

    fn map(&self, vaddr: u64) {
        let request = MapDma::new(IOVA, vaddr, PAGE, Access::ReadWrite);
        self.container.map(&self.process, &request).unwrap();
    }

    /// Whether something was mapped.
    fn unmap(&self) -> bool {
        self.container.unmap(&self.process, &UnmapDma::new(IOVA, PAGE)).unwrap() != 0
    }

    fn master(&self, group: u32) -> BusMaster {
        self.vfio.bus_master(&group.to_string()).unwrap()
    }

    /// A device of the group that has the page in its IOTLB.
    fn warm_master(&self, group: u32) -> BusMaster {
        let master = self.master(group);
        master.write(Iova(IOVA), &[0]).unwrap();
        master
    }
}

/// A device that writes to the page twice, in a thread of its own. Whether the second went through.
fn writes(master: BusMaster) -> thread::JoinHandle<bool> {
    let write = move || master.write(Iova(IOVA), &[1]).is_ok();
    thread::spawn(move || [write(), write()][1])
}

#[test]
fn no_access_outlives_unmap() {
    model(|| {
        let machine = Machine::new(1);
        let device = writes(machine.warm_master(0));
        assert!(machine.unmap());
        machine.memory.close(OLD);
        device.join().unwrap();
    });
}

#[test]
fn an_iotlb_does_not_fill_behind_unmap() {
    model(|| {
        let machine = Machine::new(1);
        let device = writes(machine.master(0));
        assert!(machine.unmap());
        machine.memory.close(OLD);
        device.join().unwrap();
    });
}

#[test]
fn a_device_that_turns_up_during_unmap_is_waited_for_too() {
    model(|| {
        let machine = Machine::new(1);
        let newcomer = Arc::clone(&machine);
        let device = thread::spawn(move || newcomer.master(0).write(Iova(IOVA), &[1]).is_ok());
        assert!(machine.unmap());
        machine.memory.close(OLD);
        device.join().unwrap();
    });
}

#[test]
fn unmap_waits_for_every_device() {
    crowd(|| {
        let machine = Machine::new(2);
        // Once each: with three threads there are many orders.
        let devices = [machine.warm_master(0), machine.master(1)]
            .map(|master| thread::spawn(move || master.write(Iova(IOVA), &[1]).is_ok()));
        assert!(machine.unmap());
        machine.memory.close(OLD);
        devices.into_iter().for_each(|device| assert!(device.join().is_ok()));
    });
}

#[test]
fn no_access_outlives_the_detach_of_the_last_group() {
    model(|| {
        let machine = Machine::new(1);
        let device = writes(machine.warm_master(0));
        machine.groups[0].unset_container().unwrap();
        machine.memory.close(OLD);
        device.join().unwrap();
    });
}

#[test]
fn unmap_waits_for_a_device_whose_group_is_leaving() {
    crowd(|| {
        let machine = Machine::new(2);
        let device = writes(machine.warm_master(1));
        let leaving = Arc::clone(&machine);
        let leaves = thread::spawn(move || leaving.groups[1].unset_container().unwrap());
        assert!(machine.unmap());
        machine.memory.close(OLD);
        leaves.join().unwrap();
        device.join().unwrap();
    });
}

#[test]
fn a_new_mapping_is_seen_and_the_old_one_is_not() {
    model(|| {
        let machine = Machine::new(1);
        let master = Arc::new(machine.warm_master(0));
        let device = Arc::clone(&master);
        // The old page before UNMAP is done, the new one afterwards, or a fault between the two.
        let access = thread::spawn(move || device.write(Iova(IOVA), &[1]).is_ok());
        assert!(machine.unmap());
        machine.memory.close(OLD);
        machine.map(NEW);
        master.write(Iova(IOVA), &[2]).unwrap();
        access.join().unwrap();
    });
}

#[test]
fn of_two_threads_that_unmap_both_wait() {
    crowd(|| {
        let machine = Machine::new(1);
        let device = writes(machine.warm_master(0));
        let other = Arc::clone(&machine);
        let unmaps = thread::spawn(move || {
            let removed = other.unmap();
            other.memory.close(OLD);
            removed
        });
        let removed = machine.unmap();
        machine.memory.close(OLD);
        assert!(removed != unmaps.join().unwrap());
        device.join().unwrap();
    });
}

#[test]
fn a_page_mapped_by_another_thread_is_not_the_old_one() {
    model(|| {
        let machine = Machine::new(1);
        let master = machine.warm_master(0);
        let other = Arc::clone(&machine);
        let unmaps = thread::spawn(move || other.unmap());
        let request = MapDma::new(IOVA, NEW, PAGE, Access::ReadWrite);
        // Refused if it comes before UNMAP.
        if machine.container.map(&machine.process, &request).is_ok() {
            machine.memory.close(OLD);
            master.write(Iova(IOVA), &[1]).unwrap();
        }
        unmaps.join().unwrap();
    });
}

#[test]
fn a_new_process_address_is_used_from_then_on() {
    model(|| {
        let machine = Machine::new(1);
        let master = machine.warm_master(0);
        let lose = UnmapDma::new(IOVA, PAGE).vaddr_only();
        machine.container.unmap(&machine.process, &lose).unwrap();
        let device = writes(master);
        let update = MapDma::update_vaddr(IOVA, NEW, PAGE);
        machine.container.map(&machine.process, &update).unwrap();
        machine.memory.close(OLD);
        assert!(device.join().unwrap());
    });
}

#[test]
fn no_translation_outlives_unmap() {
    model(|| {
        let machine = Machine::new(1);
        let master = Arc::new(machine.master(0));
        let device = Arc::clone(&master);
        // Twice, so that the second one may be kept, late.
        let checks = thread::spawn(move || {
            let check = || device.check(Iova(IOVA), 1, DmaAccess::Write).is_ok();
            [check(), check()]
        });
        assert!(machine.unmap());
        assert!(master.check(Iova(IOVA), 1, DmaAccess::Write).is_err());
        checks.join().unwrap();
    });
}

/// The models can fail: UNMAP does not wait for what is done with translated addresses.
#[test]
#[should_panic(expected = "after the end")]
fn what_is_translated_is_not_waited_for() {
    model(|| {
        let machine = Machine::new(1);
        let (master, memory) = (machine.warm_master(0), Arc::clone(&machine.memory));
        let device = thread::spawn(move || {
            let pieces = master.translate(Iova(IOVA), 1, DmaAccess::Write);
            pieces.is_ok_and(|pieces| memory.write(pieces[0].0, &[1]).is_ok())
        });
        assert!(machine.unmap());
        machine.memory.close(OLD);
        device.join().unwrap();
    });
}
