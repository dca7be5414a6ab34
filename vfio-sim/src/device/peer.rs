// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A peer-to-peer target: a device with a large BAR of memory and nothing else, as a GPU looks to the
//! device that sends it data.

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register};
use crate::pci::BarKind;

/// The BAR with the memory.
pub const MEMORY_BAR: u8 = 0;

/// The IDs: Red Hat's vendor ID and one from the range that it gives out for tests.
const IDS: (u16, u16) = (0x1b36, 0x10f1);
/// A 3D controller, as GPUs for computing are.
const CLASS: u32 = 0x03_02_00;
const DEFAULT_SIZE: u64 = 256 << 20;

/// The model.
#[derive(Clone, Debug)]
pub struct Peer {
    size: u64,
}

impl Default for Peer {
    fn default() -> Self {
        Self::with_size(DEFAULT_SIZE)
    }
}

impl Peer {
    /// The smallest memory, in bytes: a page.
    pub const MIN_SIZE: u64 = 4096;
    /// The largest memory, in bytes.
    pub const MAX_SIZE: u64 = 1 << 42;

    /// A device with so many bytes of memory, rounded up to a power of two between [`Self::MIN_SIZE`]
    /// and [`Self::MAX_SIZE`].
    pub fn with_size(size: u64) -> Self {
        Self { size: size.clamp(Self::MIN_SIZE, Self::MAX_SIZE).next_power_of_two() }
    }
}

impl Model for Peer {
    fn function(&self) -> Function {
        let kind = BarKind::Memory { wide: true, prefetchable: true };
        let content = BarContent::Memory;
        Function {
            ids: IDS,
            class: CLASS,
            revision: 0,
            bars: vec![BarLayout { index: MEMORY_BAR, kind, size: self.size, content }],
            interrupt_line: false,
            msi_vectors: 0,
            msix_vectors: 0,
            express: true,
            address_bits: 64,
        }
    }

    fn read(&mut self, _register: Register) -> u64 {
        0
    }

    fn write(&mut self, _register: Register, _value: u64, _link: &Link<'_>) {}

    fn step(&mut self, _link: &Link<'_>) -> bool {
        false
    }

    fn reset(&mut self) {}
}
