// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's configuration space as it is read and written.
//!
//! Each bit is either fixed or kept as it is written. That alone makes BARs tell their sizes: the
//! address bits below the size are fixed at zero, so all ones read back as the size, negated (PCI
//! Local Bus 3.0, 6.2.5.1).

use crate::config_space;
use crate::device::capability::{self, Capability, EXPRESS, MSI, MSIX, RESET_BIT, RESET_BYTE};
use crate::device::interrupts::IrqIndex;
use crate::device::model::{BarLayout, Function};
use crate::pci::{BarKind, PciFunction};

/// The size with PCI Express, in bytes.
const EXPRESS_SIZE: usize = 4096;
/// Capabilities begin here, and at multiples of four.
const FIRST_CAPABILITY: usize = 0x40;

mod offset {
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const CACHE_LINE: usize = 0x0c;
    pub(super) const BARS: usize = 0x10;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    pub(super) const INTERRUPT_PIN: usize = 0x3d;
}

/// Bits of the command register.
const IO: u8 = 1 << 0;
const MEMORY: u8 = 1 << 1;
const BUS_MASTER: u8 = 1 << 2;
/// The three above, parity, SERR and interrupt disable.
const COMMAND_WRITABLE: [u8; 2] = [0x47, 0x05];
/// In the second byte of the command register: the interrupt line is off.
const NO_LINE: u8 = 1 << 2;
/// In the status register: the device wants an interrupt; there is a capability list.
const INTERRUPT: u8 = 1 << 3;
const HAS_CAPABILITIES: u8 = 1 << 4;

/// The configuration space of a device.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: Vec<u8>,
    /// The bits that are kept as they are written.
    writable: Vec<u8>,
    /// Where capabilities are, by their identifier.
    capabilities: Vec<(u8, usize)>,
}

impl ConfigSpace {
    /// As VFIO hands a device out: it decodes where firmware has put it, and does no DMA yet.
    pub(crate) fn new(function: &Function, places: &PciFunction, bus: u8) -> Self {
        let size = if function.express { EXPRESS_SIZE } else { config_space::SIZE };
        let mut bytes = config_space::build(places, bus, false).to_vec();
        bytes.resize(size, 0);
        let mut space = Self { bytes, writable: vec![0; size], capabilities: Vec::new() };
        space.allow(offset::COMMAND, &COMMAND_WRITABLE);
        space.bytes[offset::REVISION] = function.revision;
        // And the latency timer.
        space.allow(offset::CACHE_LINE, &[0xff; 2]);
        space.allow(offset::INTERRUPT_LINE, &[0xff]);
        space.bytes[offset::INTERRUPT_PIN] = u8::from(function.interrupt_line);
        for bar in &function.bars {
            space.allow_bar(bar);
        }
        space.link(capability::all(function));
        space
    }

    fn allow(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }

    /// The address bits of a BAR that its size leaves.
    fn allow_bar(&mut self, bar: &BarLayout) {
        let at = offset::BARS + 4 * usize::from(bar.index);
        let [b0, b1, b2, b3, high @ ..] = (!(bar.size - 1)).to_le_bytes();
        let flags = if bar.kind == BarKind::Io { 0x3 } else { 0xf };
        self.allow(at, &[b0 & !flags, b1, b2, b3]);
        if bar.kind.registers() == 2 {
            self.allow(at + 4, &high);
        }
    }

    /// Places capabilities one behind another.
    fn link(&mut self, capabilities: Vec<Capability>) {
        let (mut pointer, mut at) = (offset::CAPABILITIES, FIRST_CAPABILITY);
        for capability in capabilities {
            let end = at + capability.bytes.len();
            // All that exist together take less than half of the space.
            let (Ok(here), true) = (u8::try_from(at), end <= config_space::SIZE) else { return };
            self.bytes[offset::STATUS] |= HAS_CAPABILITIES;
            self.bytes[pointer] = here;
            self.bytes[at..end].copy_from_slice(&capability.bytes);
            self.writable[at..end].copy_from_slice(&capability.writable);
            self.capabilities.push((capability.id(), at));
            pointer = at + 1;
            at = end.next_multiple_of(4);
        }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn capability(&self, id: u8) -> Option<usize> {
        self.capabilities.iter().find(|(known, _)| *known == id).map(|(_, at)| *at)
    }

    /// Writes what can be written of `bytes` at `at`. Returns whether they ask for a function level reset.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let reset = self.capability(EXPRESS).map(|express| express + RESET_BYTE);
        let mut asks_for_reset = false;
        let places = self.bytes.iter_mut().zip(&self.writable).enumerate().skip(at);
        for ((place, (kept, writable)), new) in places.zip(bytes) {
            *kept = (*kept & !writable) | (new & writable);
            asks_for_reset |= reset == Some(place) && new & RESET_BIT != 0;
        }
        asks_for_reset
    }

    /// Whether the device may do DMA.
    pub(crate) fn bus_master(&self) -> bool {
        self.bytes[offset::COMMAND] & BUS_MASTER != 0
    }

    /// Shows which messages are on.
    pub(crate) fn show_messages(&mut self, on: Option<IrqIndex>) {
        let bits = [(MSI, IrqIndex::Msi, 2, 0x01), (MSIX, IrqIndex::Msix, 3, 0x80)];
        for (id, index, at, bit) in bits {
            if let Some(capability) = self.capability(id) {
                let byte = &mut self.bytes[capability + at];
                *byte = *byte & !bit | if on == Some(index) { bit } else { 0 };
            }
        }
    }

    /// Shows whether the device wants an interrupt; returns whether it may use its line for it.
    pub(crate) fn show_interrupt(&mut self, wanted: bool) -> bool {
        let status = &mut self.bytes[offset::STATUS];
        *status = *status & !INTERRUPT | if wanted { INTERRUPT } else { 0 };
        !self.line_disabled()
    }

    /// Whether the interrupt line is off.
    pub(crate) fn line_disabled(&self) -> bool {
        self.bytes[offset::COMMAND + 1] & NO_LINE != 0
    }

    /// Whether BARs of this kind decode.
    pub(crate) fn decodes(&self, kind: BarKind) -> bool {
        let bit = if kind == BarKind::Io { IO } else { MEMORY };
        self.bytes[offset::COMMAND] & bit != 0
    }

    /// The address in a BAR, as it stands now.
    pub(crate) fn bar_address(&self, bar: &BarLayout) -> u64 {
        let at = offset::BARS + 4 * usize::from(bar.index);
        let mut address = [0; 8];
        let size = 4 * usize::from(bar.kind.registers());
        address[..size].copy_from_slice(&self.bytes[at..at + size]);
        u64::from_le_bytes(address) & !(bar.size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::engine::Engine;
    use crate::device::model::Model as _;
    use crate::device::peer::Peer;
    use crate::device::place::places;

    fn space(function: &Function) -> ConfigSpace {
        let placed = places(function, &[], &[]).unwrap();
        ConfigSpace::new(function, &placed, 0)
    }

    fn word(space: &ConfigSpace, at: usize) -> u32 {
        u32::from_le_bytes(space.bytes()[at..at + 4].try_into().unwrap())
    }

    /// The capabilities as software finds them: identifier and offset.
    fn capabilities(space: &ConfigSpace) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        let mut at = usize::from(space.bytes()[offset::CAPABILITIES]);
        while at != 0 {
            found.push((space.bytes()[at], at));
            at = usize::from(space.bytes()[at + 1]);
        }
        found
    }

    #[test]
    fn bars_tell_their_sizes() {
        let function = Peer::with_size(1 << 34).function();
        let mut space = space(&function);
        let before = space.bar_address(&function.bars[0]);
        space.write(0x10, &[0xff; 8]);
        let size = u64::from(word(&space, 0x14)) << 32 | u64::from(word(&space, 0x10) & !0xf);
        assert_eq!(size.wrapping_neg(), 1 << 34);
        assert_eq!(word(&space, 0x10) & 0xf, 0xc, "64 bits, prefetchable");
        space.write(0x10, &(before + (1 << 35)).to_le_bytes());
        assert_eq!(space.bar_address(&function.bars[0]), before + (1 << 35));
        // A BAR that is not there is zero whatever is written.
        space.write(0x18, &[0xff; 4]);
        assert_eq!(word(&space, 0x18), 0);
    }

    #[test]
    fn the_command_register_starts_without_bus_mastering() {
        let mut space = space(&Engine::default().function());
        let memory = BarKind::Memory { wide: false, prefetchable: false };
        assert!(!space.bus_master() && space.decodes(memory));
        space.write(offset::COMMAND, &[0xff, 0xff]);
        assert!(space.bus_master());
        assert_eq!(space.bytes()[offset::COMMAND..][..2], COMMAND_WRITABLE);
        space.write(offset::COMMAND, &[0]);
        assert!(!space.bus_master() && !space.decodes(memory));
        // Identity cannot be written.
        let identity = word(&space, 0);
        space.write(0, &[0; 4]);
        assert_eq!(word(&space, 0), identity);
    }

    #[test]
    fn capabilities_are_linked_and_reset_clears_itself() {
        let function = Engine::default().function();
        let mut space = space(&function);
        let found = capabilities(&space);
        let ids: Vec<u8> = found.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [0x10, 0x05, 0x11]);
        let (express, msi, msix) = (found[0].1, found[1].1, found[2].1);
        assert!(word(&space, express + 4) & 1 << 28 != 0, "can be reset");
        assert!(space.write(express + 8, &[0, 0x80]));
        assert!(!space.write(express + 8, &[0, 0x00]));
        assert!(space.write(express + 9, &[0x80]));
        assert_eq!(space.bytes()[express + 9], 0);

        assert_eq!(space.bytes()[msi + 2..msi + 4], [0x82, 0], "64-bit addresses, two vectors");
        space.show_messages(Some(IrqIndex::Msi));
        assert_eq!((space.bytes()[msi + 2], space.bytes()[msix + 3]), (0x83, 0));
        space.show_messages(Some(IrqIndex::Msix));
        assert_eq!((space.bytes()[msi + 2], space.bytes()[msix + 3]), (0x82, 0x80));
        assert_eq!(word(&space, msix) >> 16 & 0x7ff, u32::from(function.msix_vectors) - 1);
        let table = function.bars.iter().find(|bar| bar.index == 2).unwrap();
        assert_eq!(word(&space, msix + 4), 2);
        assert_eq!(u64::from(word(&space, msix + 8)), table.size / 2 + 2);
        space.write(msix + 2, &[0xff, 0x3f]);
        assert_eq!(space.bytes()[msix + 2..msix + 4], [1, 0x80], "not for software to change");
    }

    #[test]
    fn writes_past_the_end_are_dropped() {
        let mut space = space(&Engine::default().function());
        space.write(4095, &[0xff; 9]);
        space.write(usize::MAX, &[0xff]);
        assert_eq!(space.bytes().len(), 4096);
    }
}
