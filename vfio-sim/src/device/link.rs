// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a model reaches of the world: memory by DMA, and its owner by interrupts.

use vfio_type1::{BusMaster, DmaFault, Iova};

use crate::device::interrupts::Interrupts;

/// A model's way out of its device.
#[derive(Debug)]
pub struct Link<'a> {
    pub(super) bus: &'a BusMaster,
    pub(super) interrupts: &'a Interrupts,
}

impl Link<'_> {
    /// Reads memory. A fault is in the driver's log too.
    pub fn read(&self, iova: Iova, into: &mut [u8]) -> Result<(), DmaFault> {
        self.bus.read(iova, into)
    }

    /// Writes memory. A fault is in the driver's log too; what lies below it has been written.
    pub fn write(&self, iova: Iova, bytes: &[u8]) -> Result<(), DmaFault> {
        self.bus.write(iova, bytes)
    }

    /// Sends an interrupt message, MSI-X or MSI. It is lost if the vector is not set up, or if bus
    /// mastering is off, since a message is a write.
    pub fn interrupt(&self, vector: u16) {
        if self.bus.is_enabled() {
            self.interrupts.message(vector);
        }
    }
}
