// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Intel VT-d: the capability registers and the RMRRs of the DMAR table
//! (`intel_iommu_get_resv_regions` in `drivers/iommu/intel/iommu.c`; spec 4.4).
//!
//! Domains are second-stage ones, unless the unit runs in scalable mode, where it depends on the
//! kernel. First-stage addresses are sign-extended, so such a domain has the lower half.

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, PageSizes, RegionKind, ReservedRegion};

use super::era::{Era, VtdDomains};
use super::vtd_registers::{Capability, ExtendedCapability, Walks};
use super::{address_space, x86_msi_window};
use crate::host::HostDevice;

/// A VT-d unit and the RMRRs of its devices.
#[derive(Clone, Debug, PartialEq)]
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

/// The page tables of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    First,
    Second,
}

impl Vtd {
    /// The address bits of a second-stage domain: the widest walk that the hardware has (SAGAW),
    /// limited by the maximum guest address width (MGAW). 0 if it has no walk that Linux uses.
    pub fn address_bits(&self) -> u32 {
        let capability = Capability(self.capability);
        capability.address_bits(capability.second_stage_walks())
    }

    /// The address bits in scalable mode where both stages have to agree on a walk, as kernels up to
    /// 6.18 or so want it. 0 if the stages share none, and such kernels leave the unit alone.
    pub fn shared_address_bits(&self) -> u32 {
        let capability = Capability(self.capability);
        capability.address_bits(self.shared_walks())
    }

    fn shared_walks(&self) -> Walks {
        let capability = Capability(self.capability);
        let (first, second) = (capability.first_stage_walks(), capability.second_stage_walks());
        match self.scalable().map(|unit| (unit.first_stage(), unit.second_stage())) {
            Some((true, true)) => second.shared_with(first),
            Some((true, false)) => first,
            _ => second,
        }
    }

    /// What scalable mode has, if the unit runs in it.
    fn scalable(&self) -> Option<ExtendedCapability> {
        self.scalable_mode.then_some(ExtendedCapability(self.extended_capability))
    }

    /// The stage that a VFIO domain has, and what it can walk. Old kernels ask all units of the
    /// machine for a first stage; here each answers for itself.
    fn domain(&self, era: &Era) -> (Stage, Walks) {
        let capability = Capability(self.capability);
        let second = (Stage::Second, capability.second_stage_walks());
        let Some(unit) = self.scalable() else { return second };
        match era.vtd_domains {
            VtdDomains::FirstIfThere if unit.first_stage() => (Stage::First, second.1),
            VtdDomains::PreferSecond if unit.second_stage() => (Stage::Second, self.shared_walks()),
            VtdDomains::PreferSecond => (Stage::First, self.shared_walks()),
            VtdDomains::PreferFirst if unit.first_stage() => {
                (Stage::First, capability.first_stage_walks())
            }
            _ => second,
        }
    }

    fn aperture(&self, era: &Era) -> IovaRange {
        let (stage, walks) = self.domain(era);
        let bits = Capability(self.capability).address_bits(walks);
        match stage {
            Stage::First => address_space(bits.saturating_sub(1)),
            Stage::Second => address_space(bits),
        }
    }

    fn page_sizes(&self, era: &Era) -> PageSizes {
        let capability = Capability(self.capability);
        match self.domain(era) {
            _ if !era.vtd_real_page_sizes => PageSizes(!0xfff),
            (Stage::First, _) => capability.first_stage_pages(),
            (Stage::Second, _) => capability.second_stage_pages(),
        }
    }

    pub(super) fn iommu(&self, era: &Era) -> FixedIommu {
        FixedIommu {
            driver: IommuDriver::IntelVtd,
            aperture: self.aperture(era),
            page_sizes: self.page_sizes(era),
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

    const SCALABLE: u64 = 1 << 43;
    const SECOND: u64 = SCALABLE | 1 << 46;
    const FIRST: u64 = SCALABLE | 1 << 47;
    const BOTH: u64 = FIRST | SECOND;

    fn unit(capability: u64, extended_capability: u64) -> Vtd {
        Vtd {
            capability,
            extended_capability,
            scalable_mode: extended_capability & SCALABLE != 0,
            snoop_control: false,
            interrupt_remapping: true,
            rmrrs: Vec::new(),
        }
    }

    #[test]
    fn registers_of_real_machines() {
        let bits = |capability: u64| {
            let vtd = unit(capability, 0);
            (vtd.address_bits(), vtd.page_sizes(era::of(&Kernel::V7_3)).0)
        };
        // From posted boot logs: Raptor Lake, Haswell and Sandy Bridge clients, Xeons.
        assert_eq!(bits(0x01c0_000c_4066_0462), (39, 0x4020_1000));
        assert_eq!(bits(0x00c0_0000_2066_0462), (39, 0x1000));
        assert_eq!(bits(0x00c9_0080_2066_0262), (39, 0x1000));
        assert_eq!(bits(0x08d2_078c_106f_0466), (48, 0x4020_1000));
        assert_eq!(bits(0xf9ed_008c_ee78_0c66), (57, 0x4020_1000));
    }

    /// The last address of a domain, in bits, under each kernel from 4.19 on.
    fn last_bits(capability: u64, extended_capability: u64) -> Vec<u32> {
        let vtd = unit(capability, extended_capability);
        let kernels = [Kernel::V4_19, Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::V7_3];
        let bits = |kernel| 64 - vtd.aperture(era::of(kernel)).last().0.leading_zeros();
        kernels.iter().map(bits).collect()
    }

    #[test]
    fn kernels_choose_the_stage_in_scalable_mode() {
        // Walks of 48 and 57 bits, MGAW 57; then with five levels in the first stage too.
        let (four, five) = (0x38_0c00, 1 << 60 | 0x38_0c00);
        assert_eq!(last_bits(five, SECOND), [57, 57, 57, 57, 57]);
        assert_eq!(last_bits(five, FIRST), [57, 56, 56, 56, 56]);
        assert_eq!(last_bits(five, BOTH), [57, 56, 57, 57, 56]);
        assert_eq!(last_bits(four, BOTH), [57, 56, 48, 48, 47]);
        // The machine's own limit counts in both stages: MGAW 42, walks of 39 and 48 bits.
        assert_eq!(last_bits(0x29_0600, BOTH), [42, 41, 42, 42, 41]);
        assert_eq!(unit(0x26_0200, BOTH).shared_address_bits(), 0);
    }

    #[test]
    fn the_stage_decides_about_large_pages() {
        let pages = |capability| unit(capability, BOTH).page_sizes(era::of(&Kernel::V7_3)).0;
        assert_eq!(pages(0x2f_0400), 0x20_1000);
        assert_eq!(pages(1 << 56 | 0x2f_0400), 0x4020_1000);
    }
}
