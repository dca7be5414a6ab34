// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The dirty bitmap of one mapping, with the kernel's exact bits.
//!
//! Linux keeps an array of 64-bit words per mapping and, to report it for a request that starts
//! elsewhere, shifts the array in place (`update_user_bitmap` in `vfio_iommu_type1.c`). The shift
//! is not undone and bits behind the last page are not masked, so a later report may show 1s for
//! addresses that belong to no mapping. This file reproduces that, bit for bit (spec 7.3). When
//! to report, and which pages count as dirty, is decided in `dirty`.

use crate::addr::Vaddr;
use crate::memory::{Fault, Memory};

const BITS: u64 = 64;

/// The most pages one mapping's bitmap can cover: 2^31 - 1 (`DIRTY_BITMAP_PAGES_MAX`).
pub const MAX_BITMAP_PAGES: u64 = (1 << 31) - 1;

/// The largest bitmap a caller may pass, in bytes: one bit for each of 2^31 pages
/// (`DIRTY_BITMAP_SIZE_MAX`).
pub const MAX_BITMAP_BYTES: u64 = 1 << 28;

/// The bytes that a bitmap of `pages` bits takes, in whole 64-bit words.
pub fn bitmap_bytes(pages: u64) -> u64 {
    pages.div_ceil(BITS) * 8
}

/// One bit per page of a mapping, and the words the kernel keeps behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirtyBitmap {
    /// ceil(pages / 64) + 1 words; bits from `pages` on may be stale.
    words: Vec<u64>,
    pages: u64,
}

impl DirtyBitmap {
    /// A clean bitmap for `pages` pages, or `None` when those are too many (spec 7.2).
    pub(crate) fn new(pages: u64) -> Option<Self> {
        if pages > MAX_BITMAP_PAGES {
            return None;
        }
        let count = usize::try_from(pages.div_ceil(BITS) + 1).ok()?;
        Some(Self { words: vec![0; count], pages })
    }

    /// Marks `count` pages from `first` on, as far as the mapping has them.
    pub(crate) fn mark(&mut self, first: u64, count: u64) {
        let end = first.saturating_add(count).min(self.pages);
        self.update(first, end, |word, mask| *word |= mask);
    }

    /// Marks every page.
    pub(crate) fn mark_all(&mut self) {
        self.mark(0, self.pages);
    }

    /// Cleans every page. Stale bits behind the last page stay.
    pub(crate) fn clear(&mut self) {
        self.update(0, self.pages, |word, mask| *word &= !mask);
    }

    /// Applies `change` to the bits `first..end`, a word at a time.
    fn update(&mut self, first: u64, end: u64, change: impl Fn(&mut u64, u64)) {
        let mut bit = first;
        while bit < end {
            let (index, low) = (word_index(bit), bit % BITS);
            let count = (BITS - low).min(end - bit);
            change(&mut self.words[index], (u64::MAX >> (BITS - count)) << low);
            bit += count;
        }
    }

    /// Writes the bits to the caller's bitmap at `data`, where bit `offset` stands for this
    /// mapping's first page. Leaves the words shifted, as the kernel does.
    pub(crate) fn report(
        &mut self,
        offset: u64,
        data: Vaddr,
        memory: &dyn Memory,
    ) -> Result<(), Fault> {
        let (word, shift) = (offset / BITS, offset % BITS);
        // The bitmap lies within the caller's 256 MiB at most, so the sum stays in the space.
        let at = Vaddr(data.0.wrapping_add(word * 8));
        let count = word_index(self.pages + shift + BITS - 1);
        if shift != 0 {
            shift_left(&mut self.words[..count], shift);
            let mut current = [0; 8];
            memory.read(at, &mut current)?;
            self.words[0] |= u64::from_le_bytes(current);
        }
        let bytes: Vec<u8> = self.words[..count].iter().flat_map(|w| w.to_le_bytes()).collect();
        memory.write(at, &bytes)
    }
}

/// The index of the word that holds `bit`. Bitmaps have fewer than 2^31 bits.
fn word_index(bit: u64) -> usize {
    (bit / BITS) as usize
}

/// Shifts a little-endian number of 64-bit words left by 1 to 63 bits; what leaves the top is
/// lost.
fn shift_left(words: &mut [u64], by: u64) {
    let mut carry = 0;
    for word in words {
        let next = *word >> (BITS - by);
        *word = *word << by | carry;
        carry = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ModelMemory;
    use crate::range::VaddrRange;

    const DATA: Vaddr = Vaddr(0x1000);

    fn memory(fill: u8) -> ModelMemory {
        let memory = ModelMemory::new();
        memory.add(VaddrRange::from_size(DATA, 0x1000).unwrap(), true).unwrap();
        memory.write(DATA, &[fill; 64]).unwrap();
        memory
    }

    fn words(memory: &ModelMemory, count: usize) -> Vec<u64> {
        let mut bytes = vec![0; count * 8];
        memory.read(DATA, &mut bytes).unwrap();
        bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    #[test]
    fn an_aligned_report_overwrites_whole_words() {
        let memory = memory(0xee);
        let mut bitmap = DirtyBitmap::new(4).unwrap();
        bitmap.mark_all();
        bitmap.report(0, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 2), [0xf, 0xeeee_eeee_eeee_eeee]);
    }

    #[test]
    fn a_shifted_report_keeps_all_of_the_first_word() {
        let memory = memory(0xee);
        let mut bitmap = DirtyBitmap::new(2).unwrap();
        bitmap.mark_all();
        bitmap.report(16, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 1), [0xeeee_eeee_eeee_eeee | 0x3_0000]);
    }

    #[test]
    fn stale_bits_stay_behind_the_last_page() {
        let memory = memory(0);
        let mut bitmap = DirtyBitmap::new(2).unwrap();
        bitmap.mark_all();
        bitmap.report(3, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 1), [0b11000]);
        bitmap.clear();
        memory.write(DATA, &[0; 8]).unwrap();
        bitmap.report(0, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 1), [0b11000], "the mapping has bits 0 and 1 only");
    }

    #[test]
    fn a_report_crosses_words() {
        let memory = memory(0);
        let mut bitmap = DirtyBitmap::new(64).unwrap();
        bitmap.mark(62, 9);
        bitmap.report(66, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 3), [0, 0, 0b11]);
    }

    #[test]
    fn a_fault_leaves_the_words_shifted() {
        let memory = memory(0);
        let mut bitmap = DirtyBitmap::new(1).unwrap();
        bitmap.mark_all();
        assert!(bitmap.report(1, Vaddr(0x9000), &memory).is_err());
        bitmap.report(0, DATA, &memory).unwrap();
        assert_eq!(words(&memory, 1), [0b10]);
    }

    #[test]
    fn sizes() {
        assert_eq!(bitmap_bytes(1), 8);
        assert_eq!(bitmap_bytes(64), 8);
        assert_eq!(bitmap_bytes(65), 16);
        assert!(DirtyBitmap::new(MAX_BITMAP_PAGES + 1).is_none());
    }
}
