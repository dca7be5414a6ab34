// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A DMA test engine: it copies, fills, follows lists, dirties the pages it is told to, and goes astray
//! as told.
//!
//! A job is a descriptor: an operation, a source, a destination, a length, a value. It is written into
//! registers and started; a list is an array of descriptors in memory. [`Driver`] does that for a
//! test; `vfio-sim/DEVICES.md` has the registers for whoever writes a driver of their own.

mod driver;
mod job;

use vfio_type1::{DmaFault, Iova};

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register, merge};
use crate::pci::BarKind;

pub use driver::{Driver, JobError};
pub use job::{Job, Operation, Status};

/// The BAR with the registers, 4 KiB.
pub const REGISTERS_BAR: u8 = 0;
/// The BAR with the MSI-X table.
const MSIX_BAR: u8 = 2;

/// Offsets of the registers. From [`register::OPERATION`] on they are 64-bit ones.
pub mod register {
    /// [`super::IDENTIFICATION`] (read only, 32 bits).
    pub const IDENTIFICATION: u64 = 0x00;
    /// [`super::START`] (write only, 32 bits).
    pub const COMMAND: u64 = 0x08;
    /// What became of the last job: a [`super::Status`] (read only, 32 bits).
    pub const STATUS: u64 = 0x0c;
    /// The operation: a [`super::Operation`].
    pub const OPERATION: u64 = 0x10;
    /// Where it reads.
    pub const SOURCE: u64 = 0x18;
    /// Where it writes.
    pub const DESTINATION: u64 = 0x20;
    /// Bytes, pages or descriptors, as the operation says.
    pub const LENGTH: u64 = 0x28;
    /// The byte to write, in the lowest 8 bits.
    pub const VALUE: u64 = 0x30;
    /// How many jobs ended since reset, well or badly (read only).
    pub const ENDED: u64 = 0x38;
    /// The first address that could not be accessed, if the status is a fault (read only).
    pub const FAULT: u64 = 0x40;
}

/// "DMAE", as bytes.
pub const IDENTIFICATION: u32 = u32::from_le_bytes(*b"DMAE");
/// Starts the job in the registers.
pub const START: u32 = 1;
/// The size of a descriptor in memory: the five registers from [`register::OPERATION`] on.
pub const DESCRIPTOR_SIZE: usize = 40;
/// The vector of a job that ended well.
pub const VECTOR_DONE: u16 = 0;
/// The vector of one that did not.
pub const VECTOR_FAULT: u16 = 1;

/// The IDs: Red Hat's vendor ID and one from the range that it gives out for tests.
const IDS: (u16, u16) = (0x1b36, 0x10f0);
/// A system peripheral, of no kind that is defined.
const CLASS: u32 = 0x08_80_00;
const BAR_SIZE: u64 = 4096;
const VECTORS: u16 = 2;
const DEFAULT_CHUNK: u64 = 64 << 10;

/// How an engine differs from a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many bytes one step moves.
    pub chunk: u64,
    /// How many bytes too many each copy and each fill writes.
    pub overrun: u64,
    /// Where it writes a byte that nobody asked for, after each job that ended well.
    pub stray: Option<u64>,
    /// The address bits that it can state.
    pub address_bits: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { chunk: DEFAULT_CHUNK, overrun: 0, stray: None, address_bits: 64 }
    }
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    settings: Settings,
    /// The job in the registers.
    staged: Job,
    status: u64,
    ended: u64,
    fault: u64,
    running: Option<Running>,
}

/// A job at work, and how far it is.
#[derive(Clone, Debug)]
struct Running {
    job: Job,
    done: u64,
    /// What is left of the list that it is from.
    list: Option<Rest>,
}

/// Descriptors that have not been read yet.
#[derive(Clone, Copy, Debug)]
struct Rest {
    at: u64,
    count: u64,
}

/// Why a job ends early.
enum Broken {
    Fault(u64),
    BadJob,
}

impl From<DmaFault> for Broken {
    fn from(fault: DmaFault) -> Self {
        Self::Fault(fault.iova.0)
    }
}

impl Engine {
    /// An engine with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    fn start(&mut self) {
        if self.running.is_none() {
            self.status = Status::Busy as u64;
            self.running = Some(Running { job: self.staged, done: 0, list: None });
        }
    }

    /// Goes on with the job; returns what is to be done next of it, if anything.
    fn advance(&self, running: Running, link: &Link<'_>) -> Result<Option<Running>, Broken> {
        let job = running.job;
        let operation = Operation::from_register(job.operation).ok_or(Broken::BadJob)?;
        let extra = match operation {
            Operation::Copy | Operation::Fill => self.settings.overrun,
            _ => 0,
        };
        let left = job.length.saturating_add(extra).saturating_sub(running.done);
        if operation == Operation::List {
            if running.list.is_some() {
                return Err(Broken::BadJob);
            }
            return next_of(Rest { at: job.source, count: job.length }, link);
        }
        if left == 0 {
            return match running.list {
                Some(rest) => next_of(rest, link),
                None => Ok(None),
            };
        }
        let piece = self.piece(operation, left);
        do_piece(operation, &job, running.done, piece, link)?;
        Ok(Some(Running { done: running.done + piece, ..running }))
    }

    /// How much of what is left one step does.
    fn piece(&self, operation: Operation, left: u64) -> u64 {
        match operation {
            Operation::Touch | Operation::List => 1,
            Operation::Copy | Operation::Fill | Operation::Read => {
                left.min(self.settings.chunk.max(1))
            }
        }
    }

    fn end(&mut self, how: Result<(), Broken>, link: &Link<'_>) {
        self.ended += 1;
        let (status, vector) = match how {
            Ok(()) => {
                if let Some(stray) = self.settings.stray {
                    // Nobody asked for it, so nobody is told.
                    let _ = link.write(Iova(stray), &[low_byte(self.staged.value)]);
                }
                (Status::Done, VECTOR_DONE)
            }
            Err(Broken::Fault(at)) => {
                self.fault = at;
                (Status::Fault, VECTOR_FAULT)
            }
            Err(Broken::BadJob) => (Status::BadJob, VECTOR_FAULT),
        };
        self.status = status as u64;
        link.interrupt(vector);
    }
}

/// Reads the next descriptor of a list.
fn next_of(rest: Rest, link: &Link<'_>) -> Result<Option<Running>, Broken> {
    let Some(count) = rest.count.checked_sub(1) else { return Ok(None) };
    let mut bytes = [0; DESCRIPTOR_SIZE];
    link.read(Iova(rest.at), &mut bytes)?;
    let list = Some(Rest { at: rest.at.wrapping_add(DESCRIPTOR_SIZE as u64), count });
    Ok(Some(Running { job: Job::from_bytes(&bytes), done: 0, list }))
}

/// Does `piece` of a job from `done` on.
fn do_piece(
    operation: Operation,
    job: &Job,
    done: u64,
    piece: u64,
    link: &Link<'_>,
) -> Result<(), Broken> {
    // A device adds without looking: it wraps around.
    let source = Iova(job.source.wrapping_add(done));
    let destination = Iova(job.destination.wrapping_add(done));
    let value = low_byte(job.value);
    let mut buffer = vec![value; usize::try_from(piece).unwrap_or(0)];
    match operation {
        Operation::Copy => {
            // What is written too many was not read.
            let left = usize::try_from(job.length.saturating_sub(done)).unwrap_or(usize::MAX);
            let read = left.min(buffer.len());
            link.read(source, &mut buffer[..read])?;
            link.write(destination, &buffer)?;
        }
        Operation::Fill => link.write(destination, &buffer)?,
        Operation::Read => link.read(source, &mut buffer)?,
        Operation::Touch => {
            let mut page = [0; 8];
            link.read(Iova(job.source.wrapping_add(8 * done)), &mut page)?;
            link.write(Iova(u64::from_le_bytes(page)), &[value])?;
        }
        Operation::List => {}
    }
    Ok(())
}

fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

impl Model for Engine {
    fn function(&self) -> Function {
        let kind = BarKind::Memory { wide: false, prefetchable: false };
        let bar = |index, content| BarLayout { index, kind, size: BAR_SIZE, content };
        Function {
            ids: IDS,
            class: CLASS,
            revision: 0,
            bars: vec![
                bar(REGISTERS_BAR, BarContent::Registers),
                bar(MSIX_BAR, BarContent::MsixTable),
            ],
            interrupt_line: false,
            msi_vectors: VECTORS,
            msix_vectors: VECTORS,
            express: true,
            address_bits: self.settings.address_bits,
        }
    }

    /// Any register takes accesses of 4 and 8 bytes, to either half.
    fn read(&mut self, Register { offset, size, .. }: Register) -> u64 {
        if size < 4 {
            return 0;
        }
        let job = self.staged.words();
        let word = match offset & !7 {
            register::IDENTIFICATION => u64::from(IDENTIFICATION),
            register::COMMAND => self.status << 32,
            register::ENDED => self.ended,
            register::FAULT => self.fault,
            word => job_word(word).map_or(0, |index| job[index]),
        };
        word >> (8 * (offset & 7))
    }

    fn write(&mut self, Register { offset, size, .. }: Register, value: u64, _link: &Link<'_>) {
        if size < 4 {
            return;
        }
        if offset == register::COMMAND && value & u64::from(START) != 0 {
            self.start();
        }
        if let Some(index) = job_word(offset) {
            let mut words = self.staged.words();
            words[index] = merge(words[index], offset & 7, size, value);
            self.staged = Job::from_words(words);
        }
    }

    fn step(&mut self, link: &Link<'_>) -> bool {
        let Some(running) = self.running.take() else { return false };
        match self.advance(running, link) {
            Ok(Some(next)) => self.running = Some(next),
            Ok(None) => self.end(Ok(()), link),
            Err(broken) => self.end(Err(broken), link),
        }
        true
    }

    fn reset(&mut self) {
        *self = Self::new(self.settings);
    }
}

/// Which word of the job is in the register at `offset`.
fn job_word(offset: u64) -> Option<usize> {
    let index = usize::try_from(offset.checked_sub(register::OPERATION)? / 8).ok()?;
    (index < 5).then_some(index)
}
