// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reserved regions: I/O virtual addresses that a device's host sets aside.
//!
//! In Linux each IOMMU driver lists the regions of one device (`get_resv_regions`), and
//! `iommu_insert_resv_region` in `drivers/iommu/iommu.c` merges the lists of a group's devices into
//! the one that sysfs prints and that VFIO cuts out of the valid IOVA list. Spec 4.1 to 4.3.
//!
//! This file owns the region, its kind, and the merged, ordered list. It knows nothing of sysfs
//! text (`sysfs`), of which kinds are mappable (`iova_list`), or of where regions come from.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};

use crate::addr::Iova;
use crate::range::IovaRange;

/// What a region is reserved for. The order is the one in which the kernel sorts regions that
/// start at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegionKind {
    /// Memory the firmware keeps using by DMA: must stay mapped one to one (an RMRR, an IVMD).
    Direct,
    /// A direct region that may be given up once the device is assigned (USB, graphics). Not cut
    /// out of the valid list.
    DirectRelaxable,
    /// Addresses that never reach memory, such as AMD's HyperTransport hole.
    Reserved,
    /// A hardware MSI window: writes there become interrupts.
    Msi,
    /// A window the kernel keeps to map MSI doorbells into.
    SoftwareMsi,
}

impl RegionKind {
    /// Every kind, in the kernel's order.
    pub const ALL: [Self; 5] =
        [Self::Direct, Self::DirectRelaxable, Self::Reserved, Self::Msi, Self::SoftwareMsi];
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct region",
            Self::DirectRelaxable => "relaxable direct region",
            Self::Reserved => "reserved region",
            Self::Msi => "MSI window",
            Self::SoftwareMsi => "software MSI window",
        })
    }
}

/// One reserved region, `first..=last` in bytes, with no rounding to pages.
///
/// `last` may be below `first`: the kernel keeps a start and a length modulo 2^64, firmware may
/// state a length of zero, and merging may produce one (`last` is then `first - 1`). Such a region
/// has effects of its own (spec 3.6), so it is not refused here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservedRegion {
    /// First address.
    pub first: Iova,
    /// Last address, inclusive.
    pub last: Iova,
    /// What it is reserved for.
    pub kind: RegionKind,
}

impl ReservedRegion {
    /// The region `first..=last`.
    pub fn new(first: u64, last: u64, kind: RegionKind) -> Self {
        Self { first: Iova(first), last: Iova(last), kind }
    }

    /// The region that is `range`.
    pub fn from_range(range: IovaRange, kind: RegionKind) -> Self {
        Self { first: range.first(), last: range.last(), kind }
    }

    /// The region of `length` bytes from `first`; a length of zero gives `last = first - 1`.
    pub fn from_length(first: u64, length: u64, kind: RegionKind) -> Self {
        Self::new(first, first.wrapping_add(length).wrapping_sub(1), kind)
    }

    /// The addresses as a range; `None` for a region of zero length.
    pub fn range(&self) -> Option<IovaRange> {
        IovaRange::new(self.first, self.last)
    }

    /// Whether the kernel takes `range` to overlap this region. For a region of zero length that
    /// is a range with addresses on both sides of its start.
    pub fn touches(&self, range: &IovaRange) -> bool {
        self.first <= range.last() && self.last >= range.first()
    }

    /// Whether it ends further below its start than a region of zero length. What it leaves of a
    /// range then overlaps.
    pub(crate) fn is_inverted(&self) -> bool {
        self.last.0 < self.first.0.saturating_sub(1)
    }

    /// Whether `other` overlaps this region or begins right behind it, as the merge asks it: a
    /// region that ends at the top of the space has nothing behind it.
    fn reaches(&self, other: &Self) -> bool {
        other.first.0 <= self.last.0.wrapping_add(1)
    }

    /// Grows over `other`, which begins no lower, if that is of its kind and within reach. Says
    /// whether it was.
    fn absorb(&mut self, other: &Self) -> bool {
        let absorbs = self.kind == other.kind && self.reaches(other);
        if absorbs {
            self.last = self.last.max(other.last);
        }
        absorbs
    }
}

impl fmt::Display for ReservedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{}", self.kind, self.first, self.last)
    }
}

impl fmt::Debug for ReservedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}[{}, {}]", self.kind, self.first, self.last)
    }
}

/// How a region is merged into a list. Which kernel does which is in [`crate::Behaviours`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// From 5.4: sorted by start and kind; regions of one kind merge when they overlap or touch.
    SortedByStart,
    /// Before 5.4: regions of one kind merge when they overlap, not when they only touch; a new
    /// region goes before the first one that begins behind its end.
    InsertionOrder,
}

/// Regions merged and ordered as the kernel keeps them for a group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RegionList {
    regions: Vec<ReservedRegion>,
}

impl RegionList {
    /// The list that results from inserting `regions` one after the other.
    pub fn merged(regions: impl IntoIterator<Item = ReservedRegion>, rule: MergeRule) -> Self {
        match rule {
            MergeRule::SortedByStart => Self::merged_sorted(regions.into_iter()),
            MergeRule::InsertionOrder => Self::merged_unsorted(regions.into_iter()),
        }
    }

    /// The regions in list order.
    pub fn iter(&self) -> std::slice::Iter<'_, ReservedRegion> {
        self.regions.iter()
    }

    /// The regions in list order.
    pub fn as_slice(&self) -> &[ReservedRegion] {
        &self.regions
    }

    /// For each region the kernel walks the list: to its place by start and kind, then along all of
    /// its kind, where each absorbs the next one that it reaches, also past regions of other kinds.
    /// Those that were there are out of each other's reach since the last such walk, so this one
    /// begins right before the new region and ends with the first that stays. With the kinds apart
    /// these are neighbours: O(R log R) for all.
    fn merged_sorted(regions: impl Iterator<Item = ReservedRegion>) -> Self {
        let mut placed: BTreeMap<(RegionKind, Iova, Reverse<usize>), ReservedRegion> =
            BTreeMap::new();
        for (nth, mut region) in regions.enumerate() {
            // A later one goes before those that start where it does.
            let mut at = (region.kind, region.first, Reverse(nth));
            if let Some((place, before)) = placed.range_mut(..at).next_back()
                && before.absorb(&region)
            {
                (at, region) = (*place, *before);
            }
            while let Some((&place, behind)) = placed.range((Excluded(at), Unbounded)).next()
                && region.absorb(behind)
            {
                placed.remove(&place);
            }
            placed.insert(at, region);
        }
        let mut regions: Vec<_> = placed.into_values().collect();
        // Stable: those of one start stay sorted by kind.
        regions.sort_by_key(|region| region.first);
        Self { regions }
    }

    /// Where a region goes depends on the order in which the others came, so that there is nothing to
    /// search by: O(R) for each.
    fn merged_unsorted(regions: impl Iterator<Item = ReservedRegion>) -> Self {
        let mut list = Self::default();
        regions.for_each(|region| list.insert_unsorted(region));
        list
    }

    /// One walk from the front. It ends at the first region that begins behind the new one's end, and
    /// that is where the new one goes: what stands behind is not looked at, even if it overlaps.
    fn insert_unsorted(&mut self, mut new: ReservedRegion) {
        let mut at = 0;
        while let Some(&old) = self.regions.get(at)
            && new.last >= old.first
        {
            if old.kind != new.kind || new.first > old.last {
                at += 1;
                continue;
            }
            if old.first <= new.first && new.last <= old.last {
                return;
            }
            self.regions.remove(at);
            new.first = new.first.min(old.first);
            new.last = new.last.max(old.last);
            // It has grown and may reach what was passed.
            at = 0;
        }
        self.regions.insert(at, new);
    }
}

impl<'a> IntoIterator for &'a RegionList {
    type Item = &'a ReservedRegion;
    type IntoIter = std::slice::Iter<'a, ReservedRegion>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use RegionKind::{Direct, DirectRelaxable, Msi, Reserved};
    use proptest::prelude::*;

    /// Few addresses, at both ends of the space, so that every edge is hit.
    pub(crate) fn addresses() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 0..16u64, 1 => u64::MAX - 3..=u64::MAX]
    }

    /// Ordinary regions, those of zero length, and those that end anywhere.
    pub(crate) fn regions_of_every_kind() -> impl Strategy<Value = Vec<ReservedRegion>> {
        let kind = prop::sample::select(&RegionKind::ALL[..]);
        let region =
            (addresses(), addresses(), 0..8, kind).prop_map(|(a, b, shape, kind)| match shape {
                0 => ReservedRegion::new(a, b, kind),
                1 => ReservedRegion::from_length(a, 0, kind),
                _ => ReservedRegion::new(a.min(b), a.max(b), kind),
            });
        prop::collection::vec(region, 0..10)
    }

    fn merge(regions: &[(u64, u64, RegionKind)], rule: MergeRule) -> Vec<(u64, u64, RegionKind)> {
        let regions = regions.iter().map(|&(a, b, kind)| ReservedRegion::new(a, b, kind));
        let list = RegionList::merged(regions, rule);
        list.iter().map(|r| (r.first.0, r.last.0, r.kind)).collect()
    }

    fn sorted(regions: &[(u64, u64, RegionKind)]) -> Vec<(u64, u64, RegionKind)> {
        merge(regions, MergeRule::SortedByStart)
    }

    #[test]
    fn regions_of_one_kind_merge_when_they_touch() {
        assert_eq!(sorted(&[(8, 15, Msi), (0, 7, Msi)]), [(0, 15, Msi)]);
        assert_eq!(sorted(&[(9, 15, Msi), (0, 7, Msi)]), [(0, 7, Msi), (9, 15, Msi)]);
    }

    #[test]
    fn another_kind_in_between_does_not_prevent_a_merge() {
        let list = sorted(&[(0, 7, Msi), (4, 5, Reserved), (6, 9, Msi)]);
        assert_eq!(list, [(0, 9, Msi), (4, 5, Reserved)]);
    }

    #[test]
    fn only_the_new_kind_is_merged() {
        // Two touching regions cannot be in a list, so the case needs a third that bridges them.
        let list = sorted(&[(0, 7, Msi), (16, 23, Msi), (8, 15, Direct), (8, 15, Msi)]);
        assert_eq!(list, [(0, 23, Msi), (8, 15, Direct)]);
    }

    #[test]
    fn equal_starts_sort_by_kind() {
        let list = sorted(&[(0, 7, Msi), (0, 3, Direct), (0, 9, DirectRelaxable)]);
        assert_eq!(list, [(0, 3, Direct), (0, 9, DirectRelaxable), (0, 7, Msi)]);
    }

    #[test]
    fn nothing_is_absorbed_behind_the_end_of_the_space() {
        // Recorded on arm64 6.12 (viommu): both lines stay.
        let list = sorted(&[(0xffff_0000, u64::MAX, Msi), (0xffff_0800, u64::MAX, Msi)]);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn merging_up_to_the_whole_space_gives_length_zero() {
        let list = sorted(&[(1, u64::MAX, Reserved), (0, 0, Reserved)]);
        assert_eq!(list, [(0, u64::MAX, Reserved)]);
        let region = ReservedRegion::from_length(0, 0, Reserved);
        assert_eq!((region.first.0, region.last.0), (0, u64::MAX));
    }

    #[test]
    fn zero_length_touches_only_what_lies_on_both_sides() {
        let region = ReservedRegion::from_length(0x2000, 0, Direct);
        let range = |a, b| IovaRange::new(Iova(a), Iova(b)).unwrap();
        assert!(region.touches(&range(0x1fff, 0x2000)));
        assert!(!region.touches(&range(0x2000, 0x2fff)));
        assert!(!region.touches(&range(0x1000, 0x1fff)));
        assert_eq!(region.range(), None);
    }

    #[test]
    fn the_old_rule_keeps_touching_regions_apart() {
        let old = MergeRule::InsertionOrder;
        assert_eq!(merge(&[(0, 7, Msi), (8, 15, Msi)], old), [(0, 7, Msi), (8, 15, Msi)]);
        assert_eq!(merge(&[(0, 7, Msi), (4, 15, Msi)], old), [(0, 15, Msi)]);
        assert_eq!(merge(&[(0, 7, Msi), (2, 3, Msi)], old), [(0, 7, Msi)]);
    }

    #[test]
    fn the_old_rule_orders_overlapping_kinds_by_insertion() {
        let old = MergeRule::InsertionOrder;
        assert_eq!(merge(&[(4, 9, Msi), (0, 5, Direct)], old), [(4, 9, Msi), (0, 5, Direct)]);
        assert_eq!(merge(&[(4, 9, Msi), (0, 3, Direct)], old), [(0, 3, Direct), (4, 9, Msi)]);
    }

    #[test]
    fn the_old_rule_does_not_look_behind_where_the_new_region_goes() {
        let old = MergeRule::InsertionOrder;
        let upset = [(6, 9, Reserved), (0, 7, Msi), (2, 3, Msi)];
        assert_eq!(merge(&upset, old), [(2, 3, Msi), (6, 9, Reserved), (0, 7, Msi)]);
    }

    /// The insertion of spec 4.2 as it stands there.
    fn inserted_one_by_one(regions: &[ReservedRegion]) -> Vec<ReservedRegion> {
        let mut list: Vec<ReservedRegion> = Vec::new();
        for new in regions {
            let behind = |old: &ReservedRegion| (old.first, old.kind) >= (new.first, new.kind);
            list.insert(list.iter().position(behind).unwrap_or(list.len()), *new);
            let mut previous: Option<usize> = None;
            let mut at = 0;
            while at < list.len() {
                match previous {
                    _ if list[at].kind != new.kind => at += 1,
                    Some(before) if list[at].first.0 <= list[before].last.0.wrapping_add(1) => {
                        let absorbed = list.remove(at);
                        list[before].last = list[before].last.max(absorbed.last);
                    }
                    _ => {
                        previous = Some(at);
                        at += 1;
                    }
                }
            }
        }
        list
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn merging_all_is_inserting_one_by_one(regions in regions_of_every_kind()) {
            let merged = RegionList::merged(regions.iter().copied(), MergeRule::SortedByStart);
            prop_assert_eq!(merged.as_slice(), inserted_one_by_one(&regions));
        }
    }
}
