// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A list that only grows, and that threads look into while it does. What is in it stays where it is.

use std::sync::OnceLock;

/// Row `r` has room for 2^r items, so what is there never moves. More than any index of 32 bits needs.
const ROWS: usize = 33;

/// Items by their index.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    rows: [OnceLock<Box<[OnceLock<T>]>>; ROWS],
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { rows: [const { OnceLock::new() }; ROWS] }
    }
}

impl<T> Arena<T> {
    /// The item at `index`, if it has been made.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (row, at) = place(index);
        self.rows[row].get()?.get(at)?.get()
    }

    /// The item at `index`, which is made if it is not there.
    pub(crate) fn get_or_make(&self, index: u32, make: impl FnOnce() -> T) -> &T {
        let (row, at) = place(index);
        let row =
            self.rows[row].get_or_init(|| (0..1_usize << row).map(|_| OnceLock::new()).collect());
        row[at].get_or_init(make)
    }
}

/// The row of an index, and the place in it.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let number = index as usize + 1;
    let row = number.ilog2();
    (row as usize, number - (1 << row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_has_a_place_of_its_own() {
        let arena = Arena::default();
        assert_eq!(arena.get(0), None);
        (0..100).for_each(|index| assert_eq!(*arena.get_or_make(index, || index), index));
        (0..100).for_each(|index| assert_eq!(arena.get(index), Some(&index)));
        assert_eq!(*arena.get_or_make(7, || 8), 7);
        assert_eq!((arena.get(100), arena.get(u32::MAX)), (None, None));
    }
}
