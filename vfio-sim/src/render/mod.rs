// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The files that programs read on a host: `/sys`, `/dev/vfio` and some of `/proc`, and the boot log
//! for what those do not tell, as one kernel presents them.
//!
//! [`tree`] makes a [`Tree`] in memory; [`Tree::write`] puts it on disk. Where the host does not tell
//! something that Linux shows (a subsystem ID, the address of an IOMMU's registers, the number of CPUs), there
//! is 0, or what is usual. `device` has what a device shows, `group` a group,
//! `unit` an IOMMU, `stand_in` the facts behind results that a host states outright.

mod device;
mod group;
mod stand_in;
mod tree;
mod unit;

use vfio_type1::{Binding, Kernel};

use crate::host::{BootError, Host, HostDevice, HostGroup, HostGroupKind};
use crate::names::pci_bus;
use crate::pci::HostBridge;
use unit::{Unit, units};

pub(crate) use device::{DEFAULT_DMA_MASK_BITS, flag};
pub use tree::{Node, Tree, WriteTreeError};
pub(crate) use unit::{AMD_GUEST_TABLES, SCALABLE_MODE_OFF, SCALABLE_MODE_ON};

/// A host that cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// No driver runs on it.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A group and a noiommu group have the same number.
    #[error(
        "two groups have the number {number}; Linux numbers noiommu groups among the others, so give \
         one another number"
    )]
    SharedNumber {
        /// The number.
        number: u32,
    },
    /// The name of a device or a driver cannot be that of a file.
    #[error("\"{name}\" is no name of a file; rename the device or driver")]
    NoFileName {
        /// The name.
        name: String,
    },
}

/// What a host shows to programs, and what the files could not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The files.
    pub tree: Tree,
    /// Facts of the host that Linux shows nowhere, a line each.
    pub notes: Vec<String>,
}

/// The files of `host` under `kernel`.
pub fn tree(host: &Host, kernel: Kernel) -> Result<Rendered, RenderError> {
    check_numbers(host)?;
    check_names(host)?;
    let vfio = host.boot(kernel)?;
    let units = units(host, &kernel);
    let mut tree = Tree::default();
    for unit in &units {
        unit.show(&mut tree);
    }
    for group in &host.groups {
        let regions = vfio.reserved_regions(group.id()).unwrap_or_default();
        group::show(group, &units, &kernel, &regions, &mut tree);
        for one in &group.devices {
            device::show(&Place::of(host, group, one), group, one, &units, &mut tree);
        }
    }
    modules(host, &mut tree);
    tree.file("dev/vfio/vfio", "");
    if kernel.behaviours().last_iommufd_command.is_some() {
        tree.file("dev/iommu", "");
        for (node, device) in cdevs(host) {
            cdev(host, &node, device, &mut tree);
        }
    }
    tree.file("proc/sys/kernel/osrelease", format!("{}\n", release(&kernel)));
    tree.file("dmesg", log(host, &kernel, &units));
    let lost = host.bridges.iter().filter(|bridge| !bridge.dma_ranges.is_empty());
    let lost = lost.map(|bridge| {
        let segment = bridge.segment;
        format!("the dma-ranges of segment {segment:04x} are in no file: a device tree has them")
    });
    let notes = units.iter().filter_map(|unit| unit.note.clone()).chain(lost).collect();
    Ok(Rendered { tree, notes })
}

/// The devices that have a node of their own where the kernel has iommufd, each with the node's name below
/// `/dev/vfio/devices`: those that VFIO has, in the order of their groups.
pub fn cdevs(host: &Host) -> impl Iterator<Item = (String, &HostDevice)> {
    let iommu = |group: &&HostGroup| group.kind != HostGroupKind::NoIommu;
    let devices = host.groups.iter().filter(iommu).flat_map(|group| &group.devices);
    let bound = devices.filter(|device| device.binding() == Binding::Vfio);
    bound.enumerate().map(|(number, device)| (format!("vfio{number}"), device))
}

/// A device's own node, and where sysfs names it (`vfio_device_cdev_register`).
fn cdev(host: &Host, node: &str, device: &HostDevice, tree: &mut Tree) {
    let Some((group, _)) = host.device(&device.name) else { return };
    let directory = Place::of(host, group, device).directory;
    let path = format!("vfio/devices/{node}");
    if let Some((major, minor)) = device_number(&path) {
        tree.file(format!("{directory}/vfio-dev/{node}/dev"), format!("{major}:{minor}\n"));
    }
    tree.file(format!("dev/{path}"), "");
}

/// The number, major and minor, that a file of VFIO's has as a character device, by its path below `/dev`.
/// `None` if VFIO has no such file.
///
/// `vfio/vfio` has the one of `include/linux/miscdevice.h`. The others are some of those that Linux gives out
/// at will; a group's and a device's minor is its own number.
pub fn device_number(path: &str) -> Option<(u32, u32)> {
    const MISC: u32 = 10;
    const GROUPS: u32 = 510;
    const DEVICES: u32 = 511;
    match path {
        "iommu" => return Some((MISC, 127)),
        "vfio/vfio" => return Some((MISC, 196)),
        _ => {}
    }
    let name = path.strip_prefix("vfio/")?;
    let (major, minor) = match name.strip_prefix("devices/vfio") {
        Some(number) => (DEVICES, number),
        None => (GROUPS, name.strip_prefix("noiommu-").unwrap_or(name)),
    };
    minor.parse().ok().map(|minor| (major, minor))
}

/// Linux numbers all groups together.
fn check_numbers(host: &Host) -> Result<(), RenderError> {
    let mut numbers: Vec<u32> = host.groups.iter().map(|group| group.number).collect();
    numbers.sort_unstable();
    match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(RenderError::SharedNumber { number: pair[0] }),
        None => Ok(()),
    }
}

/// Devices and drivers are directories and links.
fn check_names(host: &Host) -> Result<(), RenderError> {
    let wrong =
        |name: &&String| matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']);
    let mut names =
        host.devices().flat_map(|device| [&device.name].into_iter().chain(&device.driver));
    match names.find(wrong) {
        Some(name) => Err(RenderError::NoFileName { name: name.clone() }),
        None => Ok(()),
    }
}

/// What `uname -r` says. The patch level is nobody's in particular; the series of 2018 was sent for 4.16.
fn release(kernel: &Kernel) -> String {
    match kernel.name() {
        "2018-v6" => "4.16.0-2018-v6".to_owned(),
        name => format!("{name}.0"),
    }
}

/// The modules' parameters, with their defaults where the host does not tell.
fn modules(host: &Host, tree: &mut Tree) {
    let yes = |value: bool| if value { "Y\n" } else { "N\n" };
    let entries = format!("{}\n", host.dma_entry_limit);
    let noiommu = host.groups.iter().any(|group| group.kind == HostGroupKind::NoIommu);
    let parameters = [
        ("vfio", "enable_unsafe_noiommu_mode", yes(noiommu)),
        ("vfio_pci", "disable_idle_d3", "N\n"),
        ("vfio_pci", "nointxmask", "N\n"),
        ("vfio_iommu_type1", "allow_unsafe_interrupts", yes(host.allow_unsafe_interrupts)),
        ("vfio_iommu_type1", "disable_hugepages", "N\n"),
        ("vfio_iommu_type1", "dma_entry_limit", &entries),
    ];
    for (module, parameter, value) in parameters {
        tree.file(format!("sys/module/{module}/parameters/{parameter}"), value);
    }
}

/// The boot log: what the IOMMU drivers and the PCI core print of the facts, once each.
fn log(host: &Host, kernel: &Kernel, units: &[Unit]) -> String {
    let page = host.page_size.bytes();
    let mut lines = vec![
        format!("Linux version {} (vfio-sim)", release(kernel)),
        // A table of one page: the only line of every log that tells the page's size.
        format!("Mount-cache hash table entries: {} (order: 0, {page} bytes, linear)", page / 8),
    ];
    for line in units.iter().flat_map(|unit| &unit.log) {
        if !lines.contains(line) {
            lines.push(line.clone());
        }
    }
    lines.extend(host.bridges.iter().flat_map(bridge_log));
    lines.iter().map(|line| format!("[    0.000000] {line}\n")).collect()
}

fn bridge_log(bridge: &HostBridge) -> Vec<String> {
    let HostBridge { segment, buses: (first, last), windows, .. } = bridge;
    let bus = format!("pci_bus {segment:04x}:{first:02x}: root bus resource");
    let windows = windows.iter().map(|window| {
        format!("{bus} [mem {:#010x}-{:#010x} window]", window.first().0, window.last().0)
    });
    windows.chain([format!("{bus} [bus {first:02x}-{last:02x}]")]).collect()
}

/// Where a device is in the tree.
struct Place {
    /// Its directory.
    directory: String,
    /// Its bus (`pci`, `mdev`).
    bus: &'static str,
}

impl Place {
    fn of(host: &Host, group: &HostGroup, device: &HostDevice) -> Self {
        match group.kind {
            HostGroupKind::Emulated => Self {
                // Where the kernel's own sample driver puts them.
                directory: format!("sys/devices/virtual/mtty/mtty/{}", device.name),
                bus: "mdev",
            },
            HostGroupKind::Iommu(_) | HostGroupKind::NoIommu => {
                Self { directory: pci_directory(host, &device.name), bus: "pci" }
            }
        }
    }
}

/// The directory of a PCI device: below its bridge if the host has it, else below a root bus.
fn pci_directory(host: &Host, name: &str) -> String {
    let (segment, bus) = pci_bus(name).unwrap_or_default();
    // A bridge is on a bus of a lower number than those behind it, so this ends.
    let bridge = host.devices().find(|bridge| {
        pci_bus(&bridge.name).is_some_and(|(other, own)| other == segment && own < bus)
            && bridge.pci.buses.is_some_and(|(secondary, _)| secondary == bus)
    });
    if let Some(bridge) = bridge {
        return format!("{}/{name}", pci_directory(host, &bridge.name));
    }
    let host_bridge = host.bridges.iter().find(|bridge| bridge.leads_to(name));
    let root = host_bridge.map_or(bus, |bridge| bridge.buses.0);
    format!("sys/devices/pci{segment:04x}:{root:02x}/{name}")
}

#[cfg(test)]
mod tests {
    use super::device_number;

    #[test]
    fn files_of_vfio_alone_have_numbers() {
        let numbered = [
            ("vfio/vfio", 10, 196),
            ("iommu", 10, 127),
            ("vfio/26", 510, 26),
            ("vfio/noiommu-3", 510, 3),
            ("vfio/devices/vfio12", 511, 12),
        ];
        for (path, major, minor) in numbered {
            assert_eq!(device_number(path), Some((major, minor)), "{path}");
        }
        for path in ["null", "vfio", "vfio/devices", "vfio/devices/12", "vfio/devices/vfio", "26"] {
            assert_eq!(device_number(path), None, "{path}");
        }
    }
}
