// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of attaching a group.

use std::fmt::Debug;
use std::sync::Arc;

use vfio_type1::{
    Access, Behaviours, Errno, FixedIommu, GroupDescription, GroupId, Iommu, IommuDriver,
    IovaRange, Kernel, MapDma, PageSizes, RegionKind, ReservedRegion, UnmapDma, Vfio, extension,
};

use crate::common::{RAM, Rig, emulated, group, iommu, msi, process, range, vtd};
use crate::{Broken, K, broken, variant_after};

/// An IOMMU that refuses to make domains.
#[derive(Debug)]
struct Exhausted(FixedIommu);

impl Iommu for Exhausted {
    fn driver(&self) -> IommuDriver {
        self.0.driver
    }
    fn aperture(&self) -> IovaRange {
        self.0.aperture
    }
    fn page_sizes(&self) -> PageSizes {
        self.0.page_sizes
    }
    fn enforces_coherency(&self) -> bool {
        false
    }
    fn isolates_msi(&self) -> bool {
        true
    }
    fn can_make_domain(&self) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    fn can_map(&self, _iova: IovaRange, _behaviours: &Behaviours) -> Result<(), Errno> {
        Ok(())
    }
}

/// Group 1 in a container, then group 2 added to it.
fn attach_second(
    kernel: Kernel,
    host: Vec<GroupDescription>,
    iova: u64,
) -> Result<(), vfio_type1::SetContainerError> {
    let vfio = Vfio::new(kernel, host).unwrap();
    let (process, container) = (process(), vfio.open_container());
    let first = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
    first.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    let request = MapDma::new(iova, RAM, 0x1000, Access::ReadWrite);
    container.map(&process, &request).unwrap();
    let second = vfio.open_group(GroupId::Numbered(2), &process).unwrap();
    let result = second.set_container(&container, &process);
    drop((first, second));
    result
}

pub(crate) fn break_attach(broken: &mut Broken) {
    let mut second = |kernel: Kernel, host: Vec<GroupDescription>, iova, errno| {
        let error = attach_second(kernel, host, iova).unwrap_err();
        let name = variant_after(&error, "AttachError", "error: ");
        assert_eq!(error.errno(), errno, "{name}");
        broken.0.insert(name, errno);
        let outer = variant_after(&error, "AddGroupError", "Refused(");
        broken.0.insert(outer, errno);
        broken.0.insert("SetContainerError::Refused".to_owned(), errno);
    };
    let plain = || group(&vtd(48), 1, vec![msi()]);
    let virtio = |first: u64, last: u64| -> Arc<dyn Iommu> {
        let aperture = range(first, last);
        Arc::new(FixedIommu { aperture, ..iommu(IommuDriver::Virtio, 48) })
    };
    let exhausted: Arc<dyn Iommu> = Arc::new(Exhausted(iommu(IommuDriver::Virtio, 48)));
    let unsafe_msi: Arc<dyn Iommu> =
        Arc::new(FixedIommu { isolated_msi: false, ..iommu(IommuDriver::Virtio, 48) });
    let low = || ReservedRegion::new(0, 0xf_ffff, RegionKind::Reserved);
    let rmrr = || ReservedRegion::new(0xb000_0000, 0xb00f_ffff, RegionKind::Direct);
    let top = || group(&virtio(1 << 50, u64::MAX), 2, vec![]);
    second(K, vec![plain(), group(&exhausted, 2, vec![])], 0, Errno::ENOMEM);
    second(Kernel::V6_1, vec![plain(), group(&exhausted, 2, vec![])], 0, Errno::EIO);
    second(Kernel::V5_10, vec![plain(), group(&vtd(48), 2, vec![rmrr()])], 0, Errno::EPERM);
    second(K, vec![plain(), top()], 0, Errno::EINVAL);
    second(K, vec![plain(), group(&virtio(0x10_0000, 1 << 40), 2, vec![])], 0, Errno::EINVAL);
    second(K, vec![plain(), group(&vtd(48), 2, vec![low()])], 0, Errno::EINVAL);
    second(K, vec![plain(), group(&unsafe_msi, 2, vec![])], 0, Errno::EPERM);
    second(K, vec![emulated(1), group(&vtd(39), 2, vec![])], 1 << 39, Errno::ERANGE);

    // Memory that is not there when an IOMMU comes, addresses that are gone, groups twice.
    let host = vec![group(&vtd(48), 1, vec![msi()]), emulated(2)];
    let rig = Rig::new(K, extension::TYPE1V2, host);
    rig.groups[0].unset_container().unwrap();
    let nowhere = MapDma::new(0, 0x1000, 0x1000, Access::Read);
    rig.container.map(&rig.process, &nowhere).unwrap();
    let again = || rig.groups[0].set_container(&rig.container, &rig.process);
    let error = again().unwrap_err();
    assert_eq!(error.errno(), Errno::EFAULT);
    broken.0.insert(variant_after(&error, "AttachError", "error: "), Errno::EFAULT);

    let rig = Rig::new(K, extension::TYPE1V2, vec![plain(), group(&vtd(48), 2, vec![])]);
    rig.groups[1].unset_container().unwrap();
    rig.map(0, 0x1000).unwrap();
    rig.container.unmap(&rig.process, &UnmapDma::all().vaddr_only()).unwrap();
    let error = rig.groups[1].set_container(&rig.container, &rig.process).unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY);
    broken.0.insert(variant_after(&error, "AttachError", "error: "), Errno::EBUSY);

    let everything = ReservedRegion::new(0, u64::MAX, RegionKind::Reserved);
    let vfio = Vfio::new(K, [group(&vtd(48), 1, vec![everything])]).unwrap();
    let (user, container) = (process(), vfio.open_container());
    let only = vfio.open_group(GroupId::Numbered(1), &user).unwrap();
    only.set_container(&container, &user).unwrap();
    let error = container.set_iommu(&user, extension::TYPE1V2).unwrap_err();
    broken.0.insert(variant_after(&error, "AttachError", "error: "), error.errno());

    let vfio = Vfio::new(Kernel::V6_12, [plain()]).unwrap();
    let (process, container) = (process(), vfio.open_container());
    let first = vfio.open_group(GroupId::Numbered(1), &process).unwrap();
    first.set_container(&container, &process).unwrap();
    let nested = container.set_iommu(&process, extension::NESTING);
    let error = broken!(broken, "SetIommuError", nested, EINVAL);
    broken.0.insert(variant_after(&error, "AttachError", "error: "), Errno::EINVAL);
}
