// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: simulated devices do what their registers are told, by DMA through their group's domain,
//! and tell their owner by eventfd.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::sync::Arc;

use vfio_sim::device::engine::{Driver, Job, JobError, Status};
use vfio_sim::device::{
    BadFunction, CONFIG_REGION, DeviceSpec, Function, IrqIndex, Link, MappedBars, Model, NotMemory,
    Pace, PciDevice, RegionError, Register, edu,
};
use vfio_sim::host::Host;
use vfio_sim::hosts;
use vfio_type1::{
    Access, Container, Errno, FaultCause, GroupId, Iova, Kernel, MapDma, Memory, ModelMemory,
    OpenGroup, Process, UnmapDma, Vaddr, VaddrRange, Vfio, extension,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Process memory, and where it is mapped.
const RAM: u64 = 0x7000_0000_0000;
const RAM_SIZE: u64 = 64 << 20;
const IOVA: u64 = 0x10_0000;

/// A host with devices placed on it, all in one container, and 64 MiB mapped for them.
struct Rig {
    host: Host,
    vfio: Vfio,
    names: Vec<String>,
    memory: Arc<MappedBars<ModelMemory>>,
    process: Arc<Process>,
    container: Container,
    _groups: Vec<OpenGroup>,
}

fn rig(devices: &[&str]) -> Rig {
    let mut host = hosts::find("vtd39").unwrap();
    let place = |text: &&str| host.add_device(&text.parse::<DeviceSpec>().unwrap()).unwrap();
    let names: Vec<String> = devices.iter().map(place).collect();
    let vfio = host.boot(Kernel::NEWEST).unwrap();
    let memory = Arc::new(MappedBars::new(ModelMemory::new()));
    let ram = VaddrRange::from_size(Vaddr(RAM), RAM_SIZE).unwrap();
    memory.memory().add(ram, true).unwrap();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let open = |name: &String| {
        let group = vfio.open_group(vfio.group_of(name).unwrap(), &process).unwrap();
        group.set_container(&container, &process).unwrap();
        group
    };
    let groups = names.iter().map(open).collect();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    container.map(&process, &MapDma::new(IOVA, RAM, RAM_SIZE, Access::ReadWrite)).unwrap();
    Rig { host, vfio, names, memory, process, container, _groups: groups }
}

impl Rig {
    fn device(&self, at: usize, pace: Pace) -> PciDevice {
        self.host.power_on(&self.vfio, &self.names[at], pace).unwrap()
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.memory.write(Vaddr(RAM + offset), bytes).unwrap();
    }

    fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read(Vaddr(RAM + offset), &mut bytes).unwrap();
        bytes
    }
}

fn eventfd() -> (EventFd, EventFd) {
    let ours = EventFd::new(EFD_NONBLOCK).unwrap();
    (ours.try_clone().unwrap(), ours)
}

/// Whether it was signalled since it was looked at last.
fn fired(eventfd: &EventFd) -> bool {
    eventfd.read().is_ok()
}

fn command(device: &PciDevice, bits: u8) {
    device.write(CONFIG_REGION, 4, &[bits, 0]).unwrap();
}

const MEMORY: u8 = 2;
const MASTER: u8 = 4;

#[test]
fn the_engine_copies_fills_and_follows_lists() {
    let rig = rig(&["dma-engine,chunk=1000"]);
    let device = rig.device(0, Pace::Immediate);
    let driver = Driver::new(&device).unwrap();
    assert_eq!(driver.status().unwrap(), Status::Idle);
    let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    rig.put(0, &bytes);
    driver.run(&Job::copy(IOVA, IOVA + 0x1_0001, 10_000)).unwrap().unwrap();
    assert_eq!(rig.get(0x1_0001, 10_000), bytes);
    assert_eq!(rig.get(0x1_0000 + 10_001, 1), [0]);

    driver.run(&Job::fill(IOVA + 0x2_0000, 5000, 0xa5)).unwrap().unwrap();
    assert_eq!(rig.get(0x2_0000, 5001), [vec![0xa5; 5000], vec![0]].concat());

    // Scatter and gather: two pieces become one, in the order of the list.
    let list = [Job::copy(IOVA + 4, IOVA + 0x3_0000, 4), Job::copy(IOVA, IOVA + 0x3_0004, 4)];
    rig.put(0x4_0000, &list.map(Job::to_bytes).concat());
    driver.run(&Job::list(IOVA + 0x4_0000, 2)).unwrap().unwrap();
    assert_eq!(rig.get(0x3_0000, 8), [4, 5, 6, 7, 0, 1, 2, 3]);

    // Nothing to do is done at once.
    driver.run(&Job::list(IOVA, 0)).unwrap().unwrap();
    driver.run(&Job::copy(0, 0, 0)).unwrap().unwrap();
    assert_eq!(driver.ended().unwrap(), 5);
    assert!(rig.vfio.take_faults().kept.is_empty());
}

#[test]
fn the_engine_dirties_the_pages_it_is_told_to() {
    let rig = rig(&["dma-engine"]);
    let device = rig.device(0, Pace::Immediate);
    let pages = [3_u64, 77, 4095];
    let list: Vec<u8> = pages.iter().flat_map(|page| (IOVA + page * 4096).to_le_bytes()).collect();
    rig.put(0, &list);
    Driver::new(&device).unwrap().run(&Job::touch(IOVA, 3, 0xd1)).unwrap().unwrap();
    let all = rig.get(4096, 4096 * 4095);
    let touched: Vec<usize> = (0..all.len()).filter(|at| all[*at] != 0).collect();
    assert_eq!(touched, [2 * 4096, 76 * 4096, 4094 * 4096]);
}

#[test]
fn the_engine_goes_astray_as_told() {
    let rig = rig(&["dma-engine,overrun=3", "dma-engine,stray=0xfee00000"]);
    let overrunning = rig.device(0, Pace::Immediate);
    let driver = Driver::new(&overrunning).unwrap();
    driver.run(&Job::fill(IOVA, 16, 7)).unwrap().unwrap();
    assert_eq!(rig.get(0, 20), [vec![7; 19], vec![0]].concat());
    // At the end of what is mapped the overrun is a fault.
    let failed = driver.run(&Job::fill(IOVA + RAM_SIZE - 16, 16, 7)).unwrap().unwrap_err();
    assert_eq!(failed, JobError::Fault { at: Iova(IOVA + RAM_SIZE) });
    let failed = driver.run(&Job::copy(IOVA + RAM_SIZE - 16, IOVA, 16)).unwrap();
    assert_eq!(failed, Ok(()), "no more is read than was asked for");
    assert_eq!(rig.vfio.take_faults().kept[0].cause, FaultCause::NeverMapped);

    let stray = rig.device(1, Pace::Immediate);
    Driver::new(&stray).unwrap().run(&Job::fill(IOVA, 16, 7)).unwrap().unwrap();
    let faults = rig.vfio.take_faults().kept;
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].iova, &faults[0].device), (Iova(0xfee0_0000), &rig.names[1]));
    assert!(matches!(faults[0].cause, FaultCause::Reserved { .. }));
}

#[test]
fn bad_jobs_and_faults_end_with_a_status_and_an_interrupt() {
    let rig = rig(&["dma-engine"]);
    let device = rig.device(0, Pace::Immediate);
    let (done, on_done) = eventfd();
    let (failed, on_failed) = eventfd();
    device.set_irqs(IrqIndex::Msix, vec![Some(done), Some(failed)]).unwrap();
    let driver = Driver::new(&device).unwrap();
    driver.run(&Job::read(IOVA, 4096)).unwrap().unwrap();
    assert!(fired(&on_done) && !fired(&on_failed));

    let bad = Job { operation: 9, ..Job::default() };
    assert_eq!(driver.run(&bad).unwrap(), Err(JobError::BadJob));
    rig.put(0, &Job::list(IOVA, 1).to_bytes());
    assert_eq!(driver.run(&Job::list(IOVA, 1)).unwrap(), Err(JobError::BadJob));
    assert!(!fired(&on_done) && fired(&on_failed));

    // The second descriptor of three fails: the first is done, the third is not.
    let list = [Job::fill(IOVA + 0x1000, 1, 1), Job::read(0, 1), Job::fill(IOVA + 0x1001, 1, 1)];
    rig.put(0, &list.map(Job::to_bytes).concat());
    let failed = driver.run(&Job::list(IOVA, 3)).unwrap().unwrap_err();
    assert_eq!(failed, JobError::Fault { at: Iova(0) });
    assert_eq!(rig.get(0x1000, 2), [1, 0]);
    assert!(fired(&on_failed));
}

#[test]
fn without_bus_mastering_there_is_no_dma() {
    let rig = rig(&["dma-engine"]);
    let device = rig.device(0, Pace::Immediate);
    let driver = Driver::new(&device).unwrap();
    command(&device, MEMORY);
    let job = Job::fill(IOVA, 1, 1);
    assert_eq!(driver.run(&job).unwrap(), Err(JobError::Fault { at: Iova(IOVA) }));
    assert_eq!(rig.vfio.take_faults().kept[0].cause, FaultCause::BusMasterOff);
    // Messages are writes too.
    let (theirs, ours) = eventfd();
    device.set_irqs(IrqIndex::Msix, vec![Some(theirs)]).unwrap();
    driver.run(&Job::copy(IOVA, IOVA, 0)).unwrap().unwrap();
    assert!(!fired(&ours));
    command(&device, MEMORY | MASTER);
    driver.run(&job).unwrap().unwrap();
    assert!(fired(&ours));
    // Without memory decoding there are no registers either.
    command(&device, MASTER);
    let refused = driver.status().unwrap_err();
    assert_eq!(refused.errno(), Errno::EIO);
    assert_eq!(refused.to_string(), "region 0 does not decode; set bit 1 of the command register");
}

#[test]
fn steps_can_be_taken_one_by_one() {
    let rig = rig(&["dma-engine,chunk=4K"]);
    let device = rig.device(0, Pace::Stepped);
    let driver = Driver::new(&device).unwrap();
    driver.start(&Job::fill(IOVA, 0x3000, 1)).unwrap();
    assert_eq!((driver.status().unwrap(), rig.get(0, 1)), (Status::Busy, vec![0]));
    assert_eq!(driver.run(&Job::read(IOVA, 1)).unwrap(), Err(JobError::Busy));
    assert!(device.step());
    assert_eq!(rig.get(0xfff, 2), [1, 0], "one page of three");
    // What is unmapped between two steps is a fault in the next one.
    rig.container.unmap(&rig.process, &UnmapDma::new(IOVA, RAM_SIZE)).unwrap();
    device.settle();
    assert_eq!(driver.status().unwrap(), Status::Fault);
    assert!(!device.step());
    assert!(matches!(rig.vfio.take_faults().kept[0].cause, FaultCause::Unmapped(_)));
}

#[test]
fn a_threaded_device_works_by_itself() {
    let rig = rig(&["dma-engine,chunk=4K", "dma-engine"]);
    let devices = [rig.device(0, Pace::Threaded), rig.device(1, Pace::Threaded)];
    let (theirs, ours) = eventfd();
    devices[0].set_irqs(IrqIndex::Msi, vec![Some(theirs)]).unwrap();
    let drivers = [Driver::new(&devices[0]).unwrap(), Driver::new(&devices[1]).unwrap()];
    for round in 1..=20 {
        drivers[0].start(&Job::fill(IOVA, 1 << 20, round)).unwrap();
        drivers[1].start(&Job::fill(IOVA + (1 << 20), 1 << 20, round)).unwrap();
        devices.iter().for_each(PciDevice::settle);
        assert!(fired(&ours));
        let memory = rig.get(0, 2 << 20);
        assert!(memory.iter().all(|byte| *byte == round), "round {round}");
    }
    // Dropping a device that is at work stops it.
    drivers[0].start(&Job::fill(IOVA, RAM_SIZE, 99)).unwrap();
}

#[test]
fn a_reset_forgets_the_job_but_not_the_configuration() {
    let rig = rig(&["dma-engine,chunk=4K"]);
    let device = rig.device(0, Pace::Stepped);
    let driver = Driver::new(&device).unwrap();
    driver.start(&Job::fill(IOVA, 0x3000, 1)).unwrap();
    assert!(device.step());
    // Function level reset: bit 15 of device control, in the PCI Express capability.
    let mut pointer = [0];
    device.read(CONFIG_REGION, 0x34, &mut pointer).unwrap();
    device.write(CONFIG_REGION, u64::from(pointer[0]) + 9, &[0x80]).unwrap();
    assert!(!device.step());
    assert_eq!(driver.status().unwrap(), Status::Idle);
    assert_eq!(rig.get(0, 0x2000), [vec![1; 0x1000], vec![0; 0x1000]].concat());
    let mut bits = [0];
    device.read(CONFIG_REGION, 4, &mut bits).unwrap();
    assert_eq!(bits, [MEMORY | MASTER]);
}

#[test]
fn regions_are_read_and_written_as_vfio_does() {
    let rig = rig(&["dma-engine"]);
    let device = rig.device(0, Pace::Immediate);
    assert_eq!(device.region_size(0), 4096);
    assert_eq!((device.region_size(1), device.region_size(CONFIG_REGION)), (0, 4096));
    let mut bytes = [0; 16];
    assert_eq!(device.read(0, 0, &mut bytes[..4]).unwrap(), 4);
    assert_eq!(&bytes[..4], b"DMAE");
    // Accesses end with the region; odd ones are cut up.
    assert_eq!(device.read(0, 4091, &mut bytes).unwrap(), 5);
    // The MSI-X table is the kernel's.
    assert_eq!(device.write(2, 0, &[0; 16]).unwrap(), 16);
    device.read(2, 24, &mut bytes).unwrap();
    assert_eq!(bytes, [[0xff; 8], [0; 8]].concat()[..], "two entries of 16 bytes");
    device.read(2, 2048, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16], "nothing pending");

    let past = RegionError::PastTheEnd { region: 0, offset: 4096, size: 4096 };
    assert_eq!(device.read(0, 4096, &mut bytes), Err(past));
    assert_eq!(device.read(0, 4096, &mut []), Ok(0));
    let cut = RegionError::PastTheEnd { region: 0, offset: 4094, size: 4096 };
    assert_eq!((device.read_u32(0, 4094), device.write_u64(0, 4094, 0)), (Err(cut), Err(cut)));
    assert_eq!(device.write(1, 0, &[0]), Err(RegionError::NoRegion { region: 1 }));
    for (offset, length) in [(4095, 2), (u64::MAX, 1), (4096, 1)] {
        let refused = device.read(CONFIG_REGION, offset, &mut bytes[..length]).unwrap_err();
        assert_eq!(refused.errno(), Errno::EFAULT);
    }
    // All of the registers, in one access of an odd place.
    for (offset, length) in [(0, 4096), (1, 4095), (7, 11)] {
        device.read(0, offset, &mut vec![0; length]).unwrap();
        device.write(0, offset, &vec![0; length]).unwrap();
    }
}

#[test]
fn edu_computes_and_transfers() {
    use edu::register;
    let rig = rig(&["edu"]);
    let device = rig.device(0, Pace::Stepped);
    command(&device, MEMORY | MASTER);
    let read = |offset| device.read_u32(0, offset).unwrap();
    let write = |offset, value| device.write_u32(0, offset, value).unwrap();
    assert_eq!(read(register::IDENTIFICATION), 0x0100_00ed);
    write(register::LIVENESS, 0x1234_5678);
    assert_eq!(read(register::LIVENESS), !0x1234_5678);
    // Below 0x80 only 4 bytes at a time.
    device.write(0, register::LIVENESS, &[0]).unwrap();
    assert_eq!(read(register::LIVENESS), !0x1234_5678);

    // The factorial, by interrupt line.
    let (theirs, ours) = eventfd();
    device.set_irqs(IrqIndex::Line, vec![Some(theirs)]).unwrap();
    write(register::STATUS, edu::INTERRUPT_WHEN_COMPUTED);
    write(register::FACTORIAL, 12);
    assert_eq!(read(register::STATUS), edu::INTERRUPT_WHEN_COMPUTED | edu::COMPUTING);
    write(register::FACTORIAL, 3);
    device.settle();
    assert_eq!(read(register::FACTORIAL), 479_001_600, "what is computed keeps its number");
    assert!(fired(&ours));
    assert_eq!(read(register::INTERRUPT_STATUS), edu::INTERRUPT_COMPUTED);
    // Unmasked before it is acknowledged, it fires again.
    device.unmask_line();
    assert!(fired(&ours));
    write(register::INTERRUPT_ACKNOWLEDGE, edu::INTERRUPT_COMPUTED);
    device.unmask_line();
    assert!(!fired(&ours));
    // With the line turned off (bit 10 of the command register) only the status tells.
    device.write(CONFIG_REGION, 5, &[4]).unwrap();
    write(register::INTERRUPT_RAISE, 2);
    assert!(!fired(&ours));
    let mut status = [0];
    device.read(CONFIG_REGION, 6, &mut status).unwrap();
    assert_eq!(status[0] & 8, 8);
    device.write(CONFIG_REGION, 5, &[0]).unwrap();
    assert!(fired(&ours));
    write(register::INTERRUPT_ACKNOWLEDGE, 2);
    device.read(CONFIG_REGION, 6, &mut status).unwrap();
    assert_eq!(status[0] & 8, 0);
    device.set_irqs(IrqIndex::Line, Vec::new()).unwrap();
    write(register::STATUS, 0);
    for (number, factorial) in [(0, 1), (1, 1), (13, 1_932_053_504), (34, 0), (u32::MAX, 0)] {
        write(register::FACTORIAL, number);
        device.settle();
        assert_eq!(read(register::FACTORIAL), factorial, "{number}");
    }

    // Into the buffer and out again, by MSI.
    let (theirs, ours) = eventfd();
    device.set_irqs(IrqIndex::Msi, vec![Some(theirs)]).unwrap();
    rig.put(0, b"to edu and back");
    let transfer = |source: u64, destination: u64, count: u64, command: u64| {
        device.write_u64(0, register::DMA_SOURCE, source).unwrap();
        device.write_u64(0, register::DMA_DESTINATION, destination).unwrap();
        device.write_u64(0, register::DMA_COUNT, count).unwrap();
        device.write_u64(0, register::DMA_COMMAND, command | edu::DMA_START).unwrap();
        assert_eq!(read(register::DMA_COMMAND) & 1, 1);
        device.settle();
        assert_eq!(read(register::DMA_COMMAND) & 1, 0);
    };
    transfer(IOVA, edu::BUFFER + 16, 15, 0);
    assert!(!fired(&ours));
    let command = edu::DMA_TO_MEMORY | edu::DMA_INTERRUPT;
    transfer(edu::BUFFER + 16, IOVA + 0x1000, 15, command);
    assert_eq!(rig.get(0x1000, 15), b"to edu and back");
    assert!(fired(&ours));
    // It states 28 bits, and its buffer has 4096 bytes.
    transfer(edu::BUFFER, 1 << 28, 4, edu::DMA_TO_MEMORY);
    let faults = rig.vfio.take_faults().kept;
    assert_eq!(faults[0].cause, FaultCause::BeyondMask { bits: 28 });
    transfer(edu::BUFFER + 4095, IOVA + 0x2000, 2, edu::DMA_TO_MEMORY);
    transfer(u64::MAX, u64::MAX, u64::MAX, 0);
    // A transfer that is none raises nothing; what does not exist reads as ones.
    transfer(0, 0, 0, edu::DMA_INTERRUPT);
    assert!(!fired(&ours));
    assert_eq!((read(0x10), read(register::DMA_SOURCE + 4)), (u32::MAX, u32::MAX));
    // A write of 4 bytes is one of the whole register.
    device.write_u64(0, register::DMA_COUNT, u64::MAX).unwrap();
    write(register::DMA_COUNT, 7);
    assert_eq!(device.read_u64(0, register::DMA_COUNT).unwrap(), 7);
    assert!(rig.vfio.take_faults().kept.is_empty() && rig.get(0x2000, 2) == [0, 0]);
}

#[test]
fn a_peer_takes_dma_of_another_device() {
    let rig = rig(&["dma-engine", "peer,size=16G"]);
    let (engine, peer) = (rig.device(0, Pace::Immediate), rig.device(1, Pace::Immediate));
    let driver = Driver::new(&engine).unwrap();
    // The BAR in the process, as mmap of the device file puts it there, and then mapped for DMA.
    let bar = rig.memory.map(Vaddr(0x6000_0000_0000), &peer, 0).unwrap();
    assert_eq!(bar.size(), Some(16 << 30));
    let locked = rig.process.locked_pages();
    let window = MapDma::new(0x10_0000_0000_u64, bar.first(), 16 << 30, Access::ReadWrite);
    rig.container.map(&rig.process, &window).unwrap();
    assert_eq!(rig.process.locked_pages(), locked, "device memory is not charged");

    rig.put(0, b"peer to peer");
    let last = (16 << 30) - 12;
    driver.run(&Job::copy(IOVA, 0x10_0000_0000 + last, 12)).unwrap().unwrap();
    let mut bytes = [0; 12];
    peer.read(0, last, &mut bytes).unwrap();
    assert_eq!(&bytes, b"peer to peer");
    driver.run(&Job::copy(0x10_0000_0000 + last, IOVA + 64, 12)).unwrap().unwrap();
    assert_eq!(rig.get(64, 12), b"peer to peer");

    // A peer that does not decode does not answer, and cannot be mapped.
    command(&peer, 0);
    let again = MapDma::new(0x20_0000_0000_u64, bar.first(), 4096, Access::Read);
    assert_eq!(rig.container.map(&rig.process, &again).unwrap_err().errno(), Errno::EFAULT);
    assert!(driver.run(&Job::read(0x10_0000_0000, 1)).unwrap().is_err());
    assert!(matches!(rig.vfio.take_faults().kept[0].cause, FaultCause::MemoryGone { .. }));
    let refused = rig.memory.map(Vaddr(0), &engine, 0).unwrap_err();
    assert!(matches!(refused, NotMemory::Registers { bar: 0, .. }));
    assert!(matches!(
        rig.memory.map(Vaddr(0x6000_0000_1000), &peer, 0),
        Err(NotMemory::NoRoom { .. })
    ));
    assert!(matches!(rig.memory.map(Vaddr(0x123), &peer, 0), Err(NotMemory::Unaligned { .. })));
    assert!(rig.memory.unmap(bar.first()) && !rig.memory.unmap(bar.first()));
    // One that is gone does not answer either.
    let bar = rig.memory.map(bar.first(), &peer, 0).unwrap();
    command(&peer, MEMORY);
    rig.container.map(&rig.process, &again).unwrap();
    drop(peer);
    assert!(rig.memory.read(bar.first(), &mut [0]).is_err());
}

#[test]
fn an_address_is_decoded_where_the_bar_is() {
    let rig = rig(&["peer,size=1M"]);
    let peer = rig.device(0, Pace::Immediate);
    let (_, device) = rig.host.device(&rig.names[0]).unwrap();
    let first = device.pci.bars[&0].range.first().0;
    assert_eq!(peer.decode(first + 0xf_ffff), Some((0, 0xf_ffff)));
    assert_eq!((peer.decode(first + 0x10_0000), peer.decode(first - 1)), (None, None));
    peer.write(CONFIG_REGION, 0x10, &(first + 0x4000_0000).to_le_bytes()).unwrap();
    assert_eq!(peer.decode(first), None);
    assert_eq!(peer.decode(first + 0x4000_0000), Some((0, 0)));
    command(&peer, 0);
    assert_eq!(peer.decode(first + 0x4000_0000), None);
}

#[test]
fn new_devices_have_groups_of_their_own() {
    let rig = rig(&["edu", "peer", "edu,bdf=00:03.0"]);
    let groups: Vec<GroupId> =
        rig.names.iter().map(|name| rig.vfio.group_of(name).unwrap()).collect();
    let before = hosts::find("vtd39").unwrap();
    let highest = before.groups.iter().map(|group| group.number).max().unwrap();
    let expected = [highest + 1, highest + 2].map(GroupId::Numbered);
    assert_eq!(groups[..2], expected);
    // What stands in for a device stays in its group.
    assert_eq!(Some(groups[2]), before.device("0000:00:03.0").map(|(group, _)| group.id()));
    let unknown = rig.host.power_on(&rig.vfio, "0000:00:04.0", Pace::Immediate).unwrap_err();
    assert!(unknown.to_string().contains("has no model"), "{unknown}");
}

#[test]
fn a_model_can_be_placed_on_every_known_host() {
    for host in hosts::known().map(Result::unwrap) {
        let mut with = host.clone();
        let spec: DeviceSpec = "peer,size=64G".parse().unwrap();
        let name = with.add_device(&spec).unwrap_or_else(|error| panic!("{}: {error}", host.name));
        assert!(host.device(&name).is_none(), "{}: {name} was there", host.name);
        let text = vfio_sim::host_file::write(&with);
        let again = vfio_sim::host_file::parse(&host.name, "again", &text).unwrap();
        assert_eq!(again.device(&name).unwrap().1, with.device(&name).unwrap().1);
        for kernel in Kernel::ALL {
            let vfio = with.boot(kernel).unwrap();
            let device = with.power_on(&vfio, &name, Pace::Immediate).unwrap();
            assert_eq!(device.function().ids, (0x1b36, 0x10f1));
        }
    }
}

/// A host of one device, with what is said besides.
fn host_with(rest: &str) -> Host {
    let device = "[[group]]\nnumber = 1\n[[group.device]]\nname = \"0000:00:03.0\"\n";
    let iommu = "[[iommu]]\ndriver = \"vtd\"\naperture = \"0-0x7fffffffff\"\n\
                 page-sizes = 0x40201000\ncoherent = true\nisolated-msi = true\n";
    vfio_sim::host_file::parse("test", "test.toml", &format!("{iommu}{device}{rest}")).unwrap()
}

/// Where the first BAR of a new device is, or why it is nowhere.
fn placed(host: &Host, device: &str) -> Result<(String, u64), String> {
    let mut host = host.clone();
    let name = host.add_device(&device.parse().unwrap()).map_err(|error| error.to_string())?;
    let first = host.device(&name).unwrap().1.pci.bars[&0].range.first().0;
    Ok((name, first))
}

#[test]
fn bars_go_where_there_is_room() {
    let windows = |windows: &str| {
        host_with(&format!("[[host-bridge]]\nbuses = \"00-01\"\nwindows = [{windows}]\n"))
    };
    let address = |host: &Host, device: &str| placed(host, device).map(|(_, address)| address);
    // A window across 4G has room for both widths, each on its side.
    let across = windows("\"0xc0000000-0x4ffffffff\"");
    assert_eq!(address(&across, "edu"), Ok(0xc000_0000));
    assert_eq!(address(&across, "peer,size=1G"), Ok(0x1_0000_0000));
    // 64 bits go below 4G if they have to, and nothing goes to address 0.
    let low = windows("\"0-0xffffff\"");
    assert_eq!(address(&low, "peer,size=1M"), Ok(0x10_0000));
    let refused = address(&low, "peer,size=1G").unwrap_err();
    assert!(refused.contains("no room for BAR 0 of 0000:01:00.0, 0x40000000 bytes"), "{refused}");
    // Clear of ROMs.
    let rom = host_with("bars = { rom = \"0xc0000000+512K\" }\n");
    assert_eq!(address(&rom, "edu"), Ok(0xc010_0000));
}

#[test]
fn slots_are_found_behind_any_host_bridge() {
    let bridges = "[[host-bridge]]\nbuses = \"00\"\n\
                   [[host-bridge]]\nsegment = 2\nbuses = \"10-12\"\n";
    let host = host_with(bridges);
    assert_eq!(placed(&host, "edu").unwrap().0, "0002:11:00.0");
    let refused = placed(&host, "edu,bdf=0001:11:00.0").unwrap_err();
    assert!(refused.starts_with("no host bridge of test leads to 0001:11:00.0"), "{refused}");
    let full = host_with("[[host-bridge]]\nbuses = \"00\"\n");
    assert!(placed(&full, "edu").unwrap_err().contains("no free bus"));
    // What is behind a bridge of another segment is free here.
    let other = "[[group]]\nnumber = 2\n[[group.device]]\nname = \"0001:00:01.0\"\n\
                 driver = \"pcieport\"\nbuses = \"01-ff\"\n";
    assert_eq!(placed(&host_with(other), "EDU".to_lowercase().as_str()).unwrap().0, "0000:01:00.0");
    // A bridge stays one, whether or not its class is known.
    let bridge = placed(&host_with(other), "edu,bdf=0001:00:01.0").unwrap_err();
    assert!(bridge.contains("is a bridge"), "{bridge}");
}

#[test]
fn a_new_device_is_isolated_as_linux_would_isolate_it() {
    let group_of = |device: &str| {
        let mut host = hosts::find("vtd48").unwrap();
        let name = host.add_device(&device.parse().unwrap()).unwrap();
        host.device(&name).unwrap().0.number
    };
    // Behind the conventional bridge of group 3; a second function of a NIC; alone.
    assert_eq!(group_of("edu,bdf=01:03.0"), 3);
    assert_eq!(group_of("edu,bdf=00:04.1"), 2);
    assert_eq!(group_of("edu,bdf=00:0A.0"), 5);
    // Behind the IOMMU of all others, not the display's.
    let mut host = hosts::find("intel-client-39-igd").unwrap();
    let name = host.add_device(&"edu".parse().unwrap()).unwrap();
    let display = host.groups.iter().find(|g| g.devices[0].name == "0000:00:02.0").unwrap();
    assert_ne!(host.device(&name).unwrap().0.kind, display.kind);
}

/// A model that panics when it works.
struct Broken(Function);

impl Model for Broken {
    fn function(&self) -> Function {
        self.0.clone()
    }

    fn read(&mut self, _register: Register) -> u64 {
        0
    }

    fn write(&mut self, _register: Register, _value: u64, _link: &Link<'_>) {}

    fn step(&mut self, _link: &Link<'_>) -> bool {
        panic!("this test's model is meant to panic")
    }

    fn reset(&mut self) {}
}

#[test]
fn a_model_that_panics_keeps_nobody_waiting() {
    let rig = rig(&["edu"]);
    let device = rig.device(0, Pace::Immediate);
    let (_, placed) = rig.host.device(&rig.names[0]).unwrap();
    let bus = rig.vfio.bus_master(&rig.names[0]).unwrap();
    let model = Box::new(Broken(device.function().clone()));
    let broken = PciDevice::new(bus, model, &placed.pci, Pace::Threaded).unwrap();
    broken.write_u32(0, 0, 1).unwrap();
    broken.settle();
}

#[test]
fn a_function_that_cannot_be_is_refused() {
    let rig = rig(&["dma-engine"]);
    let good = rig.device(0, Pace::Immediate).function().clone();
    let refused = |change: &dyn Fn(&mut Function)| {
        let mut function = good.clone();
        change(&mut function);
        let bus = rig.vfio.bus_master(&rig.names[0]).unwrap();
        let (_, placed) = rig.host.device(&rig.names[0]).unwrap();
        let device = PciDevice::new(bus, Box::new(Broken(function)), &placed.pci, Pace::Immediate);
        device.unwrap_err()
    };
    assert_eq!(refused(&|f| f.bars[0].size = 0), BadFunction::BarSize { bar: 0, size: 0 });
    assert_eq!(refused(&|f| f.bars[0].index = 60), BadFunction::BarIndex { bar: 60 });
    assert_eq!(refused(&|f| f.bars[0].index = 2), BadFunction::BarIndex { bar: 2 });
    assert_eq!(refused(&|f| f.msi_vectors = 3), BadFunction::MsiVectors { vectors: 3 });
    assert_eq!(refused(&|f| f.msix_vectors = 2048), BadFunction::MsixVectors { vectors: 2048 });
    assert_eq!(refused(&|f| f.address_bits = 0), BadFunction::AddressBits { bits: 0 });
}
