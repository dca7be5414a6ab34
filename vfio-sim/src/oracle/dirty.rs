// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sections 7.2 to 7.4: dirty pages.

use vfio_type1::{Errno, UserBitmap};

use super::files::Driver;
use super::memory::Memory;
use super::refusal::{Answer, Refusal, refuse, refuse_with};
use super::release::Release;
use super::span::Span;
use super::type1::{Mapping, Type1, Version};
use super::{Host, Oracle};

/// 7.2: more pages than this have no bitmap.
pub(super) const MAX_PAGES: u64 = (1 << 31) - 1;
/// 6.1 step 4d.
const MAX_BYTES: u64 = 0x1000_0000;

/// A request for DIRTY_PAGES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// Flag 1.
    Start,
    /// Flag 2.
    Stop,
    /// Flag 4, with the address, the size and the bitmap.
    Get(u64, u64, UserBitmap),
}

impl Oracle {
    /// `VFIO_IOMMU_DIRTY_PAGES`.
    pub fn dirty(&mut self, container: usize, caller: usize, request: &Dirty) -> Answer<()> {
        let (host, processes, type1) = self.type1(container)?;
        type1.check_tracks(host.release)?;
        match request {
            Dirty::Start => type1.start(),
            Dirty::Stop => {
                type1.stop();
                Ok(())
            }
            Dirty::Get(iova, size, bitmap) => {
                let memory = &mut processes[caller].memory;
                type1.get_bitmap(host, memory, *iova, *size, bitmap)
            }
        }
    }
}

impl Oracle {
    /// Whether a container tracks dirty pages, and its page has changed so that a mapping is no
    /// whole number of pages or a bitmap was made for other ones. The document says nothing of it.
    pub fn outgrew_bitmaps(&self, container: usize) -> bool {
        let Driver::Type1(type1) = &self.containers[container].driver else { return false };
        let page = type1.page_or_cpu();
        let ragged = type1.mappings.iter().any(|mapping| !mapping.iova.size().is_multiple_of(page));
        type1.tracking.is_some_and(|tracked| tracked != page || ragged)
    }
}

impl Type1 {
    /// 7.2 step 1; dirty tracking came with 5.8.
    pub(super) fn check_tracks(&self, release: Release) -> Answer<()> {
        if !release.from(5, 8) {
            return refuse("NotKnown", Errno::ENOTTY);
        }
        if self.version == Version::V1 {
            return refuse("V1", Errno::EACCES);
        }
        Ok(())
    }

    /// 7.2, START.
    fn start(&mut self) -> Answer<()> {
        if self.tracking.is_some() {
            return Ok(());
        }
        let page = self.page_or_cpu();
        for mapping in &self.mappings {
            let pages = mapping.iova.size() / page;
            if pages > MAX_PAGES {
                let [first, last] = mapping.bounds();
                return refuse_with("TooLargeToTrack", Errno::EINVAL, [first, last, pages]);
            }
        }
        for mapping in &mut self.mappings {
            let mut bits = new_bits(mapping.iova.size() / page);
            mapping.set_pinned(&mut bits, page);
            mapping.dirty = Some(bits);
        }
        self.tracking = Some(page);
        Ok(())
    }

    /// 7.2, STOP.
    fn stop(&mut self) {
        self.tracking = None;
        for mapping in &mut self.mappings {
            mapping.dirty = None;
        }
    }

    /// 7.2, GET_BITMAP.
    fn get_bitmap(
        &mut self,
        host: &Host,
        memory: &mut Memory,
        iova: u64,
        size: u64,
        bitmap: &UserBitmap,
    ) -> Answer<()> {
        let range = self.check_get(host.release, iova, size, bitmap)?;
        let page = self.page_or_cpu();
        for at in 0..self.mappings.len() {
            if !range.holds(self.mappings[at].iova.first) {
                continue;
            }
            if let Err(fault) = self.report(memory, at, range.first, bitmap.data.0) {
                let [first, last] = self.mappings[at].bounds();
                return refuse_with("BitmapFault", Errno::EFAULT, [first, last, fault]);
            }
            let mapping = &mut self.mappings[at];
            if let Some(mut bits) = mapping.dirty.take() {
                let pages = mapping.iova.size() / page;
                bits.iter_mut().zip(0..pages).for_each(|(bit, _)| *bit = false);
                mapping.set_pinned(&mut bits, page);
                mapping.dirty = Some(bits);
            }
        }
        Ok(())
    }

    fn check_get(
        &self,
        release: Release,
        iova: u64,
        size: u64,
        bitmap: &UserBitmap,
    ) -> Answer<Span> {
        if size == 0 {
            return refuse("SizeZero", Errno::EINVAL);
        }
        let wraps = if release.from(6, 18) { Errno::EOVERFLOW } else { Errno::EINVAL };
        let range = Span::sized(iova, size).ok_or_else(|| Refusal::new("Wraps", wraps))?;
        if range.last == u64::MAX && !release.from(6, 18) {
            return refuse("ReachesTop", Errno::EINVAL);
        }
        let page = self.page_or_cpu();
        let rules = || {
            check_user_range(release, bitmap)?;
            check_bitmap(bitmap, size)?;
            if bitmap.page_size == page { Ok(()) } else { refuse("WrongPageSize", Errno::EINVAL) }
        };
        rules().map_err(|error| error.inside("Bitmap"))?;
        if !iova.is_multiple_of(page) || !size.is_multiple_of(page) {
            return refuse_with("Misaligned", Errno::EINVAL, [page]);
        }
        if self.tracking.is_none() {
            return refuse("Bitmap/TrackingOff", Errno::EINVAL);
        }
        self.check_cuts(range)?;
        Ok(range)
    }

    /// 7.3: reports one mapping for a request that starts at `base`. The error is the address of
    /// the fault.
    pub(super) fn report(
        &mut self,
        memory: &mut Memory,
        at: usize,
        base: u64,
        data: u64,
    ) -> Result<(), u64> {
        let page = self.page_or_cpu();
        let all_dirty = self.has_ordinary_group();
        let mapping = &mut self.mappings[at];
        let n = mapping.iova.size() / page;
        let off = (mapping.iova.first - base) / page;
        let (q, s) = (off / 64, off % 64);
        let l = (n + s).div_ceil(64);
        let iommu_mapped = mapping.iommu_mapped;
        let Some(w) = &mut mapping.dirty else { return Ok(()) };
        // 1.
        if all_dirty && iommu_mapped {
            w.iter_mut().zip(0..n).for_each(|(bit, _)| *bit = true);
        }
        let words = data.wrapping_add(8 * q);
        // 2.
        if s != 0 {
            let shifted = |bit: u64| bit.checked_sub(s).and_then(|from| bit_at(w, from));
            let shifted: Vec<bool> = (0..64 * l).map(|bit| shifted(bit).unwrap_or(false)).collect();
            w.iter_mut().zip(shifted).for_each(|(bit, new)| *bit = new);
            let user = bits_of(&memory.read(words, 8)?);
            w.iter_mut().zip(user).for_each(|(bit, user)| *bit |= user);
        }
        // 3.
        let report: Vec<bool> = w.iter().copied().zip(0..64 * l).map(|(bit, _)| bit).collect();
        memory.write(words, &bytes_of(&report))
    }

    /// 3.7 step 6.
    pub(super) fn mark_all_dirty(&mut self) {
        let page = self.page_or_cpu();
        for mapping in &mut self.mappings {
            let pages = mapping.iova.size() / page;
            if let Some(bits) = &mut mapping.dirty {
                bits.iter_mut().zip(0..pages).for_each(|(bit, _)| *bit = true);
            }
        }
    }
}

impl Mapping {
    /// Sets the bits of the pages that are pinned now.
    fn set_pinned(&self, bits: &mut [bool], page: u64) {
        for iova in self.pins.keys() {
            set(bits, (iova - self.iova.first) / page);
        }
    }

    /// Sets the bits of the pages from `first` to `last`, both IOVAs, if tracking is on.
    pub(super) fn mark_dirty(&mut self, first: u64, last: u64, page: u64) {
        let start = self.iova.first;
        if let Some(bits) = &mut self.dirty {
            ((first - start) / page..=(last - start) / page).for_each(|bit| set(bits, bit));
        }
    }
}

/// An array W, all zero.
pub(super) fn new_bits(pages: u64) -> Vec<bool> {
    (0..64 * (pages.div_ceil(64) + 1)).map(|_| false).collect()
}

fn set(bits: &mut [bool], at: u64) {
    if let Some(bit) = usize::try_from(at).ok().and_then(|at| bits.get_mut(at)) {
        *bit = true;
    }
}

fn bit_at(bits: &[bool], at: u64) -> Option<bool> {
    usize::try_from(at).ok().and_then(|at| bits.get(at)).copied()
}

fn bits_of(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0)).collect()
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

/// 7.4.
pub(super) fn check_user_range(release: Release, bitmap: &UserBitmap) -> Answer<()> {
    let limit: u64 = if release.up_to(5, 10) { 0x7fff_ffff_f000 } else { 0x00ff_ffff_ffff_f000 };
    match bitmap.data.0.checked_add(bitmap.bytes) {
        Some(end) if end <= limit => Ok(()),
        _ => refuse("BeyondUser", Errno::EINVAL),
    }
}

/// 6.1 step 4d, for a range of `size` bytes.
pub(super) fn check_bitmap(bitmap: &UserBitmap, size: u64) -> Answer<()> {
    let n = match bitmap.page_size {
        0 => size,
        page_size => size >> page_size.trailing_zeros(),
    };
    if n == 0 {
        return refuse("NoPages", Errno::EINVAL);
    }
    if bitmap.bytes > MAX_BYTES {
        return refuse("TooLarge", Errno::EINVAL);
    }
    if bitmap.bytes == 0 || bitmap.bytes < 8 * n.div_ceil(64) {
        return refuse("TooSmall", Errno::EINVAL);
    }
    Ok(())
}
