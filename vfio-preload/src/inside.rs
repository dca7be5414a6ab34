// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a thread is in the middle of something, by where on its stack that began.
//!
//! A handler of the program's may interrupt a call that is ours, which may hold locks; or one of its handlers may
//! be interrupted by what it does itself. The stack tells: what comes later is below. It tells as well when a
//! handler has been left by `longjmp`, which nobody hears of: the thread is above then.

use std::cell::Cell;
use std::hint::black_box;

/// A beginning on this thread's stack; 0 if there is none.
pub(crate) struct Mark(Cell<usize>);

impl Mark {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(0))
    }

    /// Begins here, unless it has begun already.
    #[inline]
    pub(crate) fn begin(&self) -> usize {
        let here = 0_u8;
        let here = black_box(&raw const here).addr();
        let before = self.0.get();
        if before >= here {
            return before;
        }
        self.0.set(here);
        0
    }

    /// Ends what `begin` returned this for.
    #[inline]
    pub(crate) fn end(&self, before: usize) {
        self.0.set(before);
    }

    /// Whether a thread whose stack reaches down to `stack` is within.
    pub(crate) fn holds(&self, stack: u64) -> bool {
        stack < self.0.get() as u64
    }
}

thread_local! {
    static LIBRARY: Mark = const { Mark::new() };
    static SYSTEM_CALL: Mark = const { Mark::new() };
}

/// A thread's stay in the library.
#[derive(Debug)]
pub(crate) struct Inside(usize);

/// Comes into the library.
#[inline]
pub(crate) fn enter() -> Inside {
    Inside(LIBRARY.try_with(Mark::begin).unwrap_or(0))
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        let _ = LIBRARY.try_with(|library| library.end(self.0));
    }
}

/// Whether this thread was in the library when it was interrupted, with its stack down to `stack`.
pub(crate) fn was_interrupted(stack: u64) -> bool {
    LIBRARY.try_with(|library| library.holds(stack)).unwrap_or(false)
}

/// Does what a system call of the program's is to do here; `again` if this is part of that already: the function
/// that ours goes on to may be another library's, which makes the same call.
pub(crate) fn system_call<T>(first: impl FnOnce() -> T, again: impl FnOnce() -> T) -> T {
    let here = 0_u8;
    let here = black_box(&raw const here).addr() as u64;
    let begin = |call: &Mark| (!call.holds(here)).then(|| call.begin());
    let Some(before) = SYSTEM_CALL.try_with(begin).unwrap_or(None) else { return again() };
    let result = first();
    let _ = SYSTEM_CALL.try_with(|call| call.end(before));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_is_below() {
        let mark = Mark::new();
        let here = 0_u8;
        let above = (&raw const here).addr() as u64 + 4096;
        let below = above - (1 << 16);
        assert!(!mark.holds(below));
        let before = mark.begin();
        assert!(mark.holds(below) && !mark.holds(above));
        let again = mark.begin();
        mark.end(again);
        assert!(mark.holds(below), "the outer one has not ended");
        mark.end(before);
        assert!(!mark.holds(below));
    }

    #[test]
    fn who_was_left_by_a_jump_is_forgotten_higher_up() {
        let mark = Mark::new();
        mark.0.set(16);
        assert!(mark.holds(8));
        let before = mark.begin();
        assert!(mark.0.get() > 16);
        mark.end(before);
        assert!(!mark.holds(8));
    }
}
