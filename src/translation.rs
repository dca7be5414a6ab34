// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A mapping as devices use it: four words, which threads can share.

use crate::addr::{Iova, Vaddr};
use crate::changes::MemoryChange;
use crate::memory::{Access, Memory};
use crate::range::{IovaRange, VaddrRange};
use crate::sync::atomic::{AtomicU64, Ordering};

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

    /// The first and the last address. The last one is the lower one of what is empty.
    #[inline]
    pub(crate) fn ends(&self) -> [u64; 2] {
        [&self.first, &self.last].map(|end| end.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn range(&self) -> Option<IovaRange> {
        let [first, last] = self.ends();
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
