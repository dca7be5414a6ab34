// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Detaching a group (`vfio_iommu_type1_detach_group` in `vfio_iommu_type1.c`; spec 3.7).
//!
//! What the departed group had reserved becomes valid again, except at the edges of the list while
//! its domain lives on. The container drops the whole instance when this was its last group.

use crate::host::GroupId;
use crate::inject::Allocation;
use crate::mapping::Mapping;
use crate::reserved::RegionList;
use crate::type1::Type1;

impl Type1 {
    /// Detaches the group, if it is attached.
    pub(crate) fn detach(&mut self, group: GroupId) {
        let emulated = self.emulated.len();
        self.emulated.retain(|attached| attached.id != group);
        if self.emulated.len() != emulated {
            if self.has_no_groups() {
                self.remove_all_mappings();
            }
            return;
        }
        let holds = |at: &usize| self.domains[*at].groups.iter().any(|g| g.id == group);
        if let Some(at) = (0..self.domains.len()).find(holds) {
            self.detach_iommu(at, group);
        }
    }

    /// Whether the instance has nothing left to do.
    pub(crate) fn has_no_groups(&self) -> bool {
        self.domains.is_empty() && self.emulated.is_empty()
    }

    fn detach_iommu(&mut self, at: usize, group: GroupId) {
        self.domains[at].groups.retain(|attached| attached.id != group);
        let mut list = self.iova_list.clone();
        if self.domains[at].groups.is_empty() {
            self.domains.remove(at);
            if self.domains.is_empty() {
                self.leave_iommu();
            }
            list.expand(self.domains.iter().map(|domain| domain.iommu.aperture()));
            self.update_page_sizes();
        }
        // Without memory for a new list the kernel keeps the old one, and says nothing.
        let has_memory = || self.injector.allocate(Allocation::IovaList).is_ok();
        if !list.is_empty()
            && has_memory()
            && let Some(refreshed) = list.refreshed(self.remaining_regions().as_slice())
        {
            self.iova_list = refreshed;
        }
        if self.tracking && self.behaviours().detach_marks_dirty {
            let bitmaps = self.mappings.extras_mut().filter_map(|extra| extra.bitmap.as_mut());
            bitmaps.for_each(|bitmap| bitmap.mark_all());
        }
    }

    /// The last domain is gone. Without emulated groups so are the mappings; with them the
    /// mappings stay, with only the pages that emulated devices pinned.
    fn leave_iommu(&mut self) {
        if self.emulated.is_empty() {
            self.remove_all_mappings();
            return;
        }
        let all: Vec<Mapping> = self.mappings.iter().collect();
        for mapping in all {
            let pins = self.mappings.pin_count(mapping.iova.first());
            let locked_pages = mapping.locked_pages.min(pins);
            self.mappings.owner(mapping.owner).uncharge(mapping.locked_pages - locked_pages);
            self.mappings.update(&Mapping { locked_pages, iommu_mapped: false, ..mapping });
        }
    }

    /// The regions of all devices of all attached groups, merged into one list.
    fn remaining_regions(&self) -> RegionList {
        let devices = self.iommu_groups().flat_map(|group| group.devices.iter());
        let regions = devices.flat_map(|device| device.regions.iter().copied());
        RegionList::merged(regions, self.behaviours().region_merge)
    }
}
