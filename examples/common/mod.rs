// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine of the examples that are about programs, not about hosts.

use std::sync::Arc;

use vfio_type1::*;

/// Devices in groups of their own, behind a VT-d of 48 bits. `vfio-sim` has real machines.
pub(crate) fn host(
    kernel: Kernel,
    devices: &[(u32, &str)],
) -> Result<Vfio, Box<dyn std::error::Error>> {
    let iommu: Arc<dyn Iommu> = Arc::new(FixedIommu {
        driver: IommuDriver::IntelVtd,
        aperture: IovaRange::from_size(Iova(0), 1 << 48)?,
        page_sizes: PageSizes(0x4020_1000),
        coherent: true,
        isolated_msi: true,
    });
    let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let group = |(number, name): &(u32, &str)| {
        let device = DeviceDescription::new(*name, vec![msi]);
        GroupDescription::behind(Arc::clone(&iommu), *number, [device])
    };
    Ok(Vfio::new(kernel, devices.iter().map(group))?)
}
