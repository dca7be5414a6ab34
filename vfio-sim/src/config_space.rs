// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The first 256 bytes of a PCI function's configuration space, built from what is known of it: a
//! header of type 0 or, for a bridge, type 1 (PCI Local Bus 3.0, 6.1; PCI-to-PCI Bridge 1.2, 3.2).
//!
//! There are no capabilities, and what the host does not tell (revision, subsystem, interrupt pin)
//! is 0.

use vfio_type1::IovaRange;

use crate::pci::{Bar, BarKind, PciFunction};

/// The size of the conventional configuration space, in bytes.
pub const SIZE: usize = 256;

/// Vendor and device ID of a function whose IDs are not known. No function has this vendor.
pub const UNKNOWN_IDS: (u16, u16) = (0xffff, 0xffff);

/// Offsets of the fields, in bytes.
mod offset {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const CLASS: usize = 0x09;
    pub(super) const HEADER_TYPE: usize = 0x0e;
    pub(super) const BARS: usize = 0x10;
    pub(super) const PRIMARY_BUS: usize = 0x18;
    pub(super) const WINDOWS: usize = 0x1c;
    pub(super) const ROM: usize = 0x30;
    pub(super) const BRIDGE_ROM: usize = 0x38;
}

/// The windows of a bridge, ports and status, memory and prefetchable memory: they end below their
/// start, since a host does not tell where they are.
const CLOSED_WINDOWS: [u8; 12] = [0xf0, 0, 0, 0, 0xf0, 0xff, 0, 0, 0xf0, 0xff, 0, 0];

/// Bits of the command register.
mod command {
    pub(super) const IO: u16 = 1 << 0;
    pub(super) const MEMORY: u16 = 1 << 1;
    pub(super) const BUS_MASTER: u16 = 1 << 2;
}

/// Builds the configuration space of a function on bus `bus`. Its BARs decode where they have been
/// put; `master` says whether its driver lets it do DMA.
pub fn build(pci: &PciFunction, bus: u8, master: bool) -> [u8; SIZE] {
    let mut space = [0; SIZE];
    let (vendor, device) = pci.ids.unwrap_or(UNKNOWN_IDS);
    put(&mut space, offset::VENDOR, vendor.to_le_bytes());
    put(&mut space, offset::DEVICE, device.to_le_bytes());
    put(&mut space, offset::COMMAND, command(pci, master).to_le_bytes());
    // Three bytes: programming interface, subclass, class.
    let [interface, subclass, class, _] = pci.class.unwrap_or(0).to_le_bytes();
    put(&mut space, offset::CLASS, [interface, subclass, class]);
    let bridge = pci.is_bridge();
    put(&mut space, offset::HEADER_TYPE, [u8::from(bridge)]);
    let registers = if bridge { 2 } else { 6 };
    for (index, bar) in pci.bars.iter().filter(|(index, _)| **index < registers) {
        put_bar(&mut space, offset::BARS + 4 * usize::from(*index), bar);
    }
    if bridge {
        let (secondary, subordinate) = pci.buses.unwrap_or_default();
        put(&mut space, offset::PRIMARY_BUS, [bus, secondary, subordinate]);
        put(&mut space, offset::WINDOWS, CLOSED_WINDOWS);
    }
    if let Some(rom) = pci.rom {
        let at = if bridge { offset::BRIDGE_ROM } else { offset::ROM };
        put(&mut space, at, low_half(rom).to_le_bytes());
    }
    space
}

fn command(pci: &PciFunction, master: bool) -> u16 {
    let has = |io: bool| pci.bars.values().any(|bar| (bar.kind == BarKind::Io) == io);
    let mut bits = 0;
    if has(true) {
        bits |= command::IO;
    }
    if has(false) {
        bits |= command::MEMORY;
    }
    if master {
        bits |= command::BUS_MASTER;
    }
    bits
}

fn put_bar(space: &mut [u8; SIZE], at: usize, bar: &Bar) {
    let flags = bar.kind.register_flags();
    put(space, at, (low_half(bar.range) | flags).to_le_bytes());
    if bar.kind.registers() == 2 && at + 8 <= SIZE {
        let [.., b4, b5, b6, b7] = bar.range.first().0.to_le_bytes();
        put(space, at + 4, [b4, b5, b6, b7]);
    }
}

/// The low 32 bits of where a range starts.
fn low_half(range: IovaRange) -> u32 {
    let [b0, b1, b2, b3, ..] = range.first().0.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// The offsets above leave room for what is put there.
fn put<const N: usize>(space: &mut [u8; SIZE], at: usize, bytes: [u8; N]) {
    for (place, byte) in space.iter_mut().skip(at).zip(bytes) {
        *place = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Iova;

    fn range(first: u64, size: u64) -> IovaRange {
        IovaRange::from_size(Iova(first), size).unwrap()
    }

    fn nic() -> PciFunction {
        let wide = BarKind::Memory { wide: true, prefetchable: true };
        let memory = BarKind::Memory { wide: false, prefetchable: false };
        PciFunction {
            ids: Some((0x8086, 0x10c9)),
            class: Some(0x02_00_01),
            bars: [
                (0, Bar { range: range(0x38_1234_0000, 0x1_0000), kind: wide }),
                (2, Bar { range: range(0xc000, 32), kind: BarKind::Io }),
                (3, Bar { range: range(0xfebc_0000, 0x4000), kind: memory }),
            ]
            .into(),
            rom: Some(range(0xfeb0_0000, 0x8_0000)),
            ..PciFunction::default()
        }
    }

    #[test]
    fn an_endpoint_has_a_header_of_type_0() {
        let space = build(&nic(), 3, true);
        assert_eq!(space[..0x10], *b"\x86\x80\xc9\x10\x07\0\0\0\0\x01\0\x02\0\0\0\0");
        assert_eq!(space[0x10..0x18], *b"\x0c\0\x34\x12\x38\0\0\0");
        assert_eq!(space[0x18..0x20], *b"\x01\xc0\0\0\0\0\xbc\xfe");
        assert_eq!(space[0x30..0x34], *b"\0\0\xb0\xfe");
        assert!(space[0x34..].iter().all(|byte| *byte == 0));
        assert_eq!(build(&nic(), 3, false)[0x04], 0x03, "decodes, but does no DMA");
    }

    #[test]
    fn a_bridge_has_a_header_of_type_1() {
        let bridge = PciFunction {
            class: Some(0x06_04_00),
            buses: Some((0x01, 0x0a)),
            rom: Some(range(0xfe00_0000, 0x800)),
            bars: nic().bars,
            ..PciFunction::default()
        };
        let space = build(&bridge, 0, true);
        assert_eq!(space[..4], [0xff; 4], "unknown IDs");
        assert_eq!(space[0x0e], 1);
        // BARs 2 and 3 are bus numbers in this header.
        assert_eq!(space[0x18..0x20], *b"\0\x01\x0a\0\xf0\0\0\0");
        assert_eq!(space[0x38..0x3c], *b"\0\0\0\xfe");
    }
}
