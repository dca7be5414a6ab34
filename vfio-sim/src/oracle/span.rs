// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[a,b]` of the document: addresses from `first` to `last`, both included.

/// `[first, last]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The lowest address.
    pub first: u64,
    /// The highest address.
    pub last: u64,
}

impl Span {
    /// `[first, first + size - 1]`; `None` if that wraps around or is empty.
    pub(super) fn sized(first: u64, size: u64) -> Option<Self> {
        let last = first.checked_add(size.checked_sub(1)?)?;
        Some(Self { first, last })
    }

    /// In bytes. A mapping or a request never is the whole space, as its size fits in 64 bits.
    pub(super) fn size(self) -> u64 {
        (self.last - self.first).wrapping_add(1)
    }

    pub(super) fn holds(self, address: u64) -> bool {
        self.first <= address && address <= self.last
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}
