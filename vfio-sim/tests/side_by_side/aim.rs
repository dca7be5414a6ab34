// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where operations go: addresses found by what lies there, on whatever host they run.

use vfio_sim::oracle::{OracleInfo, OracleMapping, Span};
use vfio_type1::{UserBitmap, Vaddr};

use super::operations::{Bitmap, BitmapPage, BitmapSize, Extent, Place, To};
use super::pair::Pair;

/// Memory that can be written; memory to read follows it, then nothing.
pub(crate) const RAM: u64 = 0x1000_0000_0000;
pub(crate) const RAM_BYTES: u64 = 0x0300_0000;
pub(crate) const ROM_BYTES: u64 = 0x0080_0000;
/// Enough for a mapping that no dirty bitmap covers.
pub(crate) const HUGE: u64 = 0x0020_0000_0000_0000;
pub(crate) const HUGE_BYTES: u64 = 1 << 53;
/// Pages at whose end arguments and bitmaps are put: what follows is not there.
pub(crate) const ARGUMENT: u64 = 0x3000_0000_0000;
pub(crate) const READ_ONLY: u64 = 0x3100_0000_0000;
pub(crate) const BITMAP: u64 = 0x3200_0000_0000;
pub(crate) const PAGE: u64 = 0x1000;
/// Where user addresses end, exclusive: since 6.1, and up to 5.10 (7.4).
const USER_ENDS: [u64; 2] = [0x00ff_ffff_ffff_f000, 0x7fff_ffff_f000];
/// How far a mapping goes to the next boundary: the oracle keeps a `bool` for each page.
pub(crate) const MAPPED_PAGES: u64 = 600;
/// The bytes at the end of such a page that are compared.
pub(crate) const WATCHED: usize = 0x200;

impl Pair {
    /// The container's page; 4 KiB if there is none.
    pub(crate) fn page(&mut self, slot: usize) -> u64 {
        let sizes = self.info(slot).map_or(0, |info| info.page_sizes);
        if sizes == 0 { PAGE } else { 1 << sizes.trailing_zeros() }
    }

    pub(crate) fn mappings(&self, slot: usize) -> Vec<OracleMapping> {
        self.number(slot).map(|number| self.oracle.mappings(number)).unwrap_or_default()
    }

    /// The oracle's number of the container in a slot.
    fn number(&self, slot: usize) -> Option<usize> {
        self.containers[slot].as_ref().map(|(_, number)| *number)
    }

    fn info(&mut self, slot: usize) -> Option<OracleInfo> {
        self.number(slot).and_then(|number| self.oracle.info(number).ok())
    }

    /// Addresses where something begins or has just ended.
    fn boundaries(&mut self, slot: usize) -> Vec<u64> {
        let mut all = self.boundaries.clone();
        all.push(0);
        let ranges = self.info(slot).map(|info| info.ranges).unwrap_or_default();
        let mapped = self.mappings(slot).into_iter().map(|mapping| mapping.iova);
        all.extend(
            ranges.into_iter().chain(mapped).flat_map(|r| [r.first, r.last.wrapping_add(1)]),
        );
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where a valid range begins, and where a mapping has just ended: what is not mapped, and
    /// may be.
    fn free(&mut self, slot: usize) -> Vec<u64> {
        let ranges = self.info(slot).map(|info| info.ranges).unwrap_or_default();
        let mapped = self.mappings(slot);
        let firsts = ranges.iter().map(|range| range.first);
        let ends = mapped.iter().filter_map(|mapping| mapping.iova.last.checked_add(1));
        let within = |range: &Span, at: u64| range.first <= at && at <= range.last;
        firsts
            .chain(ends)
            .filter(|at| ranges.is_empty() || ranges.iter().any(|range| within(range, *at)))
            .filter(|at| !mapped.iter().any(|mapping| within(&mapping.iova, *at)))
            .collect()
    }

    /// Where mappings begin and what follows them.
    fn edges_of_mappings(&self, slot: usize) -> Vec<u64> {
        let mapped = self.mappings(slot).into_iter().map(|mapping| mapping.iova);
        mapped.flat_map(|range| [range.first, range.last.wrapping_add(1)]).collect()
    }

    /// An address and a size.
    pub(crate) fn range(&mut self, slot: usize, place: Place, extent: Extent) -> (u64, u64) {
        let page = self.page(slot);
        let boundaries = self.boundaries(slot);
        let near = match place {
            Place { free: true, .. } => self.free(slot),
            // Every other place lies by a mapping.
            _ if place.boundary % 2 == 1 => self.edges_of_mappings(slot),
            _ => Vec::new(),
        };
        let candidates = if near.is_empty() { &boundaries } else { &near };
        let boundary = candidates[place.boundary / 2 % candidates.len()];
        let first = page_at_or_above(boundary, page);
        let first = first.wrapping_add_signed(place.pages.wrapping_mul(page.cast_signed()));
        let first = first.wrapping_add_signed(place.bytes);
        match extent {
            Extent::Pages(pages) => (first, pages * page),
            Extent::Ragged(pages) => (first, pages * page + 0x234),
            Extent::ToBoundary(number) => {
                let mut above = boundaries.iter().filter(|boundary| **boundary > first);
                let end = above.nth(number).copied().unwrap_or(0);
                (first, end.wrapping_sub(first) & !(page - 1))
            }
            Extent::Mappings(from, to) => {
                let mappings = self.mappings(slot);
                if mappings.is_empty() {
                    return (first, page);
                }
                let from = mappings[from % mappings.len()].iova;
                let to = mappings[to % mappings.len()].iova;
                let (low, high) = (from.first.min(to.first), from.last.max(to.last));
                (low, (high - low).wrapping_add(1))
            }
            Extent::Huge => (first, page << 31),
            Extent::Bytes(bytes) => {
                (if bytes == 0 { place.boundary as u64 / 40 } else { first }, bytes)
            }
        }
    }

    pub(crate) fn vaddr(&mut self, slot: usize, to: To) -> u64 {
        let page = self.page(slot);
        match to {
            To::Ram(pages) => RAM + pages * page % RAM_BYTES,
            To::RamEnd(pages) => RAM + RAM_BYTES - pages * page,
            To::End(pages) => RAM + RAM_BYTES + ROM_BYTES - (pages * page).min(ROM_BYTES),
            To::Huge => HUGE,
            To::Exactly(address) => address,
        }
    }

    /// A bitmap for a range of `size` bytes, and what its buffer holds before.
    pub(crate) fn bitmap(
        &mut self,
        slot: usize,
        caller: usize,
        size: u64,
        plan: Bitmap,
    ) -> UserBitmap {
        let caller = self.caller(caller);
        self.poke(caller, BITMAP + PAGE - WATCHED as u64, &[plan.fill; WATCHED]);
        let page = self.page(slot);
        let right = 8 * (size / page).div_ceil(64);
        let bytes = match plan.size {
            BitmapSize::Right => right,
            BitmapSize::OneWordLess => right.saturating_sub(8),
            BitmapSize::Bytes(bytes) => bytes,
        };
        // Ends where user addresses do since 6.1, or did up to 5.10, or one byte behind.
        let border = USER_ENDS[usize::from(plan.fill / 2 % 2)] + u64::from(1 - plan.fill % 2);
        UserBitmap {
            page_size: match plan.page {
                BitmapPage::Right => page,
                BitmapPage::Bytes(bytes) => bytes,
            },
            bytes,
            data: Vaddr(if plan.beyond_user {
                border.wrapping_sub(bytes)
            } else {
                BITMAP + PAGE - plan.room
            }),
        }
    }
}

/// The next multiple of a page at or above; 0 above the last one.
fn page_at_or_above(address: u64, page: u64) -> u64 {
    address.wrapping_add(page - 1) & !(page - 1)
}
