// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges that a program wants to keep free of reservations (`IOMMU_IOAS_ALLOW_IOVAS`,
//! `iopt_set_allow_iova` in `drivers/iommu/iommufd/io_pagetable.c`).

use super::ioas::Ioas;
use super::native::NoSuchIoas;
use crate::addr::Iova;
use crate::errno::Errno;
use crate::obstacle::Obstacle;
use crate::range::IovaRange;

/// Why ranges cannot be kept free: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowIovasError {
    /// There is no such address space. ENOENT.
    #[error(transparent)]
    NoSuchIoas(#[from] NoSuchIoas),
    /// A range does not end above its start. EINVAL; so a single address is none.
    #[error("{first}..{last} does not end above its start")]
    NotARange {
        /// The first address given.
        first: Iova,
        /// The last address given.
        last: Iova,
    },
    /// Two of the ranges share addresses. EINVAL.
    #[error("{range} overlaps {other}; state each address once")]
    Overlap {
        /// The range.
        range: IovaRange,
        /// The one before it.
        other: IovaRange,
    },
    /// A device or a domain reserves addresses of a range. EADDRINUSE.
    #[error("{range} {why}")]
    Reserved {
        /// The range.
        range: IovaRange,
        /// Who reserves them.
        why: Box<Obstacle>,
    },
}

impl AllowIovasError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchIoas(error) => error.errno(),
            Self::NotARange { .. } | Self::Overlap { .. } => Errno::EINVAL,
            Self::Reserved { .. } => Errno::EADDRINUSE,
        }
    }
}

/// Ranges to be kept free, ascending and apart.
#[derive(Debug, Default)]
pub(crate) struct AllowedRanges(Vec<IovaRange>);

impl AllowedRanges {
    pub(crate) fn add(&mut self, first: Iova, last: Iova) -> Result<(), AllowIovasError> {
        let range = IovaRange::new(first, last).filter(|range| range.span() != 0);
        let range = range.ok_or(AllowIovasError::NotARange { first, last })?;
        let at = self.0.partition_point(|known| known.last() < range.first());
        if let Some(other) = self.0.get(at).filter(|known| known.overlaps(&range)) {
            return Err(AllowIovasError::Overlap { range, other: *other });
        }
        self.0.insert(at, range);
        Ok(())
    }
}

impl Ioas {
    /// Keeps these ranges free, in place of earlier ones. A refusal changes nothing.
    pub(super) fn allow(&mut self, allowed: AllowedRanges) -> Result<(), AllowIovasError> {
        for range in &allowed.0 {
            if let Some(reserved) = self.reservation_in(range) {
                let why = Box::new(reserved.why.clone());
                return Err(AllowIovasError::Reserved { range: *range, why });
            }
        }
        self.allowed = allowed.0;
        Ok(())
    }
}
