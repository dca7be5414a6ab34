// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 3.1: a group joins a type1 instance.

use std::sync::Arc;

use vfio_type1::{Errno, Iommu, IommuDriver, RegionKind, ReservedRegion};

use super::list::{exclude, resize};
use super::pin::{check_limit, pin};
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::release::Release;
use super::span::Span;
use super::type1::{Domain, Type1, Version};
use super::{Host, Process};

impl Type1 {
    /// 3.1.
    pub(super) fn attach(
        &mut self,
        host: &Host,
        processes: &mut [Process],
        group: usize,
        caller: usize,
    ) -> Answer<()> {
        let release = host.release;
        let facts = &host.groups[group];
        // 1.
        if self.invalid() > 0 {
            return refuse_with("VaddrsInvalid", Errno::EBUSY, [self.invalid()]);
        }
        // 2.
        if self.emulated.contains(&group) || self.domains.iter().any(|d| d.groups.contains(&group))
        {
            return refuse("AlreadyAttached", Errno::EINVAL);
        }
        // 4.
        let Some(iommu) = facts.iommu() else {
            self.emulated.push(group);
            return Ok(());
        };
        // 5.
        if let Err(errno) = iommu.can_make_domain() {
            return refuse("NoDomain", if release.up_to(6, 1) { Errno::EIO } else { errno });
        }
        // 6.
        if self.version == Version::Nesting
            && let Some(errno) = nesting_errno(iommu.driver(), release)
        {
            return refuse("NoNesting", errno);
        }
        // 7, 3.2.
        if iommu.driver() == IommuDriver::IntelVtd && release.up_to(5, 18) && facts.direct {
            return refuse("FirmwareOwned", Errno::EPERM);
        }
        let mut list = self.list.clone();
        if release.has_list() {
            // 8.
            self.aperture_conflict(release, aperture(iommu))?;
            // 10.
            self.reserved_conflict(release, &facts.regions)?;
            // 11.
            resize(&mut list, aperture(iommu));
            exclude(&mut list, &facts.regions);
            if list.is_empty() {
                return refuse("NothingLeft", Errno::EINVAL);
            }
        }
        // 13, 3.9.
        if !iommu.isolates_msi() && !host.allow_unsafe_interrupts {
            return refuse("MsiNotIsolated", Errno::EPERM);
        }
        // 15, 3.10.
        if let Some(domain) = self.domains.iter_mut().find(|domain| matches(domain, iommu)) {
            domain.groups.insert(0, group);
        } else {
            // 16.
            self.replay(release, processes, caller, iommu)?;
            // 18.
            let domain = Domain { iommu: Arc::clone(iommu), groups: vec![group] };
            self.domains.insert(0, domain);
        }
        // 19.
        self.list = list;
        Ok(())
    }

    /// 3.3.
    fn aperture_conflict(&self, release: Release, aperture: Span) -> Answer<()> {
        let (s, e) = (aperture.first, aperture.last);
        // 1.
        let (Some(first), Some(last)) = (self.list.first(), self.list.last()) else {
            return Ok(());
        };
        // 2.
        if s > last.last || e < first.first {
            return refuse_with("ApertureMisses", Errno::EINVAL, [first.first, last.last]);
        }
        let conflict = |range: Span| match self.lowest(range) {
            Some(found) => refuse_with("ApertureConflict", Errno::EINVAL, found.bounds()),
            None => Ok(()),
        };
        // 3.
        if s > first.first {
            conflict(Span { first: first.first, last: s - 1 })?;
        }
        // 4, and the quirk.
        if e < last.last && (release.from(6, 18) || last.last != u64::MAX) {
            conflict(Span { first: e + 1, last: last.last })?;
        }
        Ok(())
    }

    /// 3.4.
    fn reserved_conflict(&self, release: Release, regions: &[ReservedRegion]) -> Answer<()> {
        for region in regions {
            if region.kind == RegionKind::DirectRelaxable {
                continue;
            }
            let (r0, r1) = (region.first.0, region.last.0);
            if r1 == u64::MAX && !release.from(6, 18) {
                continue;
            }
            let overlaps = |mapping: Span| r0 <= mapping.last && r1 >= mapping.first;
            let found = self.mappings.iter().find(|mapping| overlaps(mapping.iova));
            if let Some(found) = found {
                let [first, last] = found.bounds();
                return refuse_with("ReservedConflict", Errno::EINVAL, [r0, r1, first, last]);
            }
        }
        Ok(())
    }

    /// 3.11.
    fn replay(
        &mut self,
        release: Release,
        processes: &mut [Process],
        caller: usize,
        iommu: &Arc<dyn Iommu>,
    ) -> Answer<()> {
        let mut charges = Vec::new();
        for mapping in &mut self.mappings {
            let bounds = mapping.bounds();
            let replayed = Self::replay_one(release, processes, caller, iommu, mapping);
            match replayed {
                Ok(charge) => charges.push(charge),
                Err(refusal) => {
                    // Undone: what this attempt charged goes again.
                    for (mapping, charge) in self.mappings.iter_mut().zip(charges) {
                        let before = mapping.charged - charge;
                        mapping.charge(processes, before);
                    }
                    return Err(Refusal { numbers: bounds.to_vec(), ..refusal });
                }
            }
        }
        for mapping in &mut self.mappings {
            mapping.iommu_mapped = true;
        }
        Ok(())
    }

    /// Enters one mapping into a new domain; returns the pages charged for it.
    fn replay_one(
        release: Release,
        processes: &mut [Process],
        caller: usize,
        iommu: &Arc<dyn Iommu>,
        mapping: &mut super::type1::Mapping,
    ) -> Answer<u64> {
        let enter = |part| match map_errno(iommu, part, release) {
            Some(errno) => refuse("ReplayIommu", errno),
            None => Ok(()),
        };
        if mapping.iommu_mapped {
            enter(mapping.iova)?;
            return Ok(0);
        }
        let charge = pin(&processes[caller], mapping, enter).map_err(|error| {
            let rule = error.rule.replace("Pin/", "ReplayPin/");
            Refusal { rule, ..error }
        })?;
        check_limit(&processes[mapping.owner], mapping.exempt, charge)
            .map_err(|error| error.inside("ReplayPin"))?;
        let pages = mapping.charged + charge;
        mapping.charge(processes, pages);
        Ok(charge)
    }
}

pub(super) fn aperture(iommu: &Arc<dyn Iommu>) -> Span {
    Span { first: iommu.aperture().first().0, last: iommu.aperture().last().0 }
}

/// 3.10. The candidate takes the group if the group's IOMMU translates all that the candidate does
/// (the rule of [`Iommu`]).
fn matches(candidate: &Domain, iommu: &Arc<dyn Iommu>) -> bool {
    let (ours, theirs) = (aperture(iommu), aperture(&candidate.iommu));
    candidate.iommu.driver() == iommu.driver()
        && candidate.iommu.enforces_coherency() == iommu.enforces_coherency()
        && ours.first <= theirs.first
        && theirs.last <= ours.last
}

/// 1.4: the SMMUs could nest, until their domains were made for a device.
fn nesting_errno(driver: IommuDriver, release: Release) -> Option<Errno> {
    match driver {
        IommuDriver::SmmuV3 | IommuDriver::SmmuV2 => release.from(6, 11).then_some(Errno::EPERM),
        IommuDriver::IntelVtd if release.from(5, 6) && release.up_to(5, 10) => Some(Errno::ENODEV),
        _ => Some(Errno::EINVAL),
    }
}

/// What the IOMMU driver says to a mapping: its pages must be whole (the rule of [`Iommu`]), and
/// not beyond its width (12.5).
pub(super) fn map_errno(iommu: &Arc<dyn Iommu>, iova: Span, release: Release) -> Option<Errno> {
    let sizes = iommu.page_sizes().0;
    let page = sizes & sizes.wrapping_neg();
    if page == 0 || !iova.first.is_multiple_of(page) || !iova.size().is_multiple_of(page) {
        return Some(Errno::EINVAL);
    }
    let aperture = aperture(iommu);
    if aperture.holds(iova.first) && aperture.holds(iova.last) {
        return None;
    }
    Some(match iommu.driver() {
        IommuDriver::IntelVtd if release.up_to(6, 18) => Errno::EFAULT,
        // Read from the emulator's table; the document names VT-d only.
        IommuDriver::AmdVi if release.up_to(6, 18) => Errno::EFAULT,
        IommuDriver::IntelVtd | IommuDriver::AmdVi => Errno::ERANGE,
        IommuDriver::SmmuV3 | IommuDriver::SmmuV2 => Errno::ERANGE,
        IommuDriver::Virtio | IommuDriver::Other(_) => Errno::EINVAL,
    })
}
