// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Capabilities in configuration space: MSI and MSI-X (PCI Local Bus 3.0, 6.8), PCI Express (PCI
//! Express Base 3.0, 7.8).

use crate::device::model::{BarContent, Function};

/// A capability: its bytes, and which bits of them can be written.
pub(super) struct Capability {
    pub(super) bytes: Vec<u8>,
    pub(super) writable: Vec<u8>,
}

/// Where function level reset is started: the offset in the PCI Express capability of the upper byte of
/// device control, and the bit in it.
pub(super) const RESET_BYTE: usize = 9;
pub(super) const RESET_BIT: u8 = 1 << 7;

pub(super) const MSI: u8 = 0x05;
pub(super) const EXPRESS: u8 = 0x10;
pub(super) const MSIX: u8 = 0x11;

impl Capability {
    fn new(id: u8, size: usize) -> Self {
        let mut bytes = vec![0; size];
        bytes[0] = id;
        Self { bytes, writable: vec![0; size] }
    }

    /// Puts a field of `N` bytes, and the bits of it that can be written.
    fn put<const N: usize>(&mut self, at: usize, value: [u8; N], writable: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&value);
        self.writable[at..at + N].copy_from_slice(&writable);
    }

    pub(super) fn id(&self) -> u8 {
        self.bytes[0]
    }
}

/// The capabilities of a function, in the order in which they are linked.
pub(super) fn all(function: &Function) -> Vec<Capability> {
    let mut all = Vec::new();
    if function.express {
        all.push(express());
    }
    if function.msi_vectors != 0 {
        all.push(msi(function.msi_vectors));
    }
    let table = function.bars.iter().find(|bar| bar.content == BarContent::MsixTable);
    if let Some(bar) = table.filter(|_| function.msix_vectors != 0) {
        let half = u32::try_from(bar.size / 2).unwrap_or(u32::MAX);
        all.push(msix(function.msix_vectors, bar.index, half));
    }
    all
}

/// A PCI Express endpoint with one lane and function level reset.
fn express() -> Capability {
    const VERSION_2_ENDPOINT: u16 = 0x0002;
    const ROLE_BASED_ERRORS: u32 = 1 << 15;
    const CAN_RESET: u32 = 1 << 28;
    const ONE_LANE: u32 = 0x11;
    let mut capability = Capability::new(EXPRESS, 0x3c);
    capability.put(2, VERSION_2_ENDPOINT.to_le_bytes(), [0; 2]);
    capability.put(4, (ROLE_BASED_ERRORS | CAN_RESET).to_le_bytes(), [0; 4]);
    capability.put(8, [0x10, 0x28], [0xff, 0x7f]);
    capability.put(12, ONE_LANE.to_le_bytes(), [0; 4]);
    capability.put(18, [0x11, 0], [0; 2]);
    capability
}

/// MSI with 64-bit addresses and without masks.
fn msi(vectors: u16) -> Capability {
    const WIDE: u16 = 1 << 7;
    let capable = u16::try_from(vectors.ilog2()).unwrap_or(0);
    let mut capability = Capability::new(MSI, 14);
    // How many of the vectors; enabling is the kernel's.
    capability.put(2, (WIDE | capable << 1).to_le_bytes(), [0x70, 0]);
    capability.put(4, [0; 4], [0xfc, 0xff, 0xff, 0xff]);
    capability.put(8, [0; 4], [0xff; 4]);
    capability.put(12, [0; 2], [0xff; 2]);
    capability
}

/// MSI-X with its table at the beginning of `bar` and the pending bits at `pending`.
fn msix(vectors: u16, bar: u8, pending: u32) -> Capability {
    let mut capability = Capability::new(MSIX, 12);
    // Enabling and masking are the kernel's.
    capability.put(2, (vectors - 1).to_le_bytes(), [0, 0]);
    capability.put(4, u32::from(bar).to_le_bytes(), [0; 4]);
    capability.put(8, (pending | u32::from(bar)).to_le_bytes(), [0; 4]);
    capability
}
