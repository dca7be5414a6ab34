// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watch: mistakes of a program that no errno tells it of, or whose errno it ignored.
//!
//! A kernel lets a device go on with memory that its program has given away, with an address that
//! was never mapped, or with an older mapping than the program thinks. The watch looks at each
//! access and at what goes with the last group, and keeps what it found. It changes no answer and
//! no access. What it is told by: memory by [`crate::MemoryChanges`], refusals by `history`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::{Iova, Vaddr};
use crate::changes::MemoryChange;
use crate::fault::{DmaAccess, Refusal};
use crate::host::GroupId;
use crate::mapping::MappingInfo;
use crate::range::{IovaRange, VaddrRange};

/// How many findings a driver keeps: the newest ones.
pub const MAX_FINDINGS: usize = 256;

/// A mistake of a program, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The mistake, as it was seen first.
    pub mistake: Mistake,
    /// How often it was seen.
    pub times: u64,
}

/// What a program did wrong. Its text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// A device reaches memory that changed after it was mapped. The access is made on what is there
    /// now; hardware reaches the pages of before, which stay pinned.
    #[error(
        "{device}: {access} at {iova} goes through the mapping {mapping}, but the memory {memory} \
         behind it has been {change} since; UNMAP before memory goes"
    )]
    StaleMapping {
        /// The device.
        device: String,
        /// What it did.
        access: DmaAccess,
        /// The first address that it accessed in this mapping.
        iova: Iova,
        /// The mapping.
        mapping: IovaRange,
        /// The memory that changed: all of it, also what is not behind the mapping.
        memory: VaddrRange,
        /// What happened to it.
        change: MemoryChange,
    },
    /// A device uses an address whose MAP was refused, and nothing is mapped there: a fault.
    #[error(
        "{device}: {access} at {iova} finds nothing mapped; do not use what MAP refused: {refusal}"
    )]
    UsedAfterRefusal {
        /// The device.
        device: String,
        /// What it was about to do.
        access: DmaAccess,
        /// The first address that could not be accessed.
        iova: Iova,
        /// The refusal.
        refusal: Box<Refusal>,
    },
    /// A device uses an address whose MAP was refused, and reaches other memory by an older mapping.
    #[error(
        "{device}: {access} at {iova} reaches vaddr {reached} by the older mapping {mapping}; \
         do not go on as if MAP had worked: {refusal}"
    )]
    ReachedOlderMapping {
        /// The device.
        device: String,
        /// What it did.
        access: DmaAccess,
        /// The first address concerned.
        iova: Iova,
        /// The process address that it reached.
        reached: Vaddr,
        /// The mapping.
        mapping: IovaRange,
        /// The refusal.
        refusal: Box<Refusal>,
    },
    /// The last group left an open container, which lost its mappings.
    #[error(
        "group {group} was the last one in its container and took {live} along; \
         map anew when a group is in it again"
    )]
    Vanished {
        /// The group.
        group: GroupId,
        /// What went.
        live: LiveMappings,
    },
    /// Mappings were live when the container and its groups were closed.
    #[error("container and groups were closed with {live}; UNMAP first, while devices are quiet")]
    Leaked {
        /// The last group to go.
        group: GroupId,
        /// What was left.
        live: LiveMappings,
    },
}

/// The mappings of a container, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveMappings {
    /// How many there are.
    pub count: usize,
    /// Their size, in bytes.
    pub bytes: u64,
    /// From the lowest address mapped to the highest.
    pub hull: IovaRange,
}

impl LiveMappings {
    /// Sums up mappings in ascending order; `None` if there are none.
    pub(crate) fn of(mut mappings: impl Iterator<Item = MappingInfo>) -> Option<Self> {
        let first = mappings.next()?.iova;
        let bytes = |range: &IovaRange| range.size().unwrap_or(u64::MAX);
        let start = Self { count: 1, bytes: bytes(&first), hull: first };
        Some(mappings.fold(start, |sum, MappingInfo { iova, .. }| Self {
            count: sum.count + 1,
            bytes: sum.bytes.saturating_add(bytes(&iova)),
            hull: IovaRange::new(sum.hull.first(), iova.last()).unwrap_or(sum.hull),
        }))
    }
}

impl fmt::Display for LiveMappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, bytes, hull } = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} live mapping{plural} ({bytes:#x} bytes in {hull})")
    }
}

impl Mistake {
    /// Whether this is `other` once more: the same device by the same mapping, for the same reason.
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::StaleMapping { device, mapping, change, .. },
                Self::StaleMapping { device: of, mapping: by, change: why, .. },
            ) => (device, mapping, change) == (of, by, why),
            (
                Self::UsedAfterRefusal { device, refusal, .. },
                Self::UsedAfterRefusal { device: of, refusal: why, .. },
            ) => device == of && refusal.iova == why.iova,
            (
                Self::ReachedOlderMapping { device, mapping, refusal, .. },
                Self::ReachedOlderMapping { device: of, mapping: by, refusal: why, .. },
            ) => (device, mapping, refusal.iova) == (of, by, why.iova),
            _ => self == other,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            1 => write!(f, "{}", self.mistake),
            times => write!(f, "{} (seen {times} times)", self.mistake),
        }
    }
}

/// What the watch found, oldest first, and how many older findings were dropped.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The findings, at most [`MAX_FINDINGS`].
    pub kept: VecDeque<Finding>,
    /// How many older ones were dropped.
    pub dropped: u64,
}

/// The switch, and what was found by all devices and containers of a host.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    on: AtomicBool,
    findings: Mutex<Findings>,
}

impl Watch {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Findings {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn report(&self, mistake: Mistake) {
        self.lock().add(mistake);
    }

    /// What was taken for `old` turns out to be `new`. If `old` was taken out already, it stays so.
    pub(crate) fn reclassify(&self, old: &Mistake, new: Mistake) {
        let mut findings = self.lock();
        let Some(at) = findings.kept.iter().position(|finding| finding.mistake == *old) else {
            return;
        };
        if findings.kept[at].times == 1 {
            findings.kept.remove(at);
        } else {
            findings.kept[at].times -= 1;
        }
        findings.add(new);
    }

    fn lock(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Findings {
    fn add(&mut self, mistake: Mistake) {
        if let Some(known) = self.kept.iter_mut().find(|known| mistake.repeats(&known.mistake)) {
            known.times += 1;
            return;
        }
        if self.kept.len() == MAX_FINDINGS {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(Finding { mistake, times: 1 });
    }
}
