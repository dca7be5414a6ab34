// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver for the engine, for tests.

use vfio_type1::Iova;

use super::job::{Job, Status};
use super::{REGISTERS_BAR, START, register};
use crate::device::pci_device::PciDevice;
use crate::device::region::{CONFIG_REGION, RegionError};

/// A driver for the engine in a test: it programs the registers through the device's doors.
#[derive(Debug)]
pub struct Driver<'a> {
    device: &'a PciDevice,
}

/// A job that did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// An access was refused; the driver of the host has more about it in its log.
    #[error("the engine had a fault at {at}")]
    Fault {
        /// The first address that could not be accessed.
        at: Iova,
    },
    /// There is no such operation, or a list was in a list.
    #[error("the engine does not know the operation")]
    BadJob,
    /// Another job was at work, so this one was not started.
    #[error("the engine is at work on another job; wait for its end")]
    Busy,
    /// The engine was reset meanwhile.
    #[error("the engine was reset before the job ended")]
    Reset,
}

impl<'a> Driver<'a> {
    const COMMAND_REGISTER: u64 = 0x04;
    const MEMORY_AND_BUS_MASTER: [u8; 2] = [0x06, 0x00];

    /// Takes an engine over: turns its decoding and its bus mastering on.
    pub fn new(device: &'a PciDevice) -> Result<Self, RegionError> {
        device.write(CONFIG_REGION, Self::COMMAND_REGISTER, &Self::MEMORY_AND_BUS_MASTER)?;
        Ok(Self { device })
    }

    /// Starts a job. With [`Pace::Immediate`](crate::device::Pace::Immediate) it has ended on return.
    pub fn start(&self, job: &Job) -> Result<(), RegionError> {
        for (offset, word) in (register::OPERATION..).step_by(8).zip(job.words()) {
            self.device.write_u64(REGISTERS_BAR, offset, word)?;
        }
        self.device.write_u32(REGISTERS_BAR, register::COMMAND, START)
    }

    /// What became of the job that was started last.
    pub fn status(&self) -> Result<Status, RegionError> {
        let number = self.device.read_u32(REGISTERS_BAR, register::STATUS)?;
        let known = [Status::Busy, Status::Done, Status::Fault, Status::BadJob];
        Ok(known.into_iter().find(|status| *status as u32 == number).unwrap_or(Status::Idle))
    }

    /// How many jobs have ended since reset.
    pub fn ended(&self) -> Result<u64, RegionError> {
        self.device.read_u64(REGISTERS_BAR, register::ENDED)
    }

    /// Does a job and waits for its end.
    pub fn run(&self, job: &Job) -> Result<Result<(), JobError>, RegionError> {
        if self.status()? == Status::Busy {
            return Ok(Err(JobError::Busy));
        }
        self.start(job)?;
        self.device.settle();
        Ok(match self.status()? {
            Status::Fault => {
                let at = Iova(self.device.read_u64(REGISTERS_BAR, register::FAULT)?);
                Err(JobError::Fault { at })
            }
            Status::BadJob => Err(JobError::BadJob),
            Status::Done => Ok(()),
            Status::Busy => Err(JobError::Busy),
            Status::Idle => Err(JobError::Reset),
        })
    }
}
