// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether an address space uses large pages of its IOMMUs. Without them mappings can be cut at any page,
//! as type 1 does (`iopt_disable_large_pages`, `iopt_enable_large_pages` in
//! `drivers/iommu/iommufd/io_pagetable.c`).

use super::ioas::{Ioas, Unaligned};
use crate::errno::Errno;
use crate::page_size::PageSize;
use crate::range::IovaRange;

/// Why an address space cannot do without large pages: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LargePagesError {
    /// Domains have mappings already, in large pages perhaps. EINVAL.
    #[error("{mappings} mappings are in IOMMU domains already, in large pages perhaps")]
    Mapped {
        /// How many.
        mappings: usize,
    },
    /// A mapping is not made of whole pages. EADDRINUSE.
    #[error("mapping {mapping} is not aligned to {page}")]
    Misaligned {
        /// The mapping.
        mapping: IovaRange,
        /// The CPU's page.
        page: PageSize,
    },
}

impl LargePagesError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Mapped { .. } => Errno::EINVAL,
            Self::Misaligned { .. } => Errno::EADDRINUSE,
        }
    }
}

impl Ioas {
    /// Turns large pages on or off, from now on. A refusal changes nothing.
    pub(super) fn set_large_pages(&mut self, on: bool) -> Result<(), LargePagesError> {
        if on == self.large_pages {
            return Ok(());
        }
        let mappings = self.mappings.len();
        if !on && !self.domains.is_empty() && mappings != 0 {
            return Err(LargePagesError::Mapped { mappings });
        }
        self.large_pages = on;
        self.realign().map_err(|Unaligned { mapping, page }| {
            self.large_pages = true;
            LargePagesError::Misaligned { mapping, page }
        })
    }
}
