// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a host of what a file says, and checks one part against another.

use std::collections::HashMap;

use toml::Spanned;
use vfio_type1::{DEFAULT_DMA_ENTRY_LIMIT, PageSize};

use super::bridge::host_bridges;
use super::facts::{platform, scopes};
use super::pci::function;
use super::region::parse_region;
use super::schema::{Device, File, Group, GroupKind, Iommu};
use crate::host::{Host, HostDevice, HostGroup, HostGroupKind, HostIommu};
use crate::names::{is_pci_address, is_uuid, pci_bus};
use crate::number::Number;
use crate::pci::{Bar, BarKind};
use crate::toml_file::Problem;

pub(super) fn build(name: &str, file: File) -> Result<Host, Problem> {
    let page_size = file.page_size.as_ref().map_or(Ok(PageSize::P4K), page_size)?;
    let mut iommus = Iommus::default();
    for iommu in &file.iommu {
        iommus.add(iommu, page_size)?;
    }
    let scopes: Vec<Vec<Spanned<String>>> =
        file.iommu.iter().map(|iommu| scopes(iommu.get_ref())).collect();
    let mut groups = Groups::default();
    for group in file.group {
        groups.add(group, &iommus)?;
    }
    if groups.list.is_empty() {
        return Err(Problem::nowhere("the host has no [[group]]"));
    }
    check_scopes(&scopes, &groups)?;
    check_bars(&groups)?;
    let bridges = host_bridges(&file.host_bridge)?;
    let mut host = Host {
        name: name.to_owned(),
        description: file.description,
        source: file.source,
        page_size,
        allow_unsafe_interrupts: file.allow_unsafe_interrupts,
        dma_entry_limit: file.dma_entry_limit.unwrap_or(DEFAULT_DMA_ENTRY_LIMIT),
        reserve_dma_masks: file.reserve_dma_masks,
        iommus: iommus.list,
        groups: groups.list,
        bridges,
    };
    host.place_models().map_err(|error| Problem::nowhere(error.to_string()))?;
    Ok(host)
}

fn page_size(size: &Spanned<Number>) -> Result<PageSize, Problem> {
    let page = PageSize::new(size.get_ref().0).filter(|page| *page >= PageSize::P4K);
    page.ok_or_else(|| {
        let size_given = size.get_ref().0;
        Problem::at(size, format!("page-size {size_given:#x} is not a power of two from 4K up"))
    })
}

#[derive(Default)]
struct Iommus {
    list: Vec<HostIommu>,
}

impl Iommus {
    fn add(&mut self, iommu: &Spanned<Iommu>, cpu_page: PageSize) -> Result<(), Problem> {
        let stated = iommu.get_ref().name.as_ref();
        let name =
            stated.map_or(format!("iommu{}", self.list.len()), |name| name.get_ref().clone());
        if self.position(&name).is_some() {
            let problem = format!("two IOMMUs have the name \"{name}\"");
            return Err(match stated {
                Some(stated) => Problem::at(stated, problem),
                None => Problem::at(iommu, problem + ", which is what one without a name gets"),
            });
        }
        let platform = platform(iommu, cpu_page)?;
        self.list.push(HostIommu { name, platform });
        Ok(())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|iommu| iommu.name == name)
    }

    /// The IOMMU that a group names, or the only one there is.
    fn of_group(&self, group: &Group) -> Result<usize, Problem> {
        match &group.iommu {
            Some(name) => self.position(name.get_ref()).ok_or_else(|| {
                Problem::at(name, format!("there is no [[iommu]] named \"{}\"", name.get_ref()))
            }),
            None if self.list.len() == 1 => Ok(0),
            None => {
                let count = self.list.len();
                let problem =
                    format!("the host has {count} IOMMUs; say which with iommu = \"...\"");
                Err(Problem::at(&group.number, problem))
            }
        }
    }
}

#[derive(Default)]
struct Groups {
    list: Vec<HostGroup>,
    /// Each device and its group.
    devices: HashMap<String, u32>,
    /// Where each device is described.
    places: Vec<Spanned<String>>,
}

impl Groups {
    fn add(&mut self, group: Group, iommus: &Iommus) -> Result<(), Problem> {
        let number = *group.number.get_ref();
        let kind = match group.kind.unwrap_or(GroupKind::Iommu) {
            GroupKind::Iommu => HostGroupKind::Iommu(iommus.of_group(&group)?),
            GroupKind::Emulated => HostGroupKind::Emulated,
            GroupKind::Noiommu => HostGroupKind::NoIommu,
        };
        if let Some(iommu) = &group.iommu
            && !matches!(kind, HostGroupKind::Iommu(_))
        {
            let problem =
                "a group that is emulated or noiommu has no IOMMU; leave it out".to_owned();
            return Err(Problem::at(iommu, problem));
        }
        let noiommu = kind == HostGroupKind::NoIommu;
        let twin = |known: &HostGroup| {
            known.number == number && (known.kind == HostGroupKind::NoIommu) == noiommu
        };
        if self.list.iter().any(twin) {
            return Err(Problem::at(&group.number, format!("two groups have the number {number}")));
        }
        if group.device.is_empty() {
            return Err(Problem::at(&group.number, format!("group {number} has no device")));
        }
        let mut devices = Vec::new();
        for device in group.device {
            devices.push(self.device(device, number, kind)?);
        }
        self.list.push(HostGroup { number, kind, devices });
        Ok(())
    }

    fn device(
        &mut self,
        device: Device,
        group: u32,
        kind: HostGroupKind,
    ) -> Result<HostDevice, Problem> {
        let name = device.name.get_ref().clone();
        check_name(&name, kind).map_err(|problem| Problem::at(&device.name, problem))?;
        if let Some(other) = self.devices.insert(name.clone(), group) {
            let problem = format!("device {name} is in group {other} already");
            return Err(Problem::at(&device.name, problem));
        }
        if !matches!(kind, HostGroupKind::Iommu(_)) && !device.regions.is_empty() {
            let problem = format!("device {name} has regions, but no IOMMU reserves any for it");
            return Err(Problem::at(&device.name, problem));
        }
        self.places.push(device.name.clone());
        let mut regions = Vec::new();
        for text in &device.regions {
            let region = parse_region(text.get_ref());
            regions.push(region.map_err(|problem| Problem::at(text, problem))?);
        }
        let driver = device.driver.as_ref().map_or("vfio-pci", |driver| driver.get_ref());
        if driver.is_empty() {
            let problem = "a driver has a name; write \"none\" for an unbound device";
            return Err(Problem::maybe_at(device.driver.as_ref(), problem));
        }
        let (pci, model) = function(&device, kind)?;
        Ok(HostDevice {
            pci,
            model,
            name,
            description: device.description,
            driver: match (kind, driver) {
                // The driver of an emulated device is its parent's; it is there for VFIO.
                (HostGroupKind::Emulated, _) => Some("vfio_mdev".to_owned()),
                (_, "none") => None,
                (_, driver) => Some(driver.to_owned()),
            },
            regions,
        })
    }
}

/// Devices that firmware tables name must be there, behind that very IOMMU, or their memory would be
/// passed over. A bridge stands for what is behind it.
fn check_scopes(scopes: &[Vec<Spanned<String>>], groups: &Groups) -> Result<(), Problem> {
    for (iommu, scopes) in scopes.iter().enumerate() {
        for scope in scopes {
            let name = scope.get_ref();
            let holds =
                |group: &&HostGroup| group.devices.iter().any(|device| device.name == *name);
            let Some(group) = groups.list.iter().find(holds) else {
                return Err(Problem::at(scope, format!("the host has no device \"{name}\"")));
            };
            let bridge = group.devices.iter().any(|d| d.name == *name && d.pci.buses.is_some());
            if group.kind != HostGroupKind::Iommu(iommu) && !bridge {
                let problem = format!(
                    "device {name} is not behind this IOMMU; state its memory with the one of group {}",
                    group.number
                );
                return Err(Problem::at(scope, problem));
            }
        }
    }
    Ok(())
}

/// What decodes memory on one segment must not decode the same addresses.
fn check_bars(groups: &Groups) -> Result<(), Problem> {
    let mut known: Vec<(u32, Bar, String)> = Vec::new();
    for (device, place) in groups.list.iter().flat_map(|g| &g.devices).zip(&groups.places) {
        let segment = pci_bus(&device.name).map_or(0, |(segment, _)| segment);
        for (index, bar) in &device.pci.bars {
            let name = format!("BAR {index} of {}", device.name);
            let clash = known.iter().find(|(other_segment, other, _)| {
                let same_kind = (other.kind == BarKind::Io) == (bar.kind == BarKind::Io);
                *other_segment == segment && same_kind && other.range.overlaps(&bar.range)
            });
            if let Some((_, other, other_name)) = clash {
                let (range, other) = (bar.range, other.range);
                let text = format!("{name}, {range}, overlaps {other_name}, {other}; move one");
                return Err(Problem::at(place, text));
            }
            known.push((segment, *bar, name));
        }
    }
    Ok(())
}

fn check_name(name: &str, kind: HostGroupKind) -> Result<(), String> {
    if kind == HostGroupKind::Emulated {
        let problem = format!("\"{name}\" is not a UUID, by which emulated devices are named");
        return if is_uuid(name) { Ok(()) } else { Err(problem) };
    }
    let problem = format!("\"{name}\" is not a PCI address such as 0000:00:03.0");
    if is_pci_address(name) { Ok(()) } else { Err(problem) }
}
