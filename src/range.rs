// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Inclusive address ranges: `first..=last`, never empty.
//!
//! Both ends belong to the range, because the last page of the 64-bit space is legal and
//! `[0, u64::MAX]` is a real aperture. For the same reason a range has no infallible length: the
//! whole space holds 2^64 bytes. This file owns every `+ 1` and `- 1` on range ends.

use std::fmt;

use crate::addr::{Address, Iova, Vaddr};
use crate::page_size::PageSize;

/// Addresses `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrRange<A> {
    first: A,
    last: A,
}

/// A range of I/O virtual addresses.
pub type IovaRange = AddrRange<Iova>;
/// A range of process addresses.
pub type VaddrRange = AddrRange<Vaddr>;

/// Why a start and a size do not make a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The size is zero bytes.
    #[error("the range is empty: its size is 0")]
    Empty,
    /// The last byte would lie beyond 2^64 - 1.
    #[error("{size:#x} bytes from {first:#x} run past the end of the 64-bit space")]
    Wraps {
        /// First address.
        first: u64,
        /// Size in bytes.
        size: u64,
    },
}

impl<A: Address> AddrRange<A> {
    /// The range `first..=last`; `None` when `first` is above `last`.
    pub fn new(first: A, last: A) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The range of `size` bytes that starts at `first`. A range may end at 2^64 - 1.
    pub fn from_size(first: A, size: u64) -> Result<Self, RangeError> {
        let span = size.checked_sub(1).ok_or(RangeError::Empty)?;
        let last =
            first.raw().checked_add(span).ok_or(RangeError::Wraps { first: first.raw(), size })?;
        Ok(Self { first, last: A::from_raw(last) })
    }

    /// All 2^64 addresses.
    pub fn full() -> Self {
        Self { first: A::from_raw(0), last: A::from_raw(u64::MAX) }
    }

    /// The lowest address, included.
    pub fn first(&self) -> A {
        self.first
    }

    /// The highest address, included.
    pub fn last(&self) -> A {
        self.last
    }

    /// `last - first`, in bytes: one less than the size.
    pub fn span(&self) -> u64 {
        self.last.raw() - self.first.raw()
    }

    /// The size in bytes; `None` for the whole space, whose size does not fit.
    pub fn size(&self) -> Option<u64> {
        self.span().checked_add(1)
    }

    /// How many pages the range touches: 2^64 one-byte pages count as 2^64 - 1.
    pub fn pages(&self, page: PageSize) -> u64 {
        let shift = page.shift();
        ((self.last.raw() >> shift) - (self.first.raw() >> shift)).saturating_add(1)
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: A) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether all of `other` lies in the range.
    pub fn contains_range(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The addresses in both ranges.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The addresses of this range below `address`.
    pub fn below(&self, address: A) -> Option<Self> {
        let last = address.raw().checked_sub(1)?;
        Self::new(self.first, self.last.min(A::from_raw(last)))
    }

    /// The addresses of this range above `address`.
    pub fn above(&self, address: A) -> Option<Self> {
        let first = address.raw().checked_add(1)?;
        Self::new(self.first.max(A::from_raw(first)), self.last)
    }

    /// The addresses of this range at or above `address`.
    pub(crate) fn from(&self, address: A) -> Option<Self> {
        Self::new(self.first.max(address), self.last)
    }

    /// From the lower first address of both to the higher last one.
    pub(crate) fn hull(&self, other: &Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// What is left of this range without `other`: nothing, a piece, or one on each side of it.
    pub fn without(&self, other: &Self) -> impl Iterator<Item = Self> + use<A> {
        [self.below(other.first), self.above(other.last)].into_iter().flatten()
    }

    /// The address right after the range, `None` at the end of the space.
    pub fn next(&self) -> Option<A> {
        self.last.raw().checked_add(1).map(A::from_raw)
    }

    /// The whole pages of the range, if there is one.
    pub fn whole_pages(&self, page: PageSize) -> Option<Self> {
        let in_page = page.bytes() - 1;
        let first = self.first.raw().checked_add(in_page)? & !in_page;
        let last = match self.last.raw() & in_page {
            rest if rest == in_page => self.last.raw(),
            rest => (self.last.raw() - rest).checked_sub(1)?,
        };
        Self::new(A::from_raw(first), A::from_raw(last))
    }

    /// Whether both ends sit on page boundaries.
    pub fn is_aligned(&self, page: PageSize) -> bool {
        page.is_aligned(self.first.raw()) && page.is_aligned(self.last.raw().wrapping_add(1))
    }
}

impl<A: Address> fmt::Display for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl<A: Address> fmt::Debug for AddrRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    #[test]
    fn the_last_byte_of_the_space_is_legal() {
        let top = IovaRange::from_size(Iova(u64::MAX), 1).unwrap();
        assert_eq!(top, r(u64::MAX, u64::MAX));
        assert_eq!(top.next(), None);
        assert!(IovaRange::from_size(Iova(u64::MAX), 2).is_err());
    }

    #[test]
    fn the_whole_space_has_no_size() {
        let full = IovaRange::full();
        assert_eq!(full.size(), None);
        assert_eq!(full.span(), u64::MAX);
        assert_eq!(full.pages(PageSize::P4K), 1 << 52);
    }

    #[test]
    fn cutting_at_the_ends_of_the_space_leaves_nothing() {
        assert_eq!(IovaRange::full().below(Iova(0)), None);
        assert_eq!(IovaRange::full().above(Iova(u64::MAX)), None);
        assert_eq!(r(5, 9).below(Iova(7)), Some(r(5, 6)));
        assert_eq!(r(5, 9).above(Iova(9)), None);
        assert_eq!(r(5, 9).below(Iova(100)), Some(r(5, 9)));
    }

    #[test]
    fn whole_pages_are_what_a_walk_over_the_pages_finds() {
        let page = PageSize::new(4).unwrap();
        for base in [0, u64::MAX - 15] {
            let ranges = (0..16).flat_map(|a| (a..16).map(move |b| r(base + a, base + b)));
            for range in ranges {
                let starts = (0..4).map(|n| base + 4 * n);
                let inside: Vec<u64> =
                    starts.filter(|s| range.contains_range(&r(*s, s + 3))).collect();
                let expected = inside.first().map(|first| r(*first, inside[inside.len() - 1] + 3));
                assert_eq!(range.whole_pages(page), expected, "{range:?}");
            }
        }
    }

    #[test]
    fn what_is_left_of_a_range_is_what_the_other_has_not() {
        for base in [0, u64::MAX - 7] {
            let ranges = || (0..8).flat_map(|a| (a..8).map(move |b| r(base + a, base + b)));
            for (range, other) in ranges().flat_map(|a| ranges().map(move |b| (a, b))) {
                for at in (0..8).map(|n| Iova(base + n)) {
                    let pieces = range.without(&other).filter(|piece| piece.contains(at)).count();
                    let left = range.contains(at) && !other.contains(at);
                    assert_eq!(pieces, usize::from(left), "{at} of {range:?} without {other:?}");
                }
            }
        }
    }

    #[test]
    fn overlap_counts_a_single_shared_address() {
        assert!(r(0, 5).overlaps(&r(5, 9)));
        assert!(!r(0, 4).overlaps(&r(5, 9)));
    }
}
