// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the entries of a page table were found last, by their address.
//!
//! A hint may be wrong: it is overwritten by another address, or the entry has moved. Who follows one
//! looks at what is there. Each stretch of the space has two, since the stretches of a region far away
//! come to lie on the same ones.

use std::sync::OnceLock;

use crate::addr::Iova;
use crate::sync::atomic::{AtomicU32, Ordering};

/// In a hint, the block of an entry, and in the low bits its place there.
const PLACE_BITS: u32 = 4;

/// Two hints for each stretch of the space, as long as mappings are apart.
#[derive(Debug)]
pub(crate) struct Hints {
    /// Tables of 1, 2, 4... pairs. A larger one takes the place of the one before.
    tables: [OnceLock<Box<[Pair]>>; TABLES as usize],
    /// Which table is in use, and in the low bits by how much addresses are shifted to index it.
    current: AtomicU32,
}

/// The newer hint, and the one before.
type Pair = [AtomicU32; 2];

/// Pairs for 2^31 stretches are enough for every limit on mappings.
const TABLES: u32 = 32;
const SHIFT_BITS: u32 = 6;

impl Default for Hints {
    fn default() -> Self {
        let hints = Self { tables: Default::default(), current: AtomicU32::new(0) };
        hints.begin(1, 1);
        hints
    }
}

impl Hints {
    #[expect(clippy::cast_possible_truncation, reason = "the crate needs 64-bit targets")]
    #[inline]
    fn at(&self, iova: Iova) -> Option<&Pair> {
        let current = self.current.load(Ordering::Acquire);
        let table = current >> SHIFT_BITS;
        let pairs = self.tables.get(table as usize)?.get()?;
        let stretch = iova.0 >> (current & ((1 << SHIFT_BITS) - 1));
        // Regions at round addresses must not all begin at the same pair.
        let region = (stretch >> table).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        pairs.get((stretch ^ region) as usize & (pairs.len() - 1))
    }

    /// The blocks and the places where `iova` was found last, or perhaps other addresses.
    #[inline]
    pub(crate) fn get(&self, iova: Iova) -> [(u32, usize); 2] {
        let pair = self.at(iova);
        [0, 1].map(|which: usize| {
            let hint = pair.map_or(0, |pair| pair[which].load(Ordering::Relaxed));
            (hint >> PLACE_BITS, (hint & ((1 << PLACE_BITS) - 1)) as usize)
        })
    }

    /// Remembers where the entry lies that holds `iova`.
    #[expect(clippy::cast_possible_truncation, reason = "a place has few bits")]
    #[inline]
    pub(crate) fn set(&self, iova: Iova, block: u32, place: usize) {
        if let Some([newer, older]) = self.at(iova) {
            let (hint, last) = (block << PLACE_BITS | place as u32, newer.load(Ordering::Relaxed));
            if hint != last {
                older.store(last, Ordering::Relaxed);
                newer.store(hint, Ordering::Relaxed);
            }
        }
    }

    /// Begins anew, with `count` pairs of hints or a few more, for addresses that are `stride` bytes apart.
    pub(crate) fn begin(&self, count: usize, stride: u64) {
        let table = count.next_power_of_two().ilog2().min(TABLES - 1);
        let make = || (0..1_usize << table).map(|_| Pair::default()).collect();
        self.tables[table as usize].get_or_init(make);
        let shift = stride.max(1).ilog2();
        self.current.store(table << SHIFT_BITS | shift, Ordering::Release);
    }
}
