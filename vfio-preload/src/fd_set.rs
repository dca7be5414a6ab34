// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A set of file descriptors that is looked into without a lock.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors that there is room for: far more than most limits allow.
const ROOM: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct FdSet([AtomicU64; ROOM / 64]);

impl FdSet {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ROOM / 64])
    }

    /// Where a descriptor is; `None` if there is no room for it.
    fn place(&self, fd: RawFd) -> Option<(&AtomicU64, u64)> {
        let at = usize::try_from(fd).ok()?;
        Some((self.0.get(at / 64)?, 1 << (at % 64)))
    }

    #[inline]
    pub(crate) fn has(&self, fd: RawFd) -> bool {
        self.place(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Puts a descriptor in or takes it out; false if there is no room for it.
    pub(crate) fn set(&self, fd: RawFd, there: bool) -> bool {
        let Some((word, bit)) = self.place(fd) else { return false };
        match there {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
        true
    }

    /// Those between two, inclusive, ascending.
    pub(crate) fn between(&self, first: RawFd, last: RawFd) -> impl Iterator<Item = RawFd> {
        let room = RawFd::try_from(ROOM).unwrap_or(RawFd::MAX);
        (first.max(0)..=last.min(room - 1)).filter(|fd| self.has(*fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_and_go() {
        let set = FdSet::new();
        for fd in [0, 63, 64, 65_535] {
            assert!(!set.has(fd) && set.set(fd, true) && set.has(fd));
        }
        assert!(!set.set(-1, true) && !set.set(65_536, true));
        assert!(!set.has(-1) && !set.has(65_536) && !set.has(1));
        assert!(set.between(RawFd::MIN, RawFd::MAX).eq([0, 63, 64, 65_535]));
        assert!(set.between(1, 63).eq([63]));
        assert!(set.set(63, false) && !set.has(63));
    }
}
