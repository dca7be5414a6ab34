// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver for the controller, for tests.

use vfio_type1::{Fault, Iova, Memory, Vaddr};

use super::command::{COMMAND_SIZE, COMPLETION_SIZE, Command, Completion, admin, io};
use super::status::Status;
use super::{REGISTERS_BAR, register};
use crate::device::pci_device::PciDevice;
use crate::device::region::{CONFIG_REGION, RegionError};

const PAGE: u64 = 4096;
/// The admin queues, and the pair of I/O queues.
const ADMIN: usize = 0;
const IO: usize = 1;
/// Enabled, with entries of 2^6 and 2^4 bytes.
const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
const NORMAL_SHUTDOWN: u32 = 1 << 14;
const READY: u32 = 1 << 0;
/// Where a namespace says what power of two its blocks are.
const BLOCK_SHIFT: usize = 130;

/// Memory for a driver's queues and lists: [`Area::SIZE`] bytes of a process, mapped for the device from
/// `iova` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where the process has it.
    pub vaddr: Vaddr,
    /// Where the device has it, at the start of a page.
    pub iova: Iova,
}

impl Area {
    /// How many bytes the driver uses: four queues, a list, and a page for answers.
    pub const SIZE: u64 = 6 * PAGE;
    const LIST: u64 = 4 * PAGE;
    const ANSWER: u64 = 5 * PAGE;

    fn iova(&self, offset: u64) -> u64 {
        self.iova.0 + offset
    }
}

/// A driver for the controller in a test: admin queues and a pair of I/O queues, one command at a time.
#[derive(Debug)]
pub struct Driver<'a, M> {
    device: &'a PciDevice,
    memory: &'a M,
    area: Area,
    /// In bytes.
    block_size: u64,
    pairs: [Pair; 2],
}

/// What a controller answers to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command's identifier.
    pub id: u16,
    /// Its result.
    pub result: Result<u32, Status>,
}

/// A submission queue and its completion queue, a page each.
#[derive(Debug)]
struct Pair {
    submission: u64,
    completion: u64,
    entries: u16,
    tail: u16,
    head: u16,
    phase: bool,
}

/// What a driver could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The device's registers cannot be accessed.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The driver's memory cannot be accessed.
    #[error(transparent)]
    Memory(#[from] Fault),
    /// The controller did not start, or failed.
    #[error("the controller is not ready: its status register is {csts:#x}")]
    NotReady {
        /// What the register says.
        csts: u32,
    },
    /// The command failed.
    #[error(transparent)]
    Command(#[from] Status),
    /// The command was not answered, though the device has no more work.
    #[error("the controller did not answer")]
    NoAnswer,
}

impl Pair {
    const MAX_ENTRIES: u16 = 64;

    fn new(submission: u64, entries: u16) -> Self {
        let completion = submission + PAGE;
        Self { submission, completion, entries, tail: 0, head: 0, phase: true }
    }

    fn after(&self, place: u16) -> u16 {
        (place + 1) % self.entries
    }
}

impl<'a, M: Memory> Driver<'a, M> {
    const COMMAND_REGISTER: u64 = 0x04;
    const MEMORY_AND_BUS_MASTER: [u8; 2] = [0x06, 0x00];

    /// Takes a controller over: resets it, starts it, and makes a pair of I/O queues that interrupt by
    /// vector 1. All queues have `entries` entries, 2 to 64.
    pub fn new(
        device: &'a PciDevice,
        memory: &'a M,
        area: Area,
        entries: u16,
    ) -> Result<Self, DriverError> {
        let entries = entries.clamp(2, Pair::MAX_ENTRIES);
        let pairs = [Pair::new(0, entries), Pair::new(2 * PAGE, entries)];
        let mut driver = Self { device, memory, area, block_size: 512, pairs };
        device.write(CONFIG_REGION, Self::COMMAND_REGISTER, &Self::MEMORY_AND_BUS_MASTER)?;
        driver.enable()?;
        driver.create_queues()?;
        let namespace = driver.identify(0, 1)?;
        driver.block_size = 1 << namespace[BLOCK_SHIFT];
        Ok(driver)
    }

    fn enable(&self) -> Result<(), DriverError> {
        let [admin, _] = &self.pairs;
        let size = u32::from(admin.entries) - 1;
        self.memory.write(self.area.vaddr, &vec![0; usize::try_from(Area::SIZE).unwrap_or(0)])?;
        self.device.write_u32(REGISTERS_BAR, register::CC, 0)?;
        self.device.write_u32(REGISTERS_BAR, register::AQA, size << 16 | size)?;
        self.device.write_u64(REGISTERS_BAR, register::ASQ, self.area.iova(admin.submission))?;
        self.device.write_u64(REGISTERS_BAR, register::ACQ, self.area.iova(admin.completion))?;
        self.device.write_u32(REGISTERS_BAR, register::CC, ENABLED)?;
        self.check_ready()
    }

    fn check_ready(&self) -> Result<(), DriverError> {
        match self.device.read_u32(REGISTERS_BAR, register::CSTS)? {
            READY => Ok(()),
            csts => Err(DriverError::NotReady { csts }),
        }
    }

    fn create_queues(&mut self) -> Result<(), DriverError> {
        const CONTIGUOUS: u32 = 1;
        const WITH_INTERRUPTS: u32 = 1 << 1;
        let [_, Pair { submission, completion, entries, .. }] = self.pairs;
        let first = u32::from(entries - 1) << 16 | 1;
        for (opcode, place, how) in [
            (admin::CREATE_COMPLETION_QUEUE, completion, 1 << 16 | WITH_INTERRUPTS | CONTIGUOUS),
            (admin::CREATE_SUBMISSION_QUEUE, submission, 1 << 16 | CONTIGUOUS),
        ] {
            let (prp1, words) = (self.area.iova(place), [first, how, 0, 0, 0, 0]);
            self.admin(&Command { opcode, prp1, words, ..Command::default() })?;
        }
        Ok(())
    }

    /// Does an admin command and waits for its end; returns its result.
    pub fn admin(&mut self, command: &Command) -> Result<u32, DriverError> {
        self.run(ADMIN, command)
    }

    /// Does an I/O command and waits for its end; returns its result.
    pub fn io(&mut self, command: &Command) -> Result<u32, DriverError> {
        self.run(IO, command)
    }

    fn run(&mut self, pair: usize, command: &Command) -> Result<u32, DriverError> {
        self.submit(pair, command)?;
        self.device.settle();
        match self.answer(pair)? {
            Some(answer) => Ok(answer.result?),
            None => {
                self.check_ready()?;
                Err(DriverError::NoAnswer)
            }
        }
    }

    /// Hands an I/O command over, without waiting. It is the caller's business that the queue has room.
    pub fn submit_io(&mut self, command: &Command) -> Result<(), DriverError> {
        self.submit(IO, command)
    }

    /// Hands an admin command over, without waiting.
    pub fn submit_admin(&mut self, command: &Command) -> Result<(), DriverError> {
        self.submit(ADMIN, command)
    }

    /// The next answer to an I/O command, if there is one.
    pub fn io_answer(&mut self) -> Result<Option<Answer>, DriverError> {
        self.answer(IO)
    }

    /// The next answer to an admin command, if there is one.
    pub fn admin_answer(&mut self) -> Result<Option<Answer>, DriverError> {
        self.answer(ADMIN)
    }

    fn submit(&mut self, index: usize, command: &Command) -> Result<(), DriverError> {
        let pair = &mut self.pairs[index];
        let place = pair.submission + u64::from(pair.tail) * COMMAND_SIZE as u64;
        self.memory.write(Vaddr(self.area.vaddr.0 + place), &command.to_bytes())?;
        pair.tail = pair.after(pair.tail);
        let tail = pair.tail;
        self.ring(2 * index, tail)
    }

    fn answer(&mut self, index: usize) -> Result<Option<Answer>, DriverError> {
        let pair = &mut self.pairs[index];
        let place = pair.completion + u64::from(pair.head) * COMPLETION_SIZE as u64;
        let mut bytes = [0; COMPLETION_SIZE];
        self.memory.read(Vaddr(self.area.vaddr.0 + place), &mut bytes)?;
        let completion = Completion::from_bytes(&bytes);
        if completion.phase != pair.phase {
            return Ok(None);
        }
        pair.head = pair.after(pair.head);
        pair.phase ^= pair.head == 0;
        let head = pair.head;
        self.ring(2 * index + 1, head)?;
        let result = Status::from_field(completion.status).map_or(Ok(completion.result), Err);
        Ok(Some(Answer { id: completion.id, result }))
    }

    fn ring(&self, doorbell: usize, value: u16) -> Result<(), DriverError> {
        let offset = register::DOORBELLS + 4 * doorbell as u64;
        Ok(self.device.write_u32(REGISTERS_BAR, offset, value.into())?)
    }

    /// Asks for one of the structures of Identify, by its number (CNS).
    pub fn identify(&mut self, structure: u8, namespace: u32) -> Result<Vec<u8>, DriverError> {
        let (prp1, words) = (self.area.iova(Area::ANSWER), [structure.into(), 0, 0, 0, 0, 0]);
        let opcode = admin::IDENTIFY;
        self.admin(&Command { opcode, namespace, prp1, words, ..Command::default() })?;
        let mut data = vec![0; usize::try_from(PAGE).unwrap_or(0)];
        self.memory.read(Vaddr(self.area.vaddr.0 + Area::ANSWER), &mut data)?;
        Ok(data)
    }

    /// Reads `bytes` bytes, 1 MiB at most, from block `first` on into memory that is mapped in one piece at
    /// `to`.
    pub fn read(&mut self, first: u64, to: Iova, bytes: u64) -> Result<(), DriverError> {
        self.transfer(io::READ, first, to, bytes)
    }

    /// Writes `bytes` bytes, as [`Self::read`] reads them.
    pub fn write(&mut self, first: u64, from: Iova, bytes: u64) -> Result<(), DriverError> {
        self.transfer(io::WRITE, first, from, bytes)
    }

    fn transfer(
        &mut self,
        opcode: u8,
        first: u64,
        at: Iova,
        bytes: u64,
    ) -> Result<(), DriverError> {
        let blocks = u32::try_from(bytes.div_ceil(self.block_size)).unwrap_or(u32::MAX);
        let command = Command::on_blocks(opcode, first, blocks);
        let command = self.with_data(command, at, bytes)?;
        self.io(&command).map(|_| ())
    }

    /// Waits until all that was written is safe.
    pub fn flush(&mut self) -> Result<(), DriverError> {
        let command = Command { opcode: io::FLUSH, namespace: 1, ..Command::default() };
        self.io(&command).map(|_| ())
    }

    /// Points a command at memory: the first page, and the second or a list of the others.
    pub fn with_data(
        &self,
        command: Command,
        at: Iova,
        bytes: u64,
    ) -> Result<Command, DriverError> {
        let Iova(prp1) = at;
        let second = (prp1 | (PAGE - 1)).saturating_add(1);
        let end = prp1.saturating_add(bytes);
        let prp2 = match end.saturating_sub(second) {
            0 => 0,
            1..=PAGE => second,
            _ => {
                let pages = (second..end).step_by(4096).take(512);
                let list: Vec<u8> = pages.flat_map(u64::to_le_bytes).collect();
                self.memory.write(Vaddr(self.area.vaddr.0 + Area::LIST), &list)?;
                self.area.iova(Area::LIST)
            }
        };
        Ok(Command { prp1, prp2, ..command })
    }

    /// Shuts the controller down; returns whether it says that it is.
    pub fn shut_down(&self) -> Result<bool, DriverError> {
        const SHUT_DOWN: u32 = 2 << 2;
        self.device.write_u32(REGISTERS_BAR, register::CC, ENABLED | NORMAL_SHUTDOWN)?;
        Ok(self.device.read_u32(REGISTERS_BAR, register::CSTS)? & 3 << 2 == SHUT_DOWN)
    }
}
