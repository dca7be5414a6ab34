// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What IOMMU drivers do where kernels differ, by name. The platforms ask for a behaviour, never
//! for a version; spec 4.4 and 8 have the sources.

use vfio_type1::Kernel;

use crate::host::newest_for;

/// The behaviours of one kernel's IOMMU drivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Era {
    /// VT-d: an RMRR whose scope is a bridge concerns the devices below it. 5.3.
    pub(super) rmrr_bridge_scopes: bool,
    /// VT-d: an ISA bridge has the first 16 MiB as a relaxable region, for floppy drivers. 5.3; and
    /// the kernel must be built with it, which the recorded 7.3 is not.
    pub(super) isa_region: bool,
    /// VT-d: the page sizes are those of the hardware, not all from 4 KiB up. 5.15.
    pub(super) vtd_real_page_sizes: bool,
    /// SMMUs: the IORT table's reserved memory is listed. 6.0.
    pub(super) iort_rmrs: bool,
    /// AMD-Vi: exclusion ranges of IVMD blocks are listed, as direct regions. 5.5.
    pub(super) ivmd_exclusions: bool,
    /// AMD-Vi: the hardware's bit for "no HyperTransport hole" is looked at. 6.16 or so.
    pub(super) amd_ht_ignore: bool,
    /// AMD-Vi: how wide a domain is and which pages it has.
    pub(super) amd_tables: AmdTables,
    /// AMD-Vi: what guest tables mean to a VFIO domain.
    pub(super) amd_guest_tables: AmdGuestTables,
    /// VT-d: which page tables a VFIO domain gets in scalable mode.
    pub(super) vtd_domains: VtdDomains,
    /// s390: what becomes of the function's window.
    pub(super) s390_window: S390Window,
    /// s390: the page sizes are all from 4 KiB up, not 4 KiB alone. Up to 6.6.
    pub(super) s390_every_page_size: bool,
}

/// Which page tables a VFIO domain gets in VT-d's scalable mode (`first_level_by_default`, later
/// `intel_iommu_domain_alloc_paging_flags` in `drivers/iommu/intel/iommu.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VtdDomains {
    /// Those of the second stage: the driver has no others yet.
    SecondOnly,
    /// Those of the first stage if there is one. 5.6.
    FirstIfThere,
    /// Those of the second stage if there is one. A walk has to be one that both stages have. 5.16,
    /// and late 5.15.
    PreferSecond,
    /// Those of the first stage if there is one, each stage with its own width. The preference is
    /// from 6.13 or so, the widths are from 6.19 or so.
    PreferFirst,
}

/// What AMD-Vi's guest page tables (v2), where `amd_iommu=pgtbl_v2` asks for them, mean to VFIO
/// (`protection_domain_alloc` and `dma_max_address` in `drivers/iommu/amd/iommu.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AmdGuestTables {
    /// The kernel does not know the option. Before 6.1.
    Unknown,
    /// VFIO's domains keep host tables, but are as narrow as guest tables of four levels. 6.1.
    FourLevelWidth,
    /// VFIO's domains keep host tables, but have the lower half of what guest tables reach. The
    /// recorded 6.12, a stable release with the mend of that year.
    LowerHalf,
    /// VFIO's domains have guest tables, the lower half of them. 6.19 or so.
    Used,
}

/// How an s390 kernel keeps to a function's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum S390Window {
    /// It is the aperture. Up to 6.1.
    Aperture,
    /// Regions below and above it, in tables of 42 bits. From 6.2.
    RegionsOf42Bits,
    /// Regions below and above it, in the smallest table that reaches its end. From 7.0 or so.
    RegionsOfTable,
}

/// How AMD-Vi's host page tables are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AmdTables {
    /// All 64 bits, every page size but 512 GiB.
    Unlimited,
    /// All 64 bits, pages below 2^52 bytes.
    UnlimitedShort,
    /// What hardware and firmware state. 6.19 or so.
    Stated,
}

/// Kernels before 5.3.
const OLD: Era = Era {
    rmrr_bridge_scopes: false,
    isa_region: false,
    vtd_real_page_sizes: false,
    iort_rmrs: false,
    ivmd_exclusions: false,
    amd_ht_ignore: false,
    amd_tables: AmdTables::Unlimited,
    amd_guest_tables: AmdGuestTables::Unknown,
    vtd_domains: VtdDomains::SecondOnly,
    s390_window: S390Window::Aperture,
    s390_every_page_size: true,
};
const V5_10: Era = Era {
    rmrr_bridge_scopes: true,
    isa_region: true,
    ivmd_exclusions: true,
    vtd_domains: VtdDomains::FirstIfThere,
    ..OLD
};
const V6_1: Era = Era {
    vtd_real_page_sizes: true,
    iort_rmrs: true,
    amd_guest_tables: AmdGuestTables::FourLevelWidth,
    vtd_domains: VtdDomains::PreferSecond,
    ..V5_10
};
const V6_12: Era = Era {
    amd_tables: AmdTables::UnlimitedShort,
    amd_guest_tables: AmdGuestTables::LowerHalf,
    s390_window: S390Window::RegionsOf42Bits,
    s390_every_page_size: false,
    ..V6_1
};
const V7_2: Era = Era {
    amd_tables: AmdTables::Stated,
    amd_ht_ignore: true,
    amd_guest_tables: AmdGuestTables::Used,
    vtd_domains: VtdDomains::PreferFirst,
    s390_window: S390Window::RegionsOfTable,
    ..V6_12
};
const V7_3: Era = Era { isa_region: false, ..V7_2 };

/// The behaviours of a kernel: of the newest one that is not newer.
pub(super) fn of(kernel: &Kernel) -> &'static Era {
    static ERAS: [(Kernel, Era); 6] = [
        (Kernel::SERIES_2018_V6, OLD),
        (Kernel::V5_10, V5_10),
        (Kernel::V6_1, V6_1),
        (Kernel::V6_12, V6_12),
        (Kernel::V7_2, V7_2),
        (Kernel::V7_3, V7_3),
    ];
    newest_for(&ERAS, kernel).unwrap_or(&OLD)
}
