// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel: its registers, the chain it follows, and what becomes of errors.
//!
//! DMACOUNT runs: a driver writes how many descriptors there are since it wrote the chain's address, and
//! the channel works until it has done as many, modulo 2^16. Where the chain goes, the descriptors say.

use vfio_type1::Iova;

use super::descriptor::{DESCRIPTOR_SIZE, Descriptor};
use super::register as reg;
use crate::device::link::Link;

/// What a channel is doing, as CHANSTS says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It is at work.
    Active = 0,
    /// It has done all that it was told.
    Done = 1,
    /// It was told to stop.
    Suspended = 2,
    /// It was reset, or met an error.
    Halted = 3,
    /// It has a chain, and nothing to do of it yet.
    Armed = 4,
}

/// How much is copied at once.
const CHUNK: u32 = 64 << 10;
const ALIGNMENT: u64 = DESCRIPTOR_SIZE as u64 - 1;
/// The only channel's vector.
const VECTOR: u16 = 0;

/// The bits of an error register.
type Errors = u32;

#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// The largest length.
    pub(super) most: u32,
    /// Whether INTRCTRL lets interrupts out.
    pub(super) may_interrupt: bool,
    pub(super) state: State,
    pub(super) control: u16,
    /// An interrupt was sent, and the channel not re-armed.
    pub(super) fired: bool,
    /// Another one waits for that.
    waiting: bool,
    /// How many descriptors there are, and how many are done.
    pub(super) count: u16,
    done: u16,
    pub(super) chain: u64,
    pub(super) current: u64,
    next: u64,
    completed: u64,
    pub(super) completion: u64,
    pub(super) errors: Errors,
    pub(super) error_mask: Errors,
    /// The same errors in configuration space.
    pub(super) reported: Errors,
    pub(super) reported_mask: Errors,
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            may_interrupt: false,
            state: State::Halted,
            control: 0,
            fired: false,
            waiting: false,
            count: 0,
            done: 0,
            chain: 0,
            current: 0,
            next: 0,
            completed: 0,
            completion: 0,
            errors: 0,
            error_mask: 0,
            reported: 0,
            reported_mask: 0,
            buffer: vec![0; CHUNK as usize],
        }
    }

    /// CHANSTS.
    pub(super) fn status(&self) -> u64 {
        self.completed | self.state as u64
    }

    pub(super) fn set_control(&mut self, control: u16, link: &Link<'_>) {
        self.control = control & !reg::CHANCTRL_REARM;
        if control & reg::CHANCTRL_REARM != 0 {
            self.fired = false;
            if std::mem::take(&mut self.waiting) {
                self.interrupt(link);
            }
        }
    }

    /// Commands that version 3 does not have are passed over.
    pub(super) fn command(&mut self, command: u8) {
        if command & reg::CHANCMD_RESET != 0 {
            self.state = State::Halted;
            (self.fired, self.waiting) = (false, false);
            (self.count, self.done) = (0, 0);
            (self.chain, self.current, self.next, self.completed) = (0, 0, 0, 0);
        } else if command & reg::CHANCMD_SUSPEND != 0 && self.state != State::Halted {
            self.state = State::Suspended;
        }
    }

    /// Takes a new chain. While errors are not cleared the channel stays halted.
    pub(super) fn arm(&mut self, chain: u64, link: &Link<'_>) {
        self.chain = chain;
        if self.errors != 0 {
            return;
        }
        (self.count, self.done, self.next, self.completed) = (0, 0, chain, 0);
        self.state = State::Armed;
        if chain & ALIGNMENT != 0 {
            self.halt(reg::ERROR_CHAIN, link);
        }
    }

    pub(super) fn set_count(&mut self, count: u16) {
        self.count = count;
        match self.state {
            State::Halted => {}
            _ if count != self.done => self.state = State::Active,
            // The driver has taken back what was not done yet.
            State::Active => self.state = State::Done,
            State::Done | State::Suspended | State::Armed => {}
        }
    }

    /// Does a descriptor; false if there is none to do.
    pub(super) fn step(&mut self, link: &Link<'_>) -> bool {
        if self.state != State::Active {
            return false;
        }
        if let Err(errors) = self.follow(link) {
            self.halt(errors, link);
        }
        true
    }

    fn follow(&mut self, link: &Link<'_>) -> Result<(), Errors> {
        self.current = self.next;
        if self.current & ALIGNMENT != 0 {
            return Err(reg::ERROR_NEXT_ALIGNMENT);
        }
        let mut bytes = [0; DESCRIPTOR_SIZE];
        link.read(Iova(self.current), &mut bytes).map_err(|_| reg::ERROR_NEXT)?;
        let descriptor = Descriptor::from_bytes(&bytes);
        self.execute(&descriptor, link)?;
        (self.completed, self.next) = (self.current, descriptor.next);
        self.done = self.done.wrapping_add(1);
        if self.done == self.count {
            self.state = State::Done;
        }
        if descriptor.has(Descriptor::COMPLETION) {
            self.write_completion(link)?;
        }
        if descriptor.has(Descriptor::INTERRUPT) {
            self.interrupt(link);
        }
        Ok(())
    }

    fn execute(&mut self, descriptor: &Descriptor, link: &Link<'_>) -> Result<(), Errors> {
        let operation = descriptor.operation();
        if ![Descriptor::COPY, Descriptor::FILL].contains(&operation) {
            return Err(reg::ERROR_CONTROL);
        }
        if descriptor.has(Descriptor::NULL) {
            return Ok(());
        }
        if descriptor.size == 0 || descriptor.size > self.most {
            return Err(reg::ERROR_LENGTH);
        }
        if operation == Descriptor::FILL {
            let (words, _) = self.buffer.as_chunks_mut::<8>();
            let used = descriptor.size.div_ceil(8) as usize;
            words.iter_mut().take(used).for_each(|word| *word = descriptor.source.to_le_bytes());
        }
        let mut done = 0;
        while done < descriptor.size {
            let piece = CHUNK.min(descriptor.size - done);
            let bytes = &mut self.buffer[..piece as usize];
            // A device adds without looking: it wraps around.
            let at = |from: u64| Iova(from.wrapping_add(u64::from(done)));
            if operation == Descriptor::COPY {
                link.read(at(descriptor.source), bytes).map_err(|_| reg::ERROR_SOURCE)?;
            }
            link.write(at(descriptor.destination), bytes).map_err(|_| reg::ERROR_DESTINATION)?;
            done += piece;
        }
        Ok(())
    }

    fn write_completion(&self, link: &Link<'_>) -> Result<(), Errors> {
        let written = link.write(Iova(self.completion), &self.status().to_le_bytes());
        written.map_err(|_| reg::ERROR_COMPLETION)
    }

    fn interrupt(&mut self, link: &Link<'_>) {
        if self.fired {
            self.waiting = true;
            return;
        }
        self.fired = true;
        if self.may_interrupt {
            link.interrupt(VECTOR);
        }
    }

    fn halt(&mut self, errors: Errors, link: &Link<'_>) {
        self.state = State::Halted;
        self.errors |= errors;
        let told = errors & !self.error_mask;
        self.reported |= told;
        if self.control & reg::CHANCTRL_ERROR_COMPLETION != 0 {
            // There is nobody else to tell if this fails too.
            let _ = self.write_completion(link);
        }
        if self.control & reg::CHANCTRL_ERROR_INTERRUPT != 0 && told != 0 {
            self.interrupt(link);
        }
    }
}
