// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes that have mappings in a container, by numbers that are short enough for an entry of a
//! page table.

use std::sync::Arc;

use crate::process::Process;
use crate::translation::OwnerId;

#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// A process, and how many mappings it has.
    slots: Vec<Option<(Arc<Process>, usize)>>,
}

impl Owners {
    /// The process of a number that a mapping has.
    #[expect(clippy::expect_used, reason = "a mapping counts in its owner's slot, which it keeps")]
    #[inline]
    pub(crate) fn get(&self, owner: OwnerId) -> &Arc<Process> {
        let slot = self.slots.get(owner.0 as usize).and_then(Option::as_ref);
        &slot.expect("a mapping has an owner").0
    }

    /// Counts one more mapping of `process`. `None` when no number is left for it.
    #[inline]
    pub(crate) fn add(&mut self, process: &Arc<Process>) -> Option<OwnerId> {
        let is = |slot: &Option<(Arc<Process>, usize)>| {
            slot.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, process))
        };
        let at = self.slots.iter().position(is);
        let at = at.or_else(|| self.slots.iter().position(Option::is_none));
        let at = at.unwrap_or(self.slots.len());
        let owner = u32::try_from(at).ok().filter(|number| *number < 1 << OwnerId::BITS)?;
        if at == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[at].get_or_insert_with(|| (Arc::clone(process), 0)).1 += 1;
        Some(OwnerId(owner))
    }

    /// Counts one mapping less. With the last one the number is free for another process.
    #[inline]
    pub(crate) fn drop(&mut self, owner: OwnerId) {
        let Some(slot) = self.slots.get_mut(owner.0 as usize) else { return };
        if let Some((_, mappings)) = slot {
            *mappings -= 1;
            if *mappings == 0 {
                *slot = None;
            }
        }
    }

    /// How many mappings all of them have.
    pub(crate) fn count(&self) -> usize {
        self.slots.iter().flatten().map(|(_, mappings)| mappings).sum()
    }
}
