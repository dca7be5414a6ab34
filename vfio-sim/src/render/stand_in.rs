// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Facts that mean what a host states outright, for hosts whose registers nobody has posted.

use vfio_type1::{FixedIommu, IommuDriver, IovaRange, Kernel, PageSize, PageSizes};

use crate::platform::{AmdVi, Platform, Smmu, Stated, VirtioIommu, Vtd};

/// Facts from which `kernel` makes the aperture and the page sizes of `stated`; `None` if no facts do.
pub(super) fn stand_in(stated: &Stated, kernel: &Kernel, cpu_page: PageSize) -> Option<Platform> {
    let wanted = Platform::Stated(stated.clone()).iommu(kernel, cpu_page);
    let facts = facts(stated, &wanted)?;
    let made = facts.iommu(kernel, cpu_page);
    let same = made.aperture == wanted.aperture && made.page_sizes == wanted.page_sizes;
    same.then_some(facts)
}

/// Facts that come close to what is wanted.
fn facts(stated: &Stated, wanted: &FixedIommu) -> Option<Platform> {
    let bits = address_bits(wanted.aperture)?;
    Some(match stated.driver {
        IommuDriver::IntelVtd => Platform::Vtd(Vtd {
            capability: capability(bits, wanted.page_sizes),
            extended_capability: 0,
            scalable_mode: false,
            snoop_control: stated.coherent,
            interrupt_remapping: stated.isolated_msi,
            rmrrs: Vec::new(),
        }),
        IommuDriver::AmdVi => Platform::AmdVi(AmdVi {
            virtual_address_bits: 64,
            table_levels: bits.saturating_sub(12).div_ceil(9).clamp(4, 6),
            guest_levels: None,
            ht_range_ignore: false,
            interrupt_remapping: stated.isolated_msi,
            ivmds: Vec::new(),
        }),
        IommuDriver::SmmuV3 | IommuDriver::SmmuV2 => Platform::Smmu(Smmu {
            v3: stated.driver == IommuDriver::SmmuV3,
            input_bits: bits,
            output_bits: bits,
            granules: wanted.page_sizes.smallest().into_iter().collect(),
            isolated_msi: stated.isolated_msi,
            its_windows: Vec::new(),
            rmrs: Vec::new(),
        }),
        IommuDriver::Virtio => Platform::Virtio(VirtioIommu {
            input_range: wanted.aperture,
            page_sizes: wanted.page_sizes,
            isolated_msi: stated.isolated_msi,
            regions: Vec::new(),
        }),
        IommuDriver::Other(_) => return None,
    })
}

/// The bits of an aperture that is all addresses of that many bits.
fn address_bits(aperture: IovaRange) -> Option<u32> {
    let bits = aperture.last().0.trailing_ones();
    let whole = aperture.first().0 == 0 && aperture.last().0.checked_shr(bits).unwrap_or(0) == 0;
    whole.then_some(bits)
}

/// A VT-d capability register: the shallowest walk that is wide enough (SAGAW), the width (MGAW) and
/// the large pages (SLLPS). Kernels that show all page sizes are content with any of them.
fn capability(bits: u32, page_sizes: PageSizes) -> u64 {
    let walk = match bits {
        0..=39 => 1 << 1,
        40..=48 => 1 << 2,
        _ => 1 << 3,
    };
    let large = (page_sizes.0 >> 21 & 1) | (page_sizes.0 >> 30 & 1) << 1;
    walk << 8 | u64::from(bits.saturating_sub(1) & 0x3f) << 16 | large << 34
}
