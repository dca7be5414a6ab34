// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The valid IOVA list: which addresses a container accepts in MAP.
//!
//! Linux keeps it in `vfio_iommu_type1.c` (`vfio_iommu_aper_resize`,
//! `vfio_iommu_resv_exclude`, `vfio_iommu_resv_refresh`, `vfio_iommu_aper_expand`): sorted
//! inclusive ranges, cut byte for byte with no rounding to pages. Spec 3.5 to 3.7.
//!
//! This file owns the list and its four changes, including the places where the kernel drops an
//! address that was valid. It does not know groups, domains or mappings: those decide when to
//! change the list (`attach`, `detach`).
//!
//! R regions are cut out of N ranges in O((R + N) log R), and a mapping is looked up in O(log N). Only
//! inverted regions, which end further below their start than one of zero length, can take longer:
//! each may double the list, and what they leave overlaps and has no order to search by.

use crate::addr::Iova;
use crate::range::IovaRange;
use crate::reserved::{RegionKind, ReservedRegion};

/// Valid ranges, ascending. Two ranges may touch: a mapping across the seam is refused (spec 3.6).
/// After an inverted region they may even overlap and lose their order. An empty list accepts
/// everything; it belongs to a container that never had an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IovaList {
    ranges: Vec<IovaRange>,
    /// Whether a range somewhere does not begin above the end of the one before it.
    unordered: bool,
}

/// Whether `kind` is cut out of the list: all kinds but the relaxable one (spec 3.6).
pub fn is_excluded(kind: RegionKind) -> bool {
    kind != RegionKind::DirectRelaxable
}

impl IovaList {
    /// The ranges, ascending.
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// Whether there is no range at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// From the first valid address to the last one, holes included.
    pub fn bounds(&self) -> Option<IovaRange> {
        let (first, last) = (self.ranges.first()?, self.ranges.last()?);
        IovaRange::new(first.first(), last.last())
    }

    /// Whether MAP of `iova` is allowed: the list is empty, or one range holds all of it
    /// (`vfio_iommu_iova_dma_valid`; spec 5.1 step 10).
    #[inline]
    pub fn allows(&self, iova: &IovaRange) -> bool {
        if self.is_empty() {
            return true;
        }
        if self.unordered {
            return self.ranges.iter().any(|range| range.contains_range(iova));
        }
        let at = self.ranges.partition_point(|range| range.last() < iova.first());
        self.ranges.get(at).is_some_and(|range| range.contains_range(iova))
    }

    /// Clips the list to the aperture of a domain that joins (spec 3.5,
    /// `vfio_iommu_aper_resize`).
    ///
    /// The kernel compares strictly, so a range of which only the first or last address lies
    /// inside is dropped, and so is a single-address range on the aperture's edge, even when the
    /// aperture does not change anything else.
    pub fn resize(&mut self, aperture: IovaRange) {
        if self.is_empty() {
            self.ranges.push(aperture);
            return;
        }
        self.clip_start(aperture.first());
        self.clip_end(aperture.last());
        self.note_order();
    }

    /// First pass, ascending: drops ranges that end at or below `start`, trims the first that
    /// does not.
    fn clip_start(&mut self, start: Iova) {
        let dropped =
            self.ranges.iter().take_while(|r| r.first() <= start && r.last() <= start).count();
        self.ranges.drain(..dropped);
        if let Some(range) = self.ranges.first_mut()
            && let Some(trimmed) = IovaRange::new(start.max(range.first()), range.last())
        {
            *range = trimmed;
        }
    }

    /// Second pass: keeps ranges that end below `end`, trims one that straddles it, drops those
    /// that start at or above it.
    fn clip_end(&mut self, end: Iova) {
        self.ranges.retain_mut(|range| {
            if end > range.last() {
                return true;
            }
            if end <= range.first() {
                return false;
            }
            if let Some(trimmed) = IovaRange::new(range.first(), end) {
                *range = trimmed;
            }
            true
        });
    }

    /// Cuts regions out, in their order, all but relaxable ones (spec 3.6,
    /// `vfio_iommu_iova_exclude`). A region of zero length inside a range splits it in two that
    /// touch; one at address 0 removes everything.
    ///
    /// What regions leave of a range is its runs of addresses in none of them, parted where one of
    /// zero length stands. Their order does not show in that, so they are sorted; it does with an
    /// inverted one. From 5.4 a group's list is sorted as it comes.
    pub fn exclude<'a>(&mut self, regions: impl IntoIterator<Item = &'a ReservedRegion>) {
        let excluded = regions.into_iter().filter(|region| is_excluded(region.kind));
        let mut cuts: Vec<ReservedRegion> = excluded.copied().collect();
        if !cuts.iter().any(ReservedRegion::is_inverted) {
            cuts.sort_by_key(|cut| cut.first);
        }
        for ascending in cuts.chunk_by(|low, high| low.first <= high.first) {
            self.exclude_ascending(ascending.to_vec());
        }
        self.note_order();
    }

    /// Cuts out regions whose starts ascend. None touches what one before it left below itself, so
    /// each finds only the upper rest of a range; and nothing of that, if it ends no higher than one
    /// before it. Without such regions the ends ascend too, so that the first to touch a range can be
    /// searched for.
    fn exclude_ascending(&mut self, mut cuts: Vec<ReservedRegion>) {
        cuts.dedup_by(|cut, before| cut.last <= before.last);
        let mut left = Vec::with_capacity(self.ranges.len() + cuts.len());
        for range in &self.ranges {
            let from = cuts.partition_point(|cut| cut.last < range.first());
            let mut rest = Some(*range);
            for cut in &cuts[from..] {
                let Some(piece) = rest.filter(|piece| cut.first <= piece.last()) else { break };
                left.extend(piece.below(cut.first));
                rest = piece.above(cut.last);
            }
            left.extend(rest);
        }
        self.ranges = left;
    }

    /// Follows each change that may move more than the outermost two ends.
    fn note_order(&mut self) {
        self.unordered = !self.ranges.is_sorted_by(|low, high| low.last() < high.first());
    }

    /// Widens the ends of the list to what the remaining domains' apertures share, when a domain
    /// has left (spec 3.7 step 3c, `vfio_iommu_aper_expand`).
    pub fn expand(&mut self, apertures: impl Iterator<Item = IovaRange>) {
        let (mut first, mut last) = (Iova(0), Iova(u64::MAX));
        for aperture in apertures {
            first = first.max(aperture.first());
            last = last.min(aperture.last());
        }
        if let Some(range) = self.ranges.first_mut()
            && let Some(wider) = IovaRange::new(first, range.last())
        {
            *range = wider;
        }
        if let Some(range) = self.ranges.last_mut()
            && let Some(wider) = IovaRange::new(range.first(), last)
        {
            *range = wider;
        }
    }

    /// Rebuilds the list between its ends from the regions of the groups that remain; `None`,
    /// and the old list stays, when nothing would be left (spec 3.7 step 4,
    /// `vfio_iommu_resv_refresh`).
    pub fn refreshed(&self, regions: &[ReservedRegion]) -> Option<Self> {
        let mut list = Self { ranges: vec![self.bounds()?], ..Self::default() };
        list.exclude(regions);
        (!list.is_empty()).then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserved::tests::{addresses, regions_of_every_kind};
    use crate::reserved::{MergeRule, RegionList};
    use RegionKind::{Direct, DirectRelaxable, Msi, Reserved};
    use proptest::prelude::*;

    const MAX: u64 = u64::MAX;

    fn list(ranges: &[(u64, u64)]) -> IovaList {
        of(ranges.iter().map(|&(a, b)| range(a, b)).collect())
    }

    fn of(ranges: Vec<IovaRange>) -> IovaList {
        let mut list = IovaList { ranges, unordered: false };
        list.note_order();
        list
    }

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    /// The range with these ends, in whichever order.
    fn between(a: u64, b: u64) -> IovaRange {
        range(a.min(b), a.max(b))
    }

    fn resized(ranges: &[(u64, u64)], start: u64, end: u64) -> IovaList {
        let mut list = list(ranges);
        list.resize(range(start, end));
        list
    }

    fn excluded(ranges: &[(u64, u64)], regions: &[ReservedRegion]) -> IovaList {
        let mut list = list(ranges);
        list.exclude(regions);
        list
    }

    #[test]
    fn the_first_aperture_becomes_the_list() {
        assert_eq!(resized(&[], 0, MAX), list(&[(0, MAX)]));
    }

    #[test]
    fn an_aperture_inside_one_range_trims_both_ends() {
        assert_eq!(resized(&[(0, 100)], 10, 90), list(&[(10, 90)]));
    }

    #[test]
    fn an_aperture_edge_in_a_gap_leaves_the_neighbours_alone() {
        assert_eq!(resized(&[(0, 9), (20, 29), (40, 49)], 15, 35), list(&[(20, 29)]));
    }

    #[test]
    fn single_addresses_on_the_edge_are_dropped_though_valid() {
        // Spec 3.5, measured on arm64 6.12.
        assert_eq!(resized(&[(0, 0), (0x2000, MAX)], 0, MAX), list(&[(0x2000, MAX)]));
        assert_eq!(resized(&[(0, 9), (20, 20)], 0, 20), list(&[(0, 9)]));
        assert_eq!(resized(&[(0, 0)], 0, MAX), list(&[]));
        assert_eq!(resized(&[(0, 5), (10, 20)], 5, 30), list(&[(10, 20)]));
        assert_eq!(resized(&[(0, 9), (20, 29)], 0, 20), list(&[(0, 9)]));
        assert_eq!(
            resized(&[(0, 9), (15, 15), (20, 29)], 0, 29),
            list(&[(0, 9), (15, 15), (20, 29)])
        );
    }

    #[test]
    fn relaxable_regions_are_not_cut_out() {
        let regions =
            [ReservedRegion::new(5, 9, DirectRelaxable), ReservedRegion::new(20, 29, Msi)];
        assert_eq!(excluded(&[(0, 99)], &regions), list(&[(0, 19), (30, 99)]));
    }

    #[test]
    fn zero_length_regions_split_or_empty_the_list() {
        let at = |first| [ReservedRegion::from_length(first, 0, Direct)];
        assert_eq!(excluded(&[(0, 99)], &at(50)), list(&[(0, 49), (50, 99)]));
        assert!(!excluded(&[(0, 99)], &at(50)).allows(&range(49, 50)));
        assert_eq!(excluded(&[(50, 99)], &at(50)), list(&[(50, 99)]));
        assert_eq!(excluded(&[(0, 99)], &at(0)), list(&[]));
    }

    #[test]
    fn the_last_byte_can_be_cut_out() {
        assert_eq!(
            excluded(&[(0, MAX)], &[ReservedRegion::new(MAX, MAX, Reserved)]),
            list(&[(0, MAX - 1)])
        );
        assert_eq!(
            excluded(&[(0, MAX)], &[ReservedRegion::new(0, MAX - 1, Reserved)]),
            list(&[(MAX, MAX)])
        );
    }

    #[test]
    fn expanding_uses_what_the_other_apertures_share() {
        let mut l = list(&[(10, 19), (30, 39)]);
        l.expand([range(5, 99), range(0, 50)].into_iter());
        assert_eq!(l, list(&[(5, 19), (30, 50)]));
        l.expand(std::iter::empty());
        assert_eq!(l, list(&[(0, 19), (30, MAX)]));
    }

    #[test]
    fn refreshing_reopens_holes_but_not_trimmed_edges() {
        let old = list(&[(10, 19), (30, 89)]);
        assert_eq!(old.refreshed(&[]), Some(list(&[(10, 89)])));
        assert_eq!(old.refreshed(&[ReservedRegion::new(0, 99, Msi)]), None);
        assert_eq!(list(&[]).refreshed(&[]), None);
    }

    /// Addresses of the model: few enough to enumerate, so every edge is hit.
    const SMALL: u64 = 24;

    fn small_regions() -> impl Strategy<Value = Vec<ReservedRegion>> {
        let kind = prop::sample::select(&RegionKind::ALL[..]);
        let region = (0..SMALL, 0..SMALL, kind)
            .prop_map(|(a, b, kind)| ReservedRegion::new(a.min(b), a.max(b), kind));
        prop::collection::vec(region, 0..6)
    }

    /// The ranges after one region after the other, as spec 3.6 has it.
    fn cut_one_by_one(ranges: &[IovaRange], regions: &[ReservedRegion]) -> Vec<IovaRange> {
        let mut ranges = ranges.to_vec();
        for region in regions.iter().filter(|region| is_excluded(region.kind)) {
            let cut = |range: &IovaRange| match region.touches(range) {
                true => [range.below(region.first), range.above(region.last)],
                false => [Some(*range), None],
            };
            ranges = ranges.iter().flat_map(cut).flatten().collect();
        }
        ranges
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Regions as they come and merged by either rule; of a new list, and of what is left of one.
        #[test]
        fn cutting_all_is_cutting_one_by_one(
            first in regions_of_every_kind(),
            second in regions_of_every_kind(),
            rule in prop::option::of(prop::sample::select(
                &[MergeRule::SortedByStart, MergeRule::InsertionOrder][..]
            )),
            (start, end) in (addresses(), addresses()),
        ) {
            let mut cut = list(&[(0, MAX)]);
            for regions in [first, second] {
                let regions = match rule {
                    Some(rule) => RegionList::merged(regions, rule).as_slice().to_vec(),
                    None => regions,
                };
                let expected = cut_one_by_one(&cut.ranges, &regions);
                cut.exclude(&regions);
                prop_assert_eq!(&cut, &of(expected));
            }
            // What is known of the order is still what the ranges say.
            cut.resize(between(start, end));
            prop_assert_eq!(&cut, &of(cut.ranges.clone()));
            cut.expand([between(start, end)].into_iter());
            prop_assert_eq!(&cut, &of(cut.ranges.clone()));
        }

        /// Lists in order, with ranges that share one address, and in no order.
        #[test]
        fn one_range_must_hold_all_of_a_mapping(
            mut ends in prop::collection::vec(0..64u64, 2..48),
            (sorted, distinct) in any::<(bool, bool)>(),
            (a, b) in (0..64u64, 0..8u64),
        ) {
            if sorted {
                ends.sort();
            }
            if distinct {
                ends.dedup();
            }
            let list = of(ends.chunks(2).map(|pair| between(pair[0], pair[pair.len() - 1])).collect());
            let asked = range(a, a + b);
            let holds = list.ranges.iter().any(|range| range.contains_range(&asked));
            prop_assert_eq!(list.allows(&asked), holds);
        }
    }

    proptest! {
        /// What remains after excluding is exactly the addresses in no excluded region, whatever
        /// the order and the merging.
        #[test]
        fn excluding_leaves_the_addresses_in_no_region(regions in small_regions()) {
            let merged = RegionList::merged(regions.iter().copied(), MergeRule::SortedByStart);
            let mut list = list(&[(0, SMALL - 1)]);
            list.exclude(&merged);
            for address in 0..SMALL {
                let cut = regions.iter().any(|r| {
                    is_excluded(r.kind) && r.first.0 <= address && address <= r.last.0
                });
                let valid = list.ranges.iter().any(|r| r.contains(Iova(address)));
                prop_assert_eq!(valid, !cut, "address {}", address);
            }
            prop_assert!(list.ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()));
        }

        /// Resizing keeps the addresses inside the aperture, except that a range which would keep
        /// one address only, at the aperture's edge, is dropped.
        #[test]
        fn resizing_keeps_what_the_aperture_holds(regions in small_regions(), a in 0..SMALL, b in 0..SMALL) {
            let (start, end) = (a.min(b), a.max(b));
            let mut list = list(&[(0, SMALL - 1)]);
            list.exclude(&regions);
            let before = list.clone();
            if before.is_empty() {
                return Ok(());
            }
            list.resize(range(start, end));
            let edge = |r: &IovaRange| r.last().0 == start || r.first().0.max(start) == end;
            let expected: Vec<_> = before.ranges.iter().filter(|r| !edge(r))
                .filter_map(|r| r.intersection(&range(start, end))).collect();
            prop_assert_eq!(list.ranges, expected);
        }
    }
}
