// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device shows in sysfs (`drivers/pci/pci-sysfs.c`, `pci_uevent` in
//! `drivers/pci/pci-driver.c`).

use vfio_type1::{Binding, IovaRange};

use super::tree::Tree;
use super::unit::Unit;
use super::{Place, group};
use crate::config_space::{self, UNKNOWN_IDS};
use crate::device::ConfigSpace;
use crate::host::{HostDevice, HostGroup, HostGroupKind};
use crate::names::pci_bus;
use crate::pci::{Bar, BarKind, PciFunction};

/// The bits of the DMA mask that a PCI device has until its driver sets another
/// (`pci_setup_device`).
pub(crate) const DEFAULT_DMA_MASK_BITS: u32 = 32;

pub(super) fn show(
    place: &Place,
    group: &HostGroup,
    device: &HostDevice,
    units: &[Unit],
    tree: &mut Tree,
) {
    let Place { directory, bus } = place;
    let group_directory = group::directory(group);
    tree.link(format!("{directory}/subsystem"), format!("sys/bus/{bus}"));
    tree.link(format!("sys/bus/{bus}/devices/{}", device.name), directory);
    tree.link(format!("{directory}/iommu_group"), &group_directory);
    tree.link(format!("{group_directory}/devices/{}", device.name), directory);
    if let Some(driver) = &device.driver {
        let driver = format!("sys/bus/{bus}/drivers/{driver}");
        tree.link(format!("{driver}/{}", device.name), directory);
        tree.link(format!("{directory}/driver"), driver);
    }
    if let HostGroupKind::Iommu(at) = group.kind
        && let Some(unit) = units.get(at)
    {
        tree.link(format!("{directory}/iommu"), unit.directory());
        tree.link(format!("{}/devices/{}", unit.directory(), device.name), directory);
    }
    match group.kind {
        HostGroupKind::Emulated => {
            tree.file(format!("{directory}/uevent"), "DRIVER=vfio_mdev\n");
        }
        HostGroupKind::Iommu(_) | HostGroupKind::NoIommu => pci(directory, device, tree),
    }
}

/// Whether the device is enabled: by a driver of the kernel. VFIO enables it when it is opened.
fn enabled(device: &HostDevice) -> bool {
    matches!(device.binding(), Binding::Kernel(_)) || device.driver.as_deref() == Some("pcieport")
}

fn pci(directory: &str, device: &HostDevice, tree: &mut Tree) {
    let facts = &device.pci;
    for (name, value) in attributes(device) {
        tree.file(format!("{directory}/{name}"), value + "\n");
    }
    tree.file(format!("{directory}/uevent"), uevent(device));
    tree.file(format!("{directory}/resource"), resources(facts));
    let bus = pci_bus(&device.name).map_or(0, |(_, bus)| bus);
    tree.file(format!("{directory}/config"), config(device, bus));
    if let Some((secondary, subordinate)) = facts.buses {
        tree.file(format!("{directory}/secondary_bus_number"), format!("{secondary}\n"));
        tree.file(format!("{directory}/subordinate_bus_number"), format!("{subordinate}\n"));
    }
    resource_files(directory, facts, tree);
}

/// The configuration space: of a device with a model all of it, capabilities included.
fn config(device: &HostDevice, bus: u8) -> Vec<u8> {
    match &device.model {
        Some(model) => {
            let function = model.function();
            ConfigSpace::new(&function, &device.pci, bus).bytes().to_vec()
        }
        None => config_space::build(&device.pci, bus, enabled(device)).to_vec(),
    }
}

/// The files of one line, without its end.
fn attributes(device: &HostDevice) -> [(&'static str, String); 19] {
    let facts = &device.pci;
    let (vendor, id) = facts.ids.unwrap_or(UNKNOWN_IDS);
    let mask = facts.dma_mask_bits.unwrap_or(DEFAULT_DMA_MASK_BITS);
    let bound_to_vfio = device.driver.as_deref() == Some("vfio-pci");
    [
        ("vendor", format!("{vendor:#06x}")),
        ("device", format!("{id:#06x}")),
        ("subsystem_vendor", "0x0000".to_owned()),
        ("subsystem_device", "0x0000".to_owned()),
        ("revision", "0x00".to_owned()),
        ("class", format!("{:#08x}", facts.class.unwrap_or(0))),
        ("irq", "0".to_owned()),
        ("enable", u8::from(enabled(device)).to_string()),
        ("numa_node", "-1".to_owned()),
        ("dma_mask_bits", mask.to_string()),
        ("consistent_dma_mask_bits", mask.to_string()),
        ("local_cpus", "1".to_owned()),
        ("local_cpulist", "0".to_owned()),
        ("modalias", modalias(facts)),
        ("driver_override", if bound_to_vfio { "vfio-pci" } else { "(null)" }.to_owned()),
        ("broken_parity_status", "0".to_owned()),
        ("msi_bus", "1".to_owned()),
        ("ari_enabled", "0".to_owned()),
        ("d3cold_allowed", "1".to_owned()),
    ]
}

fn modalias(facts: &PciFunction) -> String {
    let (vendor, device) = facts.ids.unwrap_or(UNKNOWN_IDS);
    let [interface, subclass, class, _] = facts.class.unwrap_or(0).to_le_bytes();
    let subsystem = "sv00000000sd00000000";
    format!(
        "pci:v{vendor:08X}d{device:08X}{subsystem}bc{class:02X}sc{subclass:02X}i{interface:02X}"
    )
}

fn uevent(device: &HostDevice) -> String {
    let (vendor, id) = device.pci.ids.unwrap_or(UNKNOWN_IDS);
    let driver = device.driver.iter().map(|driver| format!("DRIVER={driver}\n"));
    let lines = [
        format!("PCI_CLASS={:04X}\n", device.pci.class.unwrap_or(0)),
        format!("PCI_ID={vendor:04X}:{id:04X}\n"),
        "PCI_SUBSYS_ID=0000:0000\n".to_owned(),
        format!("PCI_SLOT_NAME={}\n", device.name),
        format!("MODALIAS={}\n", modalias(&device.pci)),
    ];
    driver.chain(lines).collect()
}

/// Bits of the third number of a `resource` line (`include/linux/ioport.h`). The low byte repeats the
/// low bits of the register.
pub(crate) mod flag {
    pub(crate) const IO: u64 = 0x100;
    pub(crate) const MEMORY: u64 = 0x200;
    pub(crate) const PREFETCH: u64 = 0x2000;
    pub(crate) const READ_ONLY: u64 = 0x4000;
    pub(crate) const SIZE_ALIGNED: u64 = 0x4_0000;
    pub(crate) const WIDE: u64 = 0x10_0000;
}

/// Six BARs, the ROM and six BARs of virtual functions; a bridge has four windows too. What is not known
/// is 0.
fn resources(facts: &PciFunction) -> String {
    let line = |place: Option<(IovaRange, u64)>| match place {
        Some((range, flags)) => {
            format!("{:#018x} {:#018x} {flags:#018x}\n", range.first().0, range.last().0)
        }
        None => format!("{0:#018x} {0:#018x} {0:#018x}\n", 0),
    };
    let rom = flag::MEMORY | flag::PREFETCH | flag::READ_ONLY | flag::SIZE_ALIGNED;
    let bars = (0..6).map(|index| facts.bars.get(&index).map(|bar| (bar.range, bar_flags(bar))));
    let windows = if facts.buses.is_some() { 4 } else { 0 };
    let unknown = std::iter::repeat_n(None, 6 + windows);
    bars.chain([facts.rom.map(|range| (range, rom))]).chain(unknown).map(line).collect()
}

fn bar_flags(bar: &Bar) -> u64 {
    let kind = match bar.kind {
        BarKind::Io => flag::IO,
        BarKind::Memory { wide, prefetchable } => {
            let wide = if wide { flag::WIDE } else { 0 };
            let prefetch = if prefetchable { flag::PREFETCH } else { 0 };
            flag::MEMORY | wide | prefetch
        }
    };
    kind | flag::SIZE_ALIGNED | u64::from(bar.kind.register_flags())
}

/// The files that map BARs. Prefetchable ones have a second, for write-combining.
fn resource_files(directory: &str, facts: &PciFunction, tree: &mut Tree) {
    for (index, bar) in &facts.bars {
        let size = bar.range.size().unwrap_or(u64::MAX);
        tree.sparse(format!("{directory}/resource{index}"), size);
        if matches!(bar.kind, BarKind::Memory { prefetchable: true, .. }) {
            tree.sparse(format!("{directory}/resource{index}_wc"), size);
        }
    }
    if let Some(rom) = facts.rom {
        tree.sparse(format!("{directory}/rom"), rom.size().unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Iova;

    #[test]
    fn resource_lines_are_those_of_linux() {
        let bar = |first, size, kind| Bar {
            range: IovaRange::from_size(Iova(first), size).unwrap(),
            kind,
        };
        let memory = |wide, prefetchable| BarKind::Memory { wide, prefetchable };
        let facts = PciFunction {
            bars: [
                (0, bar(0x40_0000_0000, 0x8_0000, memory(true, false))),
                (2, bar(0x41_0000_0000, 0x1000, memory(true, true))),
                (4, bar(0xf000_0000, 0x1000, memory(false, false))),
                (5, bar(0xc000, 32, BarKind::Io)),
            ]
            .into(),
            rom: Some(IovaRange::from_size(Iova(0xfeb0_0000), 0x8_0000).unwrap()),
            ..PciFunction::default()
        };
        let text = resources(&facts);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 13);
        // As posted by users: BARs of a virtio device, a display, a serial port and a NIC's ROM.
        assert_eq!(lines[0], "0x0000004000000000 0x000000400007ffff 0x0000000000140204");
        assert_eq!(lines[1], "0x0000000000000000 0x0000000000000000 0x0000000000000000");
        assert!(lines[2].ends_with("0x000000000014220c"), "{}", lines[2]);
        assert!(lines[4].ends_with("0x0000000000040200"), "{}", lines[4]);
        assert!(lines[5].ends_with("0x000000000000c01f 0x0000000000040101"), "{}", lines[5]);
        assert!(lines[6].ends_with("0x0000000000046200"), "{}", lines[6]);
        let bridge = PciFunction { buses: Some((1, 1)), ..PciFunction::default() };
        assert_eq!(resources(&bridge).lines().count(), 17);
    }

    #[test]
    fn names_are_those_of_udev() {
        let facts = PciFunction {
            ids: Some((0x1af4, 0x1045)),
            class: Some(0xff_ff00),
            ..PciFunction::default()
        };
        let expected = "pci:v00001AF4d00001045sv00000000sd00000000bcFFscFFi00";
        assert_eq!(modalias(&facts), expected);
    }
}
