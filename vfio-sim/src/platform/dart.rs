// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Apple DART: pages of 16 KiB only, and the page in which PCI devices find their MSI doorbell
//! (`apple_dart_get_resv_regions` in `drivers/iommu/apple-dart.c`; spec 4.4).

use vfio_type1::{FixedIommu, IommuDriver, PageSize, PageSizes, RegionKind, ReservedRegion};

use super::address_space;

/// A DART, on a CPU with pages of 16 KiB: with smaller ones the driver does not translate at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Dart {
    /// Input address size in bits: the first number of `AS 32 -> 36` in the boot log.
    pub input_bits: u32,
    /// Where PCI devices write MSIs to; the kernel is built with it.
    pub msi_doorbell: u64,
    /// Whether MSIs are isolated.
    pub isolated_msi: bool,
}

impl Dart {
    /// What a kernel is built with by default (`CONFIG_PCIE_APPLE_MSI_DOORBELL_ADDR`).
    pub const DEFAULT_DOORBELL: u64 = 0xffff_f000;

    pub(super) fn iommu(&self) -> FixedIommu {
        FixedIommu {
            driver: IommuDriver::Other("Apple DART"),
            aperture: address_space(self.input_bits),
            page_sizes: PageSizes(PageSize::P16K.bytes()),
            coherent: false,
            isolated_msi: self.isolated_msi,
        }
    }

    pub(super) fn regions(&self, cpu_page: PageSize) -> Vec<ReservedRegion> {
        let page = self.msi_doorbell & !(cpu_page.bytes() - 1);
        vec![ReservedRegion::from_length(page, cpu_page.bytes(), RegionKind::Msi)]
    }
}
