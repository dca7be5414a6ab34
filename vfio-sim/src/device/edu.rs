// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The register interface of QEMU's educational device, from its specification (`docs/specs/edu` of
//! QEMU), so that drivers and exercises written for it run here.
//!
//! It states 28 address bits unless told otherwise. QEMU cuts an address that is too wide and goes on
//! with what is left; here it is a fault, which says so.

use vfio_type1::Iova;

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register, low};
use crate::pci::BarKind;

/// The BAR with the registers, 1 MiB.
pub const REGISTERS_BAR: u8 = 0;

/// Offsets of the registers.
pub mod register {
    /// 0x010000ed: version 1.0 (read only).
    pub const IDENTIFICATION: u64 = 0x00;
    /// Reads as the inverse of what was written.
    pub const LIVENESS: u64 = 0x04;
    /// A number; while the device computes it becomes its factorial, modulo 2^32.
    pub const FACTORIAL: u64 = 0x08;
    /// [`super::COMPUTING`] and [`super::INTERRUPT_WHEN_COMPUTED`].
    pub const STATUS: u64 = 0x20;
    /// Why there is an interrupt: bits that were raised and not acknowledged (read only).
    pub const INTERRUPT_STATUS: u64 = 0x24;
    /// Raises the bits written (write only).
    pub const INTERRUPT_RAISE: u64 = 0x60;
    /// Clears the bits written (write only).
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
    /// Where DMA reads, 64 bits.
    pub const DMA_SOURCE: u64 = 0x80;
    /// Where DMA writes, 64 bits.
    pub const DMA_DESTINATION: u64 = 0x88;
    /// How many bytes, 64 bits.
    pub const DMA_COUNT: u64 = 0x90;
    /// [`super::DMA_START`], [`super::DMA_TO_MEMORY`], [`super::DMA_INTERRUPT`]; 64 bits.
    pub const DMA_COMMAND: u64 = 0x98;
}

/// Status: a factorial is being computed (read only).
pub const COMPUTING: u32 = 0x01;
/// Status: raise an interrupt when the factorial is done.
pub const INTERRUPT_WHEN_COMPUTED: u32 = 0x80;
/// Interrupt status: the factorial is done.
pub const INTERRUPT_COMPUTED: u32 = 0x001;
/// Interrupt status: the transfer is done.
pub const INTERRUPT_TRANSFERRED: u32 = 0x100;
/// Command: start the transfer. It reads as set until the transfer is over.
pub const DMA_START: u64 = 0x01;
/// Command: out of the device's buffer into memory; without, out of memory into the buffer.
pub const DMA_TO_MEMORY: u64 = 0x02;
/// Command: raise [`INTERRUPT_TRANSFERRED`] afterwards.
pub const DMA_INTERRUPT: u64 = 0x04;
/// Where the buffer is, as DMA addresses of the device's side state it.
pub const BUFFER: u64 = 0x40000;
/// The size of the buffer in bytes.
pub const BUFFER_SIZE: u64 = 4096;

const IDS: (u16, u16) = (0x1234, 0x11e8);
/// Of no class that is defined: subclass 0xff of the class of old devices.
const CLASS: u32 = 0x00_ff_00;
const REVISION: u8 = 0x10;
const VERSION: u32 = 0x0100_00ed;
const REGISTERS_SIZE: u64 = 1 << 20;
const DEFAULT_ADDRESS_BITS: u32 = 28;

/// The model.
#[derive(Clone, Debug)]
pub struct Edu {
    address_bits: u32,
    registers: Registers,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Registers {
    liveness: u32,
    factorial: u32,
    status: u32,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
}

impl Default for Edu {
    fn default() -> Self {
        Self::with_address_bits(DEFAULT_ADDRESS_BITS)
    }
}

impl Edu {
    /// A device that states so many address bits.
    pub fn with_address_bits(address_bits: u32) -> Self {
        let buffer = vec![0; usize::try_from(BUFFER_SIZE).unwrap_or(0)];
        Self { address_bits, registers: Registers::default(), buffer }
    }

    fn raise(&mut self, bits: u32, link: &Link<'_>) {
        self.registers.interrupts |= bits;
        if self.registers.interrupts != 0 {
            link.interrupt(0);
        }
    }

    fn compute(&mut self, link: &Link<'_>) {
        let number = self.registers.factorial;
        // From 34 on the factorial has 32 factors of two: nothing is left of it in 32 bits.
        let factors = if number < 34 { 1..=number } else { 0..=0 };
        self.registers.factorial = factors.fold(1, u32::wrapping_mul);
        self.registers.status &= !COMPUTING;
        if self.registers.status & INTERRUPT_WHEN_COMPUTED != 0 {
            self.raise(INTERRUPT_COMPUTED, link);
        }
    }

    /// The part of the buffer that a transfer names by the address of the device's side.
    fn buffer_part(&self, address: u64) -> Option<std::ops::Range<usize>> {
        let first = usize::try_from(address.checked_sub(BUFFER)?).ok()?;
        let end = first.checked_add(usize::try_from(self.registers.count).ok()?)?;
        (end <= self.buffer.len()).then_some(first..end)
    }

    /// A transfer that names anything but the buffer on the device's side does nothing, and raises no
    /// interrupt.
    fn transfer(&mut self, link: &Link<'_>) {
        let Registers { source, destination, command, .. } = self.registers;
        let to_memory = command & DMA_TO_MEMORY != 0;
        let part = self.buffer_part(if to_memory { source } else { destination });
        self.registers.command &= !DMA_START;
        let Some(part) = part else { return };
        // There is no register for a failure; the driver's log has it.
        let _ = match to_memory {
            true => link.write(Iova(destination), &self.buffer[part]),
            false => link.read(Iova(source), &mut self.buffer[part]),
        };
        if command & DMA_INTERRUPT != 0 {
            self.raise(INTERRUPT_TRANSFERRED, link);
        }
    }
}

impl Model for Edu {
    fn function(&self) -> Function {
        let kind = BarKind::Memory { wide: false, prefetchable: false };
        let (index, content) = (REGISTERS_BAR, BarContent::Registers);
        Function {
            ids: IDS,
            class: CLASS,
            revision: REVISION,
            bars: vec![BarLayout { index, kind, size: REGISTERS_SIZE, content }],
            interrupt_line: true,
            msi_vectors: 1,
            msix_vectors: 0,
            express: false,
            address_bits: self.address_bits,
        }
    }

    /// Registers below 0x80 take accesses of 4 bytes, those above of 4 and 8; whatever else is read has
    /// all bits set.
    fn read(&mut self, Register { offset, size, .. }: Register) -> u64 {
        let Registers { liveness, factorial, status, interrupts, .. } = self.registers;
        let Registers { source, destination, count, command, .. } = self.registers;
        match (offset, size) {
            (register::IDENTIFICATION, 4) => u64::from(VERSION),
            (register::LIVENESS, 4) => u64::from(!liveness),
            (register::FACTORIAL, 4) => u64::from(factorial),
            (register::STATUS, 4) => u64::from(status),
            (register::INTERRUPT_STATUS, 4) => u64::from(interrupts),
            (register::DMA_SOURCE, 4 | 8) => source,
            (register::DMA_DESTINATION, 4 | 8) => destination,
            (register::DMA_COUNT, 4 | 8) => count,
            (register::DMA_COMMAND, 4 | 8) => command,
            _ => u64::MAX,
        }
    }

    /// A write of 4 bytes to a register of 64 bits clears the upper half.
    fn write(&mut self, Register { offset, size, .. }: Register, value: u64, link: &Link<'_>) {
        // What is at work keeps its orders.
        let transferring = self.registers.command & DMA_START != 0;
        let computing = self.registers.status & COMPUTING != 0;
        let registers = &mut self.registers;
        match (offset, size) {
            (register::LIVENESS, 4) => registers.liveness = low(value),
            (register::FACTORIAL, 4) if !computing => {
                registers.factorial = low(value);
                registers.status |= COMPUTING;
            }
            (register::STATUS, 4) => {
                let kept = registers.status & !INTERRUPT_WHEN_COMPUTED;
                registers.status = kept | low(value) & INTERRUPT_WHEN_COMPUTED;
            }
            (register::INTERRUPT_RAISE, 4) => self.raise(low(value), link),
            (register::INTERRUPT_ACKNOWLEDGE, 4) => registers.interrupts &= !low(value),
            _ if transferring => {}
            (register::DMA_SOURCE, 4 | 8) => registers.source = value,
            (register::DMA_DESTINATION, 4 | 8) => registers.destination = value,
            (register::DMA_COUNT, 4 | 8) => registers.count = value,
            (register::DMA_COMMAND, 4 | 8) if value & DMA_START != 0 => registers.command = value,
            _ => {}
        }
    }

    fn step(&mut self, link: &Link<'_>) -> bool {
        if self.registers.status & COMPUTING != 0 {
            self.compute(link);
            return true;
        }
        if self.registers.command & DMA_START != 0 {
            self.transfer(link);
            return true;
        }
        false
    }

    fn interrupt_line(&self) -> bool {
        self.registers.interrupts != 0
    }

    fn reset(&mut self) {
        self.registers = Registers::default();
        self.buffer.fill(0);
    }
}
