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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vfio_type1::{BusMaster, Errno};
use vmm_sys_util::eventfd::EventFd;

use crate::device::bar::BarMemory;
use crate::device::config::ConfigSpace;
use crate::device::interrupts::{Interrupts, IrqError, IrqIndex};
use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register};
use crate::names::pci_bus;
use crate::pci::{BarKind, PciFunction};

/// The region of the configuration space (`VFIO_PCI_CONFIG_REGION_INDEX`). Regions 0 to 5 are the BARs.
pub const CONFIG_REGION: u8 = 7;

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

/// A region access that VFIO refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The device does not have the region. EINVAL.
    #[error("the device has no region {region}")]
    NoRegion {
        /// The region's index.
        region: u8,
    },
    /// The access begins past the region's end. EINVAL.
    #[error("offset {offset:#x} is past the end of region {region}, which has {size:#x} bytes")]
    PastTheEnd {
        /// The region's index.
        region: u8,
        /// Where the access begins.
        offset: u64,
        /// The region's size in bytes.
        size: u64,
    },
    /// The access to configuration space is not all inside. EFAULT.
    #[error("{length} bytes at {offset:#x} run past the configuration space, {size:#x} bytes")]
    PastConfiguration {
        /// Where the access begins.
        offset: u64,
        /// How many bytes it has.
        length: usize,
        /// The size of the configuration space in bytes.
        size: u64,
    },
    /// The command register has the BAR's decoding turned off. EIO.
    #[error("region {region} does not decode; set bit {bit} of the command register")]
    NotDecoding {
        /// The region's index.
        region: u8,
        /// The bit of the command register: 0 for I/O, 1 for memory.
        bit: u8,
    },
}

impl RegionError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoRegion { .. } | Self::PastTheEnd { .. } => Errno::EINVAL,
            Self::PastConfiguration { .. } => Errno::EFAULT,
            Self::NotDecoding { .. } => Errno::EIO,
        }
    }
}

/// A simulated PCI device. Any number of threads may use it.
pub struct PciDevice {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    function: Function,
    pace: Pace,
    bus: BusMaster,
    interrupts: Interrupts,
    /// By the index of the BAR.
    memory: BTreeMap<u8, Arc<BarMemory>>,
    state: Mutex<State>,
    /// There may be work, or there is none any more.
    changed: Condvar,
}

struct State {
    config: ConfigSpace,
    model: Box<dyn Model>,
    /// A worker has not found out yet that there is no work.
    busy: bool,
    stop: bool,
}

impl PciDevice {
    /// A device that reaches memory by `bus`, and whose BARs are where `places` says.
    pub fn new(bus: BusMaster, model: Box<dyn Model>, places: &PciFunction, pace: Pace) -> Self {
        let function = model.function();
        let name = bus.device().to_owned();
        let number = pci_bus(&name).map_or(0, |(_, bus)| bus);
        let config = ConfigSpace::new(&function, places, number);
        let bus = bus.with_address_bits(function.address_bits);
        bus.set_enabled(config.bus_master());
        let memory = function.bars.iter().filter(|bar| bar.content == BarContent::Memory);
        let memory = memory.map(|bar| (bar.index, Arc::new(BarMemory::new(bar.size)))).collect();
        let state = Mutex::new(State { config, model, busy: false, stop: false });
        let interrupts = Interrupts::new(&function);
        let changed = Condvar::new();
        let shared = Shared { name, function, pace, bus, interrupts, memory, state, changed };
        let shared = Arc::new(shared);
        let worker = (pace == Pace::Threaded).then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work())
        });
        Self { shared, worker }
    }

    /// Its PCI address.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What it is.
    pub fn function(&self) -> &Function {
        &self.shared.function
    }

    /// The size of a region in bytes: a BAR, 0 to 5, or [`CONFIG_REGION`]; 0 if it is not there.
    pub fn region_size(&self, region: u8) -> u64 {
        match region {
            CONFIG_REGION => self.shared.lock().config.bytes().len() as u64,
            bar => self.shared.bar(bar).map_or(0, |bar| bar.size),
        }
    }

    /// Reads a region, as `pread` on a device's file does, and returns how many bytes were read: fewer
    /// at the end of a BAR. The MSI-X table, which is the kernel's, reads as all ones.
    pub fn read(&self, region: u8, offset: u64, into: &mut [u8]) -> Result<usize, RegionError> {
        if region == CONFIG_REGION {
            let state = self.shared.lock();
            let from = check_config(&state.config, offset, into.len())?;
            into.copy_from_slice(&state.config.bytes()[from..from + into.len()]);
            return Ok(into.len());
        }
        let bar = self.shared.bar_for(region, offset)?;
        let length = within(&bar, offset, into.len());
        let into = &mut into[..length];
        let mut state = self.shared.decoding(&bar)?;
        match bar.content {
            BarContent::MsixTable => into.fill(0xff),
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
        let reset = state.config.write(from, bytes);
        self.shared.bus.set_enabled(state.config.bus_master());
        for bar in &self.shared.function.bars {
            if let Some(memory) = self.shared.memory.get(&bar.index) {
                memory.set_decodes(state.config.decodes(bar.kind));
            }
        }
        if reset {
            self.shared.reset(&mut state);
        }
        Ok(bytes.len())
    }

    /// Reads a register of 32 bits.
    pub fn read_u32(&self, bar: u8, offset: u64) -> Result<u32, RegionError> {
        let mut bytes = [0; 4];
        self.read(bar, offset, &mut bytes).map(|_| u32::from_le_bytes(bytes))
    }

    /// Reads a register of 64 bits.
    pub fn read_u64(&self, bar: u8, offset: u64) -> Result<u64, RegionError> {
        let mut bytes = [0; 8];
        self.read(bar, offset, &mut bytes).map(|_| u64::from_le_bytes(bytes))
    }

    /// Writes a register of 32 bits.
    pub fn write_u32(&self, bar: u8, offset: u64, value: u32) -> Result<(), RegionError> {
        self.write(bar, offset, &value.to_le_bytes()).map(|_| ())
    }

    /// Writes a register of 64 bits.
    pub fn write_u64(&self, bar: u8, offset: u64, value: u64) -> Result<(), RegionError> {
        self.write(bar, offset, &value.to_le_bytes()).map(|_| ())
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

    /// How many interrupts of a kind it has (`VFIO_DEVICE_GET_IRQ_INFO`).
    pub fn irq_count(&self, index: IrqIndex) -> u16 {
        self.shared.interrupts.count(index)
    }

    /// Sets the eventfds that interrupts are told by, from vector 0 on (`VFIO_DEVICE_SET_IRQS`). None at
    /// all turns the kind off. One kind can be on at a time.
    pub fn set_irqs(
        &self,
        index: IrqIndex,
        eventfds: Vec<Option<EventFd>>,
    ) -> Result<(), IrqError> {
        self.shared.interrupts.set(index, eventfds)?;
        self.shared.update_line(&self.shared.lock());
        Ok(())
    }

    /// Unmasks the interrupt line, which is masked each time it fires.
    pub fn unmask_line(&self) {
        self.shared.interrupts.unmask_line();
        self.shared.update_line(&self.shared.lock());
    }

    /// Signals a vector without the device's doing, for tests; returns whether it is set up.
    pub fn trigger(&self, index: IrqIndex, vector: u16) -> bool {
        self.shared.interrupts.trigger(index, vector)
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

    /// Resets the device (`VFIO_DEVICE_RESET`). Like the kernel's reset it leaves configuration space as
    /// it was. Memory behind BARs keeps its contents.
    pub fn reset(&self) {
        self.shared.reset(&mut self.shared.lock());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
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

    /// Locks the device if the BAR decodes.
    fn decoding(&self, bar: &BarLayout) -> Result<MutexGuard<'_, State>, RegionError> {
        let state = self.lock();
        if !state.config.decodes(bar.kind) {
            let bit = u8::from(bar.kind != BarKind::Io);
            return Err(RegionError::NotDecoding { region: bar.index, bit });
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
        self.update_line(state);
    }

    fn step(&self, state: &mut State) -> bool {
        let worked = state.model.step(&self.link());
        self.update_line(state);
        worked
    }

    fn update_line(&self, state: &State) {
        self.interrupts.set_line(state.model.interrupt_line());
    }

    fn reset(&self, state: &mut State) {
        state.model.reset();
        self.update_line(state);
    }

    /// What the thread of a device does.
    fn work(&self) {
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

impl Drop for PciDevice {
    fn drop(&mut self) {
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

/// Where an access to configuration space begins.
fn check_config(config: &ConfigSpace, offset: u64, length: usize) -> Result<usize, RegionError> {
    let size = config.bytes().len();
    let from = usize::try_from(offset).ok();
    from.filter(|from| size.checked_sub(*from).is_some_and(|left| length <= left))
        .ok_or(RegionError::PastConfiguration { offset, length, size: size as u64 })
}

/// How much of an access of `length` bytes is inside the BAR.
fn within(bar: &BarLayout, offset: u64, length: usize) -> usize {
    usize::try_from(bar.size - offset).map_or(length, |left| left.min(length))
}

/// Cuts an access into naturally aligned ones of 8 bytes at most, each with its place in the bytes.
fn registers(bar: u8, offset: u64, length: usize) -> impl Iterator<Item = (Register, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let fits = |size: &&u8| {
            at.is_multiple_of(u64::from(**size)) && usize::from(**size) <= length - done
        };
        let size = *[8, 4, 2, 1].iter().find(fits)?;
        let part = done;
        done += usize::from(size);
        Some((Register { bar, offset: at, size }, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_cut_into_aligned_ones() {
        let cut = |offset, length| {
            let pieces = registers(0, offset, length);
            pieces
                .map(|(register, part)| (register.offset, register.size, part))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(0, 8), [(0, 8, 0)]);
        assert_eq!(cut(4, 8), [(4, 4, 0), (8, 4, 4)]);
        assert_eq!(cut(1, 6), [(1, 1, 0), (2, 2, 1), (4, 2, 3), (6, 1, 5)]);
        assert_eq!(cut(3, 0), []);
    }
}
