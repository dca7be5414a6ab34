// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One instance of the type1 driver: what `VFIO_SET_IOMMU` makes (`struct vfio_iommu`).
//!
//! This file owns the state and its invariants. The operations on it each have their own file:
//! `attach`, `detach`, `map`, `unmap`, `dirty`, `emulated`, `info`.

use std::sync::Arc;

use crate::domain::Iommu;
use crate::errno::Errno;
use crate::history::RemovedRanges;
use crate::host::{Group, GroupId};
use crate::inject::Injector;
use crate::iova_list::IovaList;
use crate::kernel::{Behaviours, Kernel};
use crate::mapping::Mapping;
use crate::mapping_table::MappingTable;
use crate::page_size::{PageSize, PageSizes};
use crate::page_table::PageTables;

/// Which flavour of type1 a container has (the argument of `VFIO_SET_IOMMU`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type1Version {
    /// `VFIO_TYPE1_IOMMU` (1): UNMAP removes whole mappings or nothing; no dirty tracking.
    V1,
    /// `VFIO_TYPE1v2_IOMMU` (3): UNMAP refuses to cut a mapping.
    V2,
    /// `VFIO_TYPE1_NESTING_IOMMU` (6), up to 6.12: v2 on nested domains.
    Nesting,
}

/// A container that has no type1 driver, so that no IOMMU request can be answered (spec 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoType1 {
    /// No driver is set. EINVAL.
    #[error("the container has no IOMMU driver; attach a group, then SET_IOMMU")]
    Unset,
    /// The noiommu driver is set, which knows no request. ENOTTY.
    #[error("the container's groups have no IOMMU, so there is nothing to map into")]
    NoIommu,
}

impl NoType1 {
    /// What the kernel answers.
    pub fn errno(self) -> Errno {
        match self {
            Self::Unset => Errno::EINVAL,
            Self::NoIommu => Errno::ENOTTY,
        }
    }
}

/// An IOMMU domain and the groups attached to it.
#[derive(Debug)]
pub(crate) struct Domain {
    /// The IOMMU of the group that the domain was made for.
    pub(crate) iommu: Arc<dyn Iommu>,
    /// Newest first.
    pub(crate) groups: Vec<Arc<Group>>,
}

#[derive(Debug)]
pub(crate) struct Type1 {
    kernel: Kernel,
    /// The page of the CPU.
    cpu_page: PageSize,
    pub(crate) version: Type1Version,
    /// Newest first.
    pub(crate) domains: Vec<Domain>,
    /// Groups without an IOMMU of their own.
    pub(crate) emulated: Vec<Arc<Group>>,
    pub(crate) iova_list: IovaList,
    pub(crate) page_sizes: PageSizes,
    pub(crate) mappings: MappingTable,
    /// How many more mappings the limit allows.
    pub(crate) entries_left: u32,
    /// How many mappings have lost their process address.
    pub(crate) invalid_vaddrs: u64,
    /// Dirty tracking is on.
    pub(crate) tracking: bool,
    /// What was removed since the container looked last.
    pub(crate) removed: RemovedRanges,
    pub(crate) injector: Arc<Injector>,
}

impl Type1 {
    pub(crate) fn new(
        kernel: Kernel,
        cpu_page: PageSize,
        version: Type1Version,
        entry_limit: u32,
        page_tables: &Arc<PageTables>,
        injector: Arc<Injector>,
    ) -> Self {
        Self {
            kernel,
            cpu_page,
            version,
            domains: Vec::new(),
            emulated: Vec::new(),
            iova_list: IovaList::default(),
            page_sizes: PageSizes::common(std::iter::empty(), cpu_page),
            mappings: MappingTable::new(page_tables, cpu_page),
            entries_left: entry_limit,
            invalid_vaddrs: 0,
            tracking: false,
            removed: RemovedRanges::default(),
            injector,
        }
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(crate) fn behaviours(&self) -> &Behaviours {
        self.kernel.behaviours()
    }

    /// The CPU's page: what locked memory is counted in.
    pub(crate) fn cpu_page(&self) -> PageSize {
        self.cpu_page
    }

    /// The page that mappings are aligned to and dirty bitmaps count in. Domains that share no
    /// size have none; nothing can be mapped then, and the CPU's page stands in.
    pub(crate) fn page(&self) -> PageSize {
        self.page_sizes.smallest().unwrap_or(self.cpu_page)
    }

    pub(crate) fn update_page_sizes(&mut self) {
        let domains = self.domains.iter().map(|domain| domain.iommu.page_sizes());
        self.page_sizes = PageSizes::common(domains, self.cpu_page);
    }

    /// The groups behind an IOMMU: domains newest first, groups of each newest first.
    pub(crate) fn iommu_groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.domains.iter().flat_map(|domain| domain.groups.iter())
    }

    pub(crate) fn has_group(&self, id: GroupId) -> bool {
        self.iommu_groups().chain(&self.emulated).any(|group| group.id == id)
    }

    /// Whether anything may write any mapped page unseen: a group's device behind an IOMMU. Then
    /// every page counts as dirty (spec 7.3).
    pub(crate) fn all_is_dirty(&self) -> bool {
        !self.domains.is_empty()
    }

    /// `VFIO_DMA_CC_IOMMU`: whether all domains enforce coherency; with none, yes (spec 1.3).
    pub(crate) fn is_coherent(&self) -> bool {
        self.domains.iter().all(|domain| domain.iommu.enforces_coherency())
    }

    /// Removes a mapping, and takes it off all accounts.
    pub(crate) fn remove_mapping(&mut self, mapping: &Mapping) {
        self.mappings.remove(mapping);
        self.mappings.owner(mapping.owner).uncharge(mapping.locked_pages);
        self.mappings.drop_owner(mapping.owner);
        self.removed.add(mapping.iova);
        self.entries_left = self.entries_left.saturating_add(1);
        if mapping.vaddr_invalid {
            self.invalid_vaddrs -= 1;
        }
    }

    /// Removes every mapping, as when the last group goes.
    pub(crate) fn remove_all_mappings(&mut self) {
        let all: Vec<Mapping> = self.mappings.iter().collect();
        all.iter().for_each(|mapping| self.remove_mapping(mapping));
    }

    /// The invariant that does not hold, if any.
    pub(crate) fn broken_invariant(&self) -> Option<&'static str> {
        let invalid = self.mappings.iter().filter(|mapping| mapping.vaddr_invalid).count() as u64;
        let mapped = |mapping: Mapping| mapping.iommu_mapped != self.domains.is_empty();
        let tracked = |mapping: Mapping| {
            let extra = self.mappings.extra(mapping.iova.first());
            extra.is_some_and(|extra| extra.bitmap.is_some()) == self.tracking
        };
        let rules = [
            (invalid == self.invalid_vaddrs, "lost process addresses are counted"),
            (self.mappings.iter().all(mapped), "mappings are in the domains, if there are any"),
            (self.mappings.iter().all(tracked), "a mapping has a bitmap while tracking is on"),
            (self.domains.iter().all(|d| !d.groups.is_empty()), "each domain has a group"),
        ];
        let broken = rules.into_iter().find(|(holds, _)| !holds).map(|(_, name)| name);
        broken.or_else(|| self.mappings.broken_invariant())
    }
}

impl Drop for Type1 {
    /// The instance goes with its last group, or with a SET_IOMMU that failed; its charges go with
    /// it.
    fn drop(&mut self) {
        self.remove_all_mappings();
    }
}
