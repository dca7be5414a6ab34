// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a group shows: `/sys/kernel/iommu_groups/N` (`drivers/iommu/iommu.c`) and its node under
//! `/dev/vfio`.
//!
//! Nodes are empty regular files: they hold the place of the character devices, which nobody but a
//! kernel can serve.

use vfio_type1::{Binding, GroupId, IommuDriver, Kernel};

use super::tree::Tree;
use super::unit::Unit;
use crate::host::{HostGroup, HostGroupKind, age};

/// `regions` is the text of `reserved_regions`.
pub(super) fn show(
    group: &HostGroup,
    units: &[Unit],
    kernel: &Kernel,
    regions: &str,
    tree: &mut Tree,
) {
    let directory = directory(group);
    tree.file(format!("{directory}/reserved_regions"), regions);
    tree.file(format!("{directory}/type"), domain_type(group, units, kernel));
    if is_named(group, kernel) {
        tree.file(format!("{directory}/name"), "vfio-noiommu\n");
    }
    if group.devices.iter().any(|device| device.binding() == Binding::Vfio) {
        let node = match group.id() {
            GroupId::Numbered(number) => number.to_string(),
            GroupId::NoIommu(number) => format!("noiommu-{number}"),
        };
        tree.file(format!("dev/vfio/{node}"), "");
    }
}

/// The directory of a group.
pub(super) fn directory(group: &HostGroup) -> String {
    format!("sys/kernel/iommu_groups/{}", group.number)
}

/// VFIO names the groups that it makes itself. It makes those of emulated devices since 5.16; before,
/// mdev did, and gave no name (`vfio_noiommu_group_alloc` in `drivers/vfio`).
fn is_named(group: &HostGroup, kernel: &Kernel) -> bool {
    match group.kind {
        HostGroupKind::NoIommu => true,
        HostGroupKind::Emulated => age(kernel) >= age(&Kernel::V6_1),
        HostGroupKind::Iommu(_) => false,
    }
}

/// The default domain (`iommu_group_show_type`). x86 drivers flush lazily by default, which has its
/// own name since 5.15.
fn domain_type(group: &HostGroup, units: &[Unit], kernel: &Kernel) -> &'static str {
    let HostGroupKind::Iommu(at) = group.kind else { return "unknown\n" };
    let lazy = units.get(at).is_some_and(|unit| {
        matches!(unit.iommu_driver, IommuDriver::IntelVtd | IommuDriver::AmdVi)
    });
    if lazy && age(kernel) >= age(&Kernel::V6_1) { "DMA-FQ\n" } else { "DMA\n" }
}
