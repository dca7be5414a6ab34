// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A platform whose results are stated outright, with no facts behind them.

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, Kernel, PageSizes};

use crate::host::newest_for;

/// What kernels make of an IOMMU, as measured or chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    /// Its driver.
    pub driver: IommuDriver,
    /// Whether a domain enforces cache coherency.
    pub coherent: bool,
    /// Whether MSIs are isolated.
    pub isolated_msi: bool,
    /// What kernels make of it.
    pub widths: Widths,
    /// What newer kernels make of it, oldest first, each from its kernel on.
    pub newer: Vec<(Kernel, Widths)>,
}

/// What a kernel's IOMMU driver makes of the hardware.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Widths {
    /// What a domain can translate, inclusive.
    pub aperture: IovaRange,
    /// The page sizes a domain can map.
    pub page_sizes: PageSizes,
}

impl Stated {
    pub(super) fn iommu(&self, kernel: &Kernel) -> FixedIommu {
        let widths = newest_for(&self.newer, kernel).unwrap_or(&self.widths);
        FixedIommu {
            driver: self.driver,
            aperture: widths.aperture,
            page_sizes: widths.page_sizes,
            coherent: self.coherent,
            isolated_msi: self.isolated_msi,
        }
    }
}
