// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 6: UNMAP_DMA.

use vfio_type1::{Errno, UnmapDma};

use super::devices::OnUnmap;
use super::dirty::{check_bitmap, check_user_range};
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::span::Span;
use super::type1::{Type1, Version, check_flags};
use super::{Host, Oracle, Process};

/// 6.2: the first round and ten more. What is pinned then is a bug of a device's driver.
const ROUNDS: u32 = 11;

const EVERYTHING: Span = Span { first: 0, last: u64::MAX };

impl Oracle {
    /// `VFIO_IOMMU_UNMAP_DMA`: the bytes of the mappings that were removed or invalidated.
    pub fn unmap(&mut self, container: usize, caller: usize, request: &UnmapDma) -> Answer<u64> {
        let callbacks = self.callbacks(container);
        let (host, processes, type1) = self.type1(container)?;
        type1.unmap(host, processes, caller, request, &callbacks)
    }
}

impl Type1 {
    /// 6.1 from step 2 on.
    fn unmap(
        &mut self,
        host: &Host,
        processes: &mut [Process],
        caller: usize,
        request: &UnmapDma,
        callbacks: &[OnUnmap],
    ) -> Answer<u64> {
        let release = host.release;
        let range = self.check_unmap(host, request)?;
        let all = request.flags & UnmapDma::ALL != 0;
        // 9.
        if self.version != Version::V1 && !all {
            self.check_cuts(range)?;
        }
        // 10. 12.1: up to 6.17 the walk finds nothing in a range that ends at the top.
        if !all && range.last == u64::MAX && !release.from(6, 18) {
            return Ok(0);
        }
        if request.flags & UnmapDma::VADDR != 0 {
            return self.invalidate(range);
        }
        self.walk(host, processes, caller, range, request, callbacks)
    }

    /// 6.1 steps 2 to 8: the range to walk.
    fn check_unmap(&self, host: &Host, request: &UnmapDma) -> Answer<Span> {
        let release = host.release;
        let (iova, size) = (request.iova.0, request.size);
        let has = |flag| request.flags & flag != 0;
        // 2.
        let known = if release.from(5, 12) { 7 } else { u32::from(release.from(5, 8)) };
        check_flags(request.flags, known)?;
        // 3.
        if has(UnmapDma::DIRTY_BITMAP) && (has(UnmapDma::ALL) || has(UnmapDma::VADDR)) {
            return refuse("BitmapWithOther", Errno::EINVAL);
        }
        // 4.
        if has(UnmapDma::DIRTY_BITMAP) {
            let bitmap = || {
                check_user_range(release, &request.bitmap)?;
                check_bitmap(&request.bitmap, size)
            };
            bitmap().map_err(|error| error.inside("Bitmap"))?;
        }
        // 5.
        if has(UnmapDma::VADDR) && !self.emulated.is_empty() {
            return refuse("EmulatedGroup", Errno::EBUSY);
        }
        // 6.
        let page = self.page_or_cpu();
        if !iova.is_multiple_of(page) {
            return refuse_with("MisalignedIova", Errno::EINVAL, [page]);
        }
        // 7.
        if has(UnmapDma::ALL) {
            if iova != 0 || size != 0 {
                return refuse("AllWithRange", Errno::EINVAL);
            }
            return Ok(EVERYTHING);
        }
        if size == 0 {
            return refuse("SizeZero", Errno::EINVAL);
        }
        if !size.is_multiple_of(page) {
            return refuse_with("MisalignedSize", Errno::EINVAL, [page]);
        }
        let wraps = if release.from(6, 18) { Errno::EOVERFLOW } else { Errno::EINVAL };
        let range = Span::sized(iova, size).ok_or_else(|| Refusal::new("Wraps", wraps))?;
        // Section 8, 5.0.
        if range.last == u64::MAX && !release.from(5, 0) {
            return refuse("ReachesTop", Errno::EINVAL);
        }
        // 8.
        if has(UnmapDma::DIRTY_BITMAP) {
            if self.tracking.is_none() {
                return refuse("Bitmap/TrackingOff", Errno::EINVAL);
            }
            if request.bitmap.page_size != page {
                return refuse("Bitmap/WrongPageSize", Errno::EINVAL);
            }
        }
        Ok(range)
    }

    /// 6.1 step 9; 7.2 has the same for GET_BITMAP.
    pub(super) fn check_cuts(&self, range: Span) -> Answer<()> {
        let at = |address| self.mappings.iter().find(|mapping| mapping.iova.holds(address));
        if let Some(found) = at(range.first)
            && found.iova.first != range.first
        {
            let [first, last] = found.bounds();
            return refuse_with("Cuts", Errno::EINVAL, [first, last, range.first]);
        }
        if let Some(found) = at(range.last)
            && found.iova.last != range.last
        {
            let [first, last] = found.bounds();
            return refuse_with("Cuts", Errno::EINVAL, [first, last, range.last]);
        }
        Ok(())
    }

    /// 6.2. Up to 5.11 the kernel does not go in ascending order; SEMANTICS.md says that we do.
    fn walk(
        &mut self,
        host: &Host,
        processes: &mut [Process],
        caller: usize,
        range: Span,
        request: &UnmapDma,
        callbacks: &[OnUnmap],
    ) -> Answer<u64> {
        let mut done: u64 = 0;
        let mut rounds = 0;
        while let Some(at) = self.mappings.iter().position(|mapping| mapping.iova.overlaps(range)) {
            let mapping = &mut self.mappings[at];
            let [first, last] = mapping.bounds();
            if self.version == Version::V1 && range.first > first {
                break;
            }
            if host.release.up_to(5, 19) && mapping.owner != caller {
                break;
            }
            if !mapping.pins.is_empty() {
                if rounds == ROUNDS || callbacks.is_empty() {
                    return refuse_with("StillPinned", Errno::EBUSY, [first, last, done]);
                }
                rounds += 1;
                for callback in callbacks {
                    self.notify(processes, at, *callback);
                }
                continue;
            }
            rounds = 0;
            if request.flags & UnmapDma::DIRTY_BITMAP != 0 {
                let memory = &mut processes[caller].memory;
                let fault = self.report(memory, at, range.first, request.bitmap.data.0).err();
                if let Some(fault) = fault {
                    let numbers = [first, last, fault, done];
                    return refuse_with("BitmapFault", Errno::EFAULT, numbers);
                }
            }
            done = done.wrapping_add(self.remove(processes, at).size());
        }
        Ok(done)
    }

    /// What an emulated device's driver does when it is told that a mapping goes.
    fn notify(&mut self, processes: &mut [Process], at: usize, callback: OnUnmap) {
        if callback == OnUnmap::LetsGo {
            let pins: Vec<u64> = self.mappings[at].pins.keys().copied().collect();
            for iova in pins {
                self.unpin_page(processes, at, iova);
            }
        }
    }

    /// 6.3.
    fn invalidate(&mut self, range: Span) -> Answer<u64> {
        let first = |mapping: Span| range.first <= mapping.first;
        let v1 = self.version == Version::V1;
        let mut done = Vec::new();
        for at in 0..self.mappings.len() {
            let mapping = &self.mappings[at];
            if !mapping.iova.overlaps(range) {
                continue;
            }
            if v1 && !first(mapping.iova) {
                break;
            }
            if mapping.vaddr_invalid {
                let bounds = mapping.bounds();
                done.iter().for_each(|at: &usize| self.mappings[*at].vaddr_invalid = false);
                return refuse_with("AlreadyInvalid", Errno::EINVAL, bounds);
            }
            self.mappings[at].vaddr_invalid = true;
            done.push(at);
        }
        Ok(done.iter().map(|at| self.mappings[*at].iova.size()).fold(0, u64::wrapping_add))
    }
}
