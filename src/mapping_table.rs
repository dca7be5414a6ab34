// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The live mappings of a container, ordered by address, never overlapping.
//!
//! They lie in the blocks of a page table (`page_table`), where devices find them without a lock. Blocks
//! are in order and share the whole space among them; a mapping lies in one block, with both its ends.
//! So whether a range is free is seen in one block of a few cache lines, and a hint finds that block. A
//! block that is full is split, one that is nearly empty joins its neighbour.
//!
//! No policy here: whether a mapping may be made or removed is decided in `map` and `unmap`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::addr::Iova;
use crate::mapping::{Extra, Mapping};
use crate::owners::Owners;
use crate::page_size::PageSize;
use crate::page_table::{Block, Blocks, ENTRIES, PageTable, PageTables};
use crate::process::Process;
use crate::range::IovaRange;
use crate::reserved::ReservedRegion;
use crate::translation::{Attributes, Locked, OwnerId, Translation};

#[derive(Debug)]
pub(crate) struct MappingTable {
    pages: Arc<PageTable>,
    /// Its blocks.
    blocks: Blocks,
    /// Where `pages` goes back to, under which number.
    home: (Arc<PageTables>, u32),
    /// The blocks in use, by the lowest address of their part of the space.
    by_low: BTreeMap<Iova, u32>,
    /// Blocks that are not in use, and how many there have ever been.
    spare: Vec<u32>,
    made: u32,
    count: usize,
    /// The block and the place looked at last: calls come back to where they were.
    recent: Cell<(u32, usize)>,
    /// When there are more mappings than this, hints are due for renewal.
    hints_for: usize,
    owners: Owners,
    /// What few mappings have, by the first address of the mapping.
    extras: BTreeMap<Iova, Extra>,
    /// The charges that are neither nothing nor all of the mapping, likewise.
    charges: BTreeMap<Iova, u64>,
    /// What charges are counted in.
    cpu_page: PageSize,
}

/// Where an entry lies.
struct Place<'a> {
    number: u32,
    block: &'a Block,
    place: usize,
}

impl MappingTable {
    /// An empty table, which takes a page table of the host's.
    pub(crate) fn new(home: &Arc<PageTables>, cpu_page: PageSize) -> Self {
        let (number, pages) = home.take();
        let mut blocks = Blocks::default();
        pages.add_chunk(&mut blocks);
        blocks.get(0).set_part(Some(IovaRange::full()));
        Self {
            pages,
            blocks,
            home: (Arc::clone(home), number),
            by_low: BTreeMap::from([(Iova(0), 0)]),
            spare: Vec::new(),
            made: 1,
            count: 0,
            recent: Cell::new((0, 0)),
            hints_for: ENTRIES + 1,
            owners: Owners::default(),
            extras: BTreeMap::new(),
            charges: BTreeMap::new(),
            cpu_page,
        }
    }

    /// Its page table, and the number by which devices find that.
    pub(crate) fn page_table(&self) -> (&PageTable, u32) {
        (&self.pages, self.home.1)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The process that a mapping belongs to.
    #[inline]
    pub(crate) fn owner(&self, owner: OwnerId) -> &Arc<Process> {
        self.owners.get(owner)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Mapping> {
        self.starting_in(IovaRange::full())
    }

    /// The entry of the mapping that contains `iova`, for a device that did not find it: it does now.
    pub(crate) fn entry(&self, iova: Iova) -> Option<Translation> {
        let Place { number, block, place } = self.place_of(iova)?;
        self.pages.hints.set(iova, number, place);
        block.entry(place)
    }

    /// The mapping that contains `iova`.
    #[inline]
    pub(crate) fn containing(&self, iova: Iova) -> Option<Mapping> {
        let at = self.place_of(iova)?;
        at.block.entry(at.place).map(|entry| self.unpack(&entry))
    }

    /// Whether no mapping shares an address with `range`.
    #[inline]
    pub(crate) fn is_free(&self, range: &IovaRange) -> bool {
        let (_, block) = self.block_of(range.first());
        match range.last() <= block.part().last() && range.size().is_some() {
            true => !block.is_taken(range),
            false => self.overlapping(range).next().is_none(),
        }
    }

    /// The lowest mapping that shares an address with `range`.
    pub(crate) fn first_overlap(&self, range: &IovaRange) -> Option<Mapping> {
        let first = self.containing(range.first());
        if first.is_some() || self.is_free(range) { first } else { self.overlapping(range).next() }
    }

    /// The mappings that share an address with `range`, ascending.
    pub(crate) fn overlapping(&self, range: &IovaRange) -> impl Iterator<Item = Mapping> {
        let straddles = self.containing(range.first()).filter(|m| m.iova.first() < range.first());
        straddles.into_iter().chain(self.starting_in(*range))
    }

    /// The mappings that start in `range`, ascending.
    pub(crate) fn starting_in(&self, range: IovaRange) -> impl DoubleEndedIterator<Item = Mapping> {
        let (_, lowest) = self.block_of(range.first());
        let blocks = self.by_low.range(lowest.part().first()..=range.last());
        let entries = blocks.flat_map(|(_, number)| self.block(*number).ascending());
        entries
            .filter(move |(_, entry)| range.contains(entry.iova.first()))
            .map(|(_, entry)| self.unpack(&entry))
    }

    /// The lowest mapping the kernel takes to overlap `region` (spec 3.4).
    pub(crate) fn first_touched(&self, region: &ReservedRegion) -> Option<Mapping> {
        // The lowest one that ends in or behind the region. It may end below its start.
        let up = IovaRange::new(region.first, Iova(u64::MAX))?;
        self.first_overlap(&up).filter(|mapping| region.touches(&mapping.iova))
    }

    /// The mapping that `range` would cut in two, and the end of the range that lies inside it.
    #[inline]
    pub(crate) fn cut_by(&self, range: &IovaRange) -> Option<(Mapping, Iova)> {
        let at_start = self.containing(range.first());
        if let Some(mapping) = at_start {
            if mapping.iova.first() != range.first() {
                return Some((mapping, range.first()));
            }
            if mapping.iova.last() == range.last() {
                return None;
            }
        }
        let at_end = self.containing(range.last()).filter(|m| m.iova.last() != range.last());
        at_end.map(|mapping| (mapping, range.last()))
    }

    /// The free addresses at or above `from`, up to `end`, ascending.
    pub(crate) fn gaps_up(&self, from: Iova, end: Iova) -> impl Iterator<Item = IovaRange> {
        let mut cursor = self.containing(from).map_or(Some(from), |mapping| mapping.iova.next());
        let above = cursor.and_then(|cursor| IovaRange::new(cursor, Iova(u64::MAX)));
        let mut above = above.into_iter().flat_map(|above| self.starting_in(above));
        std::iter::from_fn(move || {
            loop {
                let free = IovaRange::new(cursor?, end)?;
                let Some(next) = above.next() else {
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
        let below = IovaRange::new(Iova(0), from).into_iter();
        let mut below = below.flat_map(|below| self.starting_in(below).rev());
        std::iter::from_fn(move || {
            loop {
                let free = IovaRange::new(start, cursor?)?;
                let Some(next) = below.next() else {
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

    /// The number of `process` as an owner of one more mapping, which is then inserted. `None` when there
    /// are too many owners.
    pub(crate) fn add_owner(&mut self, process: &Arc<Process>) -> Option<OwnerId> {
        self.owners.add(process)
    }

    /// Undoes [`Self::add_owner`]. The number may be another process's then.
    pub(crate) fn drop_owner(&mut self, owner: OwnerId) {
        self.owners.drop(owner);
    }

    /// Adds a mapping that overlaps no other; the caller has checked, and added its owner.
    #[inline]
    pub(crate) fn insert(&mut self, mapping: &Mapping) {
        debug_assert!(self.is_free(&mapping.iova), "mappings overlap");
        let entry = self.pack(mapping);
        let (number, block) = self.block_of(mapping.iova.first());
        let fits = mapping.iova.last() <= block.part().last();
        let place = block.vacant().filter(|_| fits);
        let number = if place.is_some() { number } else { self.make_room(number, &mapping.iova) };
        let block = self.block(number);
        if let Some(place) = place.or_else(|| block.vacant()) {
            block.set(place, &entry);
            self.note(mapping.iova.first(), number, place);
            self.count += 1;
        } else {
            debug_assert!(false, "there is room in the block");
        }
    }

    /// Puts a mapping in the place of the one that it was made from.
    pub(crate) fn update(&mut self, mapping: &Mapping) {
        let entry = self.pack(mapping);
        if let Some(at) = self.place_of(mapping.iova.first()) {
            at.block.set(at.place, &entry);
        }
    }

    /// Takes out a mapping, its charge and what else it has; its owner stays until it is dropped.
    #[inline]
    pub(crate) fn remove(&mut self, mapping: &Mapping) {
        let first = mapping.iova.first();
        let Some(Place { number, block, place }) = self.place_of(first) else { return };
        block.clear(place);
        let live = block.live();
        self.count -= 1;
        if !self.extras.is_empty() {
            self.extras.remove(&first);
        }
        if !self.charges.is_empty() {
            self.charges.remove(&first);
        }
        if live as usize <= ENTRIES / 4 && self.by_low.len() > 1 {
            self.join(number);
        }
    }

    /// What few mappings have, of the mapping that starts at `first`.
    #[inline]
    pub(crate) fn extra(&self, first: Iova) -> Option<&Extra> {
        if self.extras.is_empty() { None } else { self.extras.get(&first) }
    }

    /// How many pages of that mapping emulated devices have pinned.
    #[inline]
    pub(crate) fn pin_count(&self, first: Iova) -> u64 {
        self.extra(first).map_or(0, |extra| extra.pins.len() as u64)
    }

    pub(crate) fn extra_mut(&mut self, first: Iova) -> Option<&mut Extra> {
        if self.extras.is_empty() { None } else { self.extras.get_mut(&first) }
    }

    pub(crate) fn make_extra(&mut self, first: Iova) -> &mut Extra {
        self.extras.entry(first).or_default()
    }

    pub(crate) fn extras_mut(&mut self) -> impl Iterator<Item = &mut Extra> {
        self.extras.values_mut()
    }

    /// Forgets those that have nothing left.
    pub(crate) fn tidy_extras(&mut self) {
        self.extras.retain(|_, extra| !extra.is_empty());
    }

    #[inline]
    fn block(&self, number: u32) -> &Block {
        self.blocks.get(number)
    }

    /// The block whose part of the space `iova` is in.
    #[inline]
    fn block_of(&self, iova: Iova) -> (u32, &Block) {
        let (number, _) = self.recent.get();
        let block = self.block(number);
        if block.has(iova) { (number, block) } else { self.find_block(iova) }
    }

    #[inline(never)]
    fn find_block(&self, iova: Iova) -> (u32, &Block) {
        // A new container's page table may have another one's hints.
        let good = |(number, _): &(u32, usize)| {
            *number < self.blocks.count() && self.block(*number).has(iova)
        };
        let hinted = self.pages.hints.get(iova).into_iter().find(good);
        let (number, place) = hinted.unwrap_or_else(|| {
            let found = self.by_low.range(..=iova).next_back();
            (found.map_or(0, |(_, number)| *number), 0)
        });
        self.recent.set((number, place));
        (number, self.block(number))
    }

    /// Where the entry lies that holds `iova`.
    #[inline]
    fn place_of(&self, iova: Iova) -> Option<Place<'_>> {
        let (number, block) = self.block_of(iova);
        let (_, recent) = self.recent.get();
        if block.holds(recent, iova) {
            return Some(Place { number, block, place: recent });
        }
        let place = block.place_of(iova)?;
        self.note(iova, number, place);
        Some(Place { number, block, place })
    }

    /// Remembers where the entry lies that holds `iova`.
    #[inline]
    fn note(&self, iova: Iova, number: u32, place: usize) {
        self.recent.set((number, place));
        self.pages.hints.set(iova, number, place);
    }

    /// Sees to it that the block which `range` starts in has room for it; returns its number.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, number: u32, range: &IovaRange) -> u32 {
        while self.block(number).part().last() < range.last() {
            self.widen(number, range.last());
        }
        if self.block(number).vacant().is_some() {
            number
        } else {
            self.split(number, range.first())
        }
    }

    /// Gives the block addresses of the one behind it, which has no mapping there: up to `last`, if it
    /// has so many.
    fn widen(&mut self, number: u32, last: Iova) {
        let part = self.block(number).part();
        let Some((behind, next)) = self.behind(&part) else { return };
        self.by_low.remove(&behind.first());
        let taken = IovaRange::new(behind.first(), last.min(behind.last())).unwrap_or(behind);
        match behind.above(taken.last()) {
            Some(rest) => self.give(next, rest),
            None => self.retire(next),
        }
        self.give(number, part.hull(&taken));
    }

    /// Makes two blocks of one that is full, and returns which one `first` lies in. Where mappings are
    /// added in order, the block they leave behind stays nearly full.
    fn split(&mut self, number: u32, first: Iova) -> u32 {
        let entries: Vec<(usize, Translation)> = self.block(number).ascending().collect();
        let below = entries.iter().filter(|(_, entry)| entry.iova.first() < first).count();
        let kept = match below {
            0 => ENTRIES / 8,
            ENTRIES => ENTRIES - ENTRIES / 8,
            _ => ENTRIES / 2,
        };
        let start = entries.get(kept).map_or(first, |(_, entry)| entry.iova.first());
        let part = self.block(number).part();
        let (Some(low), Some(high)) = (part.below(start), part.from(start)) else { return number };
        let new = self.unused();
        self.give(new, high);
        for (place, entry) in &entries[kept..] {
            self.carry(entry, new);
            self.block(number).clear(*place);
        }
        self.give(number, low);
        self.renew_hints(&entries);
        if first < start { number } else { new }
    }

    /// Lets a neighbour have what is left in a block, if it has room to spare then.
    fn join(&mut self, number: u32) {
        let block = self.block(number);
        let (part, live) = (block.part(), block.live());
        let room = |other: &u32| {
            live == 0 || (live + self.block(*other).live()) as usize <= ENTRIES * 3 / 4
        };
        let behind = self.behind(&part).map(|(_, behind)| behind).filter(room);
        let before = || self.by_low.range(..part.first()).next_back().map(|(_, before)| *before);
        let Some(other) = behind.or_else(|| before().filter(room)) else { return };
        let both = part.hull(&self.block(other).part());
        self.by_low.remove(&part.first());
        self.by_low.remove(&self.block(other).part().first());
        self.give(other, both);
        let entries: Vec<(usize, Translation)> = self.block(number).ascending().collect();
        for (place, entry) in entries {
            self.carry(&entry, other);
            self.block(number).clear(place);
        }
        self.retire(number);
    }

    /// Puts an entry into another block as well; the caller clears the old one. Devices find one of them
    /// at any time.
    fn carry(&self, entry: &Translation, to: u32) {
        if let Some(place) = self.block(to).vacant() {
            self.block(to).set(place, entry);
            self.pages.hints.set(entry.iova.first(), to, place);
        }
    }

    /// The block behind a part of the space.
    fn behind(&self, part: &IovaRange) -> Option<(IovaRange, u32)> {
        let (_, number) = self.by_low.range(part.next()?..).next()?;
        Some((self.block(*number).part(), *number))
    }

    fn give(&mut self, number: u32, part: IovaRange) {
        self.block(number).set_part(Some(part));
        self.by_low.insert(part.first(), number);
    }

    fn unused(&mut self) -> u32 {
        self.spare.pop().unwrap_or_else(|| {
            if self.made == self.blocks.count() {
                self.pages.add_chunk(&mut self.blocks);
            }
            self.made += 1;
            self.made - 1
        })
    }

    fn retire(&mut self, number: u32) {
        self.block(number).set_part(None);
        self.spare.push(number);
    }

    /// When there are twice as many mappings, makes room for hints to twice as many again, and spreads
    /// them out as mappings lie now: here. More mappings may come between these, or behind them.
    fn renew_hints(&mut self, entries: &[(usize, Translation)]) {
        if self.count < self.hints_for {
            return;
        }
        self.hints_for = (2 * self.count).next_power_of_two();
        let starts =
            entries.windows(2).map(|two| two[1].1.iova.first().0 - two[0].1.iova.first().0);
        let mut strides: Vec<u64> = starts.collect();
        strides.sort_unstable();
        // Not the mean: one mapping far away would make all others one stretch.
        if let Some(stride) = strides.get(strides.len() / 2) {
            self.pages.hints.begin(self.hints_for / 2, *stride);
        }
    }

    #[inline]
    fn pack(&mut self, mapping: &Mapping) -> Translation {
        let Mapping { iova, vaddr, owner, locked_pages, access, .. } = *mapping;
        let Mapping { exempt, vaddr_invalid, iommu_mapped, memory_epoch, .. } = *mapping;
        if !self.charges.is_empty() {
            self.charges.remove(&iova.first());
        }
        let locked = match locked_pages {
            0 => Locked::Nothing,
            pages if pages == iova.pages(self.cpu_page) => Locked::All,
            pages => {
                self.charges.insert(iova.first(), pages);
                Locked::Counted
            }
        };
        let attributes = Attributes::new(access, locked, owner, memory_epoch)
            .with_exempt(exempt)
            .with_vaddr_invalid(vaddr_invalid)
            .with_iommu_mapped(iommu_mapped);
        Translation { iova, vaddr, attributes }
    }

    #[inline]
    fn unpack(&self, entry: &Translation) -> Mapping {
        let Translation { iova, vaddr, attributes } = *entry;
        let locked_pages = match attributes.locked() {
            Locked::Nothing => 0,
            Locked::All => iova.pages(self.cpu_page),
            Locked::Counted => self.charges.get(&iova.first()).copied().unwrap_or(0),
        };
        Mapping {
            iova,
            vaddr,
            owner: attributes.owner(),
            locked_pages,
            access: attributes.access(),
            exempt: attributes.exempt(),
            vaddr_invalid: attributes.vaddr_invalid(),
            iommu_mapped: attributes.iommu_mapped(),
            memory_epoch: attributes.memory_epoch(),
        }
    }

    /// The invariant that does not hold, if any.
    pub(crate) fn broken_invariant(&self) -> Option<&'static str> {
        let mappings: Vec<Mapping> = self.iter().collect();
        let disjoint = mappings.windows(2).all(|two| two[0].iova.last() < two[1].iova.first());
        let parts = || self.by_low.iter().map(|(low, number)| (low, self.block(*number)));
        let filed = parts().all(|(low, block)| block.part().first() == *low);
        let mut cursor = Some(Iova(0));
        let shared = parts().all(|(low, block)| {
            let joins = cursor == Some(*low);
            cursor = block.part().next();
            joins
        });
        let inside = parts().all(|(_, block)| {
            block.ascending().all(|(_, entry)| block.part().contains_range(&entry.iova))
        });
        let starts = |first: &Iova| mappings.iter().any(|mapping| mapping.iova.first() == *first);
        let rules = [
            (disjoint, "mappings do not overlap"),
            (mappings.len() == self.count, "mappings are counted"),
            (filed, "each block is filed under its lowest address"),
            (shared && cursor.is_none(), "the blocks share the space among them"),
            (inside, "each mapping lies in its block"),
            (self.spare.iter().all(|n| self.block(*n).live() == 0), "spare blocks are empty"),
            (self.spare.len() + self.by_low.len() == self.made as usize, "no block is lost"),
            (self.extras.keys().all(starts), "what a mapping has goes with it"),
            (self.charges.keys().all(starts), "a charge goes with its mapping"),
            (self.owners.count() == self.count, "each mapping has an owner"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, name)| name)
    }
}

impl Drop for MappingTable {
    /// Leaves the page table empty for another container.
    fn drop(&mut self) {
        for number in 0..self.made {
            let block = self.block(number);
            block.set_part(None);
            let places: Vec<usize> = block.ascending().map(|(place, _)| place).collect();
            places.into_iter().for_each(|place| block.clear(place));
        }
        self.pages.set_suspect(false);
        self.home.0.give_back(self.home.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Vaddr;
    use crate::memory::{Access, ModelMemory};
    use crate::reserved::RegionKind;
    use proptest::prelude::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    /// A table, and a model that asks every mapping about every address.
    struct Both {
        table: MappingTable,
        model: Vec<Mapping>,
        process: Arc<Process>,
        made: u32,
    }

    impl Both {
        fn new() -> Self {
            let page = PageSize::new(1).unwrap();
            let process = Process::new(Arc::new(ModelMemory::new()));
            let table = MappingTable::new(&Arc::default(), page);
            Self { table, model: Vec::new(), process, made: 0 }
        }

        /// Maps `iova` if it is free; otherwise removes what is in the way, or some of it.
        fn toggle(&mut self, iova: IovaRange, all: bool) {
            let taken = self.model.iter().any(|m| m.iova.overlaps(&iova));
            assert_eq!(self.table.is_free(&iova), !taken, "{iova}");
            if !taken {
                return self.map(iova);
            }
            while let Some(found) = self.table.first_overlap(&iova) {
                let lowest = self.model.iter().filter(|m| m.iova.overlaps(&iova));
                assert_eq!(Some(&found), lowest.min_by_key(|m| m.iova));
                self.table.remove(&found);
                self.table.drop_owner(found.owner);
                self.model.retain(|m| *m != found);
                if !all {
                    break;
                }
            }
        }

        fn map(&mut self, iova: IovaRange) {
            self.made += 1;
            let made = self.made;
            let (locked_pages, access) = match made % 3 {
                0 => (0, Access::Read),
                1 => (iova.pages(self.table.cpu_page), Access::Write),
                _ => (u64::from(made), Access::ReadWrite),
            };
            let mapping = Mapping {
                iova,
                vaddr: Vaddr(u64::from(made) << 32),
                owner: self.table.add_owner(&self.process).unwrap(),
                locked_pages,
                access,
                exempt: made.is_multiple_of(2),
                vaddr_invalid: made.is_multiple_of(5),
                iommu_mapped: true,
                memory_epoch: u32::MAX - made,
            };
            self.table.insert(&mapping);
            self.model.push(mapping);
        }

        fn check(&mut self, asked: IovaRange) {
            let Self { table, model, .. } = self;
            model.sort_by_key(|m| m.iova);
            assert_eq!(table.broken_invariant(), None);
            assert_eq!(table.iter().collect::<Vec<_>>(), *model);
            let overlapping = model.iter().filter(|m| m.iova.overlaps(&asked)).copied();
            assert!(table.overlapping(&asked).eq(overlapping));
            let starting = model.iter().filter(|m| asked.contains(m.iova.first())).copied();
            assert!(table.starting_in(asked).eq(starting.clone()));
            assert!(table.starting_in(asked).rev().eq(starting.rev()));
            // A region may end below its start.
            for (a, b) in [(asked.first(), asked.last()), (asked.last(), asked.first())] {
                let region = ReservedRegion::new(a.0, b.0, RegionKind::Direct);
                let touched = model.iter().find(|m| region.touches(&m.iova)).copied();
                assert_eq!(table.first_touched(&region), touched);
            }
            let holds = |at: Iova| move |m: &&Mapping| m.iova.contains(at);
            let at_start = model.iter().find(holds(asked.first()));
            let at_end = model.iter().find(holds(asked.last()));
            let at_start = at_start.filter(|m| m.iova.first() != asked.first());
            let at_end = at_end.filter(|m| m.iova.last() != asked.last());
            let cut = at_start.map(|m| (*m, asked.first())).or(at_end.map(|m| (*m, asked.last())));
            assert_eq!(table.cut_by(&asked), cut);
            // Gaps, seen from a point in both directions.
            let up: Vec<_> = table.gaps_up(asked.first(), asked.last()).collect();
            let down: Vec<_> = table.gaps_down(asked.last(), asked.first()).collect();
            assert!(up.iter().eq(down.iter().rev()));
            assert!(up.windows(2).all(|pair| pair[0].last() < pair[1].first()));
            for at in (asked.first().0..=asked.last().0).map(Iova) {
                let holds = model.iter().find(|m| m.iova.contains(at)).copied();
                assert_eq!(table.containing(at), holds, "{at}");
                assert_eq!(table.entry(at).map(|entry| table.unpack(&entry)), holds, "{at}");
                let seen = table.pages.find(at).map(|entry| table.unpack(&entry));
                assert_eq!(seen, holds, "a device looks up {at}");
                assert_eq!(up.iter().any(|gap| gap.contains(at)), holds.is_none(), "{at}");
            }
        }
    }

    const SMALL: u64 = 96;

    proptest! {
        #[test]
        fn the_table_agrees_with_asking_every_mapping(
            wanted in prop::collection::vec((0..SMALL, 0..4_u64, any::<bool>()), 0..120),
            (first, length) in (0..SMALL, 0..SMALL),
            at_top in any::<bool>(),
        ) {
            // At the top of the space the last address is mapped too.
            let base = if at_top { u64::MAX - SMALL + 1 } else { 0 };
            let clip = |first: u64, span: u64| range(base + first, base + (first + span).min(SMALL - 1));
            let mut both = Both::new();
            for (first, span, all) in wanted {
                both.toggle(clip(first, span), all);
            }
            both.check(clip(first, length));
        }
    }

    #[test]
    fn a_table_grows_and_shrinks_in_any_order() {
        let orders: [fn(u64) -> u64; 3] = [|n| n, |n| 999 - n, |n| n * 389 % 1000];
        for order in orders {
            let mut both = Both::new();
            (0..1000).for_each(|n| both.toggle(range(order(n) * 4, order(n) * 4 + 2), true));
            both.check(range(1990, 2010));
            assert!(
                both.table.by_low.len() < 160,
                "blocks are half full: {}",
                both.table.by_low.len()
            );
            (0..1000).for_each(|n| both.toggle(range(order(n) * 4, order(n) * 4 + 2), true));
            both.check(range(0, 4000));
            assert_eq!(both.table.by_low.len(), 1);
        }
    }

    #[test]
    fn a_mapping_takes_over_the_blocks_it_covers() {
        let mut both = Both::new();
        (0..100).for_each(|n| both.toggle(range(n * 10, n * 10), true));
        both.toggle(range(200, 700), true);
        both.toggle(range(191, 795), true);
        both.check(range(150, 850));
        both.toggle(range(796, u64::MAX), true);
        both.toggle(range(796, u64::MAX), true);
        both.check(range(700, 900));
    }

    #[test]
    fn hints_lead_to_nearly_every_mapping() {
        const COUNT: u64 = 3000;
        let one = |at: u64| range(at, at + 0xfff);
        let row = || (0..COUNT).map(|n| n << 13);
        let halves = (0..2).flat_map(|half| (0..COUNT / 2).map(move |n| (half << 40) + (n << 13)));
        let layouts: [(&str, Vec<u64>); 7] = [
            ("two regions alike", halves.collect()),
            ("ascending", row().collect()),
            ("descending", row().rev().collect()),
            ("shuffled", row().map(|n| n * 389 % (COUNT << 13)).collect()),
            ("ascending, one far above", [1 << 46].into_iter().chain(row()).collect()),
            (
                "descending, one far below",
                [0].into_iter().chain(row().rev().map(|at| at + (1 << 46))).collect(),
            ),
            ("two regions in turn", row().map(|at| at + ((at >> 13 & 1) << 40)).collect()),
        ];
        for (name, starts) in layouts {
            let mut both = Both::new();
            starts.iter().for_each(|at| both.map(one(*at)));
            starts.iter().for_each(|at| assert!(both.table.entry(Iova(*at)).is_some()));
            let found = starts.iter().filter(|at| both.table.pages.find(Iova(**at)).is_some());
            let found = found.count() as u64;
            assert!(found * 10 >= COUNT * 9, "{name}: {found} of {COUNT}");
        }
    }

    #[test]
    fn page_tables_are_used_again_and_are_empty_then() {
        let home = Arc::<PageTables>::default();
        let page = PageSize::new(1).unwrap();
        let mut both = Both { table: MappingTable::new(&home, page), ..Both::new() };
        (0..100).for_each(|n| both.toggle(range(n * 10, n * 10), true));
        let number = both.table.page_table().1;
        drop(both);
        let table = MappingTable::new(&home, page);
        assert_eq!(table.page_table().1, number);
        assert_eq!((table.pages.find(Iova(10)), table.broken_invariant()), (None, None));
        assert_ne!(MappingTable::new(&home, page).page_table().1, number);
    }
}
