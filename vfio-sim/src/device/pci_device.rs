// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device as VFIO hands it out: configuration space, regions, interrupts, reset
//! (`drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_rdwr.c`).
//!
//! This file owns the shell around a model: who may access what and when, when its work is done, and
//! the lock. What the registers mean is the model's business.
//!
//! The lock of a device is held while its model takes a register access or does a step. A step does
//! DMA; DMA takes no lock of another device but that of its BAR memory.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::device::bar::BarMemory;
use crate::device::config::ConfigSpace;
use crate::device::interrupts::Interrupts;
use crate::device::link::Link;
use crate::device::model::{BadFunction, BarContent, BarLayout, Function, Model, Register};
use crate::device::own_config;
use crate::device::region::{CONFIG_REGION, RegionError, check_config, registers, within};
use crate::names::pci_bus;
use crate::pci::{BarKind, PciFunction};
use vfio_type1::{BusMaster, Kernel};

/// When a device does the work that its registers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// Before the store that asks for it returns.
    Immediate,
    /// Step by step, when [`PciDevice::step`] is called.
    Stepped,
    /// At the same time, on a thread of its own.
    Threaded,
}

/// A simulated PCI device. Any number of threads may use it.
pub struct PciDevice {
    pub(super) shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    name: String,
    function: Function,
    pace: Pace,
    bus: BusMaster,
    pub(super) interrupts: Interrupts,
    /// Configuration space as it is at first.
    fresh: ConfigSpace,
    /// Whether BARs are offered for mmap.
    mmap: AtomicBool,
    /// By the index of the BAR.
    memory: BTreeMap<u8, Arc<BarMemory>>,
    state: Mutex<State>,
    /// There may be work, or there is none any more.
    changed: Condvar,
}

pub(super) struct State {
    pub(super) config: ConfigSpace,
    model: Box<dyn Model>,
    /// A worker has not found out yet that there is no work.
    busy: bool,
    stop: bool,
}

impl PciDevice {
    /// A device that reaches memory by `bus`, and whose BARs are where `places` says.
    ///
    /// Two shells around one function of a host are two devices, which know nothing of each other.
    pub fn new(
        bus: BusMaster,
        model: Box<dyn Model>,
        places: &PciFunction,
        pace: Pace,
    ) -> Result<Self, BadFunction> {
        let function = model.function();
        function.check()?;
        let name = bus.device().to_owned();
        let number = pci_bus(&name).map_or(0, |(_, bus)| bus);
        let config = ConfigSpace::new(&function, places, number);
        let bus = bus.with_address_bits(function.address_bits);
        bus.set_enabled(config.bus_master());
        let memory = function.bars.iter().filter(|bar| bar.content == BarContent::Memory);
        let memory = memory.map(|bar| (bar.index, Arc::new(BarMemory::new(bar.size)))).collect();
        let fresh = config.clone();
        let state = Mutex::new(State { config, model, busy: false, stop: false });
        let interrupts = Interrupts::new(&function, bus.kernel().behaviours().dynamic_msix);
        let (mmap, changed) = (AtomicBool::new(true), Condvar::new());
        let shared =
            Shared { name, function, pace, bus, interrupts, fresh, mmap, memory, state, changed };
        let shared = Arc::new(shared);
        let worker = (pace == Pace::Threaded).then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work())
        });
        Ok(Self { shared, worker })
    }

    /// Its PCI address.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What it is.
    pub fn function(&self) -> &Function {
        &self.shared.function
    }

    /// The file descriptors that its model keeps open.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.shared.lock().model.descriptors()
    }

    /// The size of a region in bytes: a BAR, 0 to 5, or [`CONFIG_REGION`]; 0 if it is not there.
    pub fn region_size(&self, region: u8) -> u64 {
        match region {
            CONFIG_REGION => self.shared.lock().config.bytes().len() as u64,
            bar => self.shared.bar(bar).map_or(0, |bar| bar.size),
        }
    }

    /// The kernel whose VFIO hands it out.
    pub fn kernel(&self) -> &Kernel {
        self.shared.bus.kernel()
    }

    /// Sets whether BARs are offered for `mmap`, as they are at first. A VMM with KVM makes memory slots
    /// of what it can map, and there is nothing behind registers.
    pub fn set_mmap(&self, mmap: bool) {
        self.shared.mmap.store(mmap, Ordering::Relaxed);
    }

    /// Whether a region can be mapped: a BAR of memory with a page of 4 KiB or more.
    pub fn can_mmap(&self, region: u8) -> bool {
        let maps = |bar: &BarLayout| bar.kind != BarKind::Io && bar.size >= 4096;
        self.shared.mmap.load(Ordering::Relaxed) && self.shared.bar(region).is_some_and(maps)
    }

    /// Reads a region, as `pread` on a device's file does, and returns how many bytes were read: fewer
    /// at the end of a BAR. The MSI-X table, which is the kernel's, reads as all ones.
    pub fn read(&self, region: u8, offset: u64, into: &mut [u8]) -> Result<usize, RegionError> {
        if into.is_empty() {
            return Ok(0);
        }
        if region == CONFIG_REGION {
            let state = self.shared.lock();
            let from = check_config(&state.config, offset, into.len())?;
            into.copy_from_slice(&state.config.bytes()[from..from + into.len()]);
            own_config::read(&*state.model, from, into);
            return Ok(into.len());
        }
        let bar = self.shared.bar_for(region, offset)?;
        let length = within(&bar, offset, into.len());
        let into = &mut into[..length];
        let mut state = self.shared.decoding(&bar)?;
        match bar.content {
            BarContent::MsixTable => {
                // Behind the table nothing is pending, ever.
                let table = self.shared.function.msix_table_size().saturating_sub(offset);
                let table = usize::try_from(table).map_or(length, |table| table.min(length));
                into[..table].fill(0xff);
                into[table..].fill(0);
            }
            BarContent::Memory => {
                let _ = self.shared.memory[&region].read(offset, into);
            }
            BarContent::Registers => {
                for (register, part) in registers(region, offset, length) {
                    let value = state.model.read(register).to_le_bytes();
                    let part = &mut into[part..][..usize::from(register.size)];
                    part.copy_from_slice(&value[..part.len()]);
                }
            }
        }
        Ok(length)
    }

    /// Writes a region, as `pwrite` on a device's file does, and returns how many bytes were written:
    /// fewer at the end of a BAR. What is written to the MSI-X table, which is the kernel's, is dropped.
    pub fn write(&self, region: u8, offset: u64, bytes: &[u8]) -> Result<usize, RegionError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if region == CONFIG_REGION {
            return self.write_config(offset, bytes);
        }
        let bar = self.shared.bar_for(region, offset)?;
        let length = within(&bar, offset, bytes.len());
        let mut state = self.shared.decoding(&bar)?;
        match bar.content {
            BarContent::MsixTable => {}
            BarContent::Memory => {
                let _ = self.shared.memory[&region].write(offset, &bytes[..length]);
            }
            BarContent::Registers => {
                for (register, part) in registers(region, offset, length) {
                    let mut value = [0; 8];
                    let part = &bytes[part..][..usize::from(register.size)];
                    value[..part.len()].copy_from_slice(part);
                    self.shared.store(&mut state, register, u64::from_le_bytes(value));
                }
            }
        }
        Ok(length)
    }

    fn write_config(&self, offset: u64, bytes: &[u8]) -> Result<usize, RegionError> {
        let mut state = self.shared.lock();
        let from = check_config(&state.config, offset, bytes.len())?;
        let was_disabled = state.config.line_disabled();
        let reset = state.config.write(from, bytes);
        if was_disabled && !state.config.line_disabled() {
            self.shared.interrupts.unmask_line();
        }
        own_config::write(&mut *state.model, from, bytes);
        self.shared.configured(&state);
        if reset {
            self.shared.reset(&mut state);
        }
        self.shared.update_interrupts(&mut state);
        Ok(bytes.len())
    }

    fn read_register<const N: usize>(&self, bar: u8, offset: u64) -> Result<[u8; N], RegionError> {
        let mut bytes = [0; N];
        self.shared.check_inside(bar, offset, N)?;
        self.read(bar, offset, &mut bytes).map(|_| bytes)
    }

    fn write_register(&self, bar: u8, offset: u64, bytes: &[u8]) -> Result<(), RegionError> {
        self.shared.check_inside(bar, offset, bytes.len())?;
        self.write(bar, offset, bytes).map(|_| ())
    }

    /// Reads a register of 32 bits, all of which must be inside the BAR.
    pub fn read_u32(&self, bar: u8, offset: u64) -> Result<u32, RegionError> {
        self.read_register(bar, offset).map(u32::from_le_bytes)
    }

    /// Reads a register of 64 bits, all of which must be inside the BAR.
    pub fn read_u64(&self, bar: u8, offset: u64) -> Result<u64, RegionError> {
        self.read_register(bar, offset).map(u64::from_le_bytes)
    }

    /// Writes a register of 32 bits, all of which must be inside the BAR.
    pub fn write_u32(&self, bar: u8, offset: u64, value: u32) -> Result<(), RegionError> {
        self.write_register(bar, offset, &value.to_le_bytes())
    }

    /// Writes a register of 64 bits, all of which must be inside the BAR.
    pub fn write_u64(&self, bar: u8, offset: u64, value: u64) -> Result<(), RegionError> {
        self.write_register(bar, offset, &value.to_le_bytes())
    }

    /// The BAR that decodes a bus address now, and the offset in it.
    pub fn decode(&self, address: u64) -> Option<(u8, u64)> {
        let state = self.shared.lock();
        self.shared.function.bars.iter().find_map(|bar| {
            let memory = bar.kind != BarKind::Io && state.config.decodes(bar.kind);
            let offset = address.checked_sub(state.config.bar_address(bar))?;
            (memory && offset < bar.size).then_some((bar.index, offset))
        })
    }

    /// The memory behind a BAR, if there is memory behind it.
    pub fn bar_memory(&self, bar: u8) -> Option<Arc<BarMemory>> {
        self.shared.memory.get(&bar).cloned()
    }

    /// Does the next piece of work, whatever the pace; false if there was none.
    pub fn step(&self) -> bool {
        self.shared.step(&mut self.shared.lock())
    }

    /// Lets the device finish its work: steps it, or waits for its thread.
    pub fn settle(&self) {
        if self.worker.is_none() {
            while self.step() {}
            return;
        }
        let mut state = self.shared.lock();
        while state.busy {
            state = self.shared.wait(state);
        }
    }

    /// Whether the device can be reset by itself: by function level reset, which PCI Express has.
    pub fn can_be_reset(&self) -> bool {
        self.shared.function.express
    }

    /// Resets the device (`VFIO_DEVICE_RESET`). Like the kernel's reset it leaves configuration space as
    /// it was. Memory behind BARs keeps its contents.
    pub fn reset(&self) {
        self.shared.reset(&mut self.shared.lock());
    }

    /// Forgets what its owner set up, as when the device's file is closed for the last time: interrupts are
    /// off, the device is reset, and configuration space is as it was at first, with bus mastering off.
    pub fn release(&self) {
        self.shared.interrupts.turn_off();
        let mut state = self.shared.lock();
        state.config = self.shared.fresh.clone();
        self.shared.configured(&state);
        self.shared.reset(&mut state);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A model that panicked may be in any state, as a device that hangs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> Link<'_> {
        Link { bus: &self.bus, interrupts: &self.interrupts }
    }

    fn bar(&self, index: u8) -> Option<&BarLayout> {
        self.function.bars.iter().find(|bar| bar.index == index)
    }

    /// The BAR, if the offset is in it.
    fn bar_for(&self, region: u8, offset: u64) -> Result<BarLayout, RegionError> {
        let bar = *self.bar(region).ok_or(RegionError::NoRegion { region })?;
        let size = bar.size;
        if offset >= size {
            return Err(RegionError::PastTheEnd { region, offset, size });
        }
        Ok(bar)
    }

    /// Whether all of an access is inside the BAR.
    fn check_inside(&self, region: u8, offset: u64, length: usize) -> Result<(), RegionError> {
        let bar = self.bar_for(region, offset)?;
        match within(&bar, offset, length) == length {
            true => Ok(()),
            false => Err(RegionError::PastTheEnd { region, offset, size: bar.size }),
        }
    }

    /// Locks the device if the BAR decodes.
    fn decoding(&self, bar: &BarLayout) -> Result<MutexGuard<'_, State>, RegionError> {
        let state = self.lock();
        // VFIO looks at the bit for memory only.
        if bar.kind != BarKind::Io && !state.config.decodes(bar.kind) {
            return Err(RegionError::NotDecoding { region: bar.index });
        }
        Ok(state)
    }

    fn store(&self, state: &mut State, register: Register, value: u64) {
        state.model.write(register, value, &self.link());
        match self.pace {
            Pace::Immediate => while self.step(state) {},
            Pace::Stepped => {}
            Pace::Threaded => {
                state.busy = true;
                self.changed.notify_all();
            }
        }
        self.update_interrupts(state);
    }

    fn step(&self, state: &mut State) -> bool {
        let worked = state.model.step(&self.link());
        self.update_interrupts(state);
        worked
    }

    /// Shows in configuration space what is on and what is wanted, and moves the interrupt line.
    pub(super) fn update_interrupts(&self, state: &mut State) {
        state.config.show_messages(self.interrupts.on());
        let wanted = state.model.interrupt_line();
        let may_fire = state.config.show_interrupt(wanted);
        self.interrupts.set_line(wanted && may_fire);
    }

    /// Lets happen what configuration space says.
    fn configured(&self, state: &State) {
        self.bus.set_enabled(state.config.bus_master());
        for bar in &self.function.bars {
            if let Some(memory) = self.memory.get(&bar.index) {
                memory.set_decodes(state.config.decodes(bar.kind));
            }
        }
    }

    fn reset(&self, state: &mut State) {
        state.model.reset();
        self.update_interrupts(state);
    }

    /// What the thread of a device does.
    fn work(&self) {
        // Dropped after the lock: if the model panics, nobody shall wait for its end.
        let _stopped = Stopped(self);
        let mut state = self.lock();
        while !state.stop {
            if state.busy && self.step(&mut state) {
                // Others may want to look at the device between two steps.
                drop(state);
                thread::yield_now();
                state = self.lock();
                continue;
            }
            state.busy = false;
            self.changed.notify_all();
            state = self.wait(state);
        }
    }
}

/// The end of a device's thread.
struct Stopped<'a>(&'a Shared);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
        self.0.changed.notify_all();
    }
}

impl Drop for PciDevice {
    fn drop(&mut self) {
        self.shared.memory.values().for_each(|memory| memory.set_decodes(false));
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take() {
            // A model that panicked has said so already.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for PciDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciDevice")
            .field("name", &self.shared.name)
            .field("function", &self.shared.function)
            .field("pace", &self.shared.pace)
            .finish_non_exhaustive()
    }
}
