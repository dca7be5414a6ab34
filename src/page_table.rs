// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What devices translate by: the mappings of a container, laid out so that any number of threads look
//! one up without a lock while one changes them.
//!
//! Entries lie in blocks, in no order. A block has a version, which is odd while it is changed: who
//! reads it looks at the version before and after, and reads again what was disturbed. Where a page's
//! entry lies is remembered in hints, which may be wrong: an entry is believed because it holds the
//! address, not because a hint led to it. So nothing has to be invalidated; what is removed is gone.
//!
//! One thread at a time changes the table: `mapping_table`, under its container's lock. It also decides
//! which block an entry goes to.

use std::sync::{Arc, PoisonError};

use crate::addr::Iova;
use crate::arena::Arena;
use crate::hints::Hints;
use crate::range::IovaRange;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::translation::{Translation, Words};
use crate::version::Version;

/// Entries of a block. With its head it is eight cache lines long. loom's models have to be small.
pub(crate) const ENTRIES: usize = if cfg!(loom) { 1 } else { 15 };

/// Blocks that are made together: a page of memory.
const CHUNK: u32 = if cfg!(loom) { 1 } else { 8 };

/// Entries whose addresses lie in one part of the space.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Block {
    version: Version,
    /// Its part of the space, inclusive; a block that is not in use has a low end above the high one.
    low: AtomicU64,
    high: AtomicU64,
    /// A bit for each entry that is live.
    live: AtomicU64,
    entries: [Words; ENTRIES],
}

impl Block {
    fn new() -> Self {
        Self {
            version: Version::new(),
            low: AtomicU64::new(u64::MAX),
            high: AtomicU64::new(0),
            live: AtomicU64::new(0),
            entries: std::array::from_fn(|_| Words::empty()),
        }
    }

    /// Its part of the space. The block is in use.
    #[inline]
    pub(crate) fn part(&self) -> IovaRange {
        let [low, high] = [&self.low, &self.high].map(|end| Iova(end.load(Ordering::Relaxed)));
        let part = IovaRange::new(low, high);
        debug_assert!(part.is_some(), "the block is in use");
        part.unwrap_or_else(IovaRange::full)
    }

    /// Gives it another part of the space, or none. Devices do not look at it.
    pub(crate) fn set_part(&self, part: Option<IovaRange>) {
        let (low, high) = part.map_or((u64::MAX, 0), |part| (part.first().0, part.last().0));
        self.low.store(low, Ordering::Relaxed);
        self.high.store(high, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn has(&self, iova: Iova) -> bool {
        let [low, high] = [&self.low, &self.high].map(|end| end.load(Ordering::Relaxed));
        low <= iova.0 && iova.0 <= high
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed).count_ones()
    }

    /// A place for one more entry.
    #[inline]
    pub(crate) fn vacant(&self) -> Option<usize> {
        let place = self.live.load(Ordering::Relaxed).trailing_ones() as usize;
        (place < ENTRIES).then_some(place)
    }

    #[inline]
    pub(crate) fn entry(&self, place: usize) -> Option<Translation> {
        self.entries[place].get()
    }

    /// Whether the entry at `place` holds `iova`. A place, also one out of a hint, is below [`ENTRIES`]:
    /// nothing else is ever written into a hint.
    #[inline]
    pub(crate) fn holds(&self, place: usize, iova: Iova) -> bool {
        self.entries[place].range().is_some_and(|range| range.contains(iova))
    }

    /// The place of the entry that holds `iova`.
    pub(crate) fn place_of(&self, iova: Iova) -> Option<usize> {
        let holds = |entry: &Words| entry.range().is_some_and(|range| range.contains(iova));
        self.entries.iter().position(holds)
    }

    /// The live entries and their places, by address.
    pub(crate) fn ascending(&self) -> impl DoubleEndedIterator<Item = (usize, Translation)> {
        let mut places: [usize; ENTRIES] = std::array::from_fn(|place| place);
        places.sort_unstable_by_key(|place| self.entries[*place].ends()[0]);
        places.into_iter().filter_map(|place| Some((place, self.entry(place)?)))
    }

    /// Whether an entry shares an address with `range`, which is not the whole space.
    #[inline]
    pub(crate) fn is_taken(&self, range: &IovaRange) -> bool {
        self.entries.iter().fold(false, |taken, entry| {
            let [first, last] = entry.ends();
            // Both are looked at: their outcomes are hard to foretell one by one.
            taken | (first <= range.last().0) & (last >= range.first().0)
        })
    }

    /// Writes an entry, in a vacant place or over an older one.
    #[inline]
    pub(crate) fn set(&self, place: usize, translation: &Translation) {
        self.version.write(|| self.entries[place].set(translation));
        self.live.store(self.live.load(Ordering::Relaxed) | 1 << place, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn clear(&self, place: usize) {
        self.version.write(|| self.entries[place].clear());
        self.live.store(self.live.load(Ordering::Relaxed) & !(1 << place), Ordering::Relaxed);
    }
}

type Chunk = Arc<[Block; CHUNK as usize]>;

/// Blocks as the thread has them that changes the table: all there are, at hand.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    chunks: Vec<Chunk>,
    count: u32,
}

impl Blocks {
    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The block of this number, which is below the count.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Block {
        &self.chunks[(number / CHUNK) as usize][(number % CHUNK) as usize]
    }
}

/// The blocks of a container, and the hints.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    chunks: Arena<Chunk>,
    pub(crate) hints: Hints,
    /// Whether the container remembers a MAP that it refused.
    suspect: AtomicBool,
}

impl PageTable {
    /// The block of this number, which has been made.
    #[inline]
    fn block(&self, number: u32) -> Option<&Block> {
        Some(&self.chunks.get(number / CHUNK)?[(number % CHUNK) as usize])
    }

    /// Adds the next chunk to the blocks of who changes the table.
    pub(crate) fn add_chunk(&self, blocks: &mut Blocks) {
        blocks.chunks.push(self.make_chunk(blocks.count / CHUNK));
        blocks.count += CHUNK;
    }

    /// The chunk of this number, made if it is not there.
    fn make_chunk(&self, number: u32) -> Chunk {
        let make = || Arc::new(std::array::from_fn(|_| Block::new()));
        Arc::clone(self.chunks.get_or_make(number, make))
    }

    /// The translation of `iova`, if it is where the hints say. `None` also if the block was written
    /// meanwhile.
    #[inline]
    pub(crate) fn find(&self, iova: Iova) -> Option<Translation> {
        let hints = self.hints.get(iova);
        let hinted = |(number, place): (u32, usize)| {
            let block = self.block(number)?;
            block.version.read(|| block.entries.get(place)?.translation(iova))?
        };
        let [newer, older] = hints;
        hinted(newer).or_else(|| hinted(older)).or_else(|| self.search(iova, hints))
    }

    /// The entry may have moved to another place of its block.
    #[inline(never)]
    fn search(&self, iova: Iova, hints: [(u32, usize); 2]) -> Option<Translation> {
        hints.iter().find_map(|(number, _)| {
            let block = self.block(*number).filter(|block| block.has(iova))?;
            let found = block.version.read(|| {
                let place = block.place_of(iova)?;
                Some((place, block.entry(place)?))
            });
            let (place, translation) = found??;
            self.hints.set(iova, *number, place);
            Some(translation)
        })
    }

    /// Whether the container remembers a MAP that it refused.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn set_suspect(&self, suspect: bool) {
        if self.suspect.load(Ordering::Relaxed) != suspect {
            self.suspect.store(suspect, Ordering::Release);
        }
    }
}

/// The page tables of a host's containers. Those of a container that is gone are used again, so a
/// number that a device still has leads to a table, if perhaps to another container's.
#[derive(Debug, Default)]
pub(crate) struct PageTables {
    tables: Arena<Arc<PageTable>>,
    /// How many there are, and the numbers of those not in use.
    spare: Mutex<(u32, Vec<u32>)>,
}

impl PageTables {
    /// The table of this number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&PageTable> {
        self.tables.get(number).map(|table| &**table)
    }

    /// An empty table that nobody uses, and its number.
    pub(crate) fn take(&self) -> (u32, Arc<PageTable>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, unused) = &mut *spare;
        let number = unused.pop().unwrap_or_else(|| {
            *made += 1;
            *made - 1
        });
        (number, Arc::clone(self.tables.get_or_make(number, Arc::default)))
    }

    /// Takes back a table, which is empty.
    pub(crate) fn give_back(&self, number: u32) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).1.push(number);
    }
}
