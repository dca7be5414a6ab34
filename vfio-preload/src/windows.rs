// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The BARs that are mapped into the process, as `mmap` on devices' files has put them there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vfio_type1::{Vaddr, VaddrRange};

use crate::access::Operand;
use crate::opened::Opened;

/// A part of a BAR in the process's memory.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Where, in whole pages.
    pub(crate) range: VaddrRange,
    pub(crate) device: Arc<Opened>,
    pub(crate) region: u8,
    /// The offset in the BAR of the first byte.
    pub(crate) offset: u64,
    /// Whether accesses trap, since there are registers behind it.
    pub(crate) trapped: bool,
    /// What the program may do, as it asked for.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Window {
    /// The offset in the BAR of an address in the window.
    pub(crate) fn offset_of(&self, at: Vaddr) -> u64 {
        self.offset + (at.0 - self.range.first().0)
    }

    /// Whether the operand of an instruction is registers of this window, all of it, that the program may access so.
    pub(crate) fn takes(&self, operand: &Operand) -> bool {
        // The processor knows no memory that can be written and not read.
        let allowed = (!operand.reads || self.readable || self.writable)
            && (!operand.writes || self.writable);
        self.trapped && allowed && self.holds(operand)
    }

    /// Whether all of an operand is in the window.
    pub(crate) fn holds(&self, operand: &Operand) -> bool {
        let last = operand.at.checked_add(operand.size as u64 - 1);
        let inside = |at: u64| self.range.contains(Vaddr(at));
        inside(operand.at) && last.is_some_and(inside)
    }

    /// The part of it in a range that it shares addresses with.
    fn part(&self, range: VaddrRange) -> Self {
        Self { range, offset: self.offset_of(range.first()), ..self.clone() }
    }
}

/// All windows, ascending.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    list: RwLock<Vec<Window>>,
    count: AtomicUsize,
}

impl Windows {
    /// Whether there is none: most calls need not look further.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The window that holds an address.
    pub(crate) fn find(&self, at: Vaddr) -> Option<Window> {
        if self.is_empty() {
            return None;
        }
        self.read().iter().find(|window| window.range.contains(at)).cloned()
    }

    /// The same without waiting: `None` as well while the list is being changed.
    pub(crate) fn find_at_once(&self, at: Vaddr) -> Option<Window> {
        self.list.try_read().ok()?.iter().find(|window| window.range.contains(at)).cloned()
    }

    /// The first window that shares an address with a range.
    pub(crate) fn overlapping(&self, range: &VaddrRange) -> Option<Window> {
        if self.is_empty() {
            return None;
        }
        self.read().iter().find(|window| window.range.overlaps(range)).cloned()
    }

    /// Adds a window, in the place of what was there.
    pub(crate) fn add(&self, window: Window) {
        self.remove(&window.range);
        self.change(|list| {
            list.push(window);
            list.sort_by_key(|window| window.range.first());
        });
    }

    /// Takes away what windows have in a range, and returns it.
    pub(crate) fn remove(&self, range: &VaddrRange) -> Vec<Window> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut removed = Vec::new();
        self.change(|list| {
            let mut kept = Vec::new();
            for window in list.drain(..) {
                let Some(part) = window.range.intersection(range) else {
                    kept.push(window);
                    continue;
                };
                let rests = [window.range.below(part.first()), window.range.above(part.last())];
                kept.extend(rests.into_iter().flatten().map(|rest| window.part(rest)));
                removed.push(window.part(part));
            }
            *list = kept;
        });
        removed
    }

    /// Changes what windows with registers have in a range, and returns where that is, ascending.
    pub(crate) fn change_trapped(
        &self,
        range: &VaddrRange,
        change: impl Fn(&mut Window),
    ) -> Vec<VaddrRange> {
        let mut parts = self.remove(range);
        for part in &mut parts {
            if part.trapped {
                change(part);
            }
            self.add(part.clone());
        }
        parts.iter().filter(|part| part.trapped).map(|part| part.range).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Window>)) {
        let mut list = self.write();
        change(&mut list);
        self.count.store(list.len(), Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Window>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Window>> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }
}
