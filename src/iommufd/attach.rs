// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices that translate by an address space: what they reserve, and the domains they share
//! (`iommufd_device_attach` in `drivers/iommu/iommufd/device.c`, `iopt_table_add_domain` in
//! `io_pagetable.c`; spec 9).
//!
//! Beside type1: each device reserves its own regions, from the moment it is attached to the moment it
//! is detached; memory is pinned from the process that mapped it, whoever attaches.

use std::sync::Arc;

use super::ObjectId;
use super::attach_error::IoasAttachError;
use super::ioas::{Domain, InTheWay, Ioas, Reserved};
use super::pin::pin;
use crate::domain::Iommu;
use crate::host::{DeviceDescription, Group};
use crate::iova_list::is_excluded;
use crate::map::iova_behind;
use crate::mapping::Mapping;
use crate::obstacle::{Culprit, Obstacle};
use crate::page_size::PageSize;
use crate::pin::{EnterError, PinError};
use crate::range::IovaRange;

impl Ioas {
    /// Reserves a device's regions, all or none of them.
    pub(super) fn reserve_for(
        &mut self,
        owner: ObjectId,
        group: &Group,
        device: &DeviceDescription,
    ) -> Result<(), IoasAttachError> {
        for region in device.regions.iter().filter(|region| is_excluded(region.kind)) {
            // A region without a length reserves nothing.
            let Some(range) = region.range() else { continue };
            let (id, name) = (group.id, device.name.clone());
            let culprit = Culprit { region: *region, group: id, device: name };
            let refused = match self.in_the_way_of(&range) {
                None => None,
                Some(InTheWay::Mapping(mapping)) => {
                    Some(IoasAttachError::ReservedMapped { culprit: culprit.clone(), mapping })
                }
                Some(InTheWay::Allowed(allowed)) => {
                    Some(IoasAttachError::ReservedAllowed { culprit: culprit.clone(), allowed })
                }
            };
            if let Some(refused) = refused {
                self.release_reserved(owner);
                return Err(refused);
            }
            self.reserve(Reserved { range, owner, why: Obstacle::Reserved(culprit) });
        }
        Ok(())
    }

    /// Lets a group into a domain: one that it can share and that no program made for itself, or a new one
    /// numbered `new`; with `only`, no other than that. Returns which one.
    pub(super) fn join(
        &mut self,
        group: &Arc<Group>,
        iommu: &Arc<dyn Iommu>,
        new: ObjectId,
        only: Option<ObjectId>,
    ) -> Result<ObjectId, IoasAttachError> {
        let wanted = |domain: &Domain| only.map_or(domain.automatic, |only| only == domain.id);
        let shared = self.domains.iter_mut().find(|domain| {
            wanted(domain)
                && domain.iommu.driver() == iommu.driver()
                && domain.iommu.enforces_coherency() == iommu.enforces_coherency()
                && iommu.can_share_domain_of(&*domain.iommu)
        });
        if let Some(domain) = shared {
            domain.groups.push(Arc::clone(group));
            return Ok(domain.id);
        }
        if let Some(domain) = only {
            let (group, driver) = (group.id, iommu.driver());
            return Err(IoasAttachError::Incompatible { group, driver, domain });
        }
        self.add_domain(group, iommu, new, true)?;
        Ok(new)
    }

    /// Makes a domain for the IOMMU of `group`. An automatic one holds the group from the beginning, one that
    /// the program asks for holds none.
    pub(super) fn add_domain(
        &mut self,
        group: &Arc<Group>,
        iommu: &Arc<dyn Iommu>,
        id: ObjectId,
        automatic: bool,
    ) -> Result<(), IoasAttachError> {
        let driver = iommu.driver();
        let no_domain = |errno| IoasAttachError::NoDomain { group: group.id, driver, errno };
        iommu.can_make_domain().map_err(no_domain)?;
        let alignment = self.alignment_with(group, &**iommu)?;
        let filled =
            self.reserve_outside(group, &**iommu, id).and_then(|()| self.fill(group, &**iommu));
        if let Err(error) = filled {
            self.release_reserved(id);
            return Err(error);
        }
        self.alignment = alignment;
        let groups = if automatic { vec![Arc::clone(group)] } else { Vec::new() };
        self.domains.push(Domain { id, automatic, iommu: Arc::clone(iommu), groups });
        Ok(())
    }

    /// The alignment with a domain of `iommu` beside the others.
    fn alignment_with(
        &self,
        group: &Group,
        iommu: &dyn Iommu,
    ) -> Result<PageSize, IoasAttachError> {
        let page_sizes = iommu.page_sizes();
        let fits = |page: &PageSize| *page <= self.cpu_page;
        let page = page_sizes.smallest().filter(fits).ok_or(IoasAttachError::PageTooLarge {
            group: group.id,
            driver: iommu.driver(),
            page_sizes,
            page: self.cpu_page,
        })?;
        if page > self.alignment {
            self.check_alignment(page)?;
        }
        Ok(page.max(self.alignment))
    }

    /// Reserves what a domain cannot translate.
    fn reserve_outside(
        &mut self,
        group: &Group,
        iommu: &dyn Iommu,
        owner: ObjectId,
    ) -> Result<(), IoasAttachError> {
        let (aperture, driver, group) = (iommu.aperture(), iommu.driver(), group.id);
        for range in IovaRange::full().without(&aperture) {
            match self.in_the_way_of(&range) {
                None => {}
                Some(InTheWay::Mapping(mapping)) => {
                    return Err(IoasAttachError::ApertureMapped {
                        group,
                        driver,
                        aperture,
                        mapping,
                    });
                }
                Some(InTheWay::Allowed(allowed)) => {
                    return Err(IoasAttachError::ApertureAllowed {
                        group,
                        driver,
                        aperture,
                        allowed,
                    });
                }
            }
            let why = Obstacle::Aperture { aperture, driver, group };
            self.reserve(Reserved { range, owner, why });
        }
        Ok(())
    }

    /// Enters all mappings into a new domain. For the first domain they are pinned and charged, from the
    /// memory of the processes that mapped them.
    fn fill(&mut self, group: &Group, iommu: &dyn Iommu) -> Result<(), IoasAttachError> {
        let all: Vec<Mapping> = self.mappings.iter().collect();
        for (at, mapping) in all.iter().enumerate() {
            match self.enter(group, iommu, mapping) {
                Ok(locked_pages) => {
                    let memory_epoch = match mapping.iommu_mapped {
                        true => mapping.memory_epoch,
                        false => self.mappings.owner(mapping.owner).memory_epoch(),
                    };
                    let iommu_mapped = true;
                    let entered = Mapping { locked_pages, memory_epoch, iommu_mapped, ..*mapping };
                    self.mappings.update(&entered);
                }
                Err(error) => {
                    all[..at].iter().for_each(|mapping| self.restore(mapping));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Enters one mapping into a new domain; returns how many pages of it are charged then.
    fn enter(
        &self,
        group: &Group,
        iommu: &dyn Iommu,
        mapping: &Mapping,
    ) -> Result<u64, IoasAttachError> {
        let (id, driver, iova) = (group.id, iommu.driver(), mapping.iova);
        let refused = |error| match error {
            EnterError::Pin(error) => IoasAttachError::Pin { group: id, mapping: iova, error },
            EnterError::Iommu(errno) => {
                IoasAttachError::Iommu { group: id, driver, mapping: iova, errno }
            }
            EnterError::NoMemory(error) => IoasAttachError::NoMemory(error),
        };
        let access = (!self.silent.contains(&iova.first())).then_some(mapping.access);
        if mapping.iommu_mapped {
            self.enter_into(iommu, iova, access).map_err(refused)?;
            return Ok(mapping.locked_pages);
        }
        let (owner, vaddrs) = (self.mappings.owner(mapping.owner), mapping.vaddrs());
        let enter = |pages| self.enter_into(iommu, iova_behind(iova, vaddrs, pages), access);
        pin(owner, vaddrs, mapping.access, &self.injector, enter).map_err(refused)?;
        let pages = if mapping.exempt { 0 } else { vaddrs.pages(self.cpu_page) };
        // Pages that emulated devices have pinned are charged already.
        let new = pages.saturating_sub(mapping.locked_pages);
        let charged = owner.charge(self.account, new, self.cpu_page);
        charged.map_err(|over| refused(PinError::OverMemlock(over).into()))?;
        Ok(mapping.locked_pages + new)
    }

    /// Makes a mapping what it was before it was entered into a domain.
    fn restore(&mut self, before: &Mapping) {
        let owner = self.mappings.owner(before.owner);
        if let Some(now) = self.mappings.containing(before.iova.first()) {
            owner.discharge(self.account, now.locked_pages.saturating_sub(before.locked_pages));
        }
        self.mappings.update(before);
    }

    /// Lets a group leave a domain. With its last group goes an automatic domain. Whether it has gone.
    pub(super) fn leave(&mut self, group: &Group, domain: ObjectId) -> bool {
        let Some(at) = self.domains.iter().position(|one| one.id == domain) else { return false };
        let Domain { groups, automatic, .. } = &mut self.domains[at];
        groups.retain(|member| member.id != group.id);
        let gone = groups.is_empty() && *automatic;
        if gone {
            self.remove_domain(domain);
        }
        gone
    }

    /// Removes a domain without a group. With the last domain the pages are unpinned.
    pub(super) fn remove_domain(&mut self, domain: ObjectId) {
        self.domains.retain(|one| one.id != domain);
        self.release_reserved(domain);
        if self.domains.is_empty() {
            self.unpin_all();
        }
        // A domain less asks for no larger alignment.
        let _ = self.realign();
    }

    /// No domain is left: only what emulated devices have pinned stays so.
    fn unpin_all(&mut self) {
        let all: Vec<Mapping> = self.mappings.iter().collect();
        for mapping in all {
            let pins = self.mappings.pin_count(mapping.iova.first());
            let locked_pages = mapping.locked_pages.min(pins);
            let unpinned = mapping.locked_pages - locked_pages;
            self.mappings.owner(mapping.owner).discharge(self.account, unpinned);
            self.mappings.update(&Mapping { locked_pages, iommu_mapped: false, ..mapping });
        }
    }
}
