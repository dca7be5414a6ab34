// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! AMD-Vi: IVMD blocks of the IVRS table, the HyperTransport hole, and the width of the host page
//! tables (`amd_iommu_get_resv_regions` in `drivers/iommu/amd/iommu.c`; spec 4.4).
//!
//! Domains use host page tables (v1), unless the kernel was told to use guest tables (v2).

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, PageSizes, RegionKind, ReservedRegion};

use super::era::{AmdGuestTables, AmdTables, Era};
use super::{address_space, x86_msi_window};
use crate::host::HostDevice;

/// An AMD-Vi unit and the IVMD blocks of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct AmdVi {
    /// The virtual address size that the IVRS table states, in bits; 64 if it states none.
    pub virtual_address_bits: u32,
    /// The levels of host page tables: 4, 5 or 6 (HATS).
    pub table_levels: u32,
    /// The levels of guest page tables, 4 or 5, if the kernel runs with `amd_iommu=pgtbl_v2`.
    pub guest_levels: Option<u32>,
    /// The hardware has no HyperTransport hole (bit 11 of the extended feature register 2).
    pub ht_range_ignore: bool,
    /// Whether interrupts are remapped.
    pub interrupt_remapping: bool,
    /// The IVMD blocks, in the order of the table.
    pub ivmds: Vec<Ivmd>,
}

/// Memory that the firmware keeps using by DMA (an I/O virtualization memory definition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ivmd {
    /// First address, as the table states it.
    pub start: u64,
    /// Length in bytes, as the table states it; may be 0.
    pub length: u64,
    /// An exclusion range rather than a unity mapping.
    pub exclusion: bool,
    /// Which devices it is for.
    pub devices: IvmdDevices,
}

/// Which devices an IVMD block is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IvmdDevices {
    /// All (type 0x20).
    All,
    /// These (types 0x21 and 0x22).
    Named(Vec<String>),
}

/// The table states memory in bytes; the driver rounds start and length up to pages.
const PAGE: u64 = 4096;

/// Addresses that a HyperTransport link keeps for messages.
pub(crate) fn ht_hole() -> ReservedRegion {
    ReservedRegion::new(0xfd_0000_0000, 0xff_ffff_ffff, RegionKind::Reserved)
}

impl Ivmd {
    fn covers(&self, device: &HostDevice) -> bool {
        match &self.devices {
            IvmdDevices::All => true,
            IvmdDevices::Named(names) => names.contains(&device.name),
        }
    }

    fn region(&self) -> ReservedRegion {
        let start = self.start.checked_next_multiple_of(PAGE).unwrap_or(0);
        let length = self.length.checked_next_multiple_of(PAGE).unwrap_or(0);
        ReservedRegion::from_length(start, length, RegionKind::Direct)
    }
}

/// The address bits of tables with this many levels: nine a level, and twelve in the page. The sixth
/// level has what is left of 64.
fn table_bits(levels: u32) -> u32 {
    (12 + 9 * levels).min(64)
}

impl AmdVi {
    fn aperture(&self, era: &Era) -> IovaRange {
        let host_bits = match era.amd_tables {
            AmdTables::Unlimited | AmdTables::UnlimitedShort => 64,
            AmdTables::Stated => self.host_bits(),
        };
        address_space(self.guest_bits(era).unwrap_or(host_bits))
    }

    /// What host tables and the firmware both allow.
    fn host_bits(&self) -> u32 {
        table_bits(self.table_levels).min(self.virtual_address_bits)
    }

    /// The width that guest tables give a domain. The last kernels leave their top bit out, since it
    /// is a sign in what a device sends with a process ID, and not in what it sends without.
    fn guest_bits(&self, era: &Era) -> Option<u32> {
        let levels = self.guest_levels?;
        match era.amd_guest_tables {
            AmdGuestTables::Unknown => None,
            AmdGuestTables::FourLevelWidth => Some(table_bits(4)),
            AmdGuestTables::LowerHalf | AmdGuestTables::Used => Some(table_bits(levels) - 1),
        }
    }

    fn page_sizes(&self, era: &Era) -> PageSizes {
        if self.guest_levels.is_some() && era.amd_guest_tables == AmdGuestTables::Used {
            return PageSizes(1 << 12 | 1 << 21 | 1 << 30);
        }
        // Every power of two from 4 KiB, but not 512 GiB.
        let every_size = !0xfff & !(1 << 39);
        let limited = |bits: u32| every_size & ((1 << bits) - 1);
        match era.amd_tables {
            AmdTables::Unlimited => PageSizes(every_size),
            AmdTables::UnlimitedShort => PageSizes(limited(52)),
            AmdTables::Stated => {
                PageSizes(limited(self.host_bits().saturating_sub(1).clamp(13, 52)))
            }
        }
    }

    pub(super) fn iommu(&self, era: &Era) -> FixedIommu {
        FixedIommu {
            driver: IommuDriver::AmdVi,
            aperture: self.aperture(era),
            page_sizes: self.page_sizes(era),
            coherent: true,
            isolated_msi: self.interrupt_remapping,
        }
    }

    pub(super) fn regions(&self, device: &HostDevice, era: &Era) -> Vec<ReservedRegion> {
        let listed = |ivmd: &&Ivmd| era.ivmd_exclusions || !ivmd.exclusion;
        let blocks = self.ivmds.iter().filter(listed).filter(|ivmd| ivmd.covers(device));
        let mut regions: Vec<ReservedRegion> = blocks.map(Ivmd::region).collect();
        regions.push(x86_msi_window());
        if !(self.ht_range_ignore && era.amd_ht_ignore) {
            regions.push(ht_hole());
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::era;
    use vfio_type1::Kernel;

    #[test]
    fn guest_tables_narrow_a_domain() {
        let domain = |kernel, levels| {
            let amd = AmdVi {
                virtual_address_bits: 64,
                table_levels: 5,
                guest_levels: Some(levels),
                ht_range_ignore: false,
                interrupt_remapping: true,
                ivmds: Vec::new(),
            };
            let iommu = amd.iommu(era::of(&kernel));
            (iommu.aperture.last().0, iommu.page_sizes.0)
        };
        assert_eq!(domain(Kernel::V5_10, 5), (u64::MAX, 0xffff_ff7f_ffff_f000));
        assert_eq!(domain(Kernel::V6_1, 5), ((1 << 48) - 1, 0xffff_ff7f_ffff_f000));
        assert_eq!(domain(Kernel::V6_12, 4), ((1 << 47) - 1, 0xf_ff7f_ffff_f000));
        assert_eq!(domain(Kernel::V6_12, 5), ((1 << 56) - 1, 0xf_ff7f_ffff_f000));
        assert_eq!(domain(Kernel::V7_3, 4), ((1 << 47) - 1, 0x4020_1000));
        assert_eq!(domain(Kernel::V7_3, 5), ((1 << 56) - 1, 0x4020_1000));
    }

    #[test]
    fn ivmd_blocks_are_rounded_up() {
        // Measured (spec 4.4): start 0xb0000001 length 0x1001, and length 0 at 0xb0200000.
        let region = |start, length| {
            let block = Ivmd { start, length, exclusion: false, devices: IvmdDevices::All };
            (block.region().first.0, block.region().last.0)
        };
        assert_eq!(region(0xb000_0001, 0x1001), (0xb000_1000, 0xb000_2fff));
        assert_eq!(region(0xb020_0000, 0), (0xb020_0000, 0xb01f_ffff));
    }
}
