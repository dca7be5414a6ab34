// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Breaks the rules of the page tables that a program asks an iommufd for.

use vfio_type1::{Access, HwptAlloc, IoasMap, Vfio};

use crate::common::{RAM, device_name, emulated, group, msi, process, vtd};
use crate::{Broken, K, broken};

pub(crate) fn break_hwpt_alloc(broken: &mut Broken) {
    let vfio = Vfio::new(K, [group(&vtd(48), 1, vec![msi()]), emulated(2)]).unwrap();
    let iommufd = vfio.open_iommu().unwrap();
    let ioas = iommufd.ioas_alloc();
    let bound = [1, 2].map(|number| {
        let cdev = vfio.open_cdev(&device_name(number)).unwrap();
        (cdev.bind(&iommufd).unwrap(), cdev)
    });
    let [(device, _), (emulated, _)] = &bound;
    let plain = HwptAlloc::new(*device, ioas);
    let alloc = |request| iommufd.hwpt_alloc(&request);
    let flagged = |flags| alloc(HwptAlloc { flags, ..plain });

    broken!(broken, "HwptAllocError", alloc(HwptAlloc { data_len: 8, ..plain }), EINVAL);
    broken!(broken, "HwptAllocError", alloc(HwptAlloc { data_type: 1, ..plain }), EINVAL);
    broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(99, ioas)), ENOENT);
    broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(ioas, ioas)), ENOENT);
    // No IOMMU translates for an emulated device.
    broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(*emulated, ioas)), ENOENT);
    broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(*device, 99)), EINVAL);
    broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(*device, *device)), EINVAL);
    broken!(broken, "HwptAllocError", flagged(16), EOPNOTSUPP);
    let not_modelled = [
        (flagged(HwptAlloc::NEST_PARENT), "NEST_PARENT"),
        (flagged(HwptAlloc::DIRTY_TRACKING), "dirty tracking"),
        (flagged(HwptAlloc::FAULT_ID_VALID), "page requests"),
        (flagged(HwptAlloc::PASID), "PASID"),
        (alloc(HwptAlloc { data_type: 1, data_len: 24, ..plain }), "nesting"),
        (alloc(HwptAlloc::new(*device, alloc(plain).unwrap())), "nesting"),
    ];
    for (refused, named) in not_modelled {
        let error = broken!(broken, "HwptAllocError", refused, EOPNOTSUPP);
        assert!(error.to_string().contains(named), "{error}");
    }
    // Beyond the aperture; where no device translates, it may lie.
    let other = iommufd.ioas_alloc();
    let request = IoasMap::anywhere(other, RAM, 0x1000, Access::Read).at(1 << 48);
    iommufd.ioas_map(&process(), &request).unwrap();
    let error =
        broken!(broken, "HwptAllocError", alloc(HwptAlloc::new(*device, other)), EADDRINUSE);
    assert!(error.to_string().contains("lies outside"), "{error}");
}
