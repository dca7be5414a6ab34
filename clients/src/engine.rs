// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver for the DMA engine, written from its register table (`vfio-sim/DEVICES.md`).

use std::fmt;

use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_ioctls::VfioDevice;

use crate::Result;

const BAR: u32 = VFIO_PCI_BAR0_REGION_INDEX;
const IDENTIFICATION: u64 = 0x00;
const COMMAND: u64 = 0x08;
const STATUS: u64 = 0x0c;
/// Operation, source, destination and length stand here, 64 bits each.
const JOB: u64 = 0x10;
const FAULT: u64 = 0x40;

const START: u32 = 1;
const COPY: u64 = 1;

/// The command register of configuration space, and its bits that let a device decode memory and do DMA.
const PCI_COMMAND: u64 = 0x04;
const MEMORY_AND_BUS_MASTER: u16 = 0x06;

/// How a job ended, as the status register tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended well.
    Done,
    /// This address could not be accessed.
    Fault(u64),
    /// Another number of the register.
    Other(u32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Fault(at) => write!(f, "fault at {at:#x}"),
            Self::Other(status) => write!(f, "status {status}"),
        }
    }
}

/// An engine that may do DMA.
pub(crate) struct Engine<'a> {
    device: &'a VfioDevice,
}

impl<'a> Engine<'a> {
    /// Takes the device for an engine if it says that it is one.
    pub(crate) fn find(device: &'a VfioDevice) -> Result<Self> {
        let command = MEMORY_AND_BUS_MASTER.to_le_bytes();
        device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command, PCI_COMMAND);
        let engine = Self { device };
        match engine.read::<4>(IDENTIFICATION) {
            [b'D', b'M', b'A', b'E'] => Ok(engine),
            other => {
                Err(format!("this is no DMA engine: it identifies itself as {other:x?}").into())
            }
        }
    }

    /// How many bytes its registers take.
    pub(crate) fn size(&self) -> u64 {
        self.device.get_region_size(BAR)
    }

    /// Starts to copy. The device says by an interrupt that it ended.
    pub(crate) fn start_copy(&self, source: u64, destination: u64, length: u64) {
        for (offset, word) in (JOB..).step_by(8).zip([COPY, source, destination, length]) {
            self.device.region_write(BAR, &word.to_le_bytes(), offset);
        }
        self.device.region_write(BAR, &START.to_le_bytes(), COMMAND);
    }

    /// What became of the last job.
    pub(crate) fn outcome(&self) -> Outcome {
        match u32::from_le_bytes(self.read(STATUS)) {
            2 => Outcome::Done,
            3 => Outcome::Fault(u64::from_le_bytes(self.read(FAULT))),
            other => Outcome::Other(other),
        }
    }

    fn read<const SIZE: usize>(&self, offset: u64) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        self.device.region_read(BAR, &mut bytes, offset);
        bytes
    }
}
