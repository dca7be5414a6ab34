// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the DMA API does where kernels differ, by name. The model asks for a behaviour, never for a
//! version. Spec 10 has the facts; "from memory" marks a version that nothing read proves.

use vfio_type1::{IommuDriver, Kernel};

use crate::host::newest_for;

/// Whose code gives out addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// `drivers/iommu/dma-iommu.c`, common to most IOMMU drivers.
    DmaIommu,
    /// The IOMMU driver's own, as VT-d and AMD-Vi once had.
    Driver,
}

/// When a PCI device gets an address above 4 GiB, if its mask allows one. `iommu.forcedac=1` on the
/// kernel's command line means at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowFirst {
    /// Each time there is no room below.
    EveryTime,
    /// From the first time on that there is no room below.
    UntilFirstFailure,
}

/// What inbound windows of a host bridge (`dma-ranges`) do to the addresses given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DmaRanges {
    /// Addresses lie between the lowest and the highest of all windows.
    Span,
    /// What lies between windows is reserved too. 5.3, from memory. Kernels up to 6.8 or so start at
    /// the lowest address besides, which reserving what lies below the first window covers.
    Gaps,
}

/// The behaviours of one kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Era {
    /// VT-d: dma-iommu from 5.12, from memory.
    vtd: Allocator,
    /// AMD-Vi: dma-iommu from 5.5.
    amd: Allocator,
    /// virtio-iommu on x86 has a DMA API: 5.15, from memory.
    virtio_on_x86: bool,
    /// s390 uses dma-iommu: 6.7, from memory.
    s390: bool,
    pub(super) dma_ranges: DmaRanges,
    /// Changed in 6.4.
    pub(super) low_first: LowFirst,
}

const OLD: Era = Era {
    vtd: Allocator::Driver,
    amd: Allocator::Driver,
    virtio_on_x86: false,
    s390: false,
    dma_ranges: DmaRanges::Span,
    low_first: LowFirst::EveryTime,
};
const V5_10: Era = Era { amd: Allocator::DmaIommu, dma_ranges: DmaRanges::Gaps, ..OLD };
const V6_1: Era = Era { vtd: Allocator::DmaIommu, virtio_on_x86: true, ..V5_10 };
const V6_12: Era = Era { s390: true, low_first: LowFirst::UntilFirstFailure, ..V6_1 };

/// The behaviours of a kernel: of the newest one that is not newer.
pub(super) fn of(kernel: &Kernel) -> &'static Era {
    static ERAS: [(Kernel, Era); 4] = [
        (Kernel::SERIES_2018_V6, OLD),
        (Kernel::V5_10, V5_10),
        (Kernel::V6_1, V6_1),
        (Kernel::V6_12, V6_12),
    ];
    newest_for(&ERAS, kernel).unwrap_or(&OLD)
}

impl Era {
    /// Whose code gives out addresses behind an IOMMU, on x86 or not; `None` if that is not known.
    pub(super) fn allocator(&self, driver: IommuDriver, x86: bool) -> Option<Allocator> {
        let dma_iommu = |uses: bool| uses.then_some(Allocator::DmaIommu);
        match driver {
            IommuDriver::IntelVtd => Some(self.vtd),
            IommuDriver::AmdVi => Some(self.amd),
            IommuDriver::Virtio => dma_iommu(!x86 || self.virtio_on_x86),
            IommuDriver::SmmuV3 | IommuDriver::SmmuV2 => dma_iommu(true),
            IommuDriver::Other("Apple DART") => dma_iommu(true),
            IommuDriver::Other("s390") => dma_iommu(self.s390),
            IommuDriver::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_moved_to_dma_iommu_one_after_the_other() {
        let allocator = |kernel, driver, x86| of(&kernel).allocator(driver, x86);
        let (common, own) = (Some(Allocator::DmaIommu), Some(Allocator::Driver));
        assert_eq!(allocator(Kernel::V4_19, IommuDriver::SmmuV3, false), common);
        assert_eq!(allocator(Kernel::V4_19, IommuDriver::AmdVi, true), own);
        assert_eq!(allocator(Kernel::V5_10, IommuDriver::AmdVi, true), common);
        assert_eq!(allocator(Kernel::V5_10, IommuDriver::IntelVtd, true), own);
        assert_eq!(allocator(Kernel::V6_1, IommuDriver::IntelVtd, true), common);
        assert_eq!(allocator(Kernel::V5_10, IommuDriver::Virtio, true), None);
        assert_eq!(allocator(Kernel::V5_10, IommuDriver::Virtio, false), common);
        assert_eq!(allocator(Kernel::V6_1, IommuDriver::Other("s390"), false), None);
        assert_eq!(allocator(Kernel::V7_3, IommuDriver::Other("s390"), false), common);
        assert_eq!(allocator(Kernel::V7_3, IommuDriver::Other("RISC-V IOMMU"), false), None);
    }
}
