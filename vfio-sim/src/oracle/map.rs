// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 5: MAP_DMA.

use std::collections::BTreeMap;

use vfio_type1::{Access, Errno, MapDma};

use super::attach::map_errno;
use super::dirty::{MAX_PAGES, new_bits};
use super::list::allows;
use super::pin::{check_limit, pin};
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::release::Release;
use super::span::Span;
use super::type1::{Mapping, Type1, check_flags};
use super::{Host, Oracle, Process};

impl Oracle {
    /// `VFIO_IOMMU_MAP_DMA`.
    pub fn map(&mut self, container: usize, caller: usize, request: &MapDma) -> Answer<()> {
        let (host, processes, type1) = self.type1(container)?;
        type1.map(host, processes, caller, request)
    }
}

impl Type1 {
    /// 5.1 from step 2 on.
    fn map(
        &mut self,
        host: &Host,
        processes: &mut [Process],
        caller: usize,
        request: &MapDma,
    ) -> Answer<()> {
        let release = host.release;
        let range = self.check_map(release, request)?;
        // 8.
        if request.flags & MapDma::VADDR != 0 {
            return self.update_vaddr(release, processes, caller, range, request.vaddr.0);
        }
        // 12.2: up to 6.17 the search does not see what a range at the top overlaps.
        let blind = range.last == u64::MAX && !release.from(6, 18);
        if !blind {
            self.check_free(range)?;
        }
        // 9.
        if release.from(5, 1) && self.available == 0 {
            let mappings = self.mappings.iter().map(|_| 1).sum();
            return refuse_with("TableFull", Errno::ENOSPC, [mappings]);
        }
        // 10.
        if release.has_list() && !allows(&self.list, range) {
            return refuse("NotValid", Errno::EINVAL);
        }
        // SEMANTICS.md, "The last page": mapping it twice is EEXIST all the same.
        self.check_free(range)?;
        // 12.
        let mut mapping = Mapping {
            iova: range,
            vaddr: request.vaddr.0,
            access: access(request.flags),
            owner: caller,
            exempt: processes[caller].ipc_lock,
            vaddr_invalid: false,
            iommu_mapped: !self.domains.is_empty(),
            charged: 0,
            dirty: None,
            pins: BTreeMap::new(),
        };
        let mut charge = 0;
        if mapping.iommu_mapped {
            charge = pin(&processes[caller], &mapping, |part| self.enter(release, part))?;
        }
        // 13.
        if self.tracking.is_some() {
            let pages = range.size() / self.page_or_cpu();
            if pages > MAX_PAGES {
                return refuse_with("TooLargeToTrack", Errno::EINVAL, [pages]);
            }
            mapping.dirty = Some(new_bits(pages));
        }
        mapping.charge(processes, charge);
        self.available = self.available.saturating_sub(1);
        self.mappings.push(mapping);
        self.mappings.sort_by_key(|mapping| mapping.iova);
        Ok(())
    }

    /// The newest domain is asked first.
    fn enter(&self, release: Release, part: Span) -> Answer<()> {
        let refused = self.domains.iter().find_map(|d| map_errno(&d.iommu, part, release));
        refused.map_or(Ok(()), |errno| refuse("Iommu", errno))
    }

    /// 5.1 steps 2 to 7.
    fn check_map(&self, release: Release, request: &MapDma) -> Answer<Span> {
        let (iova, vaddr, size) = (request.iova.0, request.vaddr.0, request.size);
        // 2.
        check_flags(request.flags, if release.from(5, 12) { 7 } else { 3 })?;
        // 4.
        if size == 0 {
            return refuse("SizeZero", Errno::EINVAL);
        }
        // 5. Up to 6.17 it comes after 7, but then all of them are EINVAL.
        let wraps = if release.from(6, 18) { Errno::EOVERFLOW } else { Errno::EINVAL };
        let range = Span::sized(iova, size).ok_or_else(|| Refusal::new("IovaWraps", wraps))?;
        Span::sized(vaddr, size).ok_or_else(|| Refusal::new("VaddrWraps", wraps))?;
        // 6.
        if request.flags == 0 {
            return refuse("NoAccess", Errno::EINVAL);
        }
        if request.flags & MapDma::VADDR != 0 && request.flags != MapDma::VADDR {
            return refuse("VaddrWithAccess", Errno::EINVAL);
        }
        // 7. SEMANTICS.md, "Domains that share no page size".
        let Some(page) = self.page() else { return refuse("NoPageSize", Errno::EINVAL) };
        if !iova.is_multiple_of(page) || !vaddr.is_multiple_of(page) || !size.is_multiple_of(page) {
            return refuse_with("Misaligned", Errno::EINVAL, [page]);
        }
        Ok(range)
    }

    /// 5.1 step 8, without VADDR.
    fn check_free(&self, range: Span) -> Answer<()> {
        match self.lowest(range) {
            Some(found) => refuse_with("Exists", Errno::EEXIST, found.bounds()),
            None => Ok(()),
        }
    }

    /// 5.1 step 8 with VADDR, and 5.4.
    fn update_vaddr(
        &mut self,
        release: Release,
        processes: &mut [Process],
        caller: usize,
        range: Span,
        vaddr: u64,
    ) -> Answer<()> {
        // 12.2.
        let blind = range.last == u64::MAX && !release.from(6, 18);
        let found = self.mappings.iter_mut().find(|mapping| mapping.iova.overlaps(range));
        let Some(found) = found.filter(|_| !blind) else {
            return refuse("NothingToUpdate", Errno::ENOENT);
        };
        if !found.vaddr_invalid {
            return refuse_with("StillValid", Errno::EINVAL, found.bounds());
        }
        if found.iova != range {
            return refuse_with("UpdateNotExact", Errno::EINVAL, found.bounds());
        }
        if found.owner != caller {
            let exempt = processes[caller].ipc_lock;
            check_limit(&processes[caller], exempt, found.charged)
                .map_err(|error| Refusal { rule: "TakeOver".to_owned(), ..error })?;
            let charged = found.charged;
            found.charge(processes, 0);
            found.owner = caller;
            found.exempt = exempt;
            found.charge(processes, charged);
        }
        found.vaddr = vaddr;
        found.vaddr_invalid = false;
        Ok(())
    }
}

fn access(flags: u32) -> Access {
    match (flags & MapDma::READ != 0, flags & MapDma::WRITE != 0) {
        (true, true) => Access::ReadWrite,
        (false, true) => Access::Write,
        _ => Access::Read,
    }
}
