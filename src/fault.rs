// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of devices: an access that the IOMMU does not let through, and why.
//!
//! Hardware says little about a fault (an address, a device, a reason code), and the kernel only
//! logs it. Here a fault is a value that tells what was in the way, and what was mapped there before.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread::Thread;

use crate::addr::{Iova, Vaddr};
use crate::host::GroupId;
use crate::map::MapError;
use crate::memory::Access;
use crate::range::IovaRange;
use crate::reserved::ReservedRegion;
use crate::sync::{Mutex, MutexGuard};

/// What a device was about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DmaAccess {
    /// Read memory.
    Read,
    /// Write memory.
    Write,
}

impl DmaAccess {
    /// Whether a mapping with `access` allows it.
    pub(crate) fn is_allowed(self, access: Access) -> bool {
        match self {
            Self::Read => access.reads(),
            Self::Write => access.writes(),
        }
    }
}

impl fmt::Display for DmaAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// An access that a device made and the IOMMU did not let through. What lay below the address has
/// been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device} cannot {access} at {iova}: {cause}")]
pub struct DmaFault {
    /// The device.
    pub device: String,
    /// The first address that could not be accessed.
    pub iova: Iova,
    /// What it was about to do.
    pub access: DmaAccess,
    /// Why not.
    pub cause: FaultCause,
}

/// Why a device cannot access an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultCause {
    /// The access runs past the end of the 64-bit space.
    #[error("it runs past the end of the address space")]
    PastTheEnd,
    /// The device's bus mastering is off, so it may not start anything.
    #[error("its bus mastering is off; set bit 2 of its command register")]
    BusMasterOff,
    /// The device has fewer address lines.
    #[error("the device has {bits} address bits only")]
    BeyondMask {
        /// The address bits of the device.
        bits: u32,
    },
    /// The group has no IOMMU that translates: it is an emulated or a noiommu one.
    #[error("group {group} has no IOMMU, so there is nothing to translate by")]
    NoIommu {
        /// The group.
        group: GroupId,
    },
    /// The group is in no container with a driver and attached to no address space, so all its DMA is blocked.
    #[error(
        "group {group} is in no container that has an IOMMU driver, nor on an iommufd, so its DMA is blocked"
    )]
    NotAttached {
        /// The group.
        group: GroupId,
    },
    /// A reserved region that nothing is mapped over.
    #[error("it lies in the {region} of {owner}, where nothing can be mapped")]
    Reserved {
        /// The region.
        region: ReservedRegion,
        /// The device that it is reserved for.
        owner: String,
    },
    /// The domain cannot translate the address.
    #[error("the IOMMU translates {aperture} only")]
    BeyondAperture {
        /// What it translates.
        aperture: IovaRange,
    },
    /// Nothing is mapped there, and as far as is remembered nothing was.
    #[error("nothing was ever mapped there")]
    NeverMapped,
    /// What was mapped there has been removed.
    #[error("{0}")]
    Unmapped(Removal),
    /// The last thing that happened there is a MAP that was refused.
    #[error("{0}")]
    MapRefused(Box<Refusal>),
    /// The mapping does not allow it.
    #[error("the mapping {mapping} is {allowed}")]
    NotAllowed {
        /// The mapping.
        mapping: IovaRange,
        /// What it allows.
        allowed: Access,
    },
    /// The mapping is there, but the process's memory behind it is not any more, or does not allow it.
    #[error(
        "the mapping {mapping} is there, but the memory behind it at {vaddr} is gone, or protected from the process \
         itself"
    )]
    MemoryGone {
        /// The mapping.
        mapping: IovaRange,
        /// The first process address that cannot be accessed.
        vaddr: Vaddr,
    },
}

/// How a mapping went away.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The addresses that were unmapped, inclusive.
    pub range: IovaRange,
    /// What removed them.
    pub by: RemovedBy,
    /// How many calls the container has answered since; 0 if it was the last one.
    pub calls_ago: u64,
    /// The thread that called.
    pub thread: Thread,
}

/// What removes mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovedBy {
    /// `VFIO_IOMMU_UNMAP_DMA` or `IOMMU_IOAS_UNMAP`.
    Unmap,
    /// The container's last group left it.
    LastGroup,
}

impl PartialEq for Removal {
    fn eq(&self, other: &Self) -> bool {
        (self.range, self.by, self.calls_ago, self.thread.id())
            == (other.range, other.by, other.calls_ago, other.thread.id())
    }
}

impl Eq for Removal {}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            RemovedBy::Unmap => write!(f, "{} was unmapped", self.range)?,
            RemovedBy::LastGroup => {
                write!(f, "{} went when the container's last group left", self.range)?;
            }
        }
        write_when(f, self.calls_ago, &self.thread)
    }
}

/// `" 3 calls ago, by thread "main""`.
fn write_when(f: &mut fmt::Formatter<'_>, calls_ago: u64, thread: &Thread) -> fmt::Result {
    match calls_ago {
        0 => f.write_str(" by the last call")?,
        1 => f.write_str(" 1 call ago")?,
        calls => write!(f, " {calls} calls ago")?,
    }
    match thread.name() {
        Some(name) => write!(f, ", by thread \"{name}\""),
        None => Ok(()),
    }
}

/// A MAP that was refused, and that nothing has settled since: neither a MAP that went through nor
/// an UNMAP.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The addresses that were to be mapped, inclusive.
    pub iova: IovaRange,
    /// The process address that `iova.first()` was to stand for.
    pub vaddr: Vaddr,
    /// Why it was refused.
    pub error: Arc<MapError>,
    /// How many calls the container has answered since; 0 if it was the last one.
    pub calls_ago: u64,
    /// The thread that called.
    pub thread: Thread,
}

impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        (self.iova, self.vaddr, &self.error, self.calls_ago, self.thread.id())
            == (other.iova, other.vaddr, &other.error, other.calls_ago, other.thread.id())
    }
}

impl Eq for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iova, vaddr, error, .. } = self;
        write!(f, "MAP of {iova} to vaddr {vaddr} was refused with {}", error.errno())?;
        write_when(f, self.calls_ago, &self.thread)?;
        write!(f, ": {error}")
    }
}

/// How many faults a driver keeps: the newest ones.
pub const MAX_FAULTS: usize = 1024;

/// The newest faults of all devices of a host.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    faults: Mutex<Faults>,
}

/// Faults of devices, oldest first, and how many older ones were dropped.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The faults, at most [`MAX_FAULTS`].
    pub kept: VecDeque<DmaFault>,
    /// How many older ones were dropped.
    pub dropped: u64,
}

impl FaultLog {
    pub(crate) fn add(&self, fault: DmaFault) {
        let mut faults = self.lock();
        if faults.kept.len() == MAX_FAULTS {
            faults.kept.pop_front();
            faults.dropped += 1;
        }
        faults.kept.push_back(fault);
    }

    pub(crate) fn take(&self) -> Faults {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
