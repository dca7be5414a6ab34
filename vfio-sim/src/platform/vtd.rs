// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Intel VT-d: the capability register and the RMRRs of the DMAR table
//! (`intel_iommu_get_resv_regions` in `drivers/iommu/intel/iommu.c`; spec 4.4).
//!
//! A domain uses second-stage tables, or in scalable mode first-stage ones: those of the CPU, whose
//! addresses are sign-extended, so that a domain has the lower half of them.

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, PageSizes, RegionKind, ReservedRegion};

use super::era::Era;
use super::{address_space, x86_msi_window};
use crate::host::HostDevice;

/// A VT-d unit and the RMRRs of its devices.
#[derive(Clone, Debug)]
pub struct Vtd {
    /// The capability register, as in `/sys/class/iommu/dmar0/intel-iommu/cap`.
    pub capability: u64,
    /// The extended capability register, as in `intel-iommu/ecap` beside it; 0 if unknown.
    pub extended_capability: u64,
    /// Whether the kernel runs the unit in scalable mode, which it can if the unit can.
    pub scalable_mode: bool,
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
    /// Snoop control, in the extended capability register.
    pub(crate) const SNOOP_CONTROL: u64 = 1 << 7;
    /// Scalable mode, in the extended capability register.
    pub(crate) const SCALABLE_MODE: u64 = 1 << 43;
    const SECOND_STAGE: u64 = 1 << 46;
    const FIRST_STAGE: u64 = 1 << 47;
    /// 1 GiB pages of the first stage, in the capability register.
    const FIRST_STAGE_1G: u64 = 1 << 56;
    /// Five levels in the first stage, in the capability register.
    const FIRST_STAGE_5_LEVELS: u64 = 1 << 60;

    /// Whether domains use first-stage tables: if there are no others, or if the kernel prefers them.
    fn uses_first_stage(&self, era: &Era) -> bool {
        let has = |bit: u64| self.extended_capability & bit != 0;
        self.scalable_mode
            && has(Self::FIRST_STAGE)
            && (era.vtd_prefers_first_stage || !has(Self::SECOND_STAGE))
    }

    fn maximum_width(&self) -> u32 {
        // Six bits, so it fits.
        u32::try_from(self.capability >> 16 & 0x3f).unwrap_or(0) + 1
    }

    /// The address bits of a first-stage domain.
    fn first_stage_bits(&self) -> u32 {
        let five_levels = self.capability & Self::FIRST_STAGE_5_LEVELS != 0;
        (if five_levels { 57 } else { 48 }).min(self.maximum_width()) - 1
    }

    fn first_stage_page_sizes(&self) -> PageSizes {
        let gigabyte = self.capability & Self::FIRST_STAGE_1G != 0;
        PageSizes(1 << 12 | 1 << 21 | u64::from(gigabyte) << 30)
    }

    /// The address bits of a second-stage domain: the widest walk that the hardware has (SAGAW),
    /// limited by the maximum guest address width (MGAW). 0 if it has no walk that Linux uses.
    pub fn address_bits(&self) -> u32 {
        let sagaw = self.capability >> 8 & 0x1f;
        let widest = WALKS.iter().rev().find(|(bit, _)| sagaw & bit != 0).map_or(0, |(_, w)| *w);
        widest.min(self.maximum_width())
    }

    /// 4 KiB, and the large pages of the second stage (SLLPS).
    fn hardware_page_sizes(&self) -> PageSizes {
        let large = self.capability >> 34 & 0b11;
        PageSizes(1 << 12 | (large & 1) << 21 | (large >> 1) << 30)
    }

    pub(super) fn iommu(&self, era: &Era) -> FixedIommu {
        let first_stage = self.uses_first_stage(era);
        let bits = if first_stage { self.first_stage_bits() } else { self.address_bits() };
        FixedIommu {
            driver: IommuDriver::IntelVtd,
            aperture: address_space(bits),
            page_sizes: match first_stage {
                _ if !era.vtd_real_page_sizes => PageSizes(!0xfff),
                true => self.first_stage_page_sizes(),
                false => self.hardware_page_sizes(),
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
    use crate::platform::era;
    use vfio_type1::Kernel;

    fn unit(capability: u64, extended_capability: u64) -> Vtd {
        Vtd {
            capability,
            extended_capability,
            scalable_mode: extended_capability & Vtd::SCALABLE_MODE != 0,
            snoop_control: false,
            interrupt_remapping: true,
            rmrrs: Vec::new(),
        }
    }

    fn bits(capability: u64) -> (u32, u64) {
        let vtd = unit(capability, 0);
        (vtd.address_bits(), vtd.hardware_page_sizes().0)
    }

    #[test]
    fn the_stage_follows_kernel_and_hardware() {
        let last = |extended_capability, kernel| {
            let vtd = unit(0xf9ed_008c_ee78_0c66, extended_capability);
            vtd.iommu(era::of(&kernel)).aperture.last().0
        };
        let both = Vtd::SCALABLE_MODE | Vtd::FIRST_STAGE | Vtd::SECOND_STAGE;
        let (whole, lower_half) = ((1 << 57) - 1, (1 << 56) - 1);
        assert_eq!(last(both, Kernel::V6_1), whole);
        assert_eq!(last(both, Kernel::V7_3), lower_half);
        assert_eq!(last(both & !Vtd::SECOND_STAGE, Kernel::V6_1), lower_half);
        assert_eq!(last(both & !Vtd::SCALABLE_MODE, Kernel::V7_3), whole);
        let four_levels = unit(0x08d2_078c_106f_0466, both);
        assert_eq!(four_levels.iommu(era::of(&Kernel::V7_3)).aperture.last().0, (1 << 47) - 1);
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
