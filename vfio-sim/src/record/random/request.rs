// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arguments of random ioctls: mostly what a program might pass, and now and then one thing wrong.

use vfio_type1::Kernel;

use super::rng::Rng;
use super::{Options, READ_ONLY, WRITABLE};

/// Where bitmaps are read back: the last quarter of the writable memory.
pub(super) const BITMAP: u64 = WRITABLE.0 + 0xc0_0000;

const PAGE: u64 = 0x1000;

/// How many mappings are remembered to come back to.
const REMEMBERED: usize = 40;

/// What a kernel is not asked, since its answer would say nothing about the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Mappings may touch the last page of the address space: from 6.18 on they are found again.
    pub(super) last_page: bool,
    /// UNMAP visits mappings in order. Before 5.12 what a v1 container or a bitmap sees of several
    /// depends on the tree that holds them.
    pub(super) ordered_unmap: bool,
    /// Each page counts once against RLIMIT_MEMLOCK. Before 6.2 the shared page of zeros did not.
    pub(super) counts_pages: bool,
    /// See [`Options::torn_writes`].
    pub(super) torn_writes: bool,
}

impl Limits {
    pub(super) fn of(kernel: &Kernel, options: &Options) -> Self {
        let behaviours = kernel.behaviours();
        Self {
            last_page: behaviours.search_reaches_top,
            ordered_unmap: behaviours.unmap_all,
            counts_pages: behaviours.foreign_fd_is_ebadfd,
            torn_writes: options.torn_writes,
        }
    }
}

/// A mapping that may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped {
    iova: u64,
    size: u64,
}

pub(super) struct Requests {
    edges: Vec<u64>,
    pub(super) limits: Limits,
    pub(super) mapped: Vec<Mapped>,
}

impl Requests {
    pub(super) fn new(edges: Vec<u64>, limits: Limits) -> Self {
        Self { edges, limits, mapped: Vec::new() }
    }

    /// `struct vfio_iommu_type1_dma_map`.
    pub(super) fn map(&mut self, rng: &mut Rng) -> Vec<u8> {
        let flags = match rng.below(40) {
            0..32 => 3,
            32..34 => 1,
            34..36 => 2,
            36 => 0,
            37 => 4,
            38 => rng.below(16),
            _ => 1 << rng.below(32),
        };
        let iova = self.iova(rng);
        let mut size = self.size(iova, rng);
        let vaddr = vaddr(size, rng);
        if !self.limits.last_page && touches_last_byte(iova, size) {
            size = size.wrapping_sub(PAGE);
        }
        self.remember(Mapped { iova, size }, rng);
        let fields = [vaddr, iova, size];
        request(rng, 32, flags as u64, &fields)
    }

    /// `struct vfio_iommu_type1_dma_unmap`, without a bitmap.
    pub(super) fn unmap(&mut self, rng: &mut Rng) -> Vec<u8> {
        let flags = match rng.below(40) {
            0..32 => 0,
            32..35 => 2,
            35 => 4,
            36 => 6,
            37 => rng.below(16) & !1,
            _ => 2 << rng.below(31),
        };
        let (iova, size) = if flags & 2 != 0 && !rng.one_in(8) { (0, 0) } else { self.range(rng) };
        request(rng, 24, flags as u64, &[iova, size])
    }

    /// The same with a bitmap.
    pub(super) fn unmap_with_bitmap(&mut self, rng: &mut Rng) -> Vec<u8> {
        let flags = rng.pick(&[1, 1, 1, 1, 1, 1, 3, 5]).unwrap_or(1);
        self.with_bitmap(flags, rng)
    }

    /// `struct vfio_iommu_type1_dirty_bitmap` that asks for a bitmap.
    pub(super) fn dirty_bitmap(&mut self, rng: &mut Rng) -> Vec<u8> {
        let flags = if rng.one_in(20) { rng.below(16) as u64 } else { 4 };
        self.with_bitmap(flags, rng)
    }

    /// The same that starts or stops tracking.
    pub(super) fn dirty_switch(&mut self, rng: &mut Rng) -> Vec<u8> {
        let flags = rng.pick(&[1, 1, 1, 1, 2, 2, 2, 0, 3, 8]).unwrap_or(1);
        request(rng, 8, flags, &[])
    }

    /// A range, and a bitmap of mostly the right size for it.
    fn with_bitmap(&mut self, flags: u64, rng: &mut Rng) -> Vec<u8> {
        let (iova, size) = self.range(rng);
        let page = rng.pick(&[PAGE, PAGE, PAGE, PAGE, PAGE, PAGE, 0, 0x2000, 0x20_0000]);
        let enough = (size >> 12).div_ceil(64).wrapping_mul(8);
        let bytes = match rng.below(10) {
            0 => enough.wrapping_add(8),
            1 => enough.wrapping_sub(8),
            2 => rng.pick(&[0, 1, 8, PAGE, 1 << 28, 1 << 29, u64::MAX]).unwrap_or(8),
            _ => enough.max(8),
        };
        let place = match rng.below(16) {
            0 => READ_ONLY.0,
            1 => READ_ONLY.0 + READ_ONLY.1,
            2 => BITMAP + 4,
            3 => 0,
            _ => BITMAP,
        };
        let fields = [iova, size, page.unwrap_or(PAGE), bytes, place];
        request(rng, 48, flags, &fields)
    }

    /// `struct vfio_iommu_type1_info`, with room for any chain or too little.
    pub(super) fn info(&self, rng: &mut Rng) -> Vec<u8> {
        let argsz = match rng.below(6) {
            0 => rng.between(0, 0x20),
            1 => 0x10,
            2 => 0x18,
            _ => 0x18 + 8 * rng.between(0, 40),
        };
        let cut = rng.one_in(12).then(|| rng.between(0, argsz));
        let length =
            cut.filter(|cut| self.limits.torn_writes || *cut < 0x10).unwrap_or(argsz.max(0x10));
        let fill = rng.pick(&[0, 0xaa]).unwrap_or(0);
        let mut bytes = vec![fill; usize::try_from(length).unwrap_or(0)];
        for (byte, value) in bytes.iter_mut().zip(argsz.to_le_bytes().iter().take(4)) {
            *byte = *value;
        }
        bytes
    }

    /// `struct vfio_group_status`.
    pub(super) fn status(&self, rng: &mut Rng) -> Vec<u8> {
        request(rng, 8, 0, &[])
    }

    /// An address near a border, near a mapping, or anywhere.
    fn iova(&self, rng: &mut Rng) -> u64 {
        let pages = |rng: &mut Rng| rng.below(9) as u64;
        let iova = match rng.below(20) {
            0..8 => {
                let edge = rng.pick(&self.edges).unwrap_or(0);
                edge.wrapping_add(pages(rng) << 12).wrapping_sub(4 << 12)
            }
            8..14 => match rng.pick(&self.mapped) {
                Some(near) => {
                    let end = near.iova.wrapping_add(near.size);
                    let from = rng.pick(&[near.iova, end, end]).unwrap_or(end);
                    from.wrapping_add(pages(rng) << 12).wrapping_sub(2 << 12)
                }
                None => pages(rng) << 12,
            },
            14..18 => (rng.below(4) as u64) << 22 | pages(rng) << 12,
            _ => rng.next() >> rng.below(64) & !(PAGE - 1),
        };
        iova.wrapping_add(if rng.one_in(40) {
            rng.pick(&[1, 0x800, 0xfff]).unwrap_or(1)
        } else {
            0
        })
    }

    /// A few pages, up to the next border, or something odd.
    fn size(&self, iova: u64, rng: &mut Rng) -> u64 {
        match rng.below(40) {
            0..28 => rng.between(1, 8) << 12,
            28..31 => rng.between(9, 128) << 12,
            31 => 0x20_0000,
            32..36 => {
                let above = self.edges.partition_point(|edge| *edge <= iova);
                // Beyond the last border lies the end of the address space.
                let edge = self.edges.get(above).copied().unwrap_or(0);
                let wanted = edge.wrapping_sub(iova).wrapping_add(rng.below(3) as u64 * PAGE);
                wanted.wrapping_sub(PAGE)
            }
            36 => 0,
            37 => rng.between(1, 0x3000),
            38 => rng.pick(&[1 << 39, 1 << 47, 1 << 63]).unwrap_or(1 << 39),
            _ => !(PAGE - 1),
        }
    }

    /// A range to take away or ask about: a mapping, a part of one, several, or a new one.
    fn range(&mut self, rng: &mut Rng) -> (u64, u64) {
        let near = match self.mapped.is_empty() {
            true => None,
            false => Some(rng.below(self.mapped.len())),
        };
        let (choice, odd) = (rng.below(20), (rng.below(4) as u64) << 12);
        match (choice, near) {
            (0..10, Some(at)) => {
                let Mapped { iova, size } = self.mapped[at];
                if rng.one_in(2) {
                    self.mapped.swap_remove(at);
                }
                (iova, size)
            }
            (10..12, Some(at)) => (self.mapped[at].iova, self.mapped[at].size.wrapping_sub(odd)),
            (12..14, Some(at)) => (self.mapped[at].iova.wrapping_sub(odd), self.mapped[at].size),
            (14..16, Some(at)) => {
                let first = self.mapped[at].iova.wrapping_sub(rng.between(0, 16) << 12);
                (first, rng.pick(&[0x10_0000, 0x100_0000, 1 << 32, 1 << 40]).unwrap_or(PAGE))
            }
            _ => {
                let iova = self.iova(rng);
                (iova, self.size(iova, rng))
            }
        }
    }

    fn remember(&mut self, mapped: Mapped, rng: &mut Rng) {
        if self.mapped.len() == REMEMBERED {
            self.mapped.swap_remove(rng.below(REMEMBERED));
        }
        self.mapped.push(mapped);
    }
}

pub(super) fn touches_last_byte(iova: u64, size: u64) -> bool {
    size.checked_sub(1).and_then(|more| iova.checked_add(more)) == Some(u64::MAX)
}

/// A caller's address: mostly in writable memory, with `size` bytes behind it where that is possible.
fn vaddr(size: u64, rng: &mut Rng) -> u64 {
    let room = WRITABLE.1.saturating_sub(size) >> 12;
    match rng.below(40) {
        0..34 => WRITABLE.0 + (rng.between(0, room) << 12),
        34 => READ_ONLY.0 + (rng.below(16) << 12) as u64,
        // Off the end of either, or just before it.
        35 => READ_ONLY.0 + READ_ONLY.1 - PAGE,
        36 => WRITABLE.0 + WRITABLE.1 - PAGE,
        37 => WRITABLE.0 - PAGE,
        38 => WRITABLE.0 + rng.between(1, PAGE - 1),
        // Nothing, nothing of a user's, and the very end.
        _ => rng.pick(&[0, 0x3000_0000_0000, 1 << 47, 1 << 63, !0xfff]).unwrap_or(0),
    }
}

/// A request: `argsz`, mostly `size`; flags; fields of eight bytes. Sometimes cut short.
fn request(rng: &mut Rng, size: u32, flags: u64, fields: &[u64]) -> Vec<u8> {
    let argsz = match rng.below(60) {
        0 => 0,
        1 => size - 1,
        2 => size + 1,
        3 => size + 8,
        4 => rng.pick(&[8, 16, 24, 0x1000, u32::MAX]).unwrap_or(size),
        _ => size,
    };
    let mut bytes = argsz.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes().iter().take(4));
    bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    if rng.one_in(60) {
        bytes.truncate(rng.below(bytes.len()));
    }
    bytes
}
