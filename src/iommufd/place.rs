// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a mapping goes whose program states no address (`iopt_alloc_iova` in
//! `drivers/iommu/iommufd/io_pagetable.c`).
//!
//! The lowest place, from the second page of the space on, that is as aligned as the memory is.

use super::ioas::Ioas;
use super::map::IoasMapError;
use crate::addr::{Iova, Vaddr};
use crate::range::IovaRange;

/// The largest alignment that is kept: a huge page. From 6.17 or so; before there was no limit.
const HUGE_PAGE: u64 = 1 << 21;

impl Ioas {
    pub(super) fn find_place(&self, vaddr: Vaddr, size: u64) -> Result<IovaRange, IoasMapError> {
        if size >= u64::MAX / 2 {
            return Err(IoasMapError::TooLargeToPlace { size });
        }
        let by_size = size.next_power_of_two();
        let by_memory = 1u64.checked_shl(vaddr.0.trailing_zeros()).unwrap_or(by_size);
        let aligned = by_size.min(by_memory).min(HUGE_PAGE);
        if aligned < self.alignment.bytes() {
            return Err(IoasMapError::CannotAlign { vaddr, alignment: self.alignment });
        }
        let in_page = vaddr.0 & (self.cpu_page.bytes() - 1);
        let fit = |free: IovaRange| fit(free, size, aligned, in_page);
        let valid = self.valid_ranges();
        let mut places = self.to_look_at().into_iter().flat_map(|allowed| {
            // The kernel aligns the range it looks through, and then each hole in it.
            let from = fit(allowed).and_then(|first| allowed.from(first.first()));
            let inside = valid.iter().filter_map(move |valid| valid.intersection(&from?));
            inside.flat_map(|part| self.mappings.gaps_up(part.first(), part.last()))
        });
        places.find_map(fit).ok_or(IoasMapError::NoSpace { size })
    }

    /// What may be looked through: what is allowed, if anything is stated, but never the first page and
    /// the last one.
    fn to_look_at(&self) -> Vec<IovaRange> {
        let page = self.cpu_page.bytes();
        let Some(inner) = IovaRange::new(Iova(page), Iova(u64::MAX - page)) else {
            return Vec::new();
        };
        match &self.allowed[..] {
            [] => vec![inner],
            allowed => allowed.iter().filter_map(|one| one.intersection(&inner)).collect(),
        }
    }
}

/// The first place of `size` bytes in `free` at a multiple of `aligned`, plus `in_page`.
fn fit(free: IovaRange, size: u64, aligned: u64, in_page: u64) -> Option<IovaRange> {
    let first = free.first().0.checked_next_multiple_of(aligned)? | in_page;
    let place = IovaRange::from_size(Iova(first), size).ok()?;
    free.contains_range(&place).then_some(place)
}
