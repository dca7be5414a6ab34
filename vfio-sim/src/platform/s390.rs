// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! s390: the window of DMA addresses that the firmware gives a PCI function
//! (`s390_iommu_get_resv_regions` in `drivers/iommu/s390-iommu.c`; spec 4.4).
//!
//! Kernel 7.3 leaves the upper region out of sysfs while no translating domain is attached. VFIO reads
//! the regions behind its own attach, so what it makes of them has both; so has sysfs here.

use vfio_type1::{
    FixedIommu, IommuDriver, IovaRange, PageSize, PageSizes, RegionKind, ReservedRegion,
};

use super::address_space;
use super::era::{Era, S390Window};

/// The IOMMU of an s390 PCI function.
#[derive(Clone, Debug, PartialEq)]
pub struct S390 {
    /// The addresses that the function may use, inclusive: start and end of its DMA area.
    pub window: IovaRange,
    /// The largest translation table of the hardware.
    pub table: S390Table,
}

/// A translation table, by its highest level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S390Table {
    /// Region third: 42 bits.
    Third,
    /// Region second: 53 bits.
    Second,
    /// Region first: 64 bits.
    First,
}

impl S390Table {
    fn address_bits(self) -> u32 {
        match self {
            Self::Third => 42,
            Self::Second => 53,
            Self::First => 64,
        }
    }
}

impl S390 {
    /// What the tables that the kernel builds can translate.
    fn reach(&self, era: &Era) -> IovaRange {
        match era.s390_window {
            S390Window::Aperture => self.window,
            S390Window::RegionsOf42Bits => address_space(42),
            S390Window::RegionsOfTable => address_space(self.table.address_bits()),
        }
    }

    pub(super) fn iommu(&self, era: &Era) -> FixedIommu {
        FixedIommu {
            driver: IommuDriver::Other("s390"),
            aperture: self.reach(era),
            page_sizes: match era.s390_every_page_size {
                true => PageSizes(!0xfff),
                false => PageSizes(PageSize::P4K.bytes()),
            },
            coherent: false,
            isolated_msi: true,
        }
    }

    pub(super) fn regions(&self, era: &Era) -> Vec<ReservedRegion> {
        if era.s390_window == S390Window::Aperture {
            return Vec::new();
        }
        let reach = self.reach(era);
        let below = reach.below(self.window.first());
        let above = reach.above(self.window.last());
        let outside = below.into_iter().chain(above);
        outside.map(|range| ReservedRegion::from_range(range, RegionKind::Reserved)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::era;
    use vfio_type1::{Iova, Kernel};

    #[test]
    fn the_window_becomes_regions() {
        let window = IovaRange::from_size(Iova(1 << 32), 16 << 30).unwrap();
        let s390 = S390 { window, table: S390Table::Second };
        let on = |kernel: Kernel| {
            let era = era::of(&kernel);
            let regions = s390.regions(era).iter().map(|r| (r.first.0, r.last.0)).collect();
            (s390.iommu(era).aperture.last().0, regions)
        };
        let (lower, upper) = ((0, (1 << 32) - 1), (0x5_0000_0000, (1 << 42) - 1));
        assert_eq!(on(Kernel::V6_1), (0x4_ffff_ffff, Vec::<(u64, u64)>::new()));
        assert_eq!(on(Kernel::V6_12), ((1 << 42) - 1, vec![lower, upper]));
        let wide = (1 << 53) - 1;
        assert_eq!(on(Kernel::V7_2), (wide, vec![lower, (0x5_0000_0000, wide)]));
    }
}
