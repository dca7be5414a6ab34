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

/// A translation table, by its highest level. The larger of two is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// What the smallest table translates that reaches the end of the window; if none of the hardware
    /// does, the smallest of all (`s390_domain_alloc_paging`).
    fn needed_table(&self) -> IovaRange {
        let tables = [S390Table::Third, S390Table::Second, S390Table::First];
        let offered = tables.into_iter().filter(|table| *table <= self.table);
        let mut reaches = offered.map(|table| address_space(table.address_bits()));
        let smallest = address_space(S390Table::Third.address_bits());
        reaches.find(|reach| self.window.last() <= reach.last()).unwrap_or(smallest)
    }

    /// What the tables that the kernel builds can translate.
    fn reach(&self, era: &Era) -> IovaRange {
        match era.s390_window {
            S390Window::Aperture => self.window,
            S390Window::RegionsOf42Bits => address_space(42),
            S390Window::RegionsOfTable => self.needed_table(),
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

    /// The last address of the aperture, and the regions.
    fn on(kernel: Kernel, last: u64, table: S390Table) -> (u64, Vec<(u64, u64)>) {
        let window = IovaRange::new(Iova(1 << 32), Iova(last)).unwrap();
        let (s390, era) = (S390 { window, table }, era::of(&kernel));
        let regions = s390.regions(era).iter().map(|r| (r.first.0, r.last.0)).collect();
        (s390.iommu(era).aperture.last().0, regions)
    }

    #[test]
    fn the_window_becomes_regions() {
        let (last, table) = (0x4_ffff_ffff, S390Table::Second);
        let (lower, upper) = ((0, (1 << 32) - 1), (0x5_0000_0000, (1 << 42) - 1));
        assert_eq!(on(Kernel::V6_1, last, table), (last, vec![]));
        assert_eq!(on(Kernel::V6_12, last, table), ((1 << 42) - 1, vec![lower, upper]));
        assert_eq!(on(Kernel::V7_2, last, table), ((1 << 42) - 1, vec![lower, upper]));
    }

    #[test]
    fn larger_tables_are_taken_where_they_are_needed() {
        let (last, lower) = ((1 << 50) - 1, (0, (1 << 32) - 1));
        let wide = (1 << 53) - 1;
        assert_eq!(on(Kernel::V6_12, last, S390Table::Second), ((1 << 42) - 1, vec![lower]));
        assert_eq!(on(Kernel::V7_2, last, S390Table::Third), ((1 << 42) - 1, vec![lower]));
        let regions = vec![lower, (1 << 50, wide)];
        assert_eq!(on(Kernel::V7_2, last, S390Table::First), (wide, regions));
        assert_eq!(on(Kernel::V7_3, u64::MAX, S390Table::First), (u64::MAX, vec![lower]));
    }
}
