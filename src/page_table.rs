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
use crate::changes::MemoryChange;
use crate::memory::{Access, Memory};
use crate::range::{IovaRange, VaddrRange};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::version::Version;

/// Entries of a block. With its head it is eight cache lines long. loom's models have to be small.
pub(crate) const ENTRIES: usize = if cfg!(loom) { 1 } else { 15 };

/// Blocks that are made together: a page of memory.
const CHUNK: u32 = if cfg!(loom) { 1 } else { 8 };

/// Where an entry lies: its block, and in the low bits its place there.
const PLACE_BITS: u32 = 4;

/// A mapping as devices use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) iova: IovaRange,
    pub(crate) vaddr: Vaddr,
    pub(crate) attributes: Attributes,
}

impl Translation {
    /// The process address that `iova`, which lies in the mapping, stands for.
    pub(crate) fn vaddr_of(&self, iova: Iova) -> Vaddr {
        Vaddr(self.vaddr.0.wrapping_add(iova.0.wrapping_sub(self.iova.first().0)))
    }

    /// What happened to the memory behind `part` of the mapping since it was mapped.
    pub(crate) fn change_behind(
        &self,
        memory: &dyn Memory,
        part: &IovaRange,
    ) -> Option<(VaddrRange, MemoryChange)> {
        if self.attributes.vaddr_invalid() {
            // The pages stay, whatever happens at the old address.
            return None;
        }
        let vaddrs = VaddrRange::new(self.vaddr_of(part.first()), self.vaddr_of(part.last()))?;
        memory.changes()?.since(self.attributes.memory_epoch(), &vaddrs)
    }
}

/// The rest of a translation, in a word. From the low bits up: what devices may do, flags, how many pages
/// are charged, the owner, and the epoch of its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

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
    const READ: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const EXEMPT: u64 = 1 << 2;
    const VADDR_INVALID: u64 = 1 << 3;
    const IOMMU_MAPPED: u64 = 1 << 4;
    const ALL_LOCKED: u64 = 1 << 5;
    const COUNTED: u64 = 1 << 6;
    const OWNER_SHIFT: u32 = 8;
    const EPOCH_SHIFT: u32 = 32;

    /// Of a mapping that no flag is set for.
    #[inline]
    pub(crate) fn new(access: Access, locked: Locked, owner: OwnerId, memory_epoch: u32) -> Self {
        let access = match access {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
            Access::ReadWrite => Self::READ | Self::WRITE,
        };
        let locked = match locked {
            Locked::Nothing => 0,
            Locked::All => Self::ALL_LOCKED,
            Locked::Counted => Self::COUNTED,
        };
        let owner = u64::from(owner.0) << Self::OWNER_SHIFT;
        Self(access | locked | owner | u64::from(memory_epoch) << Self::EPOCH_SHIFT)
    }

    fn with(self, flag: u64, set: bool) -> Self {
        Self(if set { self.0 | flag } else { self.0 })
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Made with CAP_IPC_LOCK, so later pins through the mapping have no limit either.
    pub(crate) fn with_exempt(self, exempt: bool) -> Self {
        self.with(Self::EXEMPT, exempt)
    }

    /// An UNMAP with flag VADDR has taken the process address away.
    pub(crate) fn with_vaddr_invalid(self, invalid: bool) -> Self {
        self.with(Self::VADDR_INVALID, invalid)
    }

    /// Pinned and entered into the container's domains.
    pub(crate) fn with_iommu_mapped(self, mapped: bool) -> Self {
        self.with(Self::IOMMU_MAPPED, mapped)
    }

    pub(crate) fn exempt(self) -> bool {
        self.has(Self::EXEMPT)
    }

    pub(crate) fn vaddr_invalid(self) -> bool {
        self.has(Self::VADDR_INVALID)
    }

    pub(crate) fn iommu_mapped(self) -> bool {
        self.has(Self::IOMMU_MAPPED)
    }

    pub(crate) fn access(self) -> Access {
        match (self.has(Self::READ), self.has(Self::WRITE)) {
            (true, false) => Access::Read,
            (false, true) => Access::Write,
            _ => Access::ReadWrite,
        }
    }

    pub(crate) fn locked(self) -> Locked {
        match (self.has(Self::ALL_LOCKED), self.has(Self::COUNTED)) {
            (true, _) => Locked::All,
            (false, true) => Locked::Counted,
            (false, false) => Locked::Nothing,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is cut to its bits")]
    pub(crate) fn owner(self) -> OwnerId {
        OwnerId((self.0 >> Self::OWNER_SHIFT) as u32 & ((1 << OwnerId::BITS) - 1))
    }

    /// The epoch of the owner's memory when the mapping got its pages.
    pub(crate) fn memory_epoch(self) -> u32 {
        (self.0 >> Self::EPOCH_SHIFT) as u32
    }
}

/// A translation as threads share it.
#[derive(Debug)]
pub(crate) struct Words {
    first: AtomicU64,
    last: AtomicU64,
    vaddr: AtomicU64,
    attributes: AtomicU64,
}

impl Words {
    /// Of no address: the first one is above the last one.
    pub(crate) fn empty() -> Self {
        let [first, last, vaddr, attributes] = [u64::MAX, 0, 0, 0].map(AtomicU64::new);
        Self { first, last, vaddr, attributes }
    }

    pub(crate) fn set(&self, translation: &Translation) {
        let Translation { iova, vaddr, attributes } = translation;
        self.first.store(iova.first().0, Ordering::Relaxed);
        self.last.store(iova.last().0, Ordering::Relaxed);
        self.vaddr.store(vaddr.0, Ordering::Relaxed);
        self.attributes.store(attributes.0, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.first.store(u64::MAX, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn range(&self) -> Option<IovaRange> {
        let [first, last] = [&self.first, &self.last].map(|end| end.load(Ordering::Relaxed));
        IovaRange::new(Iova(first), Iova(last))
    }

    /// What there is, whatever the address.
    #[inline]
    pub(crate) fn get(&self) -> Option<Translation> {
        let iova = self.range()?;
        let vaddr = Vaddr(self.vaddr.load(Ordering::Relaxed));
        let attributes = Attributes(self.attributes.load(Ordering::Relaxed));
        Some(Translation { iova, vaddr, attributes })
    }

    /// The translation of `iova`, if this is one.
    #[inline]
    pub(crate) fn translation(&self, iova: Iova) -> Option<Translation> {
        self.get().filter(|translation| translation.iova.contains(iova))
    }
}

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

    /// Its part of the space; of a block that is not in use, all of it.
    #[inline]
    pub(crate) fn part(&self) -> IovaRange {
        let [low, high] = [&self.low, &self.high].map(|end| Iova(end.load(Ordering::Relaxed)));
        IovaRange::new(low, high).unwrap_or_else(IovaRange::full)
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

    /// Whether the entry at `place` holds `iova`.
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
        places.sort_unstable_by_key(|place| self.entries[*place].first.load(Ordering::Relaxed));
        places.into_iter().filter_map(|place| Some((place, self.entry(place)?)))
    }

    /// Whether an entry shares an address with `range`, which is not the whole space.
    #[inline]
    pub(crate) fn is_taken(&self, range: &IovaRange) -> bool {
        self.entries.iter().fold(false, |taken, entry| {
            let [first, last] = [&entry.first, &entry.last].map(|end| end.load(Ordering::Relaxed));
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
pub(crate) struct Blocks(Vec<Chunk>);

impl Blocks {
    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.0.len() as u32 * CHUNK
    }

    /// The block of this number, which is below the count.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Block {
        &self.0[(number / CHUNK) as usize][(number % CHUNK) as usize]
    }
}

/// The blocks of a container, and the hints.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    chunks: Arena<Chunk>,
    hints: Hints,
    /// Whether the container remembers a MAP that it refused.
    suspect: AtomicBool,
}

impl PageTable {
    /// The block of this number, which has been made.
    #[inline]
    fn block(&self, number: u32) -> Option<&Block> {
        Some(&self.chunks.get(number / CHUNK)?[(number % CHUNK) as usize])
    }

    /// Adds a chunk of blocks to those that a table's owner has, in order.
    pub(crate) fn add_chunk(&self, chunks: &mut Blocks) {
        let number = chunks.0.len() as u32;
        chunks.0.push(self.make_chunk(number));
    }

    /// The chunk of this number, made if it is not there.
    fn make_chunk(&self, number: u32) -> Chunk {
        let make = || Arc::new(std::array::from_fn(|_| Block::new()));
        Arc::clone(self.chunks.get_or_make(number, make))
    }

    /// The translation of `iova`, if it is where the hint says. `None` also if the block was written
    /// meanwhile.
    #[inline]
    pub(crate) fn find(&self, iova: Iova) -> Option<Translation> {
        let (number, place) = self.hints.get(iova);
        let block = self.block(number)?;
        let hinted = block.version.read(|| block.entries.get(place)?.translation(iova))?;
        if hinted.is_some() { hinted } else { self.search(iova, number, block) }
    }

    #[inline(never)]
    fn search(&self, iova: Iova, number: u32, block: &Block) -> Option<Translation> {
        let found = block.version.read(|| {
            let place = block.place_of(iova)?;
            Some((place, block.entry(place)?))
        });
        let (place, translation) = found??;
        self.hint(iova, number, place);
        Some(translation)
    }

    /// The block and the place where `iova` was found last, or perhaps another address.
    #[inline]
    pub(crate) fn hinted(&self, iova: Iova) -> (u32, usize) {
        self.hints.get(iova)
    }

    /// Remembers where the entry lies that holds `iova`.
    #[inline]
    pub(crate) fn hint(&self, iova: Iova, block: u32, place: usize) {
        self.hints.set(iova, block, place);
    }

    /// Begins anew with hints: `count` of them, for addresses that are `stride` bytes apart.
    pub(crate) fn renew_hints(&self, count: usize, stride: u64) {
        self.hints.begin(count, stride);
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

/// Where entries were found last, by the address.
#[derive(Debug)]
struct Hints {
    /// Tables of 1, 2, 4... hints. A larger one takes the place of the one before.
    tables: [OnceLock<Box<[AtomicU32]>>; TABLES],
    /// Which table is in use, and in the low bits by how much addresses are shifted to index it.
    current: AtomicU32,
}

/// 2^31 hints are enough for every limit on mappings.
const TABLES: usize = 32;
const SHIFT_BITS: u32 = 6;

impl Default for Hints {
    fn default() -> Self {
        let hints = Self { tables: Default::default(), current: AtomicU32::new(0) };
        hints.begin(1, 1);
        hints
    }
}

impl Hints {
    #[inline]
    fn at(&self, iova: Iova) -> Option<&AtomicU32> {
        let current = self.current.load(Ordering::Acquire);
        let table = current >> SHIFT_BITS;
        let hints = self.tables.get(table as usize)?.get()?;
        let page = iova.0 >> (current & ((1 << SHIFT_BITS) - 1));
        // What wraps around goes between what was there before, if addresses are spaced out.
        hints.get((page ^ page >> table) as usize & (hints.len() - 1))
    }

    #[inline]
    fn get(&self, iova: Iova) -> (u32, usize) {
        let hint = self.at(iova).map_or(0, |hint| hint.load(Ordering::Relaxed));
        (hint >> PLACE_BITS, (hint & ((1 << PLACE_BITS) - 1)) as usize)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a place has few bits")]
    #[inline]
    fn set(&self, iova: Iova, block: u32, place: usize) {
        if let Some(hint) = self.at(iova) {
            hint.store(block << PLACE_BITS | place as u32, Ordering::Relaxed);
        }
    }

    fn begin(&self, count: usize, stride: u64) {
        let table = count.next_power_of_two().ilog2().min(TABLES as u32 - 1);
        let make = || (0..1_usize << table).map(|_| AtomicU32::new(0)).collect();
        self.tables[table as usize].get_or_init(make);
        let shift = stride.max(1).ilog2();
        self.current.store(table << SHIFT_BITS | shift, Ordering::Release);
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
