// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim show`: a host's groups, their reserved regions, the valid IOVA list, and a drawing.

use serde::Serialize;
use vfio_type1::{IovaRange, Kernel, PageSizes, RegionKind, ReservedRegion, Vfio, sysfs};

use crate::assign::Selection;
use crate::draw::draw;
use crate::host::{BootError, Host, HostDevice};
use crate::host_file::region_kind_name;
use crate::picture::Picture;
use crate::policy;
use crate::report::{Range, Refusal};
use crate::style::Style;

/// What a host looks like to VFIO under a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Show {
    /// The host.
    pub host: String,
    /// A line about it.
    pub description: String,
    /// Where its facts are from; empty if it does not say.
    pub source: String,
    /// The kernel.
    pub kernel: String,
    /// Whether DMA masks and apertures are reserved regions, as proposed in 2020.
    pub reserve_dma_masks: bool,
    /// An entry for each container: the devices asked for, or each group by itself.
    pub containers: Vec<ContainerShow>,
}

/// A container with groups in it, or groups that cannot be in one.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerShow {
    /// The groups and their devices.
    pub groups: Vec<GroupShow>,
    /// Why they cannot be assigned, if so.
    pub not_assigned: Option<Refusal>,
    /// The container's page sizes, as a hexadecimal bitmap.
    pub page_sizes: Option<String>,
    /// The valid IOVA list, ascending; empty if the kernel keeps none, or for emulated groups alone.
    pub valid: Vec<Range>,
    /// What can be mapped at all: the list, or without one what the IOMMUs translate. Empty without
    /// an IOMMU, since nothing can be mapped then.
    pub mappable: Vec<Range>,
    #[serde(skip)]
    picture: Option<Picture>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupShow {
    /// What its device node is called.
    pub group: String,
    /// Its devices.
    pub devices: Vec<DeviceShow>,
    /// Its reserved regions, merged as the kernel does.
    pub reserved: Vec<Region>,
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceShow {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
}

/// A reserved region.
#[derive(Clone, Debug, Serialize)]
pub struct Region {
    /// First address, in hexadecimal.
    pub first: String,
    /// Last address, inclusive, in hexadecimal.
    pub last: String,
    /// What for, as host files say it.
    pub kind: &'static str,
    #[serde(skip)]
    region: ReservedRegion,
}

/// Looks at a host. With `together` those devices share one container; without, each group has its
/// own.
pub fn show(
    host: &Host,
    kernel: Kernel,
    together: Option<Selection<'_>>,
) -> Result<Show, BootError> {
    let vfio = host.boot(kernel)?;
    let selections = together.map_or_else(|| Selection::each(host), |selection| vec![selection]);
    let containers =
        selections.iter().map(|selection| show_container(host, &vfio, selection)).collect();
    Ok(Show {
        host: host.name.clone(),
        description: host.description.clone(),
        source: host.source.clone(),
        kernel: kernel.to_string(),
        reserve_dma_masks: host.reserve_dma_masks,
        containers,
    })
}

fn show_container(host: &Host, vfio: &Vfio, selection: &Selection<'_>) -> ContainerShow {
    let groups: Vec<GroupShow> = selection
        .groups
        .iter()
        .map(|group| GroupShow {
            group: group.id().to_string(),
            devices: group.devices.iter().map(show_device).collect(),
            reserved: vfio.merged_regions(group.id()).iter().map(show_region).collect(),
        })
        .collect();
    let mut shown = ContainerShow {
        groups,
        not_assigned: None,
        page_sizes: None,
        valid: Vec::new(),
        mappable: Vec::new(),
        picture: None,
    };
    let assigned = match selection.assign(vfio) {
        Ok(assigned) => assigned,
        Err(refusal) => {
            shown.not_assigned = Some(refusal);
            return shown;
        }
    };
    let mappable = assigned.container.mappable();
    if let Ok(info) = assigned.container.info() {
        shown.page_sizes = Some(info.page_sizes.to_string());
        shown.valid = info.iova_ranges.into_iter().map(Range::from).collect();
        shown.picture = Some(picture(host, vfio, selection, mappable.clone(), info.page_sizes));
    }
    shown.mappable = mappable.into_iter().map(Range::from).collect();
    shown
}

fn picture(
    host: &Host,
    vfio: &Vfio,
    selection: &Selection<'_>,
    mappable: Vec<IovaRange>,
    page_sizes: PageSizes,
) -> Picture {
    let groups = || selection.groups.iter();
    Picture {
        mappable,
        regions: groups().flat_map(|group| vfio.merged_regions(group.id())).collect(),
        apertures: groups().filter_map(|group| host.aperture(group, vfio.kernel())).collect(),
        has_list: vfio.kernel().behaviours().valid_iova_list,
        page_sizes,
    }
}

fn show_device(device: &HostDevice) -> DeviceShow {
    DeviceShow { name: device.name.clone(), description: device.description.clone() }
}

fn show_region(region: &ReservedRegion) -> Region {
    Region {
        first: region.first.to_string(),
        last: region.last.to_string(),
        kind: region_kind_name(region.kind),
        region: *region,
    }
}

/// The host for a person. Containers that look alike share a drawing.
pub fn render(show: &Show) -> String {
    let title = Style.title();
    let mut text = format!("{title}host {}{title:#}", show.host);
    if !show.description.is_empty() {
        text += &format!(": {}", show.description);
    }
    text += "\n";
    let policy = if show.reserve_dma_masks { policy::HEADING } else { "" };
    text += &format!("kernel {}{policy}\n", show.kernel);
    if !show.source.is_empty() {
        text += &format!("source {}\n", show.source);
    }
    for container in &show.containers {
        text += "\n";
        text += &render_container(container);
    }
    for (picture, containers) in show.pictures() {
        text += &format!("\n{title}address space of {}{title:#}\n", groups_in_words(&containers));
        text += &draw(picture);
    }
    text
}

impl Show {
    /// The pictures, each with the containers that look so.
    pub(crate) fn pictures(&self) -> Vec<(&Picture, Vec<&ContainerShow>)> {
        let mut pictures: Vec<(&Picture, Vec<&ContainerShow>)> = Vec::new();
        for container in &self.containers {
            let Some(picture) = &container.picture else {
                continue;
            };
            match pictures.iter_mut().find(|(known, _)| *known == picture) {
                Some((_, containers)) => containers.push(container),
                None => pictures.push((picture, vec![container])),
            }
        }
        pictures
    }
}

impl ContainerShow {
    /// Whether there is an address space to draw.
    pub(crate) fn has_picture(&self) -> bool {
        self.picture.is_some()
    }
}

/// `groups 4, 5`.
pub(crate) fn groups_in_words(containers: &[&ContainerShow]) -> String {
    let groups = containers.iter().flat_map(|container| &container.groups);
    let names: Vec<&str> = groups.map(|group| group.group.as_str()).collect();
    let word = if names.len() == 1 { "group" } else { "groups" };
    format!("{word} {}", names.join(", "))
}

fn render_container(container: &ContainerShow) -> String {
    let title = Style.title();
    let mut text = String::new();
    for group in &container.groups {
        text += &format!("{title}group {}{title:#}\n", group.group);
        text += &render_group(group);
    }
    if container.groups.len() > 1 {
        text += &format!("{title}container of {}{title:#}\n", groups_in_words(&[container]));
    }
    text + &render_list(container)
}

fn render_group(group: &GroupShow) -> String {
    let mut text = String::new();
    for DeviceShow { name, description } in &group.devices {
        text += format!("  device    {name}  {description}").trim_end();
        text += "\n";
    }
    for Region { first, last, region, .. } in &group.reserved {
        let paint = Style.region(region.kind);
        text += &format!("  reserved  {paint}{first}..{last}  {}{paint:#}\n", kind(region.kind));
    }
    text
}

/// What a container with the groups accepts, or why there is none.
fn render_list(container: &ContainerShow) -> String {
    if let Some(refusal) = &container.not_assigned {
        return refusal.not_assigned();
    }
    let good = Style.good();
    let mut text = String::new();
    for range in &container.valid {
        text += &format!("  valid     {good}{range}{good:#}\n");
    }
    if container.mappable.is_empty() {
        let paint = Style.dim();
        text +=
            &format!("  {paint}no IOMMU: nothing is mapped, devices reach all memory{paint:#}\n");
    } else if container.valid.is_empty() {
        let ranges: Vec<String> = container.mappable.iter().map(Range::to_string).collect();
        text +=
            &format!("  valid     no list; {good}{}{good:#} can be mapped\n", ranges.join(", "));
    }
    if let Some(page_sizes) = container.picture.as_ref().map(|picture| picture.page_sizes) {
        text += &format!("  pages     {}\n", page_size_names(page_sizes));
    }
    text
}

/// `4K, 2M, 1G`, or the bitmap where that would be long.
fn page_size_names(sizes: PageSizes) -> String {
    let bits: Vec<u32> = (0..64).filter(|bit| sizes.0 & (1 << bit) != 0).collect();
    let name = |bit: &u32| {
        let unit = ["", "K", "M", "G", "T", "P", "E"].get(*bit as usize / 10).unwrap_or(&"");
        format!("{}{unit}", 1u32 << (bit % 10))
    };
    match &bits[..] {
        [first, ..] if sizes.0 == u64::MAX << first => format!("{} and all above", name(first)),
        few if few.len() <= 6 => few.iter().map(name).collect::<Vec<_>>().join(", "),
        [first, ..] => format!("{} and others, {sizes}", name(first)),
        [] => "none".to_owned(),
    }
}

/// A kind, with what sysfs calls it where that differs.
fn kind(kind: RegionKind) -> String {
    match kind {
        RegionKind::SoftwareMsi => format!("{kind}, {} in sysfs", sysfs::kind_name(kind)),
        _ => kind.to_string(),
    }
}
