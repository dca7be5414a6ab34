// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices assigned on a host: groups opened, put into one container, attached.
//!
//! This is what a VMM does first; `show` and `check` ask the resulting container.

use std::sync::Arc;

use vfio_type1::{
    Access, Binding, Container, Fault, GroupId, Kernel, Memory, OpenGroup, PinFault, PinnedRun,
    Process, SetIommuError, Vaddr, VaddrRange, Vfio, extension,
};

use crate::host::{Host, HostDevice, HostGroup, age};
use crate::names::with_domain;
use crate::report::Refusal;

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

/// A container and the groups in it, of a privileged process with unlimited memory.
#[derive(Debug)]
pub struct Assigned {
    /// The container: with [`Self::new`] it has a type1v2 driver, or noiommu.
    pub container: Container,
    /// The process.
    pub process: Arc<Process>,
    /// Keeps the groups open and so in the container.
    groups: Vec<OpenGroup>,
}

impl Assigned {
    /// A container with nothing in it.
    pub fn empty(vfio: &Vfio) -> Self {
        let process = Process::new(Arc::new(Everywhere));
        Self { container: vfio.open_container(), process, groups: Vec::new() }
    }

    /// Puts `groups` into one container.
    pub fn new(vfio: &Vfio, groups: &[GroupId]) -> Result<Self, Refusal> {
        let mut assigned = Self::empty(vfio);
        assigned.attach(vfio, groups)?;
        let set = assigned.set_iommu(extension::TYPE1V2);
        set.map_err(|error| Refusal::new(error.errno(), &error))?;
        Ok(assigned)
    }

    /// Opens `groups` and puts them into the container.
    pub fn attach(&mut self, vfio: &Vfio, groups: &[GroupId]) -> Result<(), Refusal> {
        for group in groups {
            let group = vfio
                .open_group(*group, &self.process)
                .map_err(|error| Refusal::new(error.errno(), &error))?;
            group
                .set_container(&self.container, &self.process)
                .map_err(|error| Refusal::new(error.errno(), &error))?;
            self.groups.push(group);
        }
        Ok(())
    }

    /// Closes the groups, so that they leave the container.
    pub fn detach(&mut self) {
        self.groups.clear();
    }

    /// Sets a driver: the type1 version asked for, or noiommu if the groups have no IOMMU.
    pub fn set_iommu(&self, type1: u64) -> Result<(), SetIommuError> {
        let kind = match self.groups.first().map(OpenGroup::id) {
            Some(GroupId::NoIommu(_)) => extension::NOIOMMU,
            _ => type1,
        };
        self.container.set_iommu(&self.process, kind)
    }
}

/// A set of groups to look at: what one container would hold.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    host: &'a Host,
    /// The groups, in the order in which they are added.
    pub groups: Vec<&'a HostGroup>,
    /// The devices that were asked for by name.
    asked_for: Vec<&'a HostDevice>,
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
        let (mut groups, mut asked_for) = (Vec::<&HostGroup>::new(), Vec::new());
        for device in devices {
            let name = with_domain(device);
            let (group, device) = host.device(&name).ok_or_else(|| UnknownDevice {
                host: host.name.clone(),
                device: device.clone(),
                known: host.device_names(),
            })?;
            if !groups.iter().any(|known| std::ptr::eq(*known, group)) {
                groups.push(group);
            }
            asked_for.push(device);
        }
        Ok(Self { host, groups, asked_for })
    }

    /// Each group by itself.
    pub fn each(host: &'a Host) -> Vec<Self> {
        host.groups.iter().map(|group| Self::of_group(host, group)).collect()
    }

    /// One group of the host.
    pub fn of_group(host: &'a Host, group: &'a HostGroup) -> Self {
        Self { host, groups: vec![group], asked_for: Vec::new() }
    }

    /// Assigns the groups, if they are ready for it.
    pub fn assign(&self, vfio: &Vfio) -> Result<Assigned, Refusal> {
        self.check_drivers(vfio.kernel())?;
        Assigned::new(vfio, &self.ids())
    }

    /// Tells what a person would look at first, before a kernel is asked: an IOMMU that it has no
    /// driver for, a device that the host uses, or that VFIO was not given.
    pub fn check_drivers(&self, kernel: &Kernel) -> Result<(), Refusal> {
        let wrong = self.no_iommu_driver(kernel).or_else(|| self.wrong_driver());
        wrong.map_or(Ok(()), |why| Err(Refusal { errno: None, why }))
    }

    /// Without a driver for its IOMMU a device has no group.
    fn no_iommu_driver(&self, kernel: &Kernel) -> Option<String> {
        self.groups.iter().find_map(|group| {
            let platform = group.platform(&self.host.iommus)?;
            let (_, release) = platform.first_kernel().filter(|(k, _)| age(kernel) < age(k))?;
            let driver = platform.iommu(kernel, self.host.page_size).driver;
            Some(format!("kernel {kernel} has no driver for {driver}; it came with {release}"))
        })
    }

    fn wrong_driver(&self) -> Option<String> {
        let mut devices = self.groups.iter().flat_map(|group| group.devices.iter());
        let owned = devices.find_map(|device| match device.binding() {
            Binding::Kernel(driver) => Some(format!(
                "{} is bound to {driver}; bind every device of the group to vfio-pci, or to none",
                device.name
            )),
            Binding::Vfio | Binding::Unbound | Binding::NoDma => None,
        });
        let not_given = self.asked_for.iter().find(|device| device.binding() != Binding::Vfio);
        let bound = |group: &HostGroup| group.devices.iter().any(|d| d.binding() == Binding::Vfio);
        owned
            .or(not_given.map(|device| {
                format!("{} is not bound to a VFIO driver; bind it to vfio-pci", device.name)
            }))
            .or((!self.groups.iter().all(|group| bound(group)))
                .then(|| "no device is bound to a VFIO driver; bind one to vfio-pci".to_owned()))
    }

    /// The groups' numbers.
    pub fn ids(&self) -> Vec<GroupId> {
        self.groups.iter().map(|group| group.id()).collect()
    }

    /// The names of the devices bound to VFIO, or of all if none is.
    pub fn device_names(&self) -> Vec<&'a str> {
        let devices = || self.groups.iter().flat_map(|group| group.devices.iter());
        let bound = devices().filter(|device| device.binding() == Binding::Vfio);
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
