// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arm SMMUs: the software MSI window, hardware ITS windows, reserved memory of the IORT table, and
//! the page sizes of the granule (`arm_smmu_get_resv_regions` in `drivers/iommu/arm`,
//! `iort_iommu_get_resv_regions` in `drivers/acpi/arm64/iort.c`; spec 4.4).
//!
//! Domains are first-stage ones, as VFIO gets them.

use vfio_type1::{
    FixedIommu, IommuDriver, IovaRange, PageSize, PageSizes, RegionKind, ReservedRegion,
};

use super::address_space;
use super::era::Era;
use crate::host::HostDevice;

/// An SMMU and the firmware memory of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Smmu {
    /// SMMUv3 rather than v2.
    pub v3: bool,
    /// Input address size in bits, the `ias` of the boot log.
    pub input_bits: u32,
    /// Output address size in bits, the `oas` of the boot log.
    pub output_bits: u32,
    /// The translation granules of the hardware.
    pub granules: Vec<PageSize>,
    /// Whether MSIs are isolated: yes with a GICv3 ITS.
    pub isolated_msi: bool,
    /// Doorbell windows of ITSs that devices reach untranslated (HiSilicon Hi161x), inclusive.
    pub its_windows: Vec<IovaRange>,
    /// The RMR nodes of the IORT table, in its order.
    pub rmrs: Vec<Rmr>,
}

/// Memory that the firmware keeps using by DMA (an IORT reserved memory range).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rmr {
    /// First address, as the table states it.
    pub base: u64,
    /// Length in bytes, as the table states it.
    pub length: u64,
    /// The table permits remapping, so the region is relaxable.
    pub remap_permitted: bool,
    /// The devices whose streams it is for.
    pub devices: Vec<String>,
}

/// What firmware tables align to; other memory is widened to whole pages of the CPU.
const FIRMWARE_PAGE: u64 = 0x1_0000;

impl Rmr {
    fn region(&self, cpu_page: PageSize) -> ReservedRegion {
        let kind = match self.remap_permitted {
            true => RegionKind::DirectRelaxable,
            false => RegionKind::Direct,
        };
        let aligned =
            self.base.is_multiple_of(FIRMWARE_PAGE) && self.length.is_multiple_of(FIRMWARE_PAGE);
        if aligned {
            return ReservedRegion::from_length(self.base, self.length, kind);
        }
        let offset = self.base & (cpu_page.bytes() - 1);
        let length = self.length.saturating_add(offset);
        let length = length.checked_next_multiple_of(cpu_page.bytes()).unwrap_or(0);
        ReservedRegion::from_length(self.base - offset, length, kind)
    }
}

/// The window that the kernel keeps to map MSI doorbells into, on Arm and with virtio-iommu.
pub(crate) fn software_msi_window() -> ReservedRegion {
    ReservedRegion::new(0x0800_0000, 0x080f_ffff, RegionKind::SoftwareMsi)
}

impl Smmu {
    /// Pages of the granule that Linux picks: the CPU's page, else the largest below, else the
    /// smallest above; and the blocks that go with it.
    fn page_sizes(&self, cpu_page: PageSize) -> PageSizes {
        let below = self.granules.iter().filter(|granule| **granule <= cpu_page).max();
        let granule = below.or(self.granules.iter().min()).copied().unwrap_or(cpu_page);
        PageSizes(match granule.bytes() {
            0x1000 => 1 << 12 | 1 << 21 | 1 << 30,
            0x4000 => 1 << 14 | 1 << 25,
            0x1_0000 if self.output_bits >= 52 => 1 << 16 | 1 << 29 | 1 << 42,
            0x1_0000 => 1 << 16 | 1 << 29,
            other => other,
        })
    }

    pub(super) fn iommu(&self, cpu_page: PageSize) -> FixedIommu {
        FixedIommu {
            driver: if self.v3 { IommuDriver::SmmuV3 } else { IommuDriver::SmmuV2 },
            aperture: address_space(self.input_bits),
            page_sizes: self.page_sizes(cpu_page),
            coherent: false,
            isolated_msi: self.isolated_msi,
        }
    }

    pub(super) fn regions(
        &self,
        device: &HostDevice,
        cpu_page: PageSize,
        era: &Era,
    ) -> Vec<ReservedRegion> {
        let its = |window: &IovaRange| ReservedRegion::from_range(*window, RegionKind::Msi);
        let covers = |rmr: &&Rmr| era.iort_rmrs && rmr.devices.contains(&device.name);
        let rmrs = self.rmrs.iter().filter(covers).map(|rmr| rmr.region(cpu_page));
        let mut regions = vec![software_msi_window()];
        regions.extend(self.its_windows.iter().map(its));
        regions.extend(rmrs);
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_sizes(granules: &[PageSize], output_bits: u32, cpu_page: PageSize) -> u64 {
        let smmu = Smmu {
            v3: true,
            input_bits: 48,
            output_bits,
            granules: granules.to_vec(),
            isolated_msi: true,
            its_windows: Vec::new(),
            rmrs: Vec::new(),
        };
        smmu.page_sizes(cpu_page).0
    }

    #[test]
    fn the_granule_follows_the_cpu_page() {
        let (p4, p16, p64) = (PageSize::P4K, PageSize::P16K, PageSize::P64K);
        assert_eq!(page_sizes(&[p4, p16, p64], 48, p4), 0x4020_1000);
        assert_eq!(page_sizes(&[p4, p16, p64], 48, p16), 0x0200_4000);
        assert_eq!(page_sizes(&[p4, p16, p64], 48, p64), 0x2001_0000);
        assert_eq!(page_sizes(&[p4, p64], 52, p64), 0x400_2001_0000);
        assert_eq!(page_sizes(&[p4], 48, p64), 0x4020_1000);
        assert_eq!(page_sizes(&[p64], 48, p4), 0x2001_0000);
    }

    #[test]
    fn odd_firmware_memory_is_widened_to_pages() {
        let region = |base, length| {
            let rmr = Rmr { base, length, remap_permitted: true, devices: Vec::new() };
            let region = rmr.region(PageSize::P4K);
            (region.first.0, region.last.0)
        };
        assert_eq!(region(0x1_0000, 0x1_0000), (0x1_0000, 0x1_ffff));
        assert_eq!(region(0x1_0800, 0x1000), (0x1_0000, 0x1_1fff));
    }
}
