// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Attaching a group to a container's IOMMU (`vfio_iommu_type1_attach_group` in
//! `vfio_iommu_type1.c`; spec 3.1).
//!
//! The rules stand in the kernel's order: EINVAL for a conflict wins over EPERM for MSIs that are
//! not isolated. A refused group leaves everything as it was.

use std::sync::Arc;

use crate::domain::{Iommu, IommuDriver};
use crate::errno::Errno;
use crate::host::{Group, GroupId, GroupKind};
use crate::inject::{Allocation, OutOfMemory};
use crate::iova_list::{IovaList, is_excluded};
use crate::kernel::DirectRegions;
use crate::map::iova_behind;
use crate::mapping::Mapping;
use crate::obstacle::Culprit;
use crate::pin::{Charge, EnterError, PinError, pin_range};
use crate::process::Process;
use crate::range::IovaRange;
use crate::reserved::ReservedRegion;
use crate::type1::{Domain, Type1, Type1Version};

/// Why a group cannot be attached: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Mappings have lost their process address. EBUSY.
    #[error(
        "mappings have lost their process address ({count}, by UNMAP flag VADDR); \
         give each a new one (MAP flag VADDR) or unmap them first"
    )]
    VaddrsInvalid {
        /// How many.
        count: u64,
    },
    /// The group is attached already. EINVAL.
    #[error("group {group} is attached to this container already")]
    AlreadyAttached {
        /// The group.
        group: GroupId,
    },
    /// There is no memory for the group, its domain, the lists or the page tables. ENOMEM, for the domain
    /// EIO up to 6.1; on demand only.
    #[error("{error}")]
    NoMemory {
        /// What the memory was for.
        error: OutOfMemory,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The IOMMU driver cannot make a domain. EIO up to 6.1, then the driver's errno.
    #[error("the {driver} cannot make a domain for group {group}: {errno}")]
    NoDomain {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The driver's errno, or the EIO that the kernel makes of it.
        errno: Errno,
    },
    /// The IOMMU driver cannot nest domains (type 6). The driver's errno.
    #[error("the {driver} of group {group} cannot nest domains: {errno}; use type1v2 (3)")]
    NoNesting {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The driver's errno.
        errno: Errno,
    },
    /// VT-d does not hand over a device whose memory the firmware uses (up to 5.18). EPERM.
    #[error(
        "the firmware does DMA to the {region} through {device}, so the IOMMU driver keeps \
         group {group} for itself; look for a firmware setting that ends it, or use another device"
    )]
    FirmwareOwned {
        /// The group.
        group: GroupId,
        /// The device.
        device: String,
        /// The region.
        region: ReservedRegion,
    },
    /// The aperture of the group's domain and the valid list have nothing in common. EINVAL.
    #[error(
        "the {driver} of group {group} translates {aperture} only, \
         none of the container's valid {bounds}"
    )]
    ApertureMisses {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// What its domain translates, inclusive.
        aperture: IovaRange,
        /// From the container's first valid address to its last.
        bounds: IovaRange,
    },
    /// A mapping lies outside the aperture of the group's domain. EINVAL.
    #[error(
        "mapping {mapping} lies outside {aperture}, all that the {driver} of group {group} \
         translates; unmap it before attaching the group"
    )]
    ApertureConflict {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// What its domain translates, inclusive.
        aperture: IovaRange,
        /// The mapping.
        mapping: IovaRange,
    },
    /// A mapping overlaps a reserved region of the group. EINVAL.
    #[error("mapping {mapping} overlaps {culprit}; unmap it before attaching the group")]
    ReservedConflict {
        /// The region and who reserves it.
        culprit: Culprit,
        /// The mapping.
        mapping: IovaRange,
    },
    /// With the group, no address would be valid. EINVAL.
    #[error("the aperture and reserved regions of group {group} leave no valid address")]
    NothingLeft {
        /// The group.
        group: GroupId,
    },
    /// MSIs of the group's devices are not isolated. EPERM.
    #[error(
        "a device of group {group} ({devices}) could forge interrupts of others: its MSIs are not \
         isolated; turn interrupt remapping on, or set allow_unsafe_interrupts if you trust it"
    )]
    MsiNotIsolated {
        /// The group.
        group: GroupId,
        /// Its devices.
        devices: String,
    },
    /// A mapping cannot be pinned for the group's domain: EFAULT, ENOMEM, ENODEV.
    #[error("mapping {mapping} cannot be pinned for group {group}: {error}")]
    ReplayPin {
        /// The group.
        group: GroupId,
        /// The mapping.
        mapping: IovaRange,
        /// What is wrong.
        error: PinError,
    },
    /// The group's IOMMU driver refuses an existing mapping. Its errno.
    #[error("the {driver} of group {group} refuses the mapping {mapping}: {errno}")]
    ReplayIommu {
        /// The group.
        group: GroupId,
        /// The driver.
        driver: IommuDriver,
        /// The mapping.
        mapping: IovaRange,
        /// The driver's errno.
        errno: Errno,
    },
}

impl AttachError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::VaddrsInvalid { .. } => Errno::EBUSY,
            Self::NoMemory { errno, .. }
            | Self::NoDomain { errno, .. }
            | Self::NoNesting { errno, .. }
            | Self::ReplayIommu { errno, .. } => *errno,
            Self::FirmwareOwned { .. } | Self::MsiNotIsolated { .. } => Errno::EPERM,
            Self::ReplayPin { error, .. } => error.errno(),
            Self::AlreadyAttached { .. }
            | Self::ApertureMisses { .. }
            | Self::ApertureConflict { .. }
            | Self::ReservedConflict { .. }
            | Self::NothingLeft { .. } => Errno::EINVAL,
        }
    }
}

impl Type1 {
    /// Attaches a group. `caller` is the process whose memory is pinned if mappings must be.
    pub(crate) fn attach(
        &mut self,
        group: &Arc<Group>,
        caller: &Process,
        allow_unsafe_interrupts: bool,
    ) -> Result<(), AttachError> {
        if self.invalid_vaddrs != 0 {
            return Err(AttachError::VaddrsInvalid { count: self.invalid_vaddrs });
        }
        if self.has_group(group.id) {
            return Err(AttachError::AlreadyAttached { group: group.id });
        }
        self.allocate_to_attach(Allocation::Group)?;
        match &group.kind {
            GroupKind::Iommu(iommu) => {
                self.attach_iommu(group, iommu, caller, allow_unsafe_interrupts)
            }
            // A container never mixes noiommu groups with type1; nothing would be left to check.
            GroupKind::Emulated | GroupKind::NoIommu => {
                self.emulated.insert(0, Arc::clone(group));
                Ok(())
            }
        }
    }

    fn attach_iommu(
        &mut self,
        group: &Arc<Group>,
        iommu: &Arc<dyn Iommu>,
        caller: &Process,
        allow_unsafe_interrupts: bool,
    ) -> Result<(), AttachError> {
        self.check_domain(group, &**iommu)?;
        let list = self.list_with(group, &**iommu)?;
        if !allow_unsafe_interrupts && !iommu.isolates_msi() {
            let devices = group.device_names();
            return Err(AttachError::MsiNotIsolated { group: group.id, devices });
        }
        match self.position_of_match(&**iommu) {
            Some(at) => self.domains[at].groups.insert(0, Arc::clone(group)),
            None => {
                self.replay(group, &**iommu, caller)?;
                let groups = vec![Arc::clone(group)];
                self.domains.insert(0, Domain { iommu: Arc::clone(iommu), groups });
                self.update_page_sizes();
            }
        }
        self.iova_list = list;
        Ok(())
    }

    fn allocate_to_attach(&self, what: Allocation) -> Result<(), AttachError> {
        let eio = what == Allocation::Domain && self.behaviours().domain_alloc_is_eio;
        let errno = if eio { Errno::EIO } else { Errno::ENOMEM };
        let refused = |error| AttachError::NoMemory { error, errno };
        self.injector.allocate(what).map_err(refused)
    }

    /// Steps 5 to 7: a domain, nested if asked for, with the group in it.
    fn check_domain(&self, group: &Group, iommu: &dyn Iommu) -> Result<(), AttachError> {
        let (id, driver) = (group.id, iommu.driver());
        self.allocate_to_attach(Allocation::Domain)?;
        iommu.can_make_domain().map_err(|errno| {
            let errno = if self.behaviours().domain_alloc_is_eio { Errno::EIO } else { errno };
            AttachError::NoDomain { group: id, driver, errno }
        })?;
        if self.version == Type1Version::Nesting {
            iommu.can_nest(self.behaviours()).map_err(|errno| AttachError::NoNesting {
                group: id,
                driver,
                errno,
            })?;
        }
        let refuses = self.behaviours().direct_regions == DirectRegions::VtdRefusesAttach
            && driver.refuses_direct_regions();
        match &group.locked_region {
            Some((region, device)) if refuses => Err(AttachError::FirmwareOwned {
                group: id,
                device: device.clone(),
                region: *region,
            }),
            _ => Ok(()),
        }
    }

    /// Steps 8 to 11: the valid list with the group in the container, if it conflicts with no
    /// mapping.
    fn list_with(&self, group: &Group, iommu: &dyn Iommu) -> Result<IovaList, AttachError> {
        if !self.behaviours().valid_iova_list {
            return Ok(IovaList::default());
        }
        self.check_aperture(group, iommu)?;
        if !group.regions.as_slice().is_empty() {
            self.allocate_to_attach(Allocation::Regions)?;
        }
        self.check_reserved(group)?;
        self.allocate_to_attach(Allocation::IovaList)?;
        let mut list = self.iova_list.clone();
        list.resize(iommu.aperture());
        list.exclude(&group.regions);
        if list.is_empty() {
            return Err(AttachError::NothingLeft { group: group.id });
        }
        Ok(list)
    }

    /// Spec 3.3, `vfio_iommu_aper_conflict`.
    fn check_aperture(&self, group: &Group, iommu: &dyn Iommu) -> Result<(), AttachError> {
        let Some(bounds) = self.iova_list.bounds() else {
            return Ok(());
        };
        let (group, driver, aperture) = (group.id, iommu.driver(), iommu.aperture());
        if !bounds.overlaps(&aperture) {
            return Err(AttachError::ApertureMisses { group, driver, aperture, bounds });
        }
        let below = bounds.below(aperture.first());
        let above = bounds.above(aperture.last()).filter(|range| self.sees_to_the_end_of(range));
        let outside = [below, above].into_iter().flatten();
        match outside.filter_map(|range| self.mappings.first_overlap(&range)).next() {
            Some(mapping) => {
                let mapping = mapping.iova;
                Err(AttachError::ApertureConflict { group, driver, aperture, mapping })
            }
            None => Ok(()),
        }
    }

    /// Spec 3.4, `vfio_iommu_resv_conflict`.
    fn check_reserved(&self, group: &Group) -> Result<(), AttachError> {
        let excluded = group.regions.iter().filter(|region| is_excluded(region.kind));
        for region in excluded {
            let at_top = region.last.0 == u64::MAX;
            if at_top && !self.behaviours().search_reaches_top {
                continue;
            }
            if let Some(mapping) = self.mappings.first_touched(region) {
                let culprit = Culprit::of(group, *region, &mapping.iova);
                return Err(AttachError::ReservedConflict { culprit, mapping: mapping.iova });
            }
        }
        Ok(())
    }

    /// Kernels before 6.18 search up to an end that wraps to 0, and so find nothing.
    fn sees_to_the_end_of(&self, range: &IovaRange) -> bool {
        range.next().is_some() || self.behaviours().search_reaches_top
    }

    /// Step 15: the domain that the group can share (spec 3.10).
    fn position_of_match(&self, iommu: &dyn Iommu) -> Option<usize> {
        self.domains.iter().position(|domain| {
            domain.iommu.driver() == iommu.driver()
                && domain.iommu.enforces_coherency() == iommu.enforces_coherency()
                && iommu.can_share_domain_of(&*domain.iommu)
        })
    }

    /// Step 16: enters the mappings into a new domain; those that no domain had yet are pinned
    /// now, from the caller's memory, and charged to their owner (spec 3.11).
    fn replay(
        &mut self,
        group: &Group,
        iommu: &dyn Iommu,
        caller: &Process,
    ) -> Result<(), AttachError> {
        let mut charged: Vec<(Mapping, u64)> = Vec::new();
        let result = self.mappings.iter().try_for_each(|mapping| {
            let pages = self.enter(group, iommu, &mapping, caller)?;
            if !mapping.iommu_mapped {
                self.charge_owner(group.id, &mapping, pages)?;
                charged.push((mapping, pages));
            }
            Ok(())
        });
        for (mapping, pages) in charged {
            let owner = self.mappings.owner(mapping.owner);
            if result.is_err() {
                owner.unlock_pages(pages);
                continue;
            }
            let (locked_pages, memory_epoch) = (mapping.locked_pages + pages, owner.memory_epoch());
            let pinned = Mapping { locked_pages, memory_epoch, iommu_mapped: true, ..mapping };
            self.mappings.update(&pinned);
        }
        result
    }

    /// The pages were counted against the caller's limit while they were pinned; they go to the account of
    /// the owner, whose limit counts too.
    fn charge_owner(
        &self,
        group: GroupId,
        mapping: &Mapping,
        pages: u64,
    ) -> Result<(), AttachError> {
        let over = |over| AttachError::ReplayPin {
            group,
            mapping: mapping.iova,
            error: PinError::OverMemlock(over),
        };
        let owner = self.mappings.owner(mapping.owner);
        owner.check_charge(pages, mapping.exempt, self.cpu_page()).map_err(over)?;
        owner.lock_pages(pages);
        Ok(())
    }

    /// Enters one mapping into the new domain; returns how many pages to charge.
    fn enter(
        &self,
        group: &Group,
        iommu: &dyn Iommu,
        mapping: &Mapping,
        caller: &Process,
    ) -> Result<u64, AttachError> {
        let (group, driver, iova) = (group.id, iommu.driver(), mapping.iova);
        let refused = |error| match error {
            EnterError::Pin(error) => AttachError::ReplayPin { group, mapping: iova, error },
            EnterError::Iommu(errno) => {
                AttachError::ReplayIommu { group, driver, mapping: iova, errno }
            }
            EnterError::NoMemory(error) => AttachError::NoMemory { error, errno: Errno::ENOMEM },
        };
        if mapping.iommu_mapped {
            return self.enter_into(iommu, iova).map(|()| 0).map_err(refused);
        }
        let already = self.mappings.pin_count(mapping.iova.first());
        let charge = Charge { exempt: mapping.exempt, already, page: self.cpu_page() };
        let vaddrs = mapping.vaddrs();
        let enter = |pages| self.enter_into(iommu, iova_behind(iova, vaddrs, pages));
        pin_range(caller, vaddrs, mapping.access, charge, &self.injector, enter).map_err(refused)
    }
}
