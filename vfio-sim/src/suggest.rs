// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The nearest layout that fits: what can stay stays, and the rest moves as little as it can.
//!
//! RAM keeps the parts of a range that can be mapped, and what is missing moves to the nearest free
//! place above, as VMMs put memory behind a hole. BARs and ROMs move whole.

use vfio_type1::{Iova, IovaRange, PageSize};

use crate::layout::{RangeKind, WantedRange};

/// A layout with the same ranges that fits into `mappable`, in the order of `wanted`; RAM may come
/// in parts. `None` if there is none. Addresses are multiples of `page`, sizes are rounded up to it.
pub fn nearest_layout(
    mappable: &[IovaRange],
    page: PageSize,
    wanted: &[WantedRange],
) -> Option<Vec<WantedRange>> {
    let mut free = Free::new(mappable, page);
    let mut placed: Vec<Vec<IovaRange>> = vec![Vec::new(); wanted.len()];
    for (range, places) in wanted.iter().zip(&mut placed) {
        if range.range.is_aligned(page) && free.take(range.range) {
            places.push(range.range);
        }
    }
    for (range, places) in wanted.iter().zip(&mut placed) {
        if places.is_empty() {
            *places = match range.kind {
                RangeKind::Ram => joined(free.place_in_parts(range.range, page)?, mappable),
                RangeKind::Bar | RangeKind::Rom => vec![free.place_whole(range.range, page)?],
            };
        }
    }
    let mut layout = Vec::new();
    for (range, places) in wanted.iter().zip(placed) {
        let mut names = names(range, wanted);
        let part = |place| Some(WantedRange { name: names.next()?, range: place, ..range.clone() });
        layout.extend(places.into_iter().filter_map(part));
    }
    Some(layout)
}

/// Names for the parts of a range that no other range has: `ram`, `ram-2`, `ram-3`.
fn names<'a>(range: &'a WantedRange, all: &'a [WantedRange]) -> impl Iterator<Item = String> + 'a {
    let others = (2..).map(|number| format!("{}-{number}", range.name));
    let free = others.filter(|name| all.iter().all(|other| other.name != *name));
    std::iter::once(range.name.clone()).chain(free)
}

/// What is left to map into: ranges of whole pages, ascending.
struct Free(Vec<IovaRange>);

impl Free {
    fn new(mappable: &[IovaRange], page: PageSize) -> Self {
        Self(mappable.iter().filter_map(|range| range.whole_pages(page)).collect())
    }

    /// Takes a range out, if one free range holds it.
    fn take(&mut self, range: IovaRange) -> bool {
        let Some(at) = self.0.iter().position(|free| free.contains_range(&range)) else {
            return false;
        };
        let rest = [self.0[at].below(range.first()), self.0[at].above(range.last())];
        self.0.splice(at..=at, rest.into_iter().flatten());
        true
    }

    /// The nearest place for the whole of `wanted`.
    fn place_whole(&mut self, wanted: IovaRange, page: PageSize) -> Option<IovaRange> {
        let size = wanted.size()?.checked_next_multiple_of(page.bytes())?;
        let align = if size.is_power_of_two() { size } else { page.bytes() };
        self.place(wanted.first(), size, align)
    }

    /// The place of `size` bytes that starts nearest to `near`, taken out.
    fn place(&mut self, near: Iova, size: u64, align: u64) -> Option<IovaRange> {
        let starts = self.0.iter().filter_map(|free| nearest_start(free, near, size, align));
        let start = starts.min_by_key(|start| start.abs_diff(near.0))?;
        let place = IovaRange::from_size(Iova(start), size).ok()?;
        self.take(place).then_some(place)
    }

    /// The parts of `wanted` that are free, and places above it, or else anywhere, for the rest.
    fn place_in_parts(&mut self, wanted: IovaRange, page: PageSize) -> Option<Vec<IovaRange>> {
        let size = u128::from(wanted.span()) + 1;
        let mut missing = size.next_multiple_of(page.bytes().into());
        let free: Vec<IovaRange> = self.0.clone();
        let overlaps = free.iter().filter_map(|free| free.intersection(&wanted));
        let mut parts = Vec::new();
        for part in overlaps.filter_map(|part| part.whole_pages(page)) {
            missing -= bytes(&part);
            self.take(part);
            parts.push(part);
        }
        while missing > 0 {
            let part = self.place_next(wanted.last(), missing, page)?;
            missing -= bytes(&part);
            parts.push(part);
        }
        Some(parts)
    }

    /// A place for `missing` bytes, or the largest that there is.
    fn place_next(&mut self, above: Iova, missing: u128, page: PageSize) -> Option<IovaRange> {
        let whole = u64::try_from(missing).ok();
        let place = whole.and_then(|size| self.place(above, size, page.bytes()));
        place.or_else(|| {
            let largest = self.0.iter().max_by_key(|free| free.span()).copied()?;
            self.take(largest).then_some(largest)
        })
    }
}

/// The parts in ascending order. Those that touch are made one, if one mapping can be both: the
/// kernel's list may have a seam between them.
fn joined(mut parts: Vec<IovaRange>, mappable: &[IovaRange]) -> Vec<IovaRange> {
    parts.sort_unstable_by_key(IovaRange::first);
    let mut joined: Vec<IovaRange> = Vec::new();
    for part in parts {
        let before = joined.last_mut().filter(|before| before.next() == Some(part.first()));
        let both = before.and_then(|before| {
            let both = IovaRange::new(before.first(), part.last())?;
            mappable.iter().any(|range| range.contains_range(&both)).then_some((before, both))
        });
        match both {
            Some((before, both)) => *before = both,
            None => joined.push(part),
        }
    }
    joined
}

fn bytes(range: &IovaRange) -> u128 {
    u128::from(range.span()) + 1
}

/// The start nearest to `near` of `size` bytes in `free`, at a multiple of `align`.
fn nearest_start(free: &IovaRange, near: Iova, size: u64, align: u64) -> Option<u64> {
    let lowest = free.first().0.checked_next_multiple_of(align)?;
    let highest = free.last().0.checked_sub(size - 1)?;
    let highest = highest - highest % align;
    if lowest > highest {
        return None;
    }
    let down = near.0.clamp(lowest, highest) / align * align;
    let up = down.checked_add(align).filter(|up| *up <= highest).unwrap_or(down);
    Some(if near.0.abs_diff(up) < near.0.abs_diff(down) { up } else { down })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const G: u64 = 1 << 30;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    fn wanted(name: &str, first: u64, size: u64, kind: RangeKind) -> WantedRange {
        let range = IovaRange::from_size(Iova(first), size).unwrap();
        WantedRange { name: name.to_owned(), range, kind, piece: None }
    }

    #[test]
    fn memory_goes_around_a_hole() {
        let amd = [range(0, 0xfc_ffff_ffff), range(0x100_0000_0000, 0xffff_ffff_ffff)];
        let ram = wanted("ram", 4 * G, 1024 * G, RangeKind::Ram);
        let layout = nearest_layout(&amd, PageSize::P4K, &[ram]).unwrap();
        assert_eq!(layout[0].range, range(4 * G, 0xfc_ffff_ffff));
        assert_eq!(layout[1].range, range(0x100_0000_0000, 0x103_ffff_ffff));
        assert_eq!(layout[1].name, "ram-2");
    }

    #[test]
    fn parts_get_names_of_their_own() {
        let amd = [range(0, 0xfc_ffff_ffff), range(0x100_0000_0000, 0xffff_ffff_ffff)];
        let ram = wanted("ram", 4 * G, 1024 * G, RangeKind::Ram);
        let other = wanted("ram-2", 0x800_0000_0000, G, RangeKind::Ram);
        let layout = nearest_layout(&amd, PageSize::P4K, &[ram, other]).unwrap();
        let names: Vec<&str> = layout.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["ram", "ram-3", "ram-2"]);
    }

    #[test]
    fn a_bar_moves_whole_to_a_multiple_of_its_size() {
        let bar = wanted("bar", 0x3828_0000_0000, 16 * G, RangeKind::Bar);
        let client = [range(0, 0xfedf_ffff), range(0xfef0_0000, 0x7f_ffff_ffff)];
        let layout = nearest_layout(&client, PageSize::P4K, &[bar]).unwrap();
        assert_eq!(layout[0].range, range(0x7c_0000_0000, 0x7f_ffff_ffff));
    }

    #[test]
    fn what_fits_stays_and_what_is_in_its_way_moves() {
        let all = [range(0, 64 * G - 1)];
        let ram = wanted("ram", 0, 4 * G, RangeKind::Ram);
        let bar = wanted("bar", 2 * G, G, RangeKind::Bar);
        let layout = nearest_layout(&all, PageSize::P4K, &[ram.clone(), bar]).unwrap();
        assert_eq!(layout[0], ram);
        assert_eq!(layout[1].range, range(4 * G, 5 * G - 1));
        let too_much = wanted("ram", 0, 65 * G, RangeKind::Ram);
        assert_eq!(nearest_layout(&all, PageSize::P4K, &[too_much]), None);
    }

    proptest! {
        /// On a small space: what is suggested is in free space, apart, and of the size asked for.
        #[test]
        fn a_suggestion_always_fits(
            cuts in prop::collection::btree_set(0u64..64, 2..8),
            asked in prop::collection::vec((0u64..70, 1u64..12, 0usize..3), 1..5),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let page = 4096;
            let free: Vec<IovaRange> =
                cuts.chunks_exact(2).map(|cut| range(cut[0] * page, cut[1] * page - 1)).collect();
            let kinds = [RangeKind::Ram, RangeKind::Bar, RangeKind::Rom];
            let asked: Vec<WantedRange> = asked
                .into_iter()
                .map(|(first, pages, kind)| wanted("x", first * page, pages * page, kinds[kind]))
                .collect();
            let Some(layout) = nearest_layout(&free, PageSize::P4K, &asked) else { return Ok(()) };
            let pages = |ranges: &[WantedRange]| -> u64 {
                ranges.iter().map(|wanted| wanted.range.pages(PageSize::P4K)).sum()
            };
            prop_assert_eq!(pages(&layout), pages(&asked));
            for (index, part) in layout.iter().enumerate() {
                prop_assert!(free.iter().any(|free| free.contains_range(&part.range)));
                prop_assert!(layout[..index].iter().all(|other| !other.range.overlaps(&part.range)));
            }
        }
    }
}
