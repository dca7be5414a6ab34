// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! IOMMU platforms: what a kernel makes of firmware tables and hardware registers.
//!
//! A host states facts (a capability register, an RMRR with its device scopes); a platform derives
//! each device's reserved regions and what a domain can translate, for one kernel. A host may also
//! state the results outright: that is a platform too ([`Stated`]). The rules are in spec 4.4.

mod amd;
mod dart;
mod era;
mod riscv;
mod s390;
mod smmu;
mod stated;
mod virtio;
mod vtd;
mod vtd_registers;

pub(crate) use amd::ht_hole;
pub use amd::{AmdVi, Ivmd, IvmdDevices};
pub use dart::Dart;
pub use riscv::{RiscV, RiscVMode};
pub use s390::{S390, S390Table};
pub(crate) use smmu::software_msi_window;
pub use smmu::{Rmr, Smmu};
pub use stated::{Stated, Widths};
pub use virtio::VirtioIommu;
pub use vtd::{Rmrr, Vtd};
pub(crate) use vtd_registers::ExtendedCapability;

use vfio_type1::{FixedIommu, Iova, IovaRange, Kernel, PageSize, RegionKind, ReservedRegion};

use crate::host::HostDevice;

/// What is known of an IOMMU.
#[derive(Clone, Debug, PartialEq)]
pub enum Platform {
    /// The results themselves.
    Stated(Stated),
    /// Intel VT-d.
    Vtd(Vtd),
    /// AMD-Vi.
    AmdVi(AmdVi),
    /// Arm SMMUv3 or v2.
    Smmu(Smmu),
    /// virtio-iommu.
    Virtio(VirtioIommu),
    /// Apple DART.
    Dart(Dart),
    /// s390.
    S390(S390),
    /// The RISC-V IOMMU.
    RiscV(RiscV),
}

impl Platform {
    /// Whether only arm64 machines have it.
    pub(crate) fn is_arm(&self) -> bool {
        matches!(self, Self::Smmu(_) | Self::Dart(_))
    }

    /// What `kernel` makes of the IOMMU, on a CPU with pages of `cpu_page`.
    pub fn iommu(&self, kernel: &Kernel, cpu_page: PageSize) -> FixedIommu {
        match self {
            Self::Stated(stated) => stated.iommu(kernel),
            Self::Vtd(vtd) => vtd.iommu(era::of(kernel)),
            Self::AmdVi(amd) => amd.iommu(era::of(kernel)),
            Self::Smmu(smmu) => smmu.iommu(cpu_page),
            Self::Virtio(virtio) => virtio.iommu(),
            Self::Dart(dart) => dart.iommu(),
            Self::S390(s390) => s390.iommu(era::of(kernel)),
            Self::RiscV(riscv) => riscv.iommu(),
        }
    }

    /// The regions that the driver of `kernel` reserves for `device`, in its order. `all` are the
    /// devices of the host.
    pub fn regions(
        &self,
        device: &HostDevice,
        all: &[&HostDevice],
        kernel: &Kernel,
        cpu_page: PageSize,
    ) -> Vec<ReservedRegion> {
        match self {
            Self::Stated(_) | Self::RiscV(_) => Vec::new(),
            Self::Vtd(vtd) => vtd.regions(device, all, era::of(kernel)),
            Self::AmdVi(amd) => amd.regions(device, era::of(kernel)),
            Self::Smmu(smmu) => smmu.regions(device, cpu_page, era::of(kernel)),
            Self::Virtio(virtio) => virtio.regions(),
            Self::Dart(dart) => dart.regions(cpu_page),
            Self::S390(s390) => s390.regions(era::of(kernel)),
        }
    }

    /// The first known kernel that has a driver for the IOMMU, and the release that brought it; `None`
    /// if all have. Without a driver there are no groups.
    pub fn first_kernel(&self) -> Option<(Kernel, &'static str)> {
        match self {
            Self::Dart(_) => Some((Kernel::V6_1, "5.15")),
            Self::RiscV(_) => Some((Kernel::V7_2, "6.13")),
            _ => None,
        }
    }

    /// Says that MSIs are not isolated, whatever the facts say.
    pub(crate) fn forget_isolation(&mut self) {
        match self {
            Self::Stated(stated) => stated.isolated_msi = false,
            Self::Vtd(vtd) => vtd.interrupt_remapping = false,
            Self::AmdVi(amd) => amd.interrupt_remapping = false,
            Self::Smmu(smmu) => smmu.isolated_msi = false,
            Self::Virtio(virtio) => virtio.isolated_msi = false,
            Self::Dart(dart) => dart.isolated_msi = false,
            Self::RiscV(riscv) => riscv.isolated_msi = false,
            // There is no s390 without.
            Self::S390(_) => {}
        }
    }
}

/// The window in which every x86 platform takes writes for interrupts.
pub(crate) fn x86_msi_window() -> ReservedRegion {
    ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi)
}

/// The addresses of `bits` bits; all 64 at the most.
pub(crate) fn address_space(bits: u32) -> IovaRange {
    let last = Iova(u64::MAX >> 64u32.saturating_sub(bits).min(63));
    IovaRange::new(Iova(0), last).unwrap_or_else(IovaRange::full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_spaces() {
        assert_eq!(address_space(39).last(), Iova(0x7f_ffff_ffff));
        assert_eq!(address_space(64), IovaRange::full());
        assert_eq!(address_space(80), IovaRange::full());
    }
}
