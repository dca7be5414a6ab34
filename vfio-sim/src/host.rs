// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hosts: what a machine's IOMMUs, groups and devices are, and the driver instance on it.
//!
//! A [`Host`] comes from a TOML file (`host_file`) or from the header of a recording (`trace`). It
//! states facts; which regions follow from them is `platform`'s business, and which answers follow
//! from those is `vfio-type1`'s.

use std::sync::Arc;

use vfio_type1::{
    Binding, DeviceDescription, FixedIommu, GroupDescription, GroupId, GroupKind, HostError, Iommu,
    IovaRange, Kernel, PageSize, ReservedRegion, Vaddr, Vfio,
};

use crate::device::ModelSpec;
use crate::knobs::Knobs;
use crate::pci::{HostBridge, PciFunction};
use crate::platform::Platform;
use crate::policy::out_of_reach;

/// Where user addresses end on arm64, as Debian's 6.12 was measured to have it (spec 7.4).
pub(crate) const ARM64_USER_LIMIT: Vaddr = Vaddr(1 << 52);

/// A machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// A short name.
    pub name: String,
    /// A line about it.
    pub description: String,
    /// Where the facts are from: a recording, a boot log, driver source.
    pub source: String,
    /// The CPU's page.
    pub page_size: PageSize,
    /// Whether the type1 module was loaded with `allow_unsafe_interrupts`.
    pub allow_unsafe_interrupts: bool,
    /// Its `dma_entry_limit`: how many mappings a container may have.
    pub dma_entry_limit: u32,
    /// Whether what a device's DMA mask or its IOMMU leaves out is listed as reserved. No released
    /// kernel does that; it was proposed in 2020.
    pub reserve_dma_masks: bool,
    /// Its IOMMUs.
    pub iommus: Vec<HostIommu>,
    /// Its groups.
    pub groups: Vec<HostGroup>,
    /// Its PCI host bridges, as far as they are known.
    pub bridges: Vec<HostBridge>,
}

/// An IOMMU of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIommu {
    /// The name that groups refer to it by.
    pub name: String,
    /// What is known of it.
    pub platform: Platform,
}

/// A group of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostGroup {
    /// Its number.
    pub number: u32,
    /// What stands between its devices and memory.
    pub kind: HostGroupKind,
    /// Its devices.
    pub devices: Vec<HostDevice>,
}

/// What stands between a group's devices and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostGroupKind {
    /// The IOMMU at this place in [`Host::iommus`].
    Iommu(usize),
    /// A driver that emulates the device (mdev).
    Emulated,
    /// Nothing.
    NoIommu,
}

/// A device of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostDevice {
    /// Its PCI address, or its UUID if it is an emulated one.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The driver it is bound to; `None` if it is unbound.
    pub driver: Option<String>,
    /// What its configuration space says.
    pub pci: PciFunction,
    /// What it does, if it can be switched on.
    pub model: Option<ModelSpec>,
    /// Reserved regions that the host states outright, in the IOMMU driver's order. They follow
    /// those that the platform derives.
    pub regions: Vec<HostRegion>,
}

/// A reserved region of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostRegion {
    /// The region.
    pub region: ReservedRegion,
    /// The first kernel that reports it; `None` for all.
    pub since: Option<Kernel>,
}

impl HostRegion {
    /// A region that every kernel reports.
    pub fn always(region: ReservedRegion) -> Self {
        Self { region, since: None }
    }

    fn known_to(&self, kernel: &Kernel) -> bool {
        self.since.is_none_or(|since| age(&since) <= age(kernel))
    }
}

/// A host that no driver runs on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The groups contradict each other.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A group is behind an IOMMU that the host does not have.
    #[error("group {group} is behind an IOMMU that the host does not have")]
    NoSuchIommu {
        /// The group's number.
        group: u32,
    },
}

/// The place of a kernel among the known ones, oldest first.
pub(crate) fn age(kernel: &Kernel) -> usize {
    let position = Kernel::ALL.iter().position(|known| known.name() == kernel.name());
    position.unwrap_or(Kernel::ALL.len())
}

/// What holds for `kernel`: the entry of the newest kernel that is not newer. Oldest first.
pub(crate) fn newest_for<'a, T>(entries: &'a [(Kernel, T)], kernel: &Kernel) -> Option<&'a T> {
    let entry = entries.iter().rev().find(|(from, _)| age(from) <= age(kernel));
    entry.map(|(_, value)| value)
}

impl Host {
    /// The VFIO driver of `kernel` on this host.
    pub fn boot(&self, kernel: Kernel) -> Result<Vfio, BootError> {
        self.boot_with(kernel, &Knobs::default())
    }

    /// The VFIO driver of `kernel` on this host, with other settings.
    pub fn boot_with(&self, kernel: Kernel, knobs: &Knobs) -> Result<Vfio, BootError> {
        let arm = self.iommus.iter().any(|iommu| iommu.platform.is_arm());
        let kernel = if arm { kernel.with_user_limit(ARM64_USER_LIMIT) } else { kernel };
        let iommu = |iommu: &HostIommu| -> Arc<dyn Iommu> {
            let iommu = iommu.platform.iommu(&kernel, self.page_size);
            Arc::new(FixedIommu { page_sizes: knobs.pages.unwrap_or(iommu.page_sizes), ..iommu })
        };
        let iommus: Vec<Arc<dyn Iommu>> = self.iommus.iter().map(iommu).collect();
        let all_devices: Vec<&HostDevice> = self.devices().collect();
        let mut groups = Vec::new();
        for group in &self.groups {
            let kind = match group.kind {
                HostGroupKind::Iommu(at) => match iommus.get(at) {
                    Some(iommu) => GroupKind::Iommu(Arc::clone(iommu)),
                    None => return Err(BootError::NoSuchIommu { group: group.number }),
                },
                HostGroupKind::Emulated => GroupKind::Emulated,
                HostGroupKind::NoIommu => GroupKind::NoIommu,
            };
            let platform = group.platform(&self.iommus);
            let aperture = self.aperture(group, &kernel).filter(|_| self.reserve_dma_masks);
            let describe = |device: &HostDevice| {
                let mut described = device.under(&kernel, self.page_size, platform, &all_devices);
                let out = aperture.map(|aperture| out_of_reach(&device.pci, aperture));
                described.regions.splice(..0, out.into_iter().flatten());
                described
            };
            let devices = group.devices.iter().map(describe).collect();
            groups.push(GroupDescription { number: group.number, kind, devices });
        }
        let vfio = Vfio::with_page_size(kernel, self.page_size, groups)?;
        vfio.set_allow_unsafe_interrupts(self.allow_unsafe_interrupts);
        vfio.set_dma_entry_limit(knobs.entries.unwrap_or(self.dma_entry_limit));
        vfio.inject(knobs.plan.clone());
        vfio.set_noiommu(self.groups.iter().any(|group| group.kind == HostGroupKind::NoIommu));
        Ok(vfio)
    }

    /// What the domains of a group can translate under `kernel`.
    pub fn aperture(&self, group: &HostGroup, kernel: &Kernel) -> Option<IovaRange> {
        Some(self.iommu(group, kernel)?.aperture)
    }

    /// What `kernel` makes of the IOMMU of a group, if it has one.
    pub(crate) fn iommu(&self, group: &HostGroup, kernel: &Kernel) -> Option<FixedIommu> {
        Some(group.platform(&self.iommus)?.iommu(kernel, self.page_size))
    }

    /// The regions that the IOMMU driver of `kernel` lists for each device of a group, unmerged.
    pub(crate) fn driver_regions(
        &self,
        group: &HostGroup,
        kernel: &Kernel,
    ) -> Vec<Vec<ReservedRegion>> {
        let (all, platform) = (self.devices().collect::<Vec<_>>(), group.platform(&self.iommus));
        let regions =
            |device: &HostDevice| device.under(kernel, self.page_size, platform, &all).regions;
        group.devices.iter().map(regions).collect()
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = &HostDevice> {
        self.groups.iter().flat_map(|group| group.devices.iter())
    }

    /// The names of all devices.
    pub fn device_names(&self) -> Vec<String> {
        self.devices().map(|device| device.name.clone()).collect()
    }

    /// The device with this name, and its group.
    pub fn device(&self, name: &str) -> Option<(&HostGroup, &HostDevice)> {
        self.groups.iter().find_map(|group| {
            Some((group, group.devices.iter().find(|device| device.name == name)?))
        })
    }
}

impl HostGroup {
    pub(crate) fn platform<'a>(&self, iommus: &'a [HostIommu]) -> Option<&'a Platform> {
        match self.kind {
            HostGroupKind::Iommu(at) => Some(&iommus.get(at)?.platform),
            HostGroupKind::Emulated | HostGroupKind::NoIommu => None,
        }
    }

    /// What its device node is called.
    pub fn id(&self) -> GroupId {
        match self.kind {
            HostGroupKind::NoIommu => GroupId::NoIommu(self.number),
            HostGroupKind::Iommu(_) | HostGroupKind::Emulated => GroupId::Numbered(self.number),
        }
    }
}

impl HostDevice {
    fn under(
        &self,
        kernel: &Kernel,
        cpu_page: PageSize,
        platform: Option<&Platform>,
        all: &[&HostDevice],
    ) -> DeviceDescription {
        let derived = platform.map(|platform| platform.regions(self, all, kernel, cpu_page));
        let stated = self.regions.iter().filter(|region| region.known_to(kernel));
        DeviceDescription {
            name: self.name.clone(),
            binding: self.binding(),
            regions: derived
                .unwrap_or_default()
                .into_iter()
                .chain(stated.map(|region| region.region))
                .collect(),
        }
    }

    /// What its driver means to VFIO.
    pub fn binding(&self) -> Binding {
        match self.driver.as_deref() {
            None => Binding::Unbound,
            Some("pci-stub" | "pcieport") => Binding::NoDma,
            Some("vfio_mdev") => Binding::Vfio,
            Some(driver) if driver.starts_with("vfio-") => Binding::Vfio,
            Some(driver) => Binding::Kernel(driver.to_owned()),
        }
    }
}
