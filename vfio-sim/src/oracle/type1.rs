// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 3: the state of one type1 instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use vfio_type1::{Access, Errno, Iommu};

use super::Process;
use super::refusal::{Answer, refuse};
use super::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
    Nesting,
}

#[derive(Debug)]
pub(super) struct Type1 {
    pub(super) version: Version,
    /// The newest first, as are the groups in each.
    pub(super) domains: Vec<Domain>,
    /// The emulated groups.
    pub(super) emulated: Vec<usize>,
    /// The valid list.
    pub(super) list: Vec<Span>,
    /// Ascending, and none overlaps another.
    pub(super) mappings: Vec<Mapping>,
    /// `dma_avail` (5.5); before 5.1 nobody asks.
    pub(super) available: u64,
    /// Dirty tracking is on, and what the page was when it was switched on.
    pub(super) tracking: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Domain {
    /// The IOMMU of the group that the domain was made for.
    pub(super) iommu: Arc<dyn Iommu>,
    pub(super) groups: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) iova: Span,
    pub(super) vaddr: u64,
    pub(super) access: Access,
    /// The process that mapped it.
    pub(super) owner: usize,
    /// The owner had CAP_IPC_LOCK.
    pub(super) exempt: bool,
    pub(super) vaddr_invalid: bool,
    pub(super) iommu_mapped: bool,
    /// Pages charged to the owner.
    pub(super) charged: u64,
    /// Its array W (7.3), bit by bit, while dirty tracking is on.
    pub(super) dirty: Option<Vec<bool>>,
    /// How often each page is pinned by emulated devices, by its IOVA.
    pub(super) pins: BTreeMap<u64, u64>,
}

/// A mapping, as far as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OracleMapping {
    /// What is mapped.
    pub iova: Span,
    /// To where.
    pub vaddr: u64,
    /// What devices may do.
    pub access: Access,
    /// Flag *vaddr-invalid*.
    pub vaddr_invalid: bool,
    /// Pages charged to its owner.
    pub charged: u64,
}

impl Type1 {
    pub(super) fn new(version: Version, available: u64) -> Self {
        Self {
            version,
            domains: Vec::new(),
            emulated: Vec::new(),
            list: Vec::new(),
            mappings: Vec::new(),
            available,
            tracking: None,
        }
    }

    /// 3.12.
    pub(super) fn page_sizes(&self) -> u64 {
        let mut sizes = u64::MAX;
        for domain in &self.domains {
            sizes &= domain.iommu.page_sizes().0;
        }
        if sizes & 0xfff != 0 { sizes & !0xfff | 0x1000 } else { sizes }
    }

    /// 3.12: the lowest page size, `None` if the domains share none.
    pub(super) fn page(&self) -> Option<u64> {
        let sizes = self.page_sizes();
        (sizes != 0).then(|| 1 << sizes.trailing_zeros())
    }

    /// The page that requests other than MAP are held to. SEMANTICS.md: that of the CPU, if the
    /// domains share none.
    pub(super) fn page_or_cpu(&self) -> u64 {
        self.page().unwrap_or(0x1000)
    }

    /// The lowest mapping in `range`.
    pub(super) fn lowest(&self, range: Span) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.iova.overlaps(range))
    }

    /// How many mappings are vaddr-invalid.
    pub(super) fn invalid(&self) -> u64 {
        (0..).zip(self.mappings.iter().filter(|mapping| mapping.vaddr_invalid)).map(|_| 1).sum()
    }

    /// Groups that are not pinned-scope (7.3): all that are behind an IOMMU.
    pub(super) fn has_ordinary_group(&self) -> bool {
        !self.domains.is_empty()
    }

    /// 6.2: the end of a mapping.
    pub(super) fn remove(&mut self, processes: &mut [Process], at: usize) -> Span {
        let mut mapping = self.mappings.remove(at);
        mapping.charge(processes, 0);
        self.available += 1;
        mapping.iova
    }

    pub(super) fn remove_all(&mut self, processes: &mut [Process]) {
        while !self.mappings.is_empty() {
            self.remove(processes, 0);
        }
    }
}

impl Mapping {
    /// The charge becomes `pages`. If the owner is gone, nothing is subtracted (5.3).
    pub(super) fn charge(&mut self, processes: &mut [Process], pages: u64) {
        let owner = &mut processes[self.owner];
        if !owner.exited {
            owner.locked = owner.locked.saturating_sub(self.charged) + pages;
        }
        self.charged = pages;
    }

    /// The bounds, for a refusal.
    pub(super) fn bounds(&self) -> [u64; 2] {
        [self.iova.first, self.iova.last]
    }

    pub(super) fn visible(&self) -> OracleMapping {
        OracleMapping {
            iova: self.iova,
            vaddr: self.vaddr,
            access: self.access,
            vaddr_invalid: self.vaddr_invalid,
            charged: self.charged,
        }
    }
}

/// The refusal when a flag is set that the kernel does not know (5.1, 6.1).
pub(super) fn check_flags(flags: u32, known: u32) -> Answer<()> {
    if flags & !known == 0 { Ok(()) } else { refuse("UnknownFlags", Errno::EINVAL) }
}
