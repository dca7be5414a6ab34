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

use std::sync::{Arc, OnceLock, PoisonError};

use crate::addr::{Iova, Vaddr};
use crate::arena::Arena;
use crate::memory::Access;
use crate::range::IovaRange;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Entries of a block. With its head it is eight cache lines long. loom's models have to be small.
pub(crate) const ENTRIES: usize = if cfg!(loom) { 1 } else { 15 };

/// Blocks that are made together: a page of memory.
const CHUNK: u32 = if cfg!(loom) { 1 } else { 8 };

/// Where an entry lies: its block, and in the low bits its place there.
const PLACE_BITS: u32 = 4;

/// How often a disturbed look is repeated before the container's lock is taken instead.
const LOOKS: usize = if cfg!(loom) { 1 } else { 8 };

/// A mapping as devices see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) iova: IovaRange,
    pub(crate) vaddr: Vaddr,
    pub(crate) attributes: Attributes,
}

/// The rest of an entry; in the table, a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) access: Access,
    /// The mapping was made with CAP_IPC_LOCK, so later pins through it have no limit either.
    pub(crate) exempt: bool,
    /// An UNMAP with flag VADDR has taken the process address away.
    pub(crate) vaddr_invalid: bool,
    /// Pinned and entered into the container's domains.
    pub(crate) iommu_mapped: bool,
    pub(crate) locked: Locked,
    pub(crate) owner: OwnerId,
    /// The epoch of the owner's memory when the mapping got its pages.
    pub(crate) memory_epoch: u32,
}

/// How many pages of a mapping are charged to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    Nothing,
    All,
    /// Another number, which the mapping table knows.
    Counted,
}

/// A process that has mappings, by its number in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerId(pub(crate) u32);

impl OwnerId {
    /// How many bits of a number an entry has room for.
    pub(crate) const BITS: u32 = 24;
}

impl Attributes {
    const EXEMPT: u64 = 1 << 2;
    const VADDR_INVALID: u64 = 1 << 3;
    const IOMMU_MAPPED: u64 = 1 << 4;

    fn word(self) -> u64 {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let access = u64::from(self.access.reads()) | u64::from(self.access.writes()) << 1;
        let locked = match self.locked {
            Locked::Nothing => 0,
            Locked::All => 1,
            Locked::Counted => 2,
        };
        access
            | flag(self.exempt, Self::EXEMPT)
            | flag(self.vaddr_invalid, Self::VADDR_INVALID)
            | flag(self.iommu_mapped, Self::IOMMU_MAPPED)
            | locked << 5
            | u64::from(self.owner.0) << 8
            | u64::from(self.memory_epoch) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the parts of a word")]
    fn from_word(word: u64) -> Self {
        Self {
            access: match word & 3 {
                1 => Access::Read,
                2 => Access::Write,
                _ => Access::ReadWrite,
            },
            exempt: word & Self::EXEMPT != 0,
            vaddr_invalid: word & Self::VADDR_INVALID != 0,
            iommu_mapped: word & Self::IOMMU_MAPPED != 0,
            locked: match word >> 5 & 3 {
                0 => Locked::Nothing,
                1 => Locked::All,
                _ => Locked::Counted,
            },
            owner: OwnerId((word >> 8) as u32 & ((1 << OwnerId::BITS) - 1)),
            memory_epoch: (word >> 32) as u32,
        }
    }
}

/// Entries whose addresses lie in one part of the space.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Block {
    /// Odd while the block is changed.
    version: AtomicU64,
    /// Its part of the space, inclusive; a block that is not in use has a low end above the high one.
    low: AtomicU64,
    high: AtomicU64,
    /// A bit for each entry that is live.
    live: AtomicU64,
    /// Of an entry that is not live, above the last address: so it holds no address.
    firsts: [AtomicU64; ENTRIES],
    lasts: [AtomicU64; ENTRIES],
    vaddrs: [AtomicU64; ENTRIES],
    attributes: [AtomicU64; ENTRIES],
}

impl Block {
    fn new() -> Self {
        let words = |value| std::array::from_fn(|_| AtomicU64::new(value));
        Self {
            version: AtomicU64::new(0),
            low: AtomicU64::new(u64::MAX),
            high: AtomicU64::new(0),
            live: AtomicU64::new(0),
            firsts: words(u64::MAX),
            lasts: words(0),
            vaddrs: words(0),
            attributes: words(0),
        }
    }

    /// What `look` makes of the block; `None` if it was changed meanwhile.
    fn read<T>(&self, look: impl FnOnce(&Self) -> T) -> Option<T> {
        let version = self.version.load(Ordering::Acquire);
        let seen = look(self);
        fence(Ordering::Acquire);
        let same = self.version.load(Ordering::Relaxed) == version;
        (same && version.is_multiple_of(2)).then_some(seen)
    }

    fn write(&self, change: impl FnOnce(&Self)) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change(self);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Its part of the space; of a block that is not in use, all of it.
    pub(crate) fn part(&self) -> IovaRange {
        let [low, high] = [&self.low, &self.high].map(|end| Iova(end.load(Ordering::Relaxed)));
        IovaRange::new(low, high).unwrap_or_else(IovaRange::full)
    }

    /// Gives it another part of the space, or none.
    pub(crate) fn set_part(&self, part: Option<IovaRange>) {
        let (low, high) = part.map_or((u64::MAX, 0), |part| (part.first().0, part.last().0));
        self.write(|block| {
            block.low.store(low, Ordering::Relaxed);
            block.high.store(high, Ordering::Relaxed);
        });
    }

    fn has(&self, iova: Iova) -> bool {
        let [low, high] = [&self.low, &self.high].map(|end| end.load(Ordering::Relaxed));
        low <= iova.0 && iova.0 <= high
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed).count_ones()
    }

    /// A place for one more entry.
    pub(crate) fn vacant(&self) -> Option<usize> {
        let place = self.live.load(Ordering::Relaxed).trailing_ones() as usize;
        (place < ENTRIES).then_some(place)
    }

    fn first(&self, place: usize) -> u64 {
        self.firsts[place].load(Ordering::Relaxed)
    }

    fn last(&self, place: usize) -> u64 {
        self.lasts[place].load(Ordering::Relaxed)
    }

    /// The addresses of the entry at `place`, if it is live.
    pub(crate) fn range(&self, place: usize) -> Option<IovaRange> {
        IovaRange::new(Iova(self.first(place)), Iova(self.last(place)))
    }

    /// The entry at `place`, if it is live.
    pub(crate) fn entry(&self, place: usize) -> Option<Entry> {
        Some(Entry {
            iova: self.range(place)?,
            vaddr: Vaddr(self.vaddrs[place].load(Ordering::Relaxed)),
            attributes: Attributes::from_word(self.attributes[place].load(Ordering::Relaxed)),
        })
    }

    /// The place of the entry that holds `iova`.
    pub(crate) fn place_of(&self, iova: Iova) -> Option<usize> {
        (0..ENTRIES).find(|place| self.first(*place) <= iova.0 && iova.0 <= self.last(*place))
    }

    /// The live entries and their places, by address.
    pub(crate) fn ascending(&self) -> impl DoubleEndedIterator<Item = (usize, Entry)> {
        let mut places: [usize; ENTRIES] = std::array::from_fn(|place| place);
        places.sort_unstable_by_key(|place| self.first(*place));
        places.into_iter().filter_map(|place| Some((place, self.entry(place)?)))
    }

    /// Whether an entry shares an address with `range`.
    pub(crate) fn is_taken(&self, range: &IovaRange) -> bool {
        let shares = |place: usize| {
            let (first, last) = (self.first(place), self.last(place));
            // All three are looked at: their outcomes are hard to foretell one by one.
            (first <= range.last().0) & (last >= range.first().0) & (first <= last)
        };
        (0..ENTRIES).fold(false, |taken, place| taken | shares(place))
    }

    /// Writes an entry, in a vacant place or over an older one.
    pub(crate) fn set(&self, place: usize, entry: &Entry) {
        self.write(|block| {
            block.firsts[place].store(entry.iova.first().0, Ordering::Relaxed);
            block.lasts[place].store(entry.iova.last().0, Ordering::Relaxed);
            block.vaddrs[place].store(entry.vaddr.0, Ordering::Relaxed);
            block.attributes[place].store(entry.attributes.word(), Ordering::Relaxed);
            let live = block.live.load(Ordering::Relaxed) | 1 << place;
            block.live.store(live, Ordering::Relaxed);
        });
    }

    pub(crate) fn clear(&self, place: usize) {
        self.write(|block| {
            block.firsts[place].store(u64::MAX, Ordering::Relaxed);
            block.lasts[place].store(0, Ordering::Relaxed);
            let live = block.live.load(Ordering::Relaxed) & !(1 << place);
            block.live.store(live, Ordering::Relaxed);
        });
    }
}

type Chunk = Box<[Block; CHUNK as usize]>;

/// The blocks of a container, and the hints.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    chunks: Arena<Chunk>,
    hints: Hints,
    /// How often the number of an owner became free for another one.
    vacated: AtomicU64,
    /// Whether the container remembers a MAP that it refused.
    suspect: AtomicBool,
}

impl PageTable {
    /// The block of this number, which has been made.
    pub(crate) fn block(&self, number: u32) -> Option<&Block> {
        Some(&self.chunks.get(number / CHUNK)?[(number % CHUNK) as usize])
    }

    /// The block of this number, made if it is not there.
    pub(crate) fn make_block(&self, number: u32) -> &Block {
        let make = || Box::new(std::array::from_fn(|_| Block::new()));
        &self.chunks.get_or_make(number / CHUNK, make)[(number % CHUNK) as usize]
    }

    /// The entry that holds `iova`. `None` if none is found without a lock: then the container knows.
    pub(crate) fn find(&self, iova: Iova) -> Option<Entry> {
        (0..LOOKS).find_map(|_| {
            let (number, hinted) = self.hints.get(iova);
            let block = self.block(number)?;
            let holds = |place| block.range(place).is_some_and(|range| range.contains(iova));
            block.read(|block| match holds(hinted) {
                true => block.entry(hinted),
                false => {
                    let place = block.place_of(iova)?;
                    self.hint(iova, number, place);
                    block.entry(place)
                }
            })
        })?
    }

    /// Where `iova` was found last: for the thread that changes the table. The place may be wrong, the
    /// block has that part of the space.
    pub(crate) fn hinted(&self, iova: Iova) -> Option<(u32, &Block, usize)> {
        let (number, place) = self.hints.get(iova);
        let block = self.block(number).filter(|block| block.has(iova))?;
        Some((number, block, place))
    }

    /// Remembers where the entry lies that holds `iova`.
    pub(crate) fn hint(&self, iova: Iova, block: u32, place: usize) {
        self.hints.set(iova, block, place);
    }

    /// Begins anew with hints, for `mappings` mappings that start about `stride` bytes apart.
    pub(crate) fn renew_hints(&self, mappings: usize, stride: u64) {
        self.hints.begin(mappings, stride);
    }

    /// A number that changes before an owner's number is given to another one.
    pub(crate) fn vacated(&self) -> u64 {
        self.vacated.load(Ordering::Acquire)
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

    pub(crate) fn count_vacated(&self) {
        self.vacated.fetch_add(1, Ordering::Release);
    }
}

/// Where entries were found last, by the address.
#[derive(Debug)]
struct Hints {
    /// Tables of 1, 4, 16... hints. A larger one takes the place of the one before.
    tables: [OnceLock<Box<[AtomicU32]>>; TABLES],
    /// Which table is in use, and in the low bits by how much addresses are shifted to index it.
    current: AtomicU32,
}

/// 4^15 hints are enough for every limit on mappings.
const TABLES: usize = 16;
const SHIFT_BITS: u32 = 6;

impl Default for Hints {
    fn default() -> Self {
        let hints = Self { tables: Default::default(), current: AtomicU32::new(0) };
        hints.begin(0, 1);
        hints
    }
}

impl Hints {
    fn at(&self, iova: Iova) -> Option<&AtomicU32> {
        let current = self.current.load(Ordering::Acquire);
        let table = self.tables[(current >> SHIFT_BITS) as usize].get()?;
        let index = (iova.0 >> (current & ((1 << SHIFT_BITS) - 1))) as usize;
        table.get(index & (table.len() - 1))
    }

    fn get(&self, iova: Iova) -> (u32, usize) {
        let hint = self.at(iova).map_or(0, |hint| hint.load(Ordering::Relaxed));
        (hint >> PLACE_BITS, (hint & ((1 << PLACE_BITS) - 1)) as usize)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a place has few bits")]
    fn set(&self, iova: Iova, block: u32, place: usize) {
        if let Some(hint) = self.at(iova) {
            hint.store(block << PLACE_BITS | place as u32, Ordering::Relaxed);
        }
    }

    fn begin(&self, mappings: usize, stride: u64) {
        let fits = |table: &usize| mappings <= 1 << (2 * table);
        let table = (0..TABLES).find(fits).unwrap_or(TABLES - 1);
        let make = || (0..1_usize << (2 * table)).map(|_| AtomicU32::new(0)).collect();
        self.tables[table].get_or_init(make);
        let shift = stride.max(1).ilog2();
        self.current.store((table as u32) << SHIFT_BITS | shift, Ordering::Release);
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
