// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was mapped in a container once, and what was to be: so that a fault can tell a stale address
//! from a wild one, and both from one whose MAP was refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, Thread};

use crate::addr::{Iova, Vaddr};
use crate::dma::Miss;
use crate::fault::{Refusal, Removal, RemovedBy};
use crate::latest::Latest;
use crate::map::{MapDma, MapError};
use crate::range::{IovaRange, VaddrRange};
use crate::unmap::UnmapDma;

/// How many removed ranges a container remembers. Ranges removed together that touch count once.
/// As many ranges whose MAP was refused.
const REMEMBERED: usize = 256;

/// The calls a container has answered (MAP, UNMAP, and groups that come and go), the mappings that
/// went away, and those that never came.
#[derive(Debug, Default)]
pub(crate) struct History {
    calls: u64,
    /// Oldest first.
    removed: VecDeque<Removed>,
    /// Of each address the last refusal, unless a later call settled it.
    refused: Latest<Iova, Arc<Refused>, REMEMBERED>,
}

#[derive(Debug)]
struct Removed {
    range: IovaRange,
    by: RemovedBy,
    call: u64,
    thread: Thread,
}

#[derive(Debug)]
struct Refused {
    /// All that was asked for.
    iova: IovaRange,
    vaddr: Vaddr,
    error: Arc<MapError>,
    call: u64,
    thread: Thread,
}

impl Refused {
    /// The process address that `iova` was to stand for. The request may have wrapped around.
    fn vaddr_of(&self, iova: Iova) -> Vaddr {
        Vaddr(self.vaddr.0.wrapping_add(iova.0.wrapping_sub(self.iova.first().0)))
    }

    /// The part of `iova`, itself a part of what was asked for, that was to stand for `memory`.
    fn part_for(&self, iova: &IovaRange, memory: &VaddrRange) -> Option<IovaRange> {
        let wanted = VaddrRange::new(self.vaddr_of(iova.first()), self.vaddr_of(iova.last()))?;
        let both = wanted.intersection(memory)?;
        let first = Iova(iova.first().0 + (both.first().0 - wanted.first().0));
        IovaRange::from_size(first, both.size()?).ok()
    }
}

impl History {
    pub(crate) fn count_call(&mut self) {
        self.calls += 1;
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// Remembers ranges that a call has removed, ascending.
    pub(crate) fn remember(&mut self, removed: &RemovedRanges, by: RemovedBy) {
        let Some(newest) = removed.ranges.rchunks(REMEMBERED).next() else { return };
        let thread = thread::current();
        for range in newest {
            if self.removed.len() == REMEMBERED {
                self.removed.pop_front();
            }
            let thread = thread.clone();
            self.removed.push_back(Removed { range: *range, by, call: self.calls, thread });
        }
    }

    /// Remembers that a MAP of `iova` was refused.
    pub(crate) fn refuse(&mut self, iova: IovaRange, vaddr: Vaddr, error: MapError) {
        let (error, thread) = (Arc::new(error), thread::current());
        let refused = Refused { iova, vaddr, error, call: self.calls, thread };
        self.refused.note(iova, Arc::new(refused));
    }

    /// A MAP of `iova` went through: what was refused there before is settled. So is what was refused
    /// with EEXIST for the same memory: its program heeded that, and took another place.
    #[inline]
    pub(crate) fn mapped(&mut self, iova: &IovaRange, request: &MapDma) {
        if self.refused.is_empty() {
            return;
        }
        self.refused.clear(iova);
        let Ok(memory) = VaddrRange::from_size(request.vaddr, request.size) else { return };
        let exists = |refused: &Refused| matches!(*refused.error, MapError::Exists { .. });
        let refusals = self.refused.newest_first().filter(|(_, refused)| exists(refused));
        let heeded: Vec<IovaRange> =
            refusals.filter_map(|(iova, refused)| refused.part_for(iova, &memory)).collect();
        heeded.iter().for_each(|iova| self.refused.clear(iova));
    }

    /// An UNMAP went through: what was refused there before is settled.
    #[inline]
    pub(crate) fn unmapped(&mut self, request: &UnmapDma) {
        if !self.refused.is_empty()
            && let Some(range) = request.removes()
        {
            self.refused.clear(&range);
        }
    }

    /// Whether a MAP was refused that no later call has settled.
    #[inline]
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The newest refusal in `range` of a MAP to other memory than what lies at `vaddr`, the address
    /// that `range.first()` stands for; and where in the range.
    pub(crate) fn refusal_of_other_memory(
        &self,
        range: &IovaRange,
        vaddr: Vaddr,
    ) -> Option<(Iova, Refusal)> {
        self.refused.newest_first().find_map(|(iova, refused)| {
            let first = iova.intersection(range)?.first();
            let reached = vaddr.0.wrapping_add(first.0 - range.first().0);
            let other = refused.vaddr_of(first).0 != reached;
            other.then(|| (first, self.refusal(refused)))
        })
    }

    /// Why nothing is mapped at `iova`: what happened there last.
    pub(crate) fn why_unmapped(&self, iova: Iova) -> Miss {
        let removed = self.removed.iter().rev().find(|removed| removed.range.contains(iova));
        let refused = self.refused.newest_first().find(|(range, _)| range.contains(iova));
        match (removed, refused) {
            (Some(removed), Some((_, refused))) if removed.call > refused.call => {
                Miss::Unmapped(self.removal(removed))
            }
            (_, Some((_, refused))) => Miss::Refused(Box::new(self.refusal(refused))),
            (Some(removed), None) => Miss::Unmapped(self.removal(removed)),
            (None, None) => Miss::NeverMapped,
        }
    }

    fn removal(&self, removed: &Removed) -> Removal {
        Removal {
            range: removed.range,
            by: removed.by,
            calls_ago: self.calls - removed.call,
            thread: removed.thread.clone(),
        }
    }

    fn refusal(&self, refused: &Refused) -> Refusal {
        Refusal {
            iova: refused.iova,
            vaddr: refused.vaddr,
            error: Arc::clone(&refused.error),
            calls_ago: self.calls - refused.call,
            thread: refused.thread.clone(),
        }
    }
}

/// The ranges that one call removed, ascending; those that touch are one.
#[derive(Debug, Default)]
pub(crate) struct RemovedRanges {
    ranges: Vec<IovaRange>,
}

impl RemovedRanges {
    /// Adds a range above the ones before.
    pub(crate) fn add(&mut self, range: IovaRange) {
        let joins = |last: &&mut IovaRange| last.next() == Some(range.first());
        match self.ranges.last_mut().filter(joins) {
            Some(last) => *last = IovaRange::new(last.first(), range.last()).unwrap_or(*last),
            None => self.ranges.push(range),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }
}
