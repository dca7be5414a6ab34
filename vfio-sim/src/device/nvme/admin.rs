// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Admin commands (NVMe Base 1.4, 5).

use super::command::{Command, admin, join, low_byte, shorts};
use super::identify::{ALL_NAMESPACES, NAMESPACE, namespaces_above};
use super::queue::{ADMIN, IO_QUEUES, MAX_ENTRIES};
use super::status::Status;
use super::{Nvme, VECTORS, health};
use crate::device::link::Link;

/// Of Create: the queue lies in one piece; completions interrupt.
const CONTIGUOUS: u32 = 1 << 0;
const INTERRUPTS: u32 = 1 << 1;
/// Of Set Features: beyond the next reset.
const SAVE: u32 = 1 << 31;
/// Of Get Features: which value, 0 being the one in force.
const SELECT: u32 = 7 << 8;
/// Of Get Log Page: the log goes on waiting to be read.
const RETAIN_EVENT: u32 = 1 << 15;
/// The result of Abort: the command was not aborted.
const NOT_ABORTED: u32 = 1;

/// A queue to be created: where, and how many entries.
type Place = (u64, u16);

impl Nvme {
    /// Does an admin command; returns its result, or `None` if it is not over yet.
    pub(super) fn admin(&mut self, it: &Command, link: &Link<'_>) -> Result<Option<u32>, Status> {
        match it.opcode {
            admin::EVENT_REQUEST if self.events.hold(it.id) => return Ok(None),
            admin::EVENT_REQUEST => Err(Status::EventRequestLimit),
            admin::ABORT => return Ok(self.abort(it, link)),
            admin::DELETE_SUBMISSION_QUEUE => self.delete_submission_queue(it),
            admin::CREATE_SUBMISSION_QUEUE => self.create_submission_queue(it),
            admin::GET_LOG_PAGE => self.log_page(it, link),
            admin::DELETE_COMPLETION_QUEUE => self.delete_completion_queue(it),
            admin::CREATE_COMPLETION_QUEUE => self.create_completion_queue(it),
            admin::IDENTIFY => self.identify(it, link),
            admin::SET_FEATURES => self.set_features(it),
            admin::GET_FEATURES => self.get_features(it),
            _ => Err(Status::InvalidOpcode),
        }
        .map(Some)
    }

    /// Ends a request for events (NVMe Base 1.4, 5.1), which is answered before the Abort is. Any other
    /// command is over or has not been read.
    fn abort(&mut self, it: &Command, link: &Link<'_>) -> Option<u32> {
        let (queue, id) = shorts(it.words[0]);
        if queue != ADMIN || !self.events.abort(id, it.id) {
            return Some(NOT_ABORTED);
        }
        self.answer(ADMIN, id, Err(Status::Aborted), link);
        None
    }

    fn create_completion_queue(&mut self, it: &Command) -> Result<u32, Status> {
        let (id, _) = shorts(it.words[0]);
        if !is_io(id) || self.queues.has_completion(id) {
            return Err(Status::QueueIdentifier);
        }
        let place = self.place(it, self.registers.completion_entries_fit())?;
        let (_, vector) = shorts(it.words[1]);
        let vector = (it.words[1] & INTERRUPTS != 0).then_some(vector);
        if vector.is_some_and(|vector| vector >= VECTORS) {
            return Err(Status::InterruptVector);
        }
        self.queues.add_completion(id, place, vector);
        Ok(0)
    }

    fn create_submission_queue(&mut self, it: &Command) -> Result<u32, Status> {
        let (id, _) = shorts(it.words[0]);
        let (_, completion) = shorts(it.words[1]);
        if !is_io(id) || self.queues.has_submission(id) || !is_io(completion) {
            return Err(Status::QueueIdentifier);
        }
        if !self.queues.has_completion(completion) {
            return Err(Status::NoCompletionQueue);
        }
        let place = self.place(it, self.registers.submission_entries_fit())?;
        self.queues.add_submission(id, place, completion);
        Ok(0)
    }

    /// Where a queue is to be. `entries_fit` if the size of an entry is set as it has to be.
    fn place(&self, it: &Command, entries_fit: bool) -> Result<Place, Status> {
        let (_, size) = shorts(it.words[0]);
        // Two entries at least, and the number is one less.
        if !(1..MAX_ENTRIES).contains(&size) || !entries_fit {
            return Err(Status::QueueSize);
        }
        if it.words[1] & CONTIGUOUS == 0 {
            return Err(Status::InvalidField);
        }
        if !it.prp1.is_multiple_of(self.registers.page_size()) {
            return Err(Status::PrpOffset);
        }
        Ok((it.prp1, size + 1))
    }

    fn delete_submission_queue(&mut self, it: &Command) -> Result<u32, Status> {
        let (id, _) = shorts(it.words[0]);
        match is_io(id) && self.queues.remove_submission(id) {
            true => Ok(0),
            false => Err(Status::QueueIdentifier),
        }
    }

    fn delete_completion_queue(&mut self, it: &Command) -> Result<u32, Status> {
        let (id, _) = shorts(it.words[0]);
        if !is_io(id) || !self.queues.has_completion(id) {
            return Err(Status::QueueIdentifier);
        }
        if self.queues.answers_to(id) {
            return Err(Status::QueueDeletion);
        }
        self.queues.remove_completion(id);
        Ok(0)
    }

    fn identify(&mut self, it: &Command, link: &Link<'_>) -> Result<u32, Status> {
        const NO_MORE: u32 = 0xffff_fffe;
        let is_there = it.namespace == NAMESPACE;
        let data = match low_byte(it.words[0]) {
            0 if is_there => self.describe_namespace(),
            1 => self.identity.controller(),
            2 if it.namespace < NO_MORE => namespaces_above(it.namespace),
            3 if is_there => self.identity.descriptors(),
            0 | 2 | 3 => return Err(Status::InvalidNamespace),
            _ => return Err(Status::InvalidField),
        };
        self.send(it, &data, data.len() as u64, link)
    }

    fn describe_namespace(&self) -> Vec<u8> {
        let shift = u8::try_from(self.block_size.ilog2()).unwrap_or(0);
        self.identity.namespace(self.blocks(), shift, self.disk.is_read_only())
    }

    fn log_page(&mut self, it: &Command, link: &Link<'_>) -> Result<u32, Status> {
        let id = low_byte(it.words[0]);
        let log = self.health.page(id, self.disk.is_read_only()).ok_or(Status::LogPage)?;
        // Of the controller, not of a namespace.
        if id == health::HEALTH && it.namespace != 0 && it.namespace != ALL_NAMESPACES {
            return Err(Status::InvalidField);
        }
        let (high, _) = shorts(it.words[1]);
        let dwords = u64::from(it.words[0] >> 16) | u64::from(high) << 16;
        let from = join(it.words[2], it.words[3]);
        let skipped = usize::try_from(from).ok().filter(|_| from.is_multiple_of(4));
        let rest = skipped.and_then(|from| log.get(from..)).ok_or(Status::InvalidField)?;
        self.send(it, rest, 4 * (dwords + 1), link)?;
        if id == health::ERRORS && it.words[0] & RETAIN_EVENT == 0 {
            self.events.acknowledge();
        }
        Ok(0)
    }

    fn set_features(&mut self, it: &Command) -> Result<u32, Status> {
        if it.words[0] & SAVE != 0 {
            return Err(Status::NotSaveable);
        }
        self.features.set(low_byte(it.words[0]), it.words[1], self.queues.has_io())
    }

    fn get_features(&self, it: &Command) -> Result<u32, Status> {
        match it.words[0] & SELECT {
            0 => self.features.get(low_byte(it.words[0]), it.words[1]),
            _ => Err(Status::InvalidField),
        }
    }

    /// Writes `length` bytes where the command says: `data`, and zeroes behind them.
    fn send(
        &mut self,
        it: &Command,
        data: &[u8],
        length: u64,
        link: &Link<'_>,
    ) -> Result<u32, Status> {
        self.transfer.aim(it, length, self.registers.page_size(), link)?;
        self.transfer.write_memory(link, |done, piece| {
            let rest = data.get(done..).unwrap_or_default();
            let (from_data, behind) = piece.split_at_mut(rest.len().min(piece.len()));
            from_data.copy_from_slice(&rest[..from_data.len()]);
            behind.fill(0);
            Ok(())
        })?;
        Ok(0)
    }
}

fn is_io(queue: u16) -> bool {
    queue != ADMIN && queue <= IO_QUEUES
}
