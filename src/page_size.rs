// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page sizes, and the bitmaps in which an IOMMU states the sizes it can map.

use std::fmt;

/// One page size: a power of two, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// 4 KiB, the CPU page of x86 and of most arm64 kernels.
    pub const P4K: Self = Self { shift: 12 };
    /// One byte: an address space of iommufd that nothing aligns.
    pub(crate) const BYTE: Self = Self { shift: 0 };
    /// 16 KiB.
    pub const P16K: Self = Self { shift: 14 };
    /// 64 KiB.
    pub const P64K: Self = Self { shift: 16 };

    /// The page of `bytes` bytes; `None` unless that is a power of two.
    pub fn new(bytes: u64) -> Option<Self> {
        bytes.is_power_of_two().then(|| Self { shift: bytes.trailing_zeros() })
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The base-2 logarithm of the size.
    pub fn shift(self) -> u32 {
        self.shift
    }

    /// Whether `value` is a multiple of the size. Zero is.
    pub fn is_aligned(self, value: u64) -> bool {
        value & (self.bytes() - 1) == 0
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSize({:#x})", self.bytes())
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bytes())
    }
}

/// A bitmap of page sizes: bit *n* set means pages of 2^*n* bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSizes(pub u64);

impl PageSizes {
    /// The smallest size in the bitmap: what mappings must be aligned to.
    pub fn smallest(self) -> Option<PageSize> {
        (self.0 != 0).then(|| PageSize { shift: self.0.trailing_zeros() })
    }

    /// The sizes that a container reports for domains with these bitmaps, on a CPU with pages of
    /// `cpu` bytes: what all domains share, with every size below the CPU page folded into it.
    ///
    /// With no domain all sizes from the CPU page up. (Spec 3.12; `vfio_update_pgsize_bitmap` in
    /// `vfio_iommu_type1.c`.)
    pub fn common(domains: impl Iterator<Item = PageSizes>, cpu: PageSize) -> Self {
        let shared = domains.fold(u64::MAX, |all, one| all & one.0);
        let below_cpu = cpu.bytes() - 1;
        if shared & below_cpu == 0 {
            return Self(shared);
        }
        Self(shared & !below_cpu | cpu.bytes())
    }
}

impl fmt::Debug for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSizes({:#x})", self.0)
    }
}

impl fmt::Display for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(domains: &[u64]) -> u64 {
        PageSizes::common(domains.iter().copied().map(PageSizes), PageSize::P4K).0
    }

    #[test]
    fn no_domain_means_every_size_from_the_cpu_page_up() {
        assert_eq!(common(&[]), 0xffff_ffff_ffff_f000);
    }

    #[test]
    fn sizes_below_the_cpu_page_fold_into_it() {
        assert_eq!(common(&[0x0020_0200]), 0x0020_1000);
        assert_eq!(common(&[0x4020_1000]), 0x4020_1000);
    }

    #[test]
    fn domains_share_only_what_both_have() {
        assert_eq!(common(&[0x4020_1000, 0x0020_1000]), 0x0020_1000);
    }

    #[test]
    fn a_larger_iommu_page_stays() {
        assert_eq!(PageSizes(common(&[0x2001_0000])).smallest(), Some(PageSize::P64K));
        assert_eq!(PageSizes(0).smallest(), None);
    }
}
