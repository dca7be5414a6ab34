// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reserved regions: I/O virtual addresses that a device's host sets aside.
//!
//! In Linux each IOMMU driver lists the regions of one device (`get_resv_regions`), and
//! `iommu_insert_resv_region` in `drivers/iommu/iommu.c` merges the lists of a group's devices into
//! the one that sysfs prints and that VFIO cuts out of the valid IOVA list. Spec 4.1 to 4.3.
//!
//! This file owns the region, its kind, and the merged, ordered list. It knows nothing of sysfs
//! text (`sysfs`), of which kinds are mappable (`iova_list`), or of where regions come from.

use std::fmt;

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

    /// Whether `other` overlaps this region or begins right behind it, as the merge asks it: a
    /// region that ends at the top of the space has nothing behind it.
    fn reaches(&self, other: &Self) -> bool {
        other.first.0 <= self.last.0.wrapping_add(1)
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
        let mut list = Self::default();
        for region in regions {
            list.insert(region, rule);
        }
        list
    }

    /// The regions in list order.
    pub fn iter(&self) -> std::slice::Iter<'_, ReservedRegion> {
        self.regions.iter()
    }

    /// The regions in list order.
    pub fn as_slice(&self) -> &[ReservedRegion] {
        &self.regions
    }

    /// Inserts one region, merging it with those of its kind.
    pub fn insert(&mut self, region: ReservedRegion, rule: MergeRule) {
        match rule {
            MergeRule::SortedByStart => self.insert_sorted(region),
            MergeRule::InsertionOrder => self.insert_unsorted(region),
        }
    }

    fn insert_sorted(&mut self, new: ReservedRegion) {
        let comes_before = |old: &ReservedRegion| {
            new.first < old.first || (new.first == old.first && new.kind <= old.kind)
        };
        let at = self.regions.iter().position(comes_before).unwrap_or(self.regions.len());
        self.regions.insert(at, new);
        self.absorb_neighbours(new.kind);
    }

    /// One walk over the elements of `kind`: each is absorbed by the one before it when that one
    /// reaches it. Elements of other kinds in between neither merge nor prevent it.
    fn absorb_neighbours(&mut self, kind: RegionKind) {
        let mut kept: Vec<ReservedRegion> = Vec::with_capacity(self.regions.len());
        let mut previous = None;
        for region in self.regions.drain(..) {
            if region.kind == kind {
                if let Some(at) = previous {
                    let before: &mut ReservedRegion = &mut kept[at];
                    if before.reaches(&region) {
                        before.last = before.last.max(region.last);
                        continue;
                    }
                }
                previous = Some(kept.len());
            }
            kept.push(region);
        }
        self.regions = kept;
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
mod tests {
    use super::*;
    use RegionKind::{Direct, DirectRelaxable, Msi, Reserved};

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
}
