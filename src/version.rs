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

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Two values that are written together, and never differ for a reader.
    struct Both {
        version: Version,
        values: [AtomicU64; 2],
    }

    impl Both {
        fn new() -> Arc<Self> {
            let values = [0, 0].map(AtomicU64::new);
            Arc::new(Self { version: Version::new(), values })
        }

        fn store(&self, value: u64) {
            self.values.iter().for_each(|half| half.store(value, Ordering::Relaxed));
        }

        fn check(&self) {
            let load = || [0, 1].map(|half: usize| self.values[half].load(Ordering::Relaxed));
            if let Some([one, other]) = self.version.read(load) {
                assert_eq!(one, other, "the values are from two moments");
            }
        }
    }

    #[test]
    fn what_is_read_is_from_one_moment() {
        loom::model(|| {
            let both = Both::new();
            let reader = Arc::clone(&both);
            let reads = loom::thread::spawn(move || reader.check());
            (1..3).for_each(|value| both.version.write(|| both.store(value)));
            reads.join().unwrap();
        });
    }

    #[test]
    fn of_two_that_try_to_write_one_does() {
        loom::model(|| {
            let both = Both::new();
            let other = Arc::clone(&both);
            let writes = loom::thread::spawn(move || other.version.try_write(|| other.store(1)));
            both.version.try_write(|| both.store(2));
            both.check();
            writes.join().unwrap();
            both.check();
        });
    }

    /// The models can fail.
    #[test]
    #[should_panic(expected = "from two moments")]
    fn without_a_version_halves_are_seen() {
        loom::model(|| {
            let both = Both::new();
            let reader = Arc::clone(&both);
            let reads = loom::thread::spawn(move || reader.check());
            both.store(1);
            reads.join().unwrap();
        });
    }
}
