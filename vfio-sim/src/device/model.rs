// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The seam to device models: what a device is, and what it does.

use std::os::fd::RawFd;

use crate::device::link::Link;
use crate::pci::BarKind;

/// What a device is: what its configuration space says and its regions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Vendor and device ID.
    pub ids: (u16, u16),
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Its revision.
    pub revision: u8,
    /// Its base address registers.
    pub bars: Vec<BarLayout>,
    /// Whether it has an interrupt line (INTA).
    pub interrupt_line: bool,
    /// MSI vectors: a power of two up to 32, or 0 without the capability.
    pub msi_vectors: u16,
    /// MSI-X vectors: up to 2048, or 0 without the capability.
    pub msix_vectors: u16,
    /// Whether it is a PCI Express device, with 4 KiB of configuration space and function level reset.
    pub express: bool,
    /// The address bits it can state, at most 64.
    pub address_bits: u32,
}

/// A function that no PCI device can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFunction {
    /// The size of a BAR is no power of two, or too small: memory comes in pages of 4 KiB.
    #[error("BAR {bar} cannot have {size:#x} bytes: a power of two, 4 KiB or more for memory")]
    BarSize {
        /// The BAR's index.
        bar: u8,
        /// Its size in bytes.
        size: u64,
    },
    /// Two BARs need one register, or one that is not there.
    #[error("BAR {bar} has no register of its own; there are six, and 64 bits take two")]
    BarIndex {
        /// The BAR's index.
        bar: u8,
    },
    /// The number of vectors is not one that MSI can have.
    #[error("{vectors} MSI vectors: a power of two up to 32, or 0")]
    MsiVectors {
        /// The number.
        vectors: u16,
    },
    /// The MSI-X vectors have no BAR with room for their table.
    #[error("{vectors} MSI-X vectors: up to 2048, with half a BAR for their table")]
    MsixVectors {
        /// The number.
        vectors: u16,
    },
    /// The address bits are none, or too many.
    #[error("{bits} address bits: 1 to 64")]
    AddressBits {
        /// The number.
        bits: u32,
    },
}

impl Function {
    /// Whether a device can be so.
    pub fn check(&self) -> Result<(), BadFunction> {
        let mut taken = 0_u8;
        for bar in &self.bars {
            let least = if bar.content == BarContent::Registers { 16 } else { 4096 };
            if !bar.size.is_power_of_two() || bar.size < least {
                return Err(BadFunction::BarSize { bar: bar.index, size: bar.size });
            }
            for register in bar.index..bar.index.saturating_add(bar.kind.registers()) {
                if register >= 6 || taken & 1 << register != 0 {
                    return Err(BadFunction::BarIndex { bar: bar.index });
                }
                taken |= 1 << register;
            }
        }
        let vectors = self.msi_vectors;
        if vectors != 0 && !(vectors.is_power_of_two() && vectors <= 32) {
            return Err(BadFunction::MsiVectors { vectors });
        }
        let vectors = self.msix_vectors;
        let mut tables = self.bars.iter().filter(|bar| bar.content == BarContent::MsixTable);
        let has_room = tables.any(|bar| self.msix_table_size() <= bar.size / 2);
        if vectors != 0 && (vectors > 2048 || !has_room) {
            return Err(BadFunction::MsixVectors { vectors });
        }
        match self.address_bits {
            1..=64 => Ok(()),
            bits => Err(BadFunction::AddressBits { bits }),
        }
    }

    /// The size of the MSI-X table in bytes.
    pub(super) fn msix_table_size(&self) -> u64 {
        16 * u64::from(self.msix_vectors)
    }
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarLayout {
    /// Its index, 0 to 5. One of 64 bits takes the next index too.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Its size in bytes, a power of two.
    pub size: u64,
    /// What is behind it.
    pub content: BarContent,
}

/// What is behind a base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarContent {
    /// Registers of the model.
    Registers,
    /// Memory, which other devices may reach (peer-to-peer).
    Memory,
    /// The MSI-X table, which VFIO keeps to itself, and in the second half the pending bits.
    MsixTable,
}

/// A register, as it is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The index of its BAR.
    pub bar: u8,
    /// The offset in the BAR, a multiple of the size.
    pub offset: u64,
    /// The size of the access in bytes: 1, 2, 4 or 8.
    pub size: u8,
}

/// What a device does. Its shell, `PciDevice`, has the configuration space, the doors and the locks.
///
/// A store into a register may only note that there is work; the work is done in steps, so that a
/// test can look at the device between any two of them.
pub trait Model: Send {
    /// What it is. It never changes.
    fn function(&self) -> Function;

    /// Reads a register. One that does not exist reads as zero.
    fn read(&mut self, register: Register) -> u64;

    /// Writes a register. One that does not exist, or cannot be written, is left alone.
    fn write(&mut self, register: Register, value: u64, link: &Link<'_>);

    /// Reads a register of its own in extended configuration space, 32 bits at a multiple of 4 from 0x100
    /// on; `None` where there is none.
    fn read_config(&self, _offset: u64) -> Option<u32> {
        None
    }

    /// Writes those bytes of such a register that are set in `mask`; they are 0 elsewhere.
    fn write_config(&mut self, _offset: u64, _value: u32, _mask: u32) {}

    /// Does the next piece of work; false if there was none.
    fn step(&mut self, link: &Link<'_>) -> bool;

    /// Whether it asserts its interrupt line.
    fn interrupt_line(&self) -> bool {
        false
    }

    /// Forgets everything, as after power-on.
    fn reset(&mut self);

    /// The file descriptors that it keeps open: a process that is shared with a program keeps the program
    /// from closing them.
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

/// The low half of what was written.
pub(super) fn low(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// A register of 64 bits after a write of 4 or 8 bytes at `offset` from its start.
pub(super) fn merge(old: u64, offset: u64, size: u8, value: u64) -> u64 {
    match (offset, size) {
        (0, 8) => value,
        (0, _) => old & !0xffff_ffff | u64::from(low(value)),
        (_, _) => old & 0xffff_ffff | value << 32,
    }
}
