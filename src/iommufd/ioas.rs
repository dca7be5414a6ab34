// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An I/O address space: mappings, what nothing can be mapped to, and the domains that translate by it
//! (`struct io_pagetable` in `drivers/iommu/iommufd/io_pagetable.c`; spec 9).
//!
//! This file owns the state, its valid ranges and its alignment. Where type1 keeps a list of what is
//! valid and changes it as groups come and go, an address space keeps what is reserved, each range with
//! the device or domain that reserves it. So what is valid is the exact complement, and comes back
//! with whoever leaves. The operations are in `map`, `unmap`, `attach` and `access`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ObjectId;
use crate::addr::Iova;
use crate::domain::Iommu;
use crate::history::{History, RemovedRanges};
use crate::host::Group;
use crate::inject::Injector;
use crate::kernel::Kernel;
use crate::mapping::Mapping;
use crate::mapping_table::MappingTable;
use crate::obstacle::{NotValid, Obstacle, nearest_free};
use crate::page_size::{PageSize, PageSizes};
use crate::process::Account;
use crate::range::IovaRange;
use crate::vfio::Shared;

/// An I/O address space.
#[derive(Debug)]
pub(crate) struct Ioas {
    pub(super) kernel: Kernel,
    pub(super) cpu_page: PageSize,
    /// Where pinned pages are counted.
    pub(super) account: Account,
    pub(super) mappings: MappingTable,
    /// Mappings that devices may neither read nor write, by their first address.
    pub(super) silent: BTreeSet<Iova>,
    /// In the order in which they were reserved.
    reserved: Vec<Reserved>,
    /// What the program wants kept free of reservations, ascending.
    pub(super) allowed: Vec<IovaRange>,
    /// Off, mappings can be cut at any page.
    pub(super) large_pages: bool,
    /// What addresses and sizes are multiples of; one byte at first.
    pub(super) alignment: PageSize,
    /// Oldest first.
    pub(super) domains: Vec<Domain>,
    /// Emulated devices that access it.
    pub(super) accesses: BTreeSet<ObjectId>,
    /// What was removed since somebody looked last.
    pub(super) removed: RemovedRanges,
    pub(super) history: History,
    pub(super) injector: Arc<Injector>,
}

/// A domain that translates by the address space, and the groups attached to it.
#[derive(Debug)]
pub(super) struct Domain {
    /// Its number as an object.
    pub(super) id: ObjectId,
    /// It was made by attaching a device to the address space, and goes with its last group. Otherwise the
    /// program asked for it, and destroys it.
    pub(super) automatic: bool,
    /// The IOMMU of the group that it was made for.
    pub(super) iommu: Arc<dyn Iommu>,
    pub(super) groups: Vec<Arc<Group>>,
}

/// A range that nothing can be mapped to.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    pub(super) range: IovaRange,
    /// The device or the domain.
    pub(super) owner: ObjectId,
    /// What a person is told of it.
    pub(super) why: Obstacle,
}

impl Ioas {
    pub(super) fn new(shared: &Shared, account: Account) -> Self {
        Self {
            kernel: shared.kernel,
            cpu_page: shared.cpu_page,
            account,
            mappings: MappingTable::new(&shared.page_tables, shared.cpu_page),
            silent: BTreeSet::new(),
            reserved: Vec::new(),
            allowed: Vec::new(),
            large_pages: true,
            alignment: PageSize::BYTE,
            domains: Vec::new(),
            accesses: BTreeSet::new(),
            removed: RemovedRanges::default(),
            history: History::default(),
            injector: Arc::clone(&shared.injector),
        }
    }

    /// What can be mapped at all, ascending: all that nobody reserves.
    pub(crate) fn valid_ranges(&self) -> Vec<IovaRange> {
        let mut reserved: Vec<IovaRange> = self.reserved.iter().map(|one| one.range).collect();
        reserved.sort_unstable();
        let mut valid = Vec::new();
        let mut rest = Some(IovaRange::full());
        for cut in reserved {
            let Some(left) = rest else { break };
            valid.extend(left.below(cut.first()));
            rest = left.above(cut.last());
        }
        valid.extend(rest);
        valid
    }

    /// Page sizes as `VFIO_IOMMU_GET_INFO` states them.
    pub(super) fn page_sizes(&self) -> PageSizes {
        let domains = self.domains.iter().map(|domain| domain.iommu.page_sizes());
        let PageSizes(common) = PageSizes::common(domains, self.cpu_page);
        PageSizes(common.max(self.alignment.bytes()))
    }

    /// Whether all domains enforce coherency; with none, yes.
    pub(super) fn is_coherent(&self) -> bool {
        self.domains.iter().all(|domain| domain.iommu.enforces_coherency())
    }

    /// Whether a domain or an emulated device uses it, so that it cannot be destroyed.
    pub(super) fn is_used(&self) -> bool {
        !self.domains.is_empty() || !self.accesses.is_empty()
    }

    /// The domain that a group is attached to.
    pub(super) fn domain_of(&self, group: &Group) -> Option<ObjectId> {
        let holds = |domain: &&Domain| domain.groups.iter().any(|member| member.id == group.id);
        self.domains.iter().find(holds).map(|domain| domain.id)
    }

    /// The domain with this number.
    pub(super) fn domain(&self, id: ObjectId) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.id == id)
    }

    /// The reservation that `range` touches first, by address.
    pub(super) fn reservation_in(&self, range: &IovaRange) -> Option<&Reserved> {
        let touching = self.reserved.iter().filter(|one| one.range.overlaps(range));
        touching.min_by_key(|one| one.range.first())
    }

    /// What is in the way of a reservation: a mapping, or a range that the program wants to keep.
    pub(super) fn in_the_way_of(&self, range: &IovaRange) -> Option<InTheWay> {
        if let Some(mapping) = self.mappings.first_overlap(range) {
            return Some(InTheWay::Mapping(mapping.iova));
        }
        let allowed = self.allowed.iter().find(|allowed| allowed.overlaps(range));
        allowed.copied().map(InTheWay::Allowed)
    }

    pub(super) fn reserve(&mut self, reserved: Reserved) {
        self.reserved.push(reserved);
    }

    /// Gives up what a device or a domain reserves.
    pub(super) fn release_reserved(&mut self, owner: ObjectId) {
        self.reserved.retain(|reserved| reserved.owner != owner);
    }

    /// Explains why `iova` is not valid.
    pub(super) fn explain(&self, iova: IovaRange) -> NotValid {
        let touching = self.reserved.iter().filter(|one| one.range.overlaps(&iova));
        let mut touching: Vec<&Reserved> = touching.collect();
        touching
            .sort_by_key(|one| (matches!(one.why, Obstacle::Aperture { .. }), one.range.first()));
        let mut obstacles: Vec<Obstacle> = Vec::new();
        for Reserved { why, .. } in touching {
            // Devices often reserve the same regions; one name is enough.
            if !obstacles.iter().any(|known| is_same(known, why)) {
                obstacles.push(why.clone());
            }
        }
        let nearest = nearest_free(&self.mappings, &self.valid_ranges(), &iova, self.alignment);
        NotValid { iova, obstacles, nearest }
    }

    /// What addresses and sizes must be multiples of, for those who use the address space now.
    fn wanted_alignment(&self) -> PageSize {
        let cut = (!self.large_pages).then_some(self.cpu_page);
        let access = (!self.accesses.is_empty()).then_some(self.cpu_page);
        let domains = self.domains.iter().filter_map(|domain| domain.iommu.page_sizes().smallest());
        domains.chain(cut).chain(access).max().unwrap_or(PageSize::BYTE)
    }

    /// Adjusts the alignment to those who use the address space. The error is a mapping that is not
    /// aligned so; then it stays.
    pub(super) fn realign(&mut self) -> Result<(), Unaligned> {
        let wanted = self.wanted_alignment();
        if wanted > self.alignment {
            self.check_alignment(wanted)?;
        }
        self.alignment = wanted;
        Ok(())
    }

    /// Whether all mappings are aligned to `page`.
    pub(super) fn check_alignment(&self, page: PageSize) -> Result<(), Unaligned> {
        let in_page = self.cpu_page.bytes() - 1;
        let aligned = |mapping: &Mapping| {
            mapping.iova.is_aligned(page) && page.is_aligned(mapping.vaddr.0 & in_page)
        };
        match self.mappings.iter().find(|mapping| !aligned(mapping)) {
            Some(mapping) => Err(Unaligned { mapping: mapping.iova, page }),
            None => Ok(()),
        }
    }

    /// The invariant that does not hold, if any.
    pub(super) fn broken_invariant(&self) -> Option<&'static str> {
        let mapped = |mapping: Mapping| mapping.iommu_mapped != self.domains.is_empty();
        let valid = self.valid_ranges();
        let inside =
            |mapping: Mapping| valid.iter().any(|range| range.contains_range(&mapping.iova));
        let silent = |first: &Iova| {
            let mapping = self.mappings.containing(*first);
            mapping.is_some_and(|mapping| mapping.iova.first() == *first)
        };
        let reserved = |allowed: &IovaRange| self.reservation_in(allowed).is_some();
        let left = |domain: &Domain| domain.automatic && domain.groups.is_empty();
        let rules = [
            (self.mappings.iter().all(mapped), "mappings are in the domains, if there are any"),
            (self.mappings.iter().all(inside), "mappings lie where nothing is reserved"),
            (self.silent.iter().all(silent), "what is silent is a mapping"),
            (!self.allowed.iter().any(reserved), "what is allowed is not reserved"),
            (!self.domains.iter().any(left), "each automatic domain has a group"),
            (self.check_alignment(self.alignment).is_ok(), "mappings are aligned"),
        ];
        let broken = rules.into_iter().find(|(holds, _)| !holds).map(|(_, name)| name);
        broken.or_else(|| self.mappings.broken_invariant())
    }
}

impl Drop for Ioas {
    /// Its charges go with it.
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// A mapping that keeps an address space from being aligned to larger pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unaligned {
    pub(super) mapping: IovaRange,
    pub(super) page: PageSize,
}

/// What a reservation conflicts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InTheWay {
    Mapping(IovaRange),
    Allowed(IovaRange),
}

/// Whether two obstacles are one for a person: the same region, or the same aperture.
fn is_same(one: &Obstacle, other: &Obstacle) -> bool {
    match (one, other) {
        (Obstacle::Reserved(one), Obstacle::Reserved(other)) => one.region == other.region,
        (Obstacle::Aperture { aperture: one, .. }, Obstacle::Aperture { aperture: other, .. }) => {
            one == other
        }
        _ => false,
    }
}
