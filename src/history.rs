// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was mapped in a container once: so that a fault can tell a stale address from a wild one.

use std::collections::VecDeque;
use std::thread::{self, Thread};

use crate::addr::Iova;
use crate::fault::{Removal, RemovedBy};
use crate::range::IovaRange;

/// How many removed ranges a container remembers. Ranges removed together that touch count once.
const REMEMBERED: usize = 256;

/// The calls a container has answered, and the mappings that went away.
#[derive(Debug, Default)]
pub(crate) struct History {
    calls: u64,
    /// Oldest first.
    removed: VecDeque<Removed>,
}

#[derive(Debug)]
struct Removed {
    range: IovaRange,
    by: RemovedBy,
    call: u64,
    thread: Thread,
}

impl History {
    pub(crate) fn count_call(&mut self) {
        self.calls += 1;
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

    /// How the last mapping at `iova` went away.
    pub(crate) fn removal_of(&self, iova: Iova) -> Option<Removal> {
        let removed = self.removed.iter().rev().find(|removed| removed.range.contains(iova))?;
        Some(Removal {
            range: removed.range,
            by: removed.by,
            calls_ago: self.calls - removed.call,
            thread: removed.thread.clone(),
        })
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

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// From the lowest address removed to the highest.
    pub(crate) fn hull(&self) -> Option<IovaRange> {
        let first = self.ranges.iter().map(IovaRange::first).min()?;
        let last = self.ranges.iter().map(IovaRange::last).max()?;
        IovaRange::new(first, last)
    }
}
