// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel of Intel's IOAT DMA engine (Crystal Beach DMA, version 3), as in Skylake servers: it follows
//! chains of descriptors that copy and fill.
//!
//! DPDK's `dmadev_ioat` and the kernel's VFIO selftests have drivers for it. Without XOR, RAID and CRC
//! operations, which DMACAPABILITY does not claim, and without cache hints, which have no effect that could be
//! seen. Unlike the hardware, no register changes by being read.

mod channel;
mod descriptor;
pub mod register;

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register, low};
use crate::pci::BarKind;

use channel::Channel;
use register as reg;

pub use channel::State;
pub use descriptor::{DESCRIPTOR_SIZE, Descriptor};

/// The BAR with the registers, 16 KiB.
pub const REGISTERS_BAR: u8 = 0;
/// The BAR with the MSI-X table.
const MSIX_BAR: u8 = 2;

/// Intel, and the engine of Skylake servers.
const IDS: (u16, u16) = (0x8086, 0x2021);
/// A system peripheral, of no kind that is defined.
const CLASS: u32 = 0x08_80_00;
const CHANNELS: u8 = 1;

/// What an engine says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its version, in the two halves of a byte.
    pub version: u8,
    /// The largest length of a descriptor in bytes, as a power of two.
    pub xfercap: u8,
}

impl Settings {
    /// The versions that differ from this one by what they claim only.
    pub const VERSIONS: std::ops::RangeInclusive<u8> = 0x30..=0x34;
    /// The lengths that can be set.
    pub const XFERCAPS: std::ops::RangeInclusive<u8> = 12..=30;
}

impl Default for Settings {
    fn default() -> Self {
        Self { version: 0x33, xfercap: 16 }
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Ioat {
    settings: Settings,
    general: u8,
    /// The bits of INTRCTRL that can be written.
    interrupts: u8,
    channel: Channel,
}

impl Default for Ioat {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

/// Bits of an aligned word of 8 bytes that are written.
#[derive(Clone, Copy, Debug)]
struct Store {
    value: u64,
    mask: u64,
}

impl Store {
    fn new(register: Register, value: u64) -> Self {
        let shift = 8 * (register.offset & 7);
        let mask = u64::MAX >> (64 - 8 * u64::from(register.size));
        Self { value: (value & mask) << shift, mask: mask << shift }
    }

    /// A word after the store.
    fn onto(self, old: u64) -> u64 {
        old & !self.mask | self.value
    }

    /// `size` bytes at `offset` in the word after the store, if any of them is written.
    fn field(self, old: u64, offset: u64, size: u64) -> Option<u64> {
        let (shift, bits) = (8 * (offset & 7), u64::MAX >> (64 - 8 * size));
        let is_written = self.mask >> shift & bits != 0;
        is_written.then(|| self.onto(old) >> shift & bits)
    }
}

impl Ioat {
    /// An engine with these settings, brought into [`Settings::VERSIONS`] and [`Settings::XFERCAPS`].
    pub fn new(settings: Settings) -> Self {
        let within = |value: u8, range: std::ops::RangeInclusive<u8>| {
            value.clamp(*range.start(), *range.end())
        };
        let settings = Settings {
            version: within(settings.version, Settings::VERSIONS),
            xfercap: within(settings.xfercap, Settings::XFERCAPS),
        };
        let channel = Channel::new(1 << settings.xfercap);
        Self { settings, general: 0, interrupts: 0, channel }
    }

    /// INTRCTRL with the bits that are read only.
    fn interrupt_control(&self) -> u8 {
        let mut control = self.interrupts;
        if self.channel.fired {
            control |= reg::INTRCTRL_STATUS;
            if control & reg::INTRCTRL_MASTER != 0 {
                control |= reg::INTRCTRL_INTERRUPT;
            }
        }
        control
    }

    /// The eight bytes at a multiple of 8.
    fn word(&self, offset: u64) -> u64 {
        let channel = &self.channel;
        match offset {
            reg::CHANCNT => {
                let Settings { xfercap, .. } = self.settings;
                let attention = u8::from(channel.fired);
                let bytes = [CHANNELS, xfercap, self.general, self.interrupt_control()];
                let [b0, b1, b2, b3] = bytes;
                u64::from_le_bytes([b0, b1, b2, b3, attention, 0, 0, 0])
            }
            reg::CBVER => u64::from(self.settings.version),
            reg::DMACAPABILITY => u64::from(reg::CAPABILITY_FILL),
            reg::CHANCTRL => {
                let rearm = if channel.fired { reg::CHANCTRL_REARM } else { 0 };
                u64::from(channel.count) << 48 | u64::from(channel.control | rearm)
            }
            reg::CHANSTS => channel.status(),
            reg::CHAINADDR => channel.chain,
            reg::CHANCMP => channel.completion,
            reg::CDAR => channel.current,
            reg::CHANERR => u64::from(channel.error_mask) << 32 | u64::from(channel.errors),
            _ => 0,
        }
    }

    /// Stores into the eight bytes at a multiple of 8.
    fn store(&mut self, offset: u64, store: Store, link: &Link<'_>) {
        let old = self.word(offset);
        let channel = &mut self.channel;
        match offset {
            reg::CHANCNT => {
                let [_, _, general, interrupts, ..] = store.onto(old).to_le_bytes();
                self.general = general;
                self.interrupts = interrupts & (reg::INTRCTRL_MASTER | reg::INTRCTRL_MSIX);
                channel.may_interrupt = self.interrupts != 0;
            }
            reg::CHANCTRL => {
                // A bit that is read as one is not written by a store beside it.
                if let Some(control) = store.field(old & !1, reg::CHANCTRL, 2) {
                    channel.set_control(word16(control), link);
                }
                if let Some(command) = store.field(0, reg::CHANCMD, 1) {
                    let [command, ..] = command.to_le_bytes();
                    channel.command(command);
                }
                if let Some(count) = store.field(old, reg::DMACOUNT, 2) {
                    channel.set_count(word16(count));
                }
            }
            reg::CHAINADDR => channel.arm(store.onto(old), link),
            reg::CHANCMP => channel.completion = store.onto(old),
            reg::CHANERR => {
                channel.errors &= !low(store.value);
                channel.error_mask = low(store.onto(old) >> 32);
            }
            _ => {}
        }
    }
}

fn word16(value: u64) -> u16 {
    let [b0, b1, ..] = value.to_le_bytes();
    u16::from_le_bytes([b0, b1])
}

impl Model for Ioat {
    fn function(&self) -> Function {
        let registers = BarLayout {
            index: REGISTERS_BAR,
            kind: BarKind::Memory { wide: true, prefetchable: false },
            size: 16 << 10,
            content: BarContent::Registers,
        };
        let table = BarLayout {
            index: MSIX_BAR,
            kind: BarKind::Memory { wide: false, prefetchable: false },
            size: 4096,
            content: BarContent::MsixTable,
        };
        Function {
            ids: IDS,
            class: CLASS,
            revision: 4,
            bars: vec![registers, table],
            interrupt_line: false,
            msi_vectors: CHANNELS.into(),
            msix_vectors: CHANNELS.into(),
            express: true,
            address_bits: 64,
        }
    }

    fn read(&mut self, register: Register) -> u64 {
        self.word(register.offset & !7) >> (8 * (register.offset & 7))
    }

    fn write(&mut self, register: Register, value: u64, link: &Link<'_>) {
        self.store(register.offset & !7, Store::new(register, value), link);
    }

    fn read_config(&self, offset: u64) -> Option<u32> {
        match offset {
            reg::CONFIG_DMAUNCERRSTS => Some(0),
            reg::CONFIG_CHANERR_INT => Some(self.channel.reported),
            reg::CONFIG_CHANERRMSK_INT => Some(self.channel.reported_mask),
            _ => None,
        }
    }

    fn write_config(&mut self, offset: u64, value: u32, mask: u32) {
        let channel = &mut self.channel;
        match offset {
            reg::CONFIG_CHANERR_INT => channel.reported &= !(value & mask),
            reg::CONFIG_CHANERRMSK_INT => {
                channel.reported_mask = channel.reported_mask & !mask | value & mask;
            }
            _ => {}
        }
    }

    fn step(&mut self, link: &Link<'_>) -> bool {
        self.channel.step(link)
    }

    fn reset(&mut self) {
        *self = Self::new(self.settings);
    }
}
