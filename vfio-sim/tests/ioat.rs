// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the IOAT model does what drivers of Intel's DMA engine expect of its registers, descriptors,
//! completions, interrupts and errors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::sync::Arc;

use vfio_sim::device::ioat::{Descriptor, REGISTERS_BAR, State, register as reg};
use vfio_sim::device::{CONFIG_REGION, DeviceSpec, IrqIndex, Pace, PciDevice};
use vfio_sim::hosts;
use vfio_type1::{
    Access, Container, Kernel, MapDma, Memory as _, ModelMemory, OpenGroup, Process, Vaddr,
    VaddrRange, Vfio, extension,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Memory of the process, and where it is mapped.
const RAM: u64 = 0x7000_0000_0000;
const RAM_SIZE: u64 = 4 << 20;
const IOVA: u64 = 0x100_0000;
/// What is where in it.
const RING: u64 = IOVA;
const STATUS: u64 = IOVA + 0x1_0000;
const SOURCE: u64 = IOVA + 0x10_0000;
const TARGET: u64 = IOVA + 0x20_0000;
const NOWHERE: u64 = 0x10;

/// A driver, and all it runs on.
struct Driver {
    device: PciDevice,
    memory: Arc<ModelMemory>,
    _vfio: Vfio,
    _container: Container,
    _group: OpenGroup,
}

impl Driver {
    fn new(spec: &str, pace: Pace) -> Self {
        let mut host = hosts::find("vtd48").unwrap();
        let name = host.add_device(&spec.parse::<DeviceSpec>().unwrap()).unwrap();
        let vfio = host.boot(Kernel::NEWEST).unwrap();
        let device = host.power_on(&vfio, &name, pace).unwrap();
        let memory = Arc::new(ModelMemory::new());
        memory.add(VaddrRange::from_size(Vaddr(RAM), RAM_SIZE).unwrap(), true).unwrap();
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let container = vfio.open_container();
        let group = vfio.open_group(vfio.group_of(&name).unwrap(), &process).unwrap();
        group.set_container(&container, &process).unwrap();
        container.set_iommu(&process, extension::TYPE1V2).unwrap();
        container.map(&process, &MapDma::new(IOVA, RAM, RAM_SIZE, Access::ReadWrite)).unwrap();
        device.write(CONFIG_REGION, 4, &[0x06, 0x04]).unwrap();
        let driver = Self { device, memory, _vfio: vfio, _container: container, _group: group };
        driver.write(reg::CHANCMP, 8, STATUS);
        driver.write(reg::CHAINADDR, 8, RING);
        driver
    }

    fn read(&self, offset: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.device.read(REGISTERS_BAR, offset, &mut bytes[..size]).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn write(&self, offset: u64, size: usize, value: u64) {
        self.device.write(REGISTERS_BAR, offset, &value.to_le_bytes()[..size]).unwrap();
    }

    fn config(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(CONFIG_REGION, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn get(&self, iova: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read(Vaddr(iova - IOVA + RAM), &mut bytes).unwrap();
        bytes
    }

    fn put(&self, iova: u64, bytes: &[u8]) {
        self.memory.write(Vaddr(iova - IOVA + RAM), bytes).unwrap();
    }

    /// Puts descriptors into the ring from a place on, each pointing to the one behind it.
    fn fill_ring(&self, from: u64, descriptors: &[Descriptor]) {
        for (place, descriptor) in (from..).zip(descriptors) {
            let at = RING + 64 * place;
            self.put(at, &Descriptor { next: at + 64, ..*descriptor }.to_bytes());
        }
    }

    fn run(&self, descriptors: &[Descriptor]) -> (State, u64) {
        self.fill_ring(0, descriptors);
        self.write(reg::DMACOUNT, 2, descriptors.len() as u64);
        self.state()
    }

    fn state(&self) -> (State, u64) {
        state_of(self.read(reg::CHANSTS, 8))
    }

    /// What was written when a descriptor asked for it.
    fn completion(&self) -> (State, u64) {
        state_of(u64::from_le_bytes(self.get(STATUS, 8).try_into().unwrap()))
    }

    fn restart(&self, chain: u64) {
        self.write(reg::CHANERR, 4, self.read(reg::CHANERR, 4));
        self.write(reg::CHANCMD, 1, reg::CHANCMD_RESET.into());
        self.write(reg::CHAINADDR, 8, chain);
    }

    fn msix(&self) -> EventFd {
        let ours = EventFd::new(EFD_NONBLOCK).unwrap();
        let theirs = ours.try_clone().unwrap();
        self.device.set_irqs(IrqIndex::Msix, vec![Some(theirs)]).unwrap();
        ours
    }
}

fn state_of(status: u64) -> (State, u64) {
    let states = [State::Active, State::Done, State::Suspended, State::Halted, State::Armed];
    let state = states.into_iter().find(|state| *state as u64 == status & 7).unwrap();
    (state, status & !7)
}

fn with(bits: u32, descriptor: Descriptor) -> Descriptor {
    Descriptor { control: descriptor.control | bits, ..descriptor }
}

fn copy(size: u32) -> Descriptor {
    Descriptor::copy(SOURCE, TARGET, size)
}

#[test]
fn an_engine_says_what_it_is() {
    let driver = Driver::new("ioat,version=0x34,xfercap=20", Pace::Immediate);
    assert_eq!(driver.config(0), 0x2021_8086);
    assert_eq!(driver.read(reg::CHANCNT, 1), 1);
    assert_eq!(driver.read(reg::XFERCAP, 1), 20);
    assert_eq!(driver.read(reg::CBVER, 1), 0x34);
    assert_eq!(driver.read(reg::DMACAPABILITY, 4), u64::from(reg::CAPABILITY_FILL));
    assert_eq!(driver.device.region_size(CONFIG_REGION), 4096);
    assert_eq!(driver.device.irq_count(IrqIndex::Msix), 1);
    // What cannot be written is not.
    driver.write(reg::CHANCNT, 2, 0xffff);
    driver.write(reg::CBVER, 8, u64::MAX);
    driver.write(0x3ff8, 8, u64::MAX);
    assert_eq!((driver.read(0, 2), driver.read(reg::CBVER, 8)), (20 << 8 | 1, 0x34));
    assert_eq!(driver.read(0x3ff8, 8), 0);
}

#[test]
fn a_channel_is_halted_until_it_has_a_chain() {
    let driver = Driver::new("ioat", Pace::Immediate);
    driver.restart(RING);
    assert_eq!(driver.read(reg::CHANCMD, 1), 0, "reset clears itself");
    assert_eq!(driver.read(reg::CHANSTS, 8), State::Armed as u64);
    driver.write(reg::CHANCMD, 1, reg::CHANCMD_RESET.into());
    assert_eq!(driver.state(), (State::Halted, 0));
    driver.write(reg::DMACOUNT, 2, 1);
    assert_eq!(driver.state(), (State::Halted, 0));
    driver.write(reg::CHANCMD, 1, reg::CHANCMD_SUSPEND.into());
    assert_eq!(driver.state(), (State::Halted, 0));
    // The function's reset forgets more than the channel's.
    assert_eq!(driver.read(reg::CHANCMP, 8), STATUS);
    driver.device.reset();
    assert_eq!((driver.read(reg::CHANCMP, 8), driver.state()), (0, (State::Halted, 0)));
}

#[test]
fn chains_copy_and_fill() {
    let driver = Driver::new("ioat,xfercap=20", Pace::Immediate);
    let text: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    driver.put(SOURCE, &text);
    let pattern = 0x8877_6655_4433_2211;
    let done = driver.run(&[
        copy(200_000),
        Descriptor::copy(SOURCE + 1, TARGET + 7, 5),
        with(Descriptor::NULL, Descriptor::copy(NOWHERE, NOWHERE, 0)),
        Descriptor::fill(pattern, TARGET + 0x5_0001, 11),
        with(Descriptor::COMPLETION, Descriptor::fill(pattern, TARGET + 0x6_0000, 150_001)),
    ]);
    assert_eq!(done, (State::Done, RING + 4 * 64));
    assert_eq!(driver.completion(), done);
    assert_eq!(driver.read(reg::CDAR, 8), RING + 4 * 64);
    assert_eq!(driver.get(TARGET, 7), text[..7]);
    assert_eq!(driver.get(TARGET + 7, 5), text[1..6]);
    assert_eq!(driver.get(TARGET + 12, 200_000 - 12), text[12..]);
    let bytes = pattern.to_le_bytes();
    let around = driver.get(TARGET + 0x5_0000, 13);
    assert_eq!(around, [&[0], &bytes[..], &bytes[..3], &[0]].concat());
    let long = driver.get(TARGET + 0x6_0000, 150_002);
    assert!(long.iter().zip(bytes.iter().cycle()).take(150_001).all(|(is, want)| is == want));
    assert_eq!(long[150_001], 0);
}

#[test]
fn the_count_runs_on_past_its_end() {
    let driver = Driver::new("ioat", Pace::Immediate);
    // A ring of four; each goes round once for four counts.
    let ring = |place: u64| Descriptor { next: RING + 64 * ((place + 1) % 4), ..copy(8) };
    (0..4).for_each(|place| driver.put(RING + 64 * place, &ring(place).to_bytes()));
    let mut total = 0_u64;
    for more in [1, 3, 2, 65_529, 1, 1, 4] {
        total += more;
        driver.write(reg::DMACOUNT, 2, total & 0xffff);
        assert_eq!(driver.state(), (State::Done, RING + 64 * ((total - 1) % 4)), "{total}");
    }
    assert_eq!(driver.read(reg::DMACOUNT, 2), total & 0xffff);
    // Nothing new is nothing to do.
    driver.write(reg::DMACOUNT, 2, total & 0xffff);
    assert_eq!(driver.state().1, RING + 64 * ((total - 1) % 4));
}

#[test]
fn a_descriptor_that_points_to_itself_is_done_again() {
    let driver = Driver::new("ioat", Pace::Stepped);
    driver.put(RING, &Descriptor { next: RING, ..copy(16) }.to_bytes());
    driver.write(reg::DMACOUNT, 2, 65_535);
    let mut steps = 0;
    while driver.device.step() {
        steps += 1;
        driver.put(SOURCE, &u64::to_le_bytes(steps));
    }
    assert_eq!((steps, driver.state()), (65_535, (State::Done, RING)));
    assert_eq!(driver.get(TARGET, 8), 65_534_u64.to_le_bytes());
}

#[test]
fn a_channel_can_be_suspended_and_goes_on() {
    let driver = Driver::new("ioat", Pace::Stepped);
    driver.put(SOURCE, b"12345678");
    let place = |at: u64| Descriptor::copy(SOURCE + at, TARGET + at, 1);
    driver.fill_ring(0, &[0, 1, 2, 3].map(place));
    driver.write(reg::DMACOUNT, 2, 4);
    assert_eq!(driver.state(), (State::Active, 0));
    assert!(driver.device.step());
    driver.write(reg::CHANCMD, 1, reg::CHANCMD_SUSPEND.into());
    assert_eq!(driver.state(), (State::Suspended, RING));
    assert!(!driver.device.step());
    assert_eq!(driver.get(TARGET, 2), b"1\0");
    driver.write(reg::DMACOUNT, 2, 3);
    driver.device.settle();
    assert_eq!(
        (driver.state(), driver.get(TARGET, 4)),
        ((State::Done, RING + 128), b"123\0".into())
    );
    // What is not done yet can be taken back.
    driver.write(reg::DMACOUNT, 2, 4);
    driver.write(reg::DMACOUNT, 2, 3);
    assert!(!driver.device.step());
    // A suspended channel takes a new chain, and counts from 0.
    driver.write(reg::CHANCMD, 1, reg::CHANCMD_SUSPEND.into());
    driver.write(reg::CHAINADDR, 8, RING + 192);
    assert_eq!(driver.state(), (State::Armed, 0));
    driver.write(reg::DMACOUNT, 2, 1);
    driver.device.settle();
    assert_eq!(driver.get(TARGET, 4), b"1234");
}

#[test]
fn registers_take_accesses_of_any_size() {
    let driver = Driver::new("ioat", Pace::Immediate);
    driver.put(RING, &copy(8).to_bytes());
    // Drivers of 32-bit machines write halves.
    driver.write(reg::CHAINADDR, 4, 0xffff_ffc0);
    driver.write(reg::CHAINADDR + 4, 4, 1);
    assert_eq!(driver.read(reg::CHAINADDR, 8), 0x1_ffff_ffc0);
    driver.write(reg::CHAINADDR + 4, 4, 0);
    driver.write(reg::CHAINADDR, 4, RING);
    // Command and count at once.
    driver.write(reg::CHANCMD, 4, 1 << 16);
    assert_eq!(driver.state(), (State::Done, RING));
    assert_eq!(driver.read(reg::CHANSTS + 1, 1), RING >> 8 & 0xff);
    driver.write(reg::CHANCTRL, 2, 0xf31c);
    driver.write(reg::CHANCTRL + 1, 1, 0x21);
    assert_eq!(driver.read(reg::CHANCTRL, 2), 0x211c);
    assert_eq!(driver.read(reg::DMACOUNT, 2), 1);
    driver.write(reg::GENCTRL, 1, 1);
    assert_eq!(driver.read(reg::CHANCNT, 4), 0x0001_1001);
}

#[test]
fn interrupts_are_sent_once_until_the_channel_is_armed_again() {
    let driver = Driver::new("ioat", Pace::Immediate);
    let told = driver.msix();
    let told = || told.read().unwrap_or(0);
    let descriptors = [copy(8), with(Descriptor::INTERRUPT, copy(8)), copy(8)];
    driver.run(&descriptors);
    assert_eq!(told(), 0, "INTRCTRL lets none out");
    let rearm = || driver.write(reg::CHANCTRL, 2, reg::CHANCTRL_REARM.into());
    for bit in [reg::INTRCTRL_MASTER, reg::INTRCTRL_MSIX] {
        driver.write(reg::INTRCTRL, 1, bit.into());
        rearm();
        assert_eq!(driver.read(reg::ATTNSTATUS, 4), 0);
        driver.write(reg::CHAINADDR, 8, RING);
        driver.run(&descriptors);
        assert_eq!((told(), driver.read(reg::ATTNSTATUS, 4)), (1, 1));
        assert_eq!(driver.read(reg::CHANCTRL, 2), u64::from(reg::CHANCTRL_REARM));
        // Two more are one, and wait.
        for _ in 0..2 {
            driver.write(reg::CHAINADDR, 8, RING);
            driver.run(&descriptors);
        }
        assert_eq!(told(), 0);
        rearm();
        assert_eq!(told(), 1);
        rearm();
        assert_eq!(told(), 0);
    }
    driver.write(reg::INTRCTRL, 1, 0xff);
    assert_eq!(driver.read(reg::INTRCTRL, 1), 0x09);
    driver.write(reg::CHAINADDR, 8, RING);
    driver.run(&descriptors);
    assert_eq!(driver.read(reg::INTRCTRL, 1), 0x0f);
}

#[test]
fn errors_halt_the_channel_and_say_what_went_wrong() {
    let unknown = Descriptor { control: 0x87 << 24, ..copy(8) };
    let wraps = Descriptor::copy(u64::MAX - 3, TARGET, 8);
    for (error, bad) in [
        (reg::ERROR_SOURCE, Descriptor::copy(NOWHERE, TARGET, 8)),
        (reg::ERROR_SOURCE, Descriptor::copy(IOVA + RAM_SIZE - 4, TARGET, 8)),
        (reg::ERROR_SOURCE, wraps),
        (reg::ERROR_DESTINATION, Descriptor::copy(SOURCE, NOWHERE, 8)),
        (reg::ERROR_DESTINATION, Descriptor::fill(0, NOWHERE, 8)),
        (reg::ERROR_CONTROL, unknown),
        (reg::ERROR_CONTROL, with(Descriptor::NULL, unknown)),
        (reg::ERROR_LENGTH, copy(0)),
        (reg::ERROR_LENGTH, copy((64 << 10) + 1)),
        (reg::ERROR_LENGTH, Descriptor::fill(0, TARGET, u32::MAX)),
    ] {
        let driver = Driver::new("ioat", Pace::Immediate);
        let good = with(Descriptor::COMPLETION, copy(8));
        assert_eq!(driver.run(&[good, bad, good]), (State::Halted, RING), "{bad:x?}");
        assert_eq!(driver.read(reg::CHANERR, 4), u64::from(error), "{bad:x?}");
        assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), error);
        assert_eq!(driver.read(reg::CDAR, 8), RING + 64);
        assert_eq!(driver.completion(), (State::Active, RING), "nobody asked for it");
        // Until the error is cleared nothing starts.
        driver.write(reg::DMACOUNT, 2, 3);
        driver.write(reg::CHAINADDR, 8, RING + 128);
        driver.write(reg::DMACOUNT, 2, 1);
        assert_eq!(driver.state(), (State::Halted, RING));
        driver.restart(RING + 128);
        driver.write(reg::DMACOUNT, 2, 1);
        assert_eq!(driver.completion(), (State::Done, RING + 128));
    }
}

#[test]
fn chains_that_lead_nowhere_halt_the_channel() {
    let halts = |error: u32, act: &dyn Fn(&Driver)| {
        let driver = Driver::new("ioat", Pace::Immediate);
        act(&driver);
        assert_eq!(driver.state().0, State::Halted);
        assert_eq!(driver.read(reg::CHANERR, 4), u64::from(error));
    };
    halts(reg::ERROR_CHAIN, &|driver| driver.write(reg::CHAINADDR, 8, RING + 32));
    let points_to = |next: u64| {
        move |driver: &Driver| {
            driver.put(RING, &Descriptor { next, ..copy(8) }.to_bytes());
            driver.write(reg::DMACOUNT, 2, 2);
        }
    };
    halts(reg::ERROR_NEXT, &points_to(0));
    halts(reg::ERROR_NEXT, &points_to(!63));
    halts(reg::ERROR_NEXT_ALIGNMENT, &points_to(RING + 8));
    halts(reg::ERROR_COMPLETION, &|driver| {
        driver.write(reg::CHANCMP, 8, NOWHERE);
        driver.run(&[with(Descriptor::COMPLETION, copy(8)), copy(8)]);
        assert_eq!(driver.state().1, RING, "the descriptor itself was done");
    });
    // Without bus mastering no descriptor can be read.
    halts(reg::ERROR_NEXT, &|driver| {
        driver.device.write(CONFIG_REGION, 4, &[0x02]).unwrap();
        driver.run(&[copy(8)]);
    });
}

#[test]
fn errors_are_told_as_the_driver_asks() {
    let bad = Descriptor::copy(NOWHERE, TARGET, 8);
    let driver = Driver::new("ioat", Pace::Immediate);
    let told = driver.msix();
    driver.write(reg::INTRCTRL, 1, reg::INTRCTRL_MSIX.into());
    let asks = reg::CHANCTRL_ERROR_COMPLETION | reg::CHANCTRL_ERROR_INTERRUPT;
    driver.write(reg::CHANCTRL, 2, (asks | reg::CHANCTRL_REARM).into());
    driver.run(&[copy(8), bad]);
    assert_eq!(driver.completion(), (State::Halted, RING));
    assert_eq!(told.read().unwrap(), 1);
    // Behind a reset there is no descriptor that was done.
    driver.restart(RING + 64);
    driver.write(reg::CHANCTRL, 2, (asks | reg::CHANCTRL_REARM).into());
    driver.write(reg::DMACOUNT, 2, 1);
    assert_eq!(driver.completion(), (State::Halted, 0));
    assert_eq!(told.read().unwrap(), 1);
    // A masked error halts, and is told nobody.
    driver.device.write(CONFIG_REGION, reg::CONFIG_CHANERR_INT, &[0xff; 4]).unwrap();
    driver.write(reg::CHANERRMSK, 4, reg::ERROR_SOURCE.into());
    driver.restart(RING + 64);
    driver.write(reg::CHANCTRL, 2, (asks | reg::CHANCTRL_REARM).into());
    driver.write(reg::DMACOUNT, 2, 1);
    assert_eq!(driver.state().0, State::Halted);
    assert_eq!(driver.read(reg::CHANERR, 8), u64::from(reg::ERROR_SOURCE) << 32 | 1);
    assert!(told.read().is_err());
    assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), 0);
}

#[test]
fn errors_in_configuration_space_are_cleared_by_ones() {
    let driver = Driver::new("ioat", Pace::Immediate);
    driver.run(&[Descriptor::copy(NOWHERE, TARGET, 8)]);
    driver.restart(RING);
    driver.run(&[copy(0)]);
    let both = reg::ERROR_SOURCE | reg::ERROR_LENGTH;
    assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), both);
    let write = |offset, bytes: &[u8]| driver.device.write(CONFIG_REGION, offset, bytes).unwrap();
    write(reg::CONFIG_CHANERR_INT + 1, &[0xff]);
    assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), reg::ERROR_SOURCE);
    write(reg::CONFIG_CHANERR_INT, &[0; 4]);
    assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), reg::ERROR_SOURCE);
    write(reg::CONFIG_CHANERR_INT, &reg::ERROR_SOURCE.to_le_bytes());
    assert_eq!(driver.config(reg::CONFIG_CHANERR_INT), 0);
    write(reg::CONFIG_CHANERRMSK_INT, &[0x21, 0x43]);
    write(reg::CONFIG_CHANERRMSK_INT + 1, &[0x65]);
    assert_eq!(driver.config(reg::CONFIG_CHANERRMSK_INT), 0x6521);
    write(reg::CONFIG_DMAUNCERRSTS, &[0xff; 4]);
    assert_eq!(driver.config(reg::CONFIG_DMAUNCERRSTS), 0);
    // Elsewhere nothing is kept.
    write(0x188, &[0xff; 4]);
    assert_eq!(driver.config(0x188), 0);
}

#[test]
fn an_engine_works_on_a_thread_too() {
    let driver = Driver::new("ioat", Pace::Threaded);
    driver.put(SOURCE, b"by thread");
    driver.run(&[copy(9)]);
    driver.device.settle();
    assert_eq!((driver.state(), driver.get(TARGET, 9)), ((State::Done, RING), b"by thread".into()));
}

#[test]
fn whatever_a_program_writes_the_engine_goes_on() {
    const OFFSETS: [u64; 9] = [0, 0x78, 0x80, 0x84, 0x86, 0x88, 0x90, 0x98, 0xa8];
    let driver = Driver::new("ioat,xfercap=12", Pace::Stepped);
    let mut seed = 1_u64;
    let mut random = || {
        // Xorshift, as Marsaglia gives it for 64 bits.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed, usize::try_from(seed).unwrap())
    };
    let mut done = 0;
    for _ in 0..3000 {
        // A descriptor that is sound but for a bit.
        let sound = with(Descriptor::COMPLETION, Descriptor { next: RING, ..copy(64) });
        let mut bytes = sound.to_bytes();
        bytes[random().1 % 64] ^= 1 << (random().0 % 8);
        driver.put(RING, &bytes);
        driver.write(reg::CHANCMP, 8, STATUS);
        driver.write(OFFSETS[random().1 % OFFSETS.len()], 1 << (random().0 % 4), random().0);
        driver.restart(RING);
        driver.write(reg::DMACOUNT, 2, random().0);
        done += (0..4).filter(|_| driver.device.step()).count();
    }
    assert!(done > 5000, "most descriptors were bad: {done} were not");
    driver.device.reset();
    driver.write(reg::CHANCMP, 8, STATUS);
    driver.write(reg::CHAINADDR, 8, RING);
    driver.run(&[with(Descriptor::COMPLETION, copy(8))]);
    driver.device.settle();
    assert_eq!(driver.completion(), (State::Done, RING));
}
