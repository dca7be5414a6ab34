// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host that a driver instance runs on: its IOMMU groups and their devices.
//!
//! Plain descriptions, fixed when a [`crate::Vfio`] is built. What a group does at run time (open,
//! attach) is in `group` and `attach`.

use std::fmt;
use std::sync::Arc;

use crate::addr::Iova;
use crate::bus::Bus;
use crate::claim::Claims;
use crate::domain::Iommu;
use crate::iommufd::BoundDevices;
use crate::kernel::Behaviours;
use crate::range::IovaRange;
use crate::reserved::{RegionKind, RegionList, ReservedRegion};

/// Which group: what its device node in `/dev/vfio` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupId {
    /// `/dev/vfio/<number>`: a group behind an IOMMU, or an emulated one.
    Numbered(u32),
    /// `/dev/vfio/noiommu-<number>`: a device without an IOMMU.
    NoIommu(u32),
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(number) => write!(f, "{number}"),
            Self::NoIommu(number) => write!(f, "noiommu-{number}"),
        }
    }
}

/// The driver that a device is bound to, as far as group ownership asks (spec 2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A VFIO driver such as vfio-pci: the group has a device node.
    Vfio,
    /// No driver.
    Unbound,
    /// A driver that leaves DMA alone: pci-stub, or that of a PCI bridge.
    NoDma,
    /// A driver that does DMA for the kernel, by its name. The group cannot be assigned.
    Kernel(String),
}

impl Binding {
    /// The name of the kernel driver that owns the device's DMA.
    fn owner(&self) -> Option<&str> {
        match self {
            Self::Kernel(driver) => Some(driver),
            Self::Vfio | Self::Unbound | Self::NoDma => None,
        }
    }
}

/// A device and what its IOMMU driver reserves for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDescription {
    /// The name by which VFIO opens it: a PCI address such as `0000:00:03.0`, or a UUID.
    pub name: String,
    /// The driver it is bound to.
    pub binding: Binding,
    /// Its reserved regions, unmerged, in the order in which the IOMMU driver lists them.
    pub regions: Vec<ReservedRegion>,
}

impl DeviceDescription {
    /// A device bound to a VFIO driver.
    pub fn new(name: impl Into<String>, regions: Vec<ReservedRegion>) -> Self {
        Self { name: name.into(), binding: Binding::Vfio, regions }
    }
}

/// What stands between a group's devices and memory.
#[derive(Clone, Debug)]
pub enum GroupKind {
    /// An IOMMU.
    Iommu(Arc<dyn Iommu>),
    /// A driver that emulates the device and pins pages for it (mdev).
    Emulated,
    /// Nothing: the devices reach all memory (`vfio.enable_unsafe_noiommu_mode`).
    NoIommu,
}

/// A group of devices that can only be assigned together.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its number. Noiommu groups are numbered by themselves.
    pub number: u32,
    /// What stands between its devices and memory.
    pub kind: GroupKind,
    /// Its devices, in the kernel's order.
    pub devices: Vec<DeviceDescription>,
}

impl GroupDescription {
    /// A group behind `iommu`.
    pub fn behind(
        iommu: Arc<dyn Iommu>,
        number: u32,
        devices: impl IntoIterator<Item = DeviceDescription>,
    ) -> Self {
        let devices = devices.into_iter().collect();
        Self { number, kind: GroupKind::Iommu(iommu), devices }
    }

    /// What its device node is called.
    pub fn id(&self) -> GroupId {
        match self.kind {
            GroupKind::NoIommu => GroupId::NoIommu(self.number),
            GroupKind::Iommu(_) | GroupKind::Emulated => GroupId::Numbered(self.number),
        }
    }
}

/// A group as one kernel sees it: the description, and the merged list of its regions.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) kind: GroupKind,
    pub(crate) devices: Vec<DeviceDescription>,
    pub(crate) regions: RegionList,
    stated: Vec<Stated>,
    /// The first region that the firmware insists on, and its device.
    pub(crate) locked_region: Option<(ReservedRegion, String)>,
    /// How its devices do DMA.
    pub(crate) bus: Bus,
    /// Who owns its DMA.
    pub(crate) claims: Claims,
    /// Its devices that are bound to an iommufd.
    pub(crate) bound: BoundDevices,
}

impl Group {
    pub(crate) fn new(description: GroupDescription, behaviours: &Behaviours) -> Self {
        let id = description.id();
        let GroupDescription { kind, mut devices, .. } = description;
        // Looked up first: VT-d let go of graphics and USB devices before the kind for it existed.
        let locked_region = first_direct(&devices);
        if !behaviours.relaxable_regions {
            forget_relaxable(&mut devices);
        }
        let regions = match kind {
            GroupKind::Iommu(_) => merged_regions(&devices, behaviours),
            // Without IOMMU data the kernel lists nothing (spec 4.1).
            GroupKind::Emulated | GroupKind::NoIommu => RegionList::default(),
        };
        let stated = stated_regions(&devices);
        let (bus, claims, bound) = Default::default();
        Self { id, kind, devices, regions, stated, locked_region, bus, claims, bound }
    }

    pub(crate) fn is_noiommu(&self) -> bool {
        matches!(self.kind, GroupKind::NoIommu)
    }

    pub(crate) fn iommu(&self) -> Option<&Arc<dyn Iommu>> {
        match &self.kind {
            GroupKind::Iommu(iommu) => Some(iommu),
            GroupKind::Emulated | GroupKind::NoIommu => None,
        }
    }

    pub(crate) fn has_device(&self, name: &str) -> bool {
        self.devices.iter().any(|device| device.name == name)
    }

    /// The devices' names, for messages.
    pub(crate) fn device_names(&self) -> String {
        let names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        names.join(", ")
    }

    /// The first device whose driver does DMA for the kernel, and that driver.
    pub(crate) fn kernel_owned(&self) -> Option<(&str, &str)> {
        self.devices.iter().find_map(|device| Some((device.name.as_str(), device.binding.owner()?)))
    }

    /// The first device that states a region of this kind touching `range`.
    pub(crate) fn device_reserving(&self, kind: RegionKind, range: &IovaRange) -> Option<&str> {
        let begin = |one: &Stated| (one.region.kind, one.region.first) <= (kind, range.last());
        let below = &self.stated[..self.stated.partition_point(begin)];
        let near = below.iter().rev().take_while(|one| one.reach >= (kind, range.first()));
        let touching = near.filter(|one| one.region.touches(range));
        let device = touching.map(|one| one.device).min()?;
        Some(&self.devices.get(device)?.name)
    }
}

/// A region and the device that states it. Sorted by kind and start, they are quick to search.
#[derive(Debug)]
struct Stated {
    region: ReservedRegion,
    /// Index of the device.
    device: usize,
    /// The kind, and the highest end of a region of it up to this one.
    reach: (RegionKind, Iova),
}

fn stated_regions(devices: &[DeviceDescription]) -> Vec<Stated> {
    let of_device = |(device, description): (usize, &DeviceDescription)| {
        let state = |region: &ReservedRegion| Stated {
            region: *region,
            device,
            reach: (region.kind, region.last),
        };
        description.regions.iter().map(state).collect::<Vec<_>>()
    };
    let mut stated: Vec<Stated> = devices.iter().enumerate().flat_map(of_device).collect();
    stated.sort_by_key(|one| (one.region.kind, one.region.first));
    for at in 1..stated.len() {
        stated[at].reach = stated[at].reach.max(stated[at - 1].reach);
    }
    stated
}

fn first_direct(devices: &[DeviceDescription]) -> Option<(ReservedRegion, String)> {
    devices.iter().find_map(|device| {
        let region = device.regions.iter().find(|region| region.kind == RegionKind::Direct)?;
        Some((*region, device.name.clone()))
    })
}

fn merged_regions(devices: &[DeviceDescription], behaviours: &Behaviours) -> RegionList {
    let regions = devices.iter().flat_map(|device| device.regions.iter().copied());
    RegionList::merged(regions, behaviours.region_merge)
}

/// Kernels without the kind know such regions as direct ones.
fn forget_relaxable(devices: &mut [DeviceDescription]) {
    for region in devices.iter_mut().flat_map(|device| device.regions.iter_mut()) {
        if region.kind == RegionKind::DirectRelaxable {
            region.kind = RegionKind::Direct;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::reserved::tests::{addresses, regions_of_every_kind};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn the_first_device_that_states_a_region_is_named(
            devices in prop::collection::vec(regions_of_every_kind(), 0..4),
            (a, b) in (addresses(), addresses()),
        ) {
            let described = |(at, regions)| DeviceDescription::new(format!("{at}"), regions);
            let devices = devices.into_iter().enumerate().map(described).collect();
            let kind = GroupKind::Emulated;
            let description = GroupDescription { number: 1, kind, devices };
            let group = Group::new(description, Kernel::V6_12.behaviours());
            let range = IovaRange::new(Iova(a.min(b)), Iova(a.max(b))).unwrap();
            for kind in RegionKind::ALL {
                let states = |region: &ReservedRegion| region.kind == kind && region.touches(&range);
                let device = group.devices.iter().find(|one| one.regions.iter().any(states));
                let named = group.device_reserving(kind, &range);
                prop_assert_eq!(named, device.map(|one| one.name.as_str()));
            }
        }
    }
}
