// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 3.7: a group leaves a type1 instance.

use super::attach::aperture;
use super::list::exclude;
use super::span::Span;
use super::type1::Type1;
use super::{Host, Process, regions};

impl Type1 {
    /// 3.7. What happens with the container's last group is in `files`.
    pub(super) fn detach(&mut self, host: &Host, processes: &mut [Process], group: usize) {
        if let Some(at) = self.emulated.iter().position(|emulated| *emulated == group) {
            self.emulated.remove(at);
            if self.emulated.is_empty() && self.domains.is_empty() {
                self.remove_all(processes);
            }
            return;
        }
        // 1.
        let mut copy = self.list.clone();
        // 2.
        let Some(at) = self.domains.iter().position(|domain| domain.groups.contains(&group)) else {
            return;
        };
        self.domains[at].groups.retain(|member| *member != group);
        // 3.
        if self.domains[at].groups.is_empty() {
            // a.
            if self.domains.len() == 1 {
                self.lose_iommu(processes);
            }
            // b.
            self.domains.remove(at);
            // c.
            self.expand(&mut copy);
        }
        // 4, 5.
        if let Some(list) = self.refreshed(host, &copy) {
            self.list = list;
        }
        // 6.
        if host.release.from(5, 11) && self.tracking.is_some() {
            self.mark_all_dirty();
        }
    }

    /// 3.7 step 3a.
    fn lose_iommu(&mut self, processes: &mut [Process]) {
        if self.emulated.is_empty() {
            self.remove_all(processes);
        }
        for mapping in &mut self.mappings {
            let pinned = mapping.pins.keys().map(|_| 1).sum();
            mapping.charge(processes, pinned);
            mapping.iommu_mapped = false;
        }
    }

    /// 3.7 step 3c.
    fn expand(&self, list: &mut [Span]) {
        let apertures = || self.domains.iter().map(|domain| aperture(&domain.iommu));
        if let Some(first) = list.first_mut() {
            first.first = apertures().map(|aperture| aperture.first).max().unwrap_or(0);
        }
        if let Some(last) = list.last_mut() {
            last.last = apertures().map(|aperture| aperture.last).min().unwrap_or(u64::MAX);
        }
    }

    /// 3.7 step 4.
    fn refreshed(&self, host: &Host, copy: &[Span]) -> Option<Vec<Span>> {
        let mut merged = Vec::new();
        for group in self.domains.iter().flat_map(|domain| &domain.groups) {
            for region in &host.groups[*group].stated {
                regions::insert(&mut merged, *region, host.release);
            }
        }
        let mut list = vec![Span { first: copy.first()?.first, last: copy.last()?.last }];
        exclude(&mut list, &merged);
        (!list.is_empty()).then_some(list)
    }
}
