// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Intel VT-d: the capability register and the RMRRs of the DMAR table
//! (`intel_iommu_get_resv_regions` in `drivers/iommu/intel/iommu.c`; spec 4.4).
//!
//! Domains are second-stage ones; those of the first stage (scalable mode) are not derived yet.

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, PageSizes, RegionKind, ReservedRegion};

use super::era::Era;
use super::{address_space, x86_msi_window};
use crate::host::HostDevice;

/// A VT-d unit and the RMRRs of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Vtd {
    /// The capability register, as in `/sys/class/iommu/dmar0/intel-iommu/cap`.
    pub capability: u64,
    /// Whether the unit can enforce cache coherency (snoop control).
    pub snoop_control: bool,
    /// Whether interrupts are remapped.
    pub interrupt_remapping: bool,
    /// The RMRRs, in the order of the table.
    pub rmrrs: Vec<Rmrr>,
}

/// Memory that the firmware keeps using by DMA (a reserved memory region reporting structure).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rmrr {
    /// The memory, inclusive.
    pub range: IovaRange,
    /// Its device scope: endpoints, or bridges for all behind them.
    pub devices: Vec<String>,
}

/// Page table depths that the SAGAW field may offer, by its bit, and their widths.
const WALKS: [(u64, u32); 3] = [(1 << 1, 39), (1 << 2, 48), (1 << 3, 57)];

impl Vtd {
    /// The address bits of a second-stage domain: the widest walk that the hardware has (SAGAW),
    /// limited by the maximum guest address width (MGAW). 0 if it has no walk that Linux uses.
    pub fn address_bits(&self) -> u32 {
        let sagaw = self.capability >> 8 & 0x1f;
        let widest = WALKS.iter().rev().find(|(bit, _)| sagaw & bit != 0).map_or(0, |(_, w)| *w);
        // Six bits, so it fits.
        let mgaw = u32::try_from(self.capability >> 16 & 0x3f).unwrap_or(0) + 1;
        widest.min(mgaw)
    }

    /// 4 KiB, and the large pages of the second stage (SLLPS).
    fn hardware_page_sizes(&self) -> PageSizes {
        let large = self.capability >> 34 & 0b11;
        PageSizes(1 << 12 | (large & 1) << 21 | (large >> 1) << 30)
    }

    pub(super) fn iommu(&self, era: &Era) -> FixedIommu {
        let every_size = PageSizes(!0xfff);
        FixedIommu {
            driver: IommuDriver::IntelVtd,
            aperture: address_space(self.address_bits()),
            page_sizes: if era.vtd_real_page_sizes {
                self.hardware_page_sizes()
            } else {
                every_size
            },
            coherent: self.snoop_control,
            isolated_msi: self.interrupt_remapping,
        }
    }

    pub(super) fn regions(
        &self,
        device: &HostDevice,
        all: &[&HostDevice],
        era: &Era,
    ) -> Vec<ReservedRegion> {
        let kind = match device.pci.lets_go_of_rmrrs() {
            true => RegionKind::DirectRelaxable,
            false => RegionKind::Direct,
        };
        let in_scope = |scope: &&String| {
            **scope == device.name
                || era.rmrr_bridge_scopes
                    && all.iter().any(|bridge| {
                        bridge.name == **scope && bridge.pci.leads_to(&bridge.name, &device.name)
                    })
        };
        let mut regions: Vec<ReservedRegion> = self
            .rmrrs
            .iter()
            .flat_map(|rmrr| rmrr.devices.iter().filter(in_scope).map(|_| rmrr.range))
            .map(|range| ReservedRegion::from_range(range, kind))
            .collect();
        if era.isa_region && device.pci.is_isa_bridge() {
            regions.push(ReservedRegion::new(0, 0xff_ffff, RegionKind::DirectRelaxable));
        }
        regions.push(x86_msi_window());
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(capability: u64) -> (u32, u64) {
        let vtd =
            Vtd { capability, snoop_control: false, interrupt_remapping: true, rmrrs: Vec::new() };
        (vtd.address_bits(), vtd.hardware_page_sizes().0)
    }

    #[test]
    fn registers_of_real_machines() {
        // From posted boot logs: Raptor Lake, Haswell and Sandy Bridge clients, Xeons.
        assert_eq!(bits(0x01c0_000c_4066_0462), (39, 0x4020_1000));
        assert_eq!(bits(0x00c0_0000_2066_0462), (39, 0x1000));
        assert_eq!(bits(0x00c9_0080_2066_0262), (39, 0x1000));
        assert_eq!(bits(0x08d2_078c_106f_0466), (48, 0x4020_1000));
        assert_eq!(bits(0xf9ed_008c_ee78_0c66), (57, 0x4020_1000));
    }
}
