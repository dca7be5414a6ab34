// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PCI functions: what a device's configuration space says, as far as it matters here.

use std::collections::BTreeMap;

use vfio_type1::{Iova, IovaRange};

use crate::names::pci_bus;

/// What is known of a PCI function. Nothing is, by default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PciFunction {
    /// Vendor and device ID.
    pub ids: Option<(u16, u16)>,
    /// Class, subclass and programming interface, such as 0x030000.
    pub class: Option<u32>,
    /// The buses behind it, if it is a bridge: secondary to subordinate, inclusive.
    pub buses: Option<(u8, u8)>,
    /// Its base address registers by index, 0 to 5. One of 64 bits takes the next index too.
    pub bars: BTreeMap<u8, Bar>,
    /// Its expansion ROM.
    pub rom: Option<IovaRange>,
    /// The address bits its driver has set as the DMA mask.
    pub dma_mask_bits: Option<u32>,
}

/// A base address register and where the firmware has put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Bus addresses, inclusive.
    pub range: IovaRange,
    /// What they are.
    pub kind: BarKind,
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory.
    Memory {
        /// The register has 64 bits.
        wide: bool,
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

impl Bar {
    /// What keeps it from being a BAR: its size, its place, or its width.
    pub(crate) fn check(&self) -> Result<(), String> {
        let range = self.range;
        let size = range.size().filter(|size| size.is_power_of_two());
        if !size.is_some_and(|size| range.first().0.is_multiple_of(size)) {
            return Err(format!("{range} is no power of two in size, or not at a multiple of it"));
        }
        let wide = matches!(self.kind, BarKind::Memory { wide: true, .. });
        if !wide && range.last().0 > u64::from(u32::MAX) {
            return Err(format!("{range} needs 64-bit to lie above 4G"));
        }
        Ok(())
    }
}

impl BarKind {
    /// How many registers it takes.
    pub fn registers(self) -> u8 {
        if matches!(self, Self::Memory { wide: true, .. }) { 2 } else { 1 }
    }

    /// The low bits of the register, which say what it is (PCI Local Bus 3.0, 6.2.5.1).
    pub(crate) fn register_flags(self) -> u32 {
        match self {
            Self::Io => 0x1,
            Self::Memory { wide, prefetchable } => {
                (if wide { 0x4 } else { 0 }) | (if prefetchable { 0x8 } else { 0 })
            }
        }
    }
}

impl PciFunction {
    /// The highest address its DMA mask allows; `None` if no mask is known.
    pub fn dma_mask(&self) -> Option<Iova> {
        let unused = 64u32.saturating_sub(self.dma_mask_bits?);
        Some(Iova(u64::MAX.checked_shr(unused).unwrap_or(0)))
    }

    /// Whether Linux takes firmware memory away from the device when it is assigned: USB controllers
    /// and displays, whose drivers no longer need what the firmware did with it.
    pub(crate) fn lets_go_of_rmrrs(&self) -> bool {
        self.class.is_some_and(|class| class >> 8 == 0x0c03 || class >> 16 == 0x03)
    }

    /// Whether it is a bridge to another PCI bus.
    pub(crate) fn is_bridge(&self) -> bool {
        self.buses.is_some() || self.class.is_some_and(|class| class >> 8 == 0x0604)
    }

    /// Whether it is a bridge of any kind: to a bus, or to the CPU.
    pub(crate) fn is_any_bridge(&self) -> bool {
        self.is_bridge() || self.class.is_some_and(|class| class >> 16 == 0x06)
    }

    /// The addresses of memory that it decodes: its BARs and its ROM.
    pub(crate) fn decoded_memory(&self) -> impl Iterator<Item = IovaRange> {
        let bars = self.bars.values().filter(|bar| bar.kind != BarKind::Io);
        bars.map(|bar| bar.range).chain(self.rom)
    }

    /// Whether it is a bridge to an ISA bus.
    pub(crate) fn is_isa_bridge(&self) -> bool {
        self.class.is_some_and(|class| class >> 8 == 0x0601)
    }

    /// Whether it, at the address `own`, is a bridge above the device at `other`.
    pub(crate) fn leads_to(&self, own: &str, other: &str) -> bool {
        let (Some((first, last)), Some((domain, bus))) = (self.buses, pci_bus(other)) else {
            return false;
        };
        pci_bus(own).is_some_and(|(own, _)| own == domain) && (first..=last).contains(&bus)
    }
}

/// A PCI host bridge: where the CPU sees the devices behind it, and where they see memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// Its segment (domain): the first part of its devices' addresses.
    pub segment: u32,
    /// Its buses, inclusive.
    pub buses: (u8, u8),
    /// Its memory windows in bus addresses, inclusive: what devices decode, not memory.
    pub windows: Vec<IovaRange>,
    /// Its inbound windows in bus addresses, inclusive: through which devices reach memory. Only a
    /// device tree states them (`dma-ranges`); empty if none does.
    pub dma_ranges: Vec<IovaRange>,
}

impl HostBridge {
    /// Whether the device at the PCI address `name` is behind it.
    pub fn leads_to(&self, name: &str) -> bool {
        let (first, last) = self.buses;
        pci_bus(name)
            .is_some_and(|(segment, bus)| segment == self.segment && (first..=last).contains(&bus))
    }

    /// The lowest bus that both bridges have.
    pub(crate) fn shared_bus(&self, other: &Self) -> Option<u8> {
        let first = self.buses.0.max(other.buses.0);
        let last = self.buses.1.min(other.buses.1);
        (self.segment == other.segment && first <= last).then_some(first)
    }
}
