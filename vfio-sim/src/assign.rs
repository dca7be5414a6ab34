// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices assigned on a host: groups opened, put into one container, attached.
//!
//! This is what a VMM does first; `show` and `check` ask the resulting container.

use std::sync::Arc;

use vfio_type1::{
    Access, Binding, Container, Errno, Extension, Fault, GroupId, Info, IovaRange, Kernel, Memory,
    NoType1, OpenGroup, PinFault, PinnedRun, Process, Vaddr, VaddrRange, Vfio,
};

use crate::host::{Host, HostGroup, HostGroupKind};

/// Memory that is there wherever one looks: what is mapped does not matter here, only where.
struct Everywhere;

impl Memory for Everywhere {
    fn read(&self, _from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _to: Vaddr, _bytes: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn pin(&self, pages: VaddrRange, _access: Access) -> Result<PinnedRun, PinFault> {
        Ok(PinnedRun { last: pages.last(), charged: true })
    }
}

/// A container with groups in it, by a privileged process with unlimited memory.
#[derive(Debug)]
pub struct Assigned {
    /// The container, with a type1v2 driver.
    pub container: Container,
    /// The process.
    pub process: Arc<Process>,
    /// Keeps the groups open and so in the container.
    _groups: Vec<OpenGroup>,
}

/// Groups that cannot be assigned together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAssigned {
    /// What the kernel answers.
    pub errno: Errno,
    /// Why.
    pub why: String,
}

impl Assigned {
    /// Puts `groups` into one container.
    pub fn new(vfio: &Vfio, groups: &[GroupId]) -> Result<Self, NotAssigned> {
        let kernel = vfio.kernel();
        let process = Process::new(Arc::new(Everywhere));
        let container = vfio.open_container();
        let mut open = Vec::new();
        for group in groups {
            let group = vfio
                .open_group(*group, &process)
                .map_err(|error| NotAssigned { errno: error.errno(), why: error.to_string() })?;
            group.set_container(&container, &process).map_err(|error| NotAssigned {
                errno: error.errno(kernel),
                why: error.to_string(),
            })?;
            open.push(group);
        }
        container
            .set_iommu(&process, container_type(groups))
            .map_err(|error| NotAssigned { errno: error.errno(kernel), why: error.to_string() })?;
        Ok(Self { container, process, _groups: open })
    }

    /// What GET_INFO says.
    pub fn info(&self) -> Result<Info, NoType1> {
        self.container.info()
    }
}

fn container_type(groups: &[GroupId]) -> u64 {
    match groups.first() {
        Some(GroupId::NoIommu(_)) => Extension::NOIOMMU,
        _ => Extension::TYPE1V2,
    }
}

/// A set of groups to look at: what one container would hold.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// The groups, in the order in which they are added.
    pub groups: Vec<&'a HostGroup>,
}

/// A device that a host does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host {host} has no device \"{device}\"; it has {}", known.join(", "))]
pub struct UnknownDevice {
    /// The host.
    pub host: String,
    /// The device asked for.
    pub device: String,
    /// The devices it has.
    pub known: Vec<String>,
}

impl<'a> Selection<'a> {
    /// The groups of these devices, each once.
    pub fn of_devices(host: &'a Host, devices: &[String]) -> Result<Self, UnknownDevice> {
        let mut groups: Vec<&HostGroup> = Vec::new();
        for device in devices {
            let (group, _) = host.device(device).ok_or_else(|| UnknownDevice {
                host: host.name.clone(),
                device: device.clone(),
                known: host.device_names(),
            })?;
            if !groups.iter().any(|known| std::ptr::eq(*known, group)) {
                groups.push(group);
            }
        }
        Ok(Self { groups })
    }

    /// Each group by itself.
    pub fn each(host: &'a Host) -> Vec<Self> {
        host.groups.iter().map(|group| Self { groups: vec![group] }).collect()
    }

    /// Why no VMM would try: a group without a device for VFIO, or with one that the host uses.
    pub fn obvious_obstacle(&self) -> Option<String> {
        self.groups.iter().find_map(|group| {
            let owned = group.devices.iter().find_map(|device| match &device.binding {
                Binding::Kernel(driver) => Some(format!("{} is bound to {driver}", device.name)),
                Binding::Vfio | Binding::Unbound | Binding::NoDma => None,
            });
            let bound = group.devices.iter().any(|device| device.binding == Binding::Vfio);
            let unbound = (!bound).then(|| "no device is bound to a VFIO driver".to_owned());
            owned.or(unbound)
        })
    }

    /// The groups' numbers.
    pub fn ids(&self) -> Vec<GroupId> {
        self.groups.iter().map(|group| group.id()).collect()
    }

    /// The names of the devices bound to VFIO, or of all if none is.
    pub fn device_names(&self) -> Vec<&'a str> {
        let devices = || self.groups.iter().flat_map(|group| group.devices.iter());
        let bound = devices().filter(|device| device.binding == Binding::Vfio);
        let names: Vec<&str> = bound.map(|device| device.name.as_str()).collect();
        if names.is_empty() {
            devices().map(|device| device.name.as_str()).collect()
        } else {
            names
        }
    }

    /// `group 3 (0000:01:01.0, 0000:01:02.0)`.
    pub fn title(&self) -> String {
        let ids: Vec<String> = self.ids().iter().map(ToString::to_string).collect();
        let word = if ids.len() == 1 { "group" } else { "groups" };
        format!("{word} {} ({})", ids.join(", "), self.device_names().join(", "))
    }
}

impl HostGroup {
    /// What its device node is called.
    pub fn id(&self) -> GroupId {
        match self.kind {
            HostGroupKind::NoIommu => GroupId::NoIommu(self.number),
            HostGroupKind::Iommu(_) | HostGroupKind::Emulated => GroupId::Numbered(self.number),
        }
    }
}

impl Host {
    /// The names of all devices.
    pub fn device_names(&self) -> Vec<String> {
        let devices = self.groups.iter().flat_map(|group| group.devices.iter());
        devices.map(|device| device.name.clone()).collect()
    }

    /// What the domains of a group can translate under `kernel`.
    pub fn aperture(&self, group: &HostGroup, kernel: &Kernel) -> Option<IovaRange> {
        match group.kind {
            HostGroupKind::Iommu(at) => Some(self.iommus.get(at)?.under(kernel)?.aperture),
            HostGroupKind::Emulated | HostGroupKind::NoIommu => None,
        }
    }
}
