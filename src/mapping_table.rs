// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The live mappings of a container, ordered by address, never overlapping.
//!
//! No policy here: whether a mapping may be made or removed is decided in `map` and `unmap`.

use std::collections::BTreeMap;

use crate::addr::Iova;
use crate::mapping::Mapping;
use crate::range::IovaRange;
use crate::reserved::ReservedRegion;

#[derive(Debug, Default)]
pub(crate) struct MappingTable {
    by_first: BTreeMap<Iova, Mapping>,
}

impl MappingTable {
    pub(crate) fn len(&self) -> usize {
        self.by_first.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Mapping> {
        self.by_first.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mapping> {
        self.by_first.values_mut()
    }

    /// Adds a mapping that overlaps no other; the caller has checked.
    pub(crate) fn insert(&mut self, mapping: Mapping) {
        debug_assert!(self.first_overlap(&mapping.iova).is_none(), "mappings overlap");
        self.by_first.insert(mapping.iova.first(), mapping);
    }

    /// Removes the mapping that starts at `first`.
    pub(crate) fn remove(&mut self, first: Iova) -> Option<Mapping> {
        self.by_first.remove(&first)
    }

    /// Removes everything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Mapping> + use<> {
        std::mem::take(&mut self.by_first).into_values()
    }

    pub(crate) fn get_mut(&mut self, first: Iova) -> Option<&mut Mapping> {
        self.by_first.get_mut(&first)
    }

    /// The mapping that contains `iova`.
    pub(crate) fn containing(&self, iova: Iova) -> Option<&Mapping> {
        self.at_or_below(iova).filter(|mapping| mapping.iova.contains(iova))
    }

    pub(crate) fn containing_mut(&mut self, iova: Iova) -> Option<&mut Mapping> {
        let (_, mapping) = self.by_first.range_mut(..=iova).next_back()?;
        mapping.iova.contains(iova).then_some(mapping)
    }

    /// The lowest mapping that shares an address with `range`.
    pub(crate) fn first_overlap(&self, range: &IovaRange) -> Option<&Mapping> {
        self.overlapping(range).next()
    }

    /// The mappings that share an address with `range`, ascending.
    pub(crate) fn overlapping(&self, range: &IovaRange) -> impl Iterator<Item = &Mapping> {
        let straddles = self.at_or_below(range.first()).filter(|m| m.iova.last() >= range.first());
        let from = straddles.map_or(range.first(), |mapping| mapping.iova.first());
        self.by_first.range(from..=range.last()).map(|(_, mapping)| mapping)
    }

    /// The mappings that start in `range`, ascending.
    pub(crate) fn starting_in_mut(
        &mut self,
        range: &IovaRange,
    ) -> impl Iterator<Item = &mut Mapping> {
        self.by_first.range_mut(range.first()..=range.last()).map(|(_, mapping)| mapping)
    }

    /// The lowest mapping the kernel takes to overlap `region` (spec 3.4).
    pub(crate) fn first_touched(&self, region: &ReservedRegion) -> Option<&Mapping> {
        // The lowest one that ends in or behind the region. It may end below its start.
        let up = IovaRange::new(region.first, Iova(u64::MAX))?;
        self.first_overlap(&up).filter(|mapping| region.touches(&mapping.iova))
    }

    /// The mapping that `range` would cut in two, and the end of the range that lies inside it.
    pub(crate) fn cut_by(&self, range: &IovaRange) -> Option<(&Mapping, Iova)> {
        let at_start = self.containing(range.first()).filter(|m| m.iova.first() != range.first());
        if let Some(mapping) = at_start {
            return Some((mapping, range.first()));
        }
        let at_end = self.containing(range.last()).filter(|m| m.iova.last() != range.last());
        at_end.map(|mapping| (mapping, range.last()))
    }

    fn at_or_below(&self, iova: Iova) -> Option<&Mapping> {
        self.by_first.range(..=iova).next_back().map(|(_, mapping)| mapping)
    }

    /// The free addresses at or above `from`, up to `end`, ascending.
    pub(crate) fn gaps_up(&self, from: Iova, end: Iova) -> impl Iterator<Item = IovaRange> {
        let mut cursor = self.containing(from).map_or(Some(from), |mapping| mapping.iova.next());
        let mut above = self.by_first.range(cursor.unwrap_or(from)..);
        std::iter::from_fn(move || {
            loop {
                let free = IovaRange::new(cursor?, end)?;
                let Some((_, next)) = above.next() else {
                    cursor = None;
                    return Some(free);
                };
                cursor = next.iova.next();
                if let Some(gap) = free.below(next.iova.first()) {
                    return Some(gap);
                }
            }
        })
    }

    /// The free addresses at or below `from`, down to `start`, descending.
    pub(crate) fn gaps_down(&self, from: Iova, start: Iova) -> impl Iterator<Item = IovaRange> {
        let mut cursor = Some(from);
        let mut below = self.by_first.range(..=from).rev();
        std::iter::from_fn(move || {
            loop {
                let free = IovaRange::new(start, cursor?)?;
                let Some((_, next)) = below.next() else {
                    cursor = None;
                    return Some(free);
                };
                cursor = next.iova.first().0.checked_sub(1).map(Iova);
                if let Some(gap) = free.above(next.iova.last()) {
                    return Some(gap);
                }
            }
        })
    }

    /// The invariant that does not hold, if any.
    pub(crate) fn broken_invariant(&self) -> Option<&'static str> {
        let keyed = self.by_first.iter().all(|(first, mapping)| *first == mapping.iova.first());
        if !keyed {
            return Some("each mapping is filed under its first address");
        }
        let mut pairs = self.iter().zip(self.iter().skip(1));
        let disjoint = pairs.all(|(low, high)| low.iova.last() < high.iova.first());
        (!disjoint).then_some("mappings do not overlap")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Vaddr;
    use crate::memory::{Access, ModelMemory};
    use crate::process::Process;
    use crate::reserved::RegionKind;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    fn mapping(iova: IovaRange) -> Mapping {
        Mapping {
            iova,
            vaddr: Vaddr(0),
            owner: Process::new(Arc::new(ModelMemory::new())),
            locked_pages: 0,
            access: Access::Read,
            exempt: false,
            vaddr_invalid: false,
            iommu_mapped: false,
            memory_epoch: 0,
            extra: None,
        }
    }

    const SMALL: u64 = 32;

    proptest! {
        /// Against a model that asks every mapping about every address.
        #[test]
        fn searches_agree_with_asking_every_mapping(
            wanted in prop::collection::vec((0..SMALL, 0..6u64), 0..12),
            first in 0..SMALL,
            length in 0..SMALL,
            region_last in 0..SMALL,
            at_top in any::<bool>(),
        ) {
            // At the top of the space the last address is mapped too.
            let base = if at_top { u64::MAX - SMALL + 1 } else { 0 };
            let top = base + (SMALL - 1);
            let mut table = MappingTable::default();
            let mut model: Vec<IovaRange> = Vec::new();
            for (first, span) in wanted {
                let new = range(base + first, top.min(base.saturating_add(first + span)));
                prop_assert_eq!(
                    table.first_overlap(&new).map(|m| m.iova),
                    model.iter().filter(|m| m.overlaps(&new)).min().copied()
                );
                if !model.iter().any(|m| m.overlaps(&new)) {
                    table.insert(mapping(new));
                    model.push(new);
                }
            }
            model.sort();
            prop_assert_eq!(table.broken_invariant(), None);
            prop_assert_eq!(table.iter().map(|m| m.iova).collect::<Vec<_>>(), model.clone());

            let asked = range(base + first, top.min(base.saturating_add(first + length)));
            let overlapping: Vec<_> = table.overlapping(&asked).map(|m| m.iova).collect();
            let expected: Vec<_> = model.iter().filter(|m| m.overlaps(&asked)).copied().collect();
            prop_assert_eq!(overlapping, expected);
            // Of any length, or ending below its start.
            let region = ReservedRegion::new(base + first, base + region_last, RegionKind::Direct);
            let touched = table.first_touched(&region).map(|m| m.iova);
            prop_assert_eq!(touched, model.iter().find(|m| region.touches(m)).copied());
            let starting: Vec<_> = table.starting_in_mut(&asked).map(|m| m.iova).collect();
            let expected: Vec<_> =
                model.iter().filter(|m| asked.contains(m.first())).copied().collect();
            prop_assert_eq!(starting, expected);
            let containing = table.containing(asked.first()).map(|m| m.iova);
            prop_assert_eq!(containing, model.iter().find(|m| m.contains(asked.first())).copied());

            // Gaps, seen from a point in both directions.
            let free = |address: u64| !model.iter().any(|m| m.contains(Iova(address)));
            let up: Vec<_> = table.gaps_up(asked.first(), asked.last()).collect();
            let down: Vec<_> = table.gaps_down(asked.last(), asked.first()).collect();
            prop_assert_eq!(&up, &down.into_iter().rev().collect::<Vec<_>>());
            for address in asked.first().0..=asked.last().0 {
                let in_gap = up.iter().filter(|gap| gap.contains(Iova(address))).count();
                prop_assert_eq!(in_gap, usize::from(free(address)), "address {:#x}", address);
            }
            prop_assert!(up.windows(2).all(|pair| pair[0].last() < pair[1].first()));
        }
    }
}
