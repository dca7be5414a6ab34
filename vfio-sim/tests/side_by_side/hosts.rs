// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plans of hosts, of which the emulator and the oracle make the same one.

use std::sync::Arc;

use vfio_type1::{
    Binding, DeviceDescription, Errno, FixedIommu, GroupDescription, GroupKind, Iommu, IommuDriver,
    IovaRange, Kernel, PageSizes, ReservedRegion,
};

/// A host and the kernel that runs on it.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) kernel: Kernel,
    pub(crate) iommus: Vec<TestIommu>,
    pub(crate) groups: Vec<GroupPlan>,
}

/// What stands between a group and memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One of the scene's IOMMUs, modulo their number.
    Iommu(usize),
    Emulated,
    NoIommu,
}

/// A group: its kind, and its devices' bindings and regions.
#[derive(Clone, Debug)]
pub(crate) struct GroupPlan {
    pub(crate) kind: Kind,
    pub(crate) devices: Vec<(Binding, Vec<ReservedRegion>)>,
}

/// A plain IOMMU that may fail to make domains.
#[derive(Clone, Debug)]
pub(crate) struct TestIommu {
    pub(crate) plain: FixedIommu,
    pub(crate) makes_no_domain: bool,
}

impl Iommu for TestIommu {
    fn driver(&self) -> IommuDriver {
        self.plain.driver
    }

    fn aperture(&self) -> IovaRange {
        self.plain.aperture
    }

    fn page_sizes(&self) -> PageSizes {
        self.plain.page_sizes
    }

    fn enforces_coherency(&self) -> bool {
        self.plain.coherent
    }

    fn isolates_msi(&self) -> bool {
        self.plain.isolated_msi
    }

    fn can_make_domain(&self) -> Result<(), Errno> {
        if self.makes_no_domain { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

impl Scene {
    /// The groups as the driver takes them, numbered from 1.
    pub(crate) fn describe(&self) -> Vec<GroupDescription> {
        let iommus: Vec<Arc<dyn Iommu>> =
            self.iommus.iter().map(|iommu| Arc::new(iommu.clone()) as Arc<dyn Iommu>).collect();
        (1..)
            .zip(&self.groups)
            .map(|(number, group)| {
                let kind = match group.kind {
                    Kind::Iommu(at) => GroupKind::Iommu(Arc::clone(&iommus[at % iommus.len()])),
                    Kind::Emulated => GroupKind::Emulated,
                    Kind::NoIommu => GroupKind::NoIommu,
                };
                let devices = (0..).zip(&group.devices).map(|(at, (binding, regions))| {
                    let name = device_name(number, at);
                    DeviceDescription { name, binding: binding.clone(), regions: regions.clone() }
                });
                GroupDescription { number, kind, devices: devices.collect() }
            })
            .collect()
    }
}

pub(crate) fn device_name(group: u32, device: u32) -> String {
    format!("0000:00:{group:02x}.{device}")
}
