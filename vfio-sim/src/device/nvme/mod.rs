// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An NVMe controller with one namespace, as NVM Express Base Specification 1.4 has it: what drivers of
//! QEMU, DPDK, SPDK and Linux need, and what they get wrong is told by status and event.
//!
//! A namespace is a file, a block device or memory ([`Backing`]). A step does one command, of each
//! submission queue in turn; all data go through the group's domain. [`Driver`] is a driver for tests.
//!
//! This file owns the registers' doors and the way of a command: out of its queue, done, answered.

mod admin;
mod blocks;
mod command;
mod disk;
mod driver;
mod event;
mod features;
mod health;
mod identify;
mod queue;
mod registers;
mod settings;
mod status;
mod transfer;

use std::os::fd::RawFd;

use vfio_type1::Iova;

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register, low};
use crate::pci::BarKind;

pub use command::{COMMAND_SIZE, COMPLETION_SIZE, Command, admin as admin_opcode, io as io_opcode};
pub use disk::{Backing, DiskError};
pub use driver::{Answer, Area, Driver, DriverError};
pub use registers::register;
pub use settings::Settings;
pub use status::Status;

use command::Completion;
use disk::Disk;
use event::Events;
use features::Features;
use health::{Failure, Health};
use identify::Identity;
use queue::{ADMIN, Queues};
use registers::{Change, Registers};
use transfer::Transfer;

/// The BAR with the registers, 16 KiB.
pub const REGISTERS_BAR: u8 = 0;
/// The BAR with the MSI-X table.
const MSIX_BAR: u8 = 4;

/// The IDs: Red Hat's vendor ID and one from the range that it gives out for tests.
const IDS: (u16, u16) = (0x1b36, 0x10f2);
/// Mass storage, non-volatile memory, NVM Express.
const CLASS: u32 = 0x01_08_02;
/// 1.4.
const VERSION: u32 = 0x0001_0400;
const REGISTERS_SIZE: u64 = 16 << 10;
const MSIX_SIZE: u64 = 4 << 10;
const VECTORS: u16 = 32;

/// The model.
#[derive(Debug)]
pub struct Nvme {
    address_bits: u32,
    block_size: u32,
    identity: Identity,
    disk: Disk,
    registers: Registers,
    queues: Queues,
    features: Features,
    events: Events,
    health: Health,
    transfer: Transfer,
}

impl Nvme {
    /// A device at the PCI address `name`. What is behind its namespace is opened.
    pub fn new(settings: &Settings, name: &str) -> Result<Self, DiskError> {
        let serial = settings.serial.as_deref().unwrap_or(name).to_owned();
        Ok(Self {
            address_bits: settings.address_bits,
            block_size: settings.block_size(),
            identity: Identity { serial },
            disk: Disk::open(&settings.backing, settings.block_size())?,
            registers: Registers::default(),
            queues: Queues::default(),
            features: Features::default(),
            events: Events::default(),
            health: Health::default(),
            transfer: Transfer::default(),
        })
    }

    fn blocks(&self) -> u64 {
        self.disk.size() / u64::from(self.block_size)
    }

    /// Writes 32 bits.
    fn store(&mut self, offset: u64, value: u32) {
        if let Some(doorbell) = registers::doorbell(offset) {
            return self.ring(doorbell, value);
        }
        match self.registers.write(offset, value) {
            Some(Change::Enabled) => {
                if let Some((submission, completion)) = self.registers.start() {
                    self.queues = Queues::new(submission, completion);
                }
            }
            Some(Change::Disabled) => self.stop(),
            Some(Change::Shutdown) => {
                // There is nobody to tell if it fails.
                let _ = self.disk.flush();
                self.registers.end_shutdown();
            }
            None => {}
        }
    }

    fn ring(&mut self, (queue, is_head): (u16, bool), value: u32) {
        if !self.registers.is_running() {
            return;
        }
        let rung = match is_head {
            true => self.queues.set_head(queue, value),
            false => self.queues.set_tail(queue, value),
        };
        if let Err(event) = rung {
            self.events.raise(event);
        }
    }

    /// A controller reset: the queues are gone, what was set, and the errors told of. What was counted is
    /// not.
    fn stop(&mut self) {
        self.queues = Queues::default();
        self.features = Features::default();
        self.events = Events::default();
        self.health.forget_failures();
    }

    /// Ends a request for events, if there is one to tell, or an Abort of one; and room to tell it.
    fn tell_event(&mut self, link: &Link<'_>) -> bool {
        if !self.queues.has_room(ADMIN) {
            return false;
        }
        let Some((id, result)) = self.events.next() else { return false };
        self.answer(ADMIN, id, Ok(result), link);
        true
    }

    /// Takes the command of a queue at `address`, and does it. If it cannot be read, nothing goes on.
    fn serve(&mut self, queue: u16, address: Iova, link: &Link<'_>) {
        let mut bytes = [0; COMMAND_SIZE];
        if link.read(address, &mut bytes).is_err() {
            self.registers.fail();
            return;
        }
        let command = Command::from_bytes(&bytes);
        // Neither fused commands nor scatter-gather lists are known.
        let done = match (command.flags, queue) {
            (0, ADMIN) => self.admin(&command, link),
            (0, _) => self.io(&command, link).map(Some),
            _ => Err(Status::InvalidField),
        };
        if let Err(status) = done {
            let (id, namespace, block) = (command.id, command.namespace, command.first_block());
            let block = if queue == ADMIN { 0 } else { block };
            self.health.note_failure(Failure { queue, id, status, block, namespace });
        }
        if let Some(result) = done.transpose() {
            self.answer(queue, command.id, result, link);
        }
    }

    fn answer(&mut self, queue: u16, id: u16, result: Result<u32, Status>, link: &Link<'_>) {
        let head = self.queues.head(queue);
        let Some(slot) = self.queues.slot(queue) else { return };
        let (result, status) = match result {
            Ok(result) => (result, 0),
            Err(status) => (0, status.field()),
        };
        let completion = Completion { result, head, queue, id, status, phase: slot.phase };
        let (front, back) = completion.to_bytes();
        // The phase comes last: who waits for it by looking shall not see half an entry.
        let behind = Iova(slot.address.0.wrapping_add(front.len() as u64));
        let written = link.write(slot.address, &front).and_then(|()| link.write(behind, &back));
        if written.is_err() {
            self.registers.fail();
        } else if let Some(vector) = slot.vector {
            link.interrupt(vector);
        }
    }
}

fn function(address_bits: u32) -> Function {
    let bar = |index, wide, size, content| {
        let kind = BarKind::Memory { wide, prefetchable: false };
        BarLayout { index, kind, size, content }
    };
    Function {
        ids: IDS,
        class: CLASS,
        revision: 0,
        bars: vec![
            bar(REGISTERS_BAR, true, REGISTERS_SIZE, BarContent::Registers),
            bar(MSIX_BAR, false, MSIX_SIZE, BarContent::MsixTable),
        ],
        interrupt_line: true,
        msi_vectors: 0,
        msix_vectors: VECTORS,
        express: true,
        address_bits,
    }
}

impl Model for Nvme {
    fn function(&self) -> Function {
        function(self.address_bits)
    }

    /// Registers can be read in any part. Doorbells read as zero.
    fn read(&mut self, Register { offset, .. }: Register) -> u64 {
        self.registers.word(offset & !7) >> (8 * (offset & 7))
    }

    /// Registers take 4 bytes, and 8 as twice 4.
    fn write(&mut self, Register { offset, size, .. }: Register, value: u64, _link: &Link<'_>) {
        if size >= 4 {
            self.store(offset, low(value));
        }
        if size == 8 {
            self.store(offset + 4, low(value >> 32));
        }
    }

    fn step(&mut self, link: &Link<'_>) -> bool {
        if !self.registers.is_running() {
            return false;
        }
        if self.tell_event(link) {
            return true;
        }
        let Some((queue, address)) = self.queues.take() else { return false };
        self.serve(queue, address, link);
        true
    }

    fn interrupt_line(&self) -> bool {
        self.queues.wants_line(self.registers.masked())
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.disk.descriptor()]
    }

    fn reset(&mut self) {
        self.stop();
        self.registers = Registers::default();
    }
}
