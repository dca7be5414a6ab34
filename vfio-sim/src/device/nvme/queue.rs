// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queues: rings in memory, with a doorbell each (NVMe Base 1.4, 4.1).
//!
//! This file owns who may put what where. It never reads or writes the entries.

use vfio_type1::Iova;

use super::command::{COMMAND_SIZE, COMPLETION_SIZE};
use super::event::Event;

/// The most I/O queues of a kind.
pub(super) const IO_QUEUES: u16 = 64;
/// The most entries of a queue.
pub(super) const MAX_ENTRIES: u16 = 1024;
/// The admin queues.
pub(super) const ADMIN: u16 = 0;

/// Entries in memory; those from `head` to before `tail` are in use. One place always stays free.
#[derive(Debug)]
struct Ring {
    base: u64,
    entry_size: u64,
    size: u16,
    head: u16,
    tail: u16,
}

impl Ring {
    fn new(base: u64, entry_size: usize, size: u16) -> Self {
        Self { base, entry_size: entry_size as u64, size, head: 0, tail: 0 }
    }

    /// How many places lie from one to the other, upwards.
    fn distance(&self, from: u16, to: u16) -> u16 {
        if to >= from { to - from } else { self.size - from + to }
    }

    fn used(&self) -> u16 {
        self.distance(self.head, self.tail)
    }

    fn free(&self) -> u16 {
        self.size - 1 - self.used()
    }

    fn after(&self, place: u16) -> u16 {
        if place + 1 == self.size { 0 } else { place + 1 }
    }

    fn address(&self, place: u16) -> Iova {
        Iova(self.base.wrapping_add(u64::from(place) * self.entry_size))
    }

    /// The place that a doorbell names, if the ring has it.
    fn place(&self, value: u32) -> Result<u16, Event> {
        let place = u16::try_from(value).ok().filter(|place| *place < self.size);
        place.ok_or(Event::DoorbellValue)
    }
}

/// A submission queue.
#[derive(Debug)]
struct Submission {
    ring: Ring,
    /// The completion queue that answers go to.
    completion: u16,
}

/// A completion queue.
#[derive(Debug)]
struct CompletionQueue {
    ring: Ring,
    /// What the phase bit of the next entry says.
    phase: bool,
    /// The interrupt vector, if it has one.
    vector: Option<u16>,
}

/// All queues of a controller, by their identifiers.
#[derive(Debug, Default)]
pub(super) struct Queues {
    submission: Vec<Option<Submission>>,
    completion: Vec<Option<CompletionQueue>>,
    /// Whose turn it is.
    turn: usize,
}

/// Where a completion goes.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) address: Iova,
    pub(super) phase: bool,
    pub(super) vector: Option<u16>,
}

impl Queues {
    /// The admin queues, the sizes in entries. They interrupt by vector 0.
    pub(super) fn new(submission: (u64, u16), completion: (u64, u16)) -> Self {
        let mut queues = Self::default();
        queues.submission.resize_with(usize::from(IO_QUEUES) + 1, || None);
        queues.completion.resize_with(usize::from(IO_QUEUES) + 1, || None);
        queues.add_completion(ADMIN, completion, Some(0));
        queues.add_submission(ADMIN, submission, ADMIN);
        queues
    }

    pub(super) fn add_completion(&mut self, id: u16, at: (u64, u16), vector: Option<u16>) {
        let ring = Ring::new(at.0, COMPLETION_SIZE, at.1);
        if let Some(place) = self.completion.get_mut(usize::from(id)) {
            *place = Some(CompletionQueue { ring, phase: true, vector });
        }
    }

    pub(super) fn add_submission(&mut self, id: u16, at: (u64, u16), completion: u16) {
        let ring = Ring::new(at.0, COMMAND_SIZE, at.1);
        if let Some(place) = self.submission.get_mut(usize::from(id)) {
            *place = Some(Submission { ring, completion });
        }
    }

    /// Whether the queue was there.
    pub(super) fn remove_completion(&mut self, id: u16) -> bool {
        self.completion.get_mut(usize::from(id)).is_some_and(|place| place.take().is_some())
    }

    /// Whether the queue was there. What is in it is forgotten.
    pub(super) fn remove_submission(&mut self, id: u16) -> bool {
        self.submission.get_mut(usize::from(id)).is_some_and(|place| place.take().is_some())
    }

    pub(super) fn has_submission(&self, id: u16) -> bool {
        self.submission(id).is_some()
    }

    pub(super) fn has_completion(&self, id: u16) -> bool {
        self.completion(id).is_some()
    }

    /// Whether there are queues beside the admin ones.
    pub(super) fn has_io(&self) -> bool {
        self.completion.iter().skip(1).any(Option::is_some)
    }

    /// Whether a submission queue answers to this completion queue.
    pub(super) fn answers_to(&self, completion: u16) -> bool {
        self.submission.iter().flatten().any(|queue| queue.completion == completion)
    }

    fn submission(&self, id: u16) -> Option<&Submission> {
        self.submission.get(usize::from(id))?.as_ref()
    }

    fn completion(&self, id: u16) -> Option<&CompletionQueue> {
        self.completion.get(usize::from(id))?.as_ref()
    }

    fn submission_mut(&mut self, id: u16) -> Option<&mut Submission> {
        self.submission.get_mut(usize::from(id))?.as_mut()
    }

    fn completion_mut(&mut self, id: u16) -> Option<&mut CompletionQueue> {
        self.completion.get_mut(usize::from(id))?.as_mut()
    }

    /// A submission queue's doorbell: commands up to before `value` are there.
    pub(super) fn set_tail(&mut self, id: u16, value: u32) -> Result<(), Event> {
        let ring = &mut self.submission_mut(id).ok_or(Event::DoorbellRegister)?.ring;
        let tail = ring.place(value)?;
        if ring.distance(ring.tail, tail) > ring.free() {
            return Err(Event::DoorbellValue);
        }
        ring.tail = tail;
        Ok(())
    }

    /// A completion queue's doorbell: entries up to before `value` have been read.
    pub(super) fn set_head(&mut self, id: u16, value: u32) -> Result<(), Event> {
        let ring = &mut self.completion_mut(id).ok_or(Event::DoorbellRegister)?.ring;
        let head = ring.place(value)?;
        if ring.distance(ring.head, head) > ring.used() {
            return Err(Event::DoorbellValue);
        }
        ring.head = head;
        Ok(())
    }

    /// Whether there is a place for a completion of a submission queue.
    pub(super) fn has_room(&self, submission: u16) -> bool {
        let queue = self.submission(submission).and_then(|it| self.completion(it.completion));
        queue.is_some_and(|queue| queue.ring.free() != 0)
    }

    /// The next submission queue with a command that can be answered, in turns; and where the command is.
    pub(super) fn take(&mut self) -> Option<(u16, Iova)> {
        let count = self.submission.len();
        let turns = (self.turn..count).chain(0..self.turn);
        let waits = |id: &u16| self.submission(*id).is_some_and(|it| it.ring.used() != 0);
        let mut ids = turns.filter_map(|id| u16::try_from(id).ok());
        let id = ids.find(|id| waits(id) && self.has_room(*id))?;
        self.turn = usize::from(id) + 1;
        let ring = &mut self.submission_mut(id)?.ring;
        let address = ring.address(ring.head);
        ring.head = ring.after(ring.head);
        Some((id, address))
    }

    /// How far a submission queue has been read.
    pub(super) fn head(&self, submission: u16) -> u16 {
        self.submission(submission).map_or(0, |queue| queue.ring.head)
    }

    /// Takes the place for a completion of a submission queue.
    pub(super) fn slot(&mut self, submission: u16) -> Option<Slot> {
        let completion = self.submission(submission)?.completion;
        let queue = self.completion_mut(completion)?;
        let ring = &mut queue.ring;
        let slot =
            Slot { address: ring.address(ring.tail), phase: queue.phase, vector: queue.vector };
        ring.tail = ring.after(ring.tail);
        queue.phase ^= ring.tail == 0;
        Some(slot)
    }

    /// Whether completions wait to be read in a queue whose vector is not masked.
    pub(super) fn wants_line(&self, masked: u32) -> bool {
        let heard = |vector: u16| masked.checked_shr(vector.into()).unwrap_or(0) & 1 == 0;
        let mut queues = self.completion.iter().flatten();
        queues.any(|queue| queue.ring.used() != 0 && queue.vector.is_some_and(heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues {
        Queues::new((0x1000, 4), (0x2000, 3))
    }

    #[test]
    fn doorbells_take_what_the_ring_has() {
        let mut queues = queues();
        assert_eq!(queues.set_tail(1, 0), Err(Event::DoorbellRegister));
        assert_eq!(queues.set_head(999, 0), Err(Event::DoorbellRegister));
        for value in [4, 0x1_0001, u32::MAX] {
            assert_eq!(queues.set_tail(0, value), Err(Event::DoorbellValue), "{value}");
        }
        assert_eq!(queues.set_head(0, 1), Err(Event::DoorbellValue), "nothing is in it");
        queues.set_tail(0, 3).unwrap();
        assert_eq!(queues.set_tail(0, 2), Err(Event::DoorbellValue), "three of three in use");
        queues.set_tail(0, 3).unwrap();
    }

    #[test]
    fn commands_wait_for_room_and_phases_turn() {
        let mut queues = queues();
        queues.set_tail(0, 3).unwrap();
        let serve = |queues: &mut Queues| {
            let (_, command) = queues.take()?;
            let slot = queues.slot(0).unwrap();
            Some((command.0, slot.address.0, slot.phase))
        };
        assert_eq!(serve(&mut queues), Some((0x1000, 0x2000, true)));
        assert_eq!(serve(&mut queues), Some((0x1040, 0x2010, true)));
        assert_eq!(serve(&mut queues), None, "the completion queue is full");
        assert!(queues.wants_line(0) && !queues.wants_line(1));
        queues.set_head(0, 2).unwrap();
        assert!(!queues.wants_line(0));
        assert_eq!(serve(&mut queues), Some((0x1080, 0x2020, true)));
        queues.set_tail(0, 1).unwrap();
        assert_eq!(serve(&mut queues), Some((0x10c0, 0x2000, false)));
        assert_eq!(queues.head(0), 0);
    }

    #[test]
    fn queues_take_turns() {
        let mut queues = queues();
        for id in [5, 9] {
            queues.add_completion(id, (0, 16), None);
            queues.add_submission(id, (0, 16), id);
            queues.set_tail(id, 2).unwrap();
        }
        let order: Vec<u16> = std::iter::from_fn(|| queues.take()).map(|(id, _)| id).collect();
        assert_eq!(order, [5, 9, 5, 9]);
        assert!(!queues.wants_line(0), "no interrupts were asked for");
    }
}
