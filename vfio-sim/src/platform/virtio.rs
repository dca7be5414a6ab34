// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! virtio-iommu: what its configuration and the probe of a device say
//! (`viommu_get_resv_regions` in `drivers/iommu/virtio-iommu.c`; spec 4.4).

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, PageSizes, RegionKind, ReservedRegion};

use super::smmu::software_msi_window;

/// A virtio-iommu. It reserves the same for each of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtioIommu {
    /// The input range of its configuration, inclusive.
    pub input_range: IovaRange,
    /// The page size mask of its configuration.
    pub page_sizes: PageSizes,
    /// Whether MSIs are isolated.
    pub isolated_msi: bool,
    /// The regions that the probe reports: MSI windows and others.
    pub regions: Vec<ReservedRegion>,
}

impl VirtioIommu {
    pub(super) fn iommu(&self) -> FixedIommu {
        FixedIommu {
            driver: IommuDriver::Virtio,
            aperture: self.input_range,
            page_sizes: self.page_sizes,
            coherent: false,
            isolated_msi: self.isolated_msi,
        }
    }

    /// Sorted by their start; without a hardware MSI window, the software one behind them.
    pub(super) fn regions(&self) -> Vec<ReservedRegion> {
        let mut regions = self.regions.clone();
        regions.sort_by_key(|region| region.first);
        if !regions.iter().any(|region| region.kind == RegionKind::Msi) {
            regions.push(software_msi_window());
        }
        regions
    }
}
