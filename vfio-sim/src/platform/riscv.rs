// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The RISC-V IOMMU: the widest page table it has, of which the lower half is used, since addresses
//! are sign-extended; no regions (`riscv_iommu_alloc_paging_domain` in
//! `drivers/iommu/riscv/iommu.c`; spec 4.4).

use vfio_type1::{FixedIommu, IommuDriver, PageSizes};

use super::address_space;

/// A RISC-V IOMMU.
#[derive(Clone, Debug, PartialEq)]
pub struct RiscV {
    /// The widest first-stage table of its capability register: Sv39, Sv48 or Sv57.
    pub mode: RiscVMode,
    /// Whether MSIs are isolated.
    pub isolated_msi: bool,
}

/// A page table format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RiscVMode {
    /// 39 bits.
    Sv39,
    /// 48 bits.
    Sv48,
    /// 57 bits.
    Sv57,
}

impl RiscVMode {
    fn address_bits(self) -> u32 {
        match self {
            Self::Sv39 => 39,
            Self::Sv48 => 48,
            Self::Sv57 => 57,
        }
    }
}

/// 4K, 2M, 1G and 512G.
const PAGE_SIZES: u64 = 1 << 12 | 1 << 21 | 1 << 30 | 1 << 39;

impl RiscV {
    pub(super) fn iommu(&self) -> FixedIommu {
        let aperture = address_space(self.mode.address_bits() - 1);
        FixedIommu {
            driver: IommuDriver::Other("RISC-V IOMMU"),
            aperture,
            // No page is larger than what a domain translates.
            page_sizes: PageSizes(PAGE_SIZES & aperture.last().0),
            coherent: false,
            isolated_msi: self.isolated_msi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_half_is_used() {
        let of = |mode| {
            let iommu = RiscV { mode, isolated_msi: false }.iommu();
            (iommu.aperture.last().0, iommu.page_sizes.0)
        };
        assert_eq!(of(RiscVMode::Sv39), ((1 << 38) - 1, 0x4020_1000));
        assert_eq!(of(RiscVMode::Sv48), ((1 << 47) - 1, 0x80_4020_1000));
        assert_eq!(of(RiscVMode::Sv57), ((1 << 56) - 1, 0x80_4020_1000));
    }
}
