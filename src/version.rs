// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values that threads read without a lock while one writes: a reader looks at their version before and
//! after, and knows whether it saw them all from one moment (a seqlock).
//!
//! The values are atomics, so that a reader who is too late sees old or new ones, and nothing else.

use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// The version of some values: odd while they are written.
#[derive(Debug)]
pub(crate) struct Version(AtomicU64);

impl Version {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// What `look` makes of the values; `None` if they were written meanwhile.
    #[inline]
    pub(crate) fn read<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        let version = self.0.load(Ordering::Acquire);
        let seen = look();
        fence(Ordering::Acquire);
        let same = self.0.load(Ordering::Relaxed) == version;
        (same && version.is_multiple_of(2)).then_some(seen)
    }

    /// Writes the values. One thread at a time may do so; the caller sees to it.
    pub(crate) fn write(&self, write: impl FnOnce()) {
        let version = self.0.load(Ordering::Relaxed);
        self.0.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        write();
        self.0.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Writes the values, unless another thread does so at the moment.
    pub(crate) fn try_write(&self, write: impl FnOnce()) {
        let version = self.0.load(Ordering::Relaxed) & !1;
        let (odd, order) = (version.wrapping_add(1), Ordering::Acquire);
        if self.0.compare_exchange(version, odd, order, Ordering::Relaxed).is_ok() {
            fence(Ordering::Release);
            write();
            self.0.store(version.wrapping_add(2), Ordering::Release);
        }
    }
}
