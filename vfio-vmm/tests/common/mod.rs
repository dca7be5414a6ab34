// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host with one NIC behind a 39-bit VT-d, and its group in a container.

use std::sync::Arc;

use vfio_type1::*;

pub(crate) const NIC: &str = "0000:00:03.0";

pub(crate) struct Rig {
    pub(crate) vfio: Vfio,
    pub(crate) container: Container,
    pub(crate) process: Arc<Process>,
    _group: OpenGroup,
}

pub(crate) fn rig(memory: Arc<dyn Memory>) -> Rig {
    let iommu = Arc::new(FixedIommu {
        driver: IommuDriver::AmdVi,
        aperture: IovaRange::full(),
        page_sizes: PageSizes(0x1000),
        coherent: false,
        isolated_msi: true,
    });
    let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let nic = DeviceDescription::new(NIC, vec![msi]);
    let vfio = Vfio::new(Kernel::V7_3, [GroupDescription::behind(iommu, 1, [nic])]).unwrap();
    let process = Process::new(memory);
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
    group.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    Rig { vfio, container, process, _group: group }
}
