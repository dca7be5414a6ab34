// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups as `/sys/kernel/iommu_groups` shows them.

use vfio_type1::{ReservedRegion, sysfs};

use super::CaptureError;
use super::device::{emulated, pci};
use super::source::Source;
use super::unit::CapturedUnit;
use crate::host::{HostGroup, HostGroupKind};
use crate::names::{is_pci_address, is_uuid};

/// Where the groups are.
const GROUPS: &str = "sys/kernel/iommu_groups";

/// A group, and what the kernel says is reserved in it.
pub(super) struct CapturedGroup {
    /// The group, without regions.
    pub(super) group: HostGroup,
    /// Its `reserved_regions`, as far as they could be read.
    pub(super) reported: Vec<ReservedRegion>,
    /// The list has a line that could not be read, as a kernel that cuts it off leaves one.
    pub(super) cut: bool,
}

/// The groups that a host file can describe, by their numbers.
pub(super) fn groups(
    units: &[CapturedUnit],
    source: &mut Source,
) -> Result<Vec<CapturedGroup>, CaptureError> {
    let (mut groups, mut count, mut reason) = (Vec::new(), 0, String::new());
    for name in source.names(GROUPS) {
        let Ok(number) = name.parse() else {
            source.note(format!("{GROUPS}/{name}: not a number"));
            continue;
        };
        count += 1;
        match group(number, units, source) {
            Ok(group) => groups.push(group),
            Err(problem) => {
                source.note(format!("group {number} left out: {problem}"));
                reason = problem;
            }
        }
    }
    match (count, groups.is_empty()) {
        (0, _) => Err(CaptureError::NoGroups { path: source.shown(GROUPS) }),
        (count, true) => Err(CaptureError::NoUsableGroup { count, reason }),
        (_, false) => Ok(groups),
    }
}

fn group(
    number: u32,
    units: &[CapturedUnit],
    source: &mut Source,
) -> Result<CapturedGroup, String> {
    let directory = format!("{GROUPS}/{number}");
    let names = source.names(&format!("{directory}/devices"));
    let kind = kind(number, &names, units, source)?;
    let right = |name: &String| match kind {
        HostGroupKind::Emulated => is_uuid(name),
        HostGroupKind::Iommu(_) | HostGroupKind::NoIommu => is_pci_address(name),
    };
    if let Some(other) = names.iter().find(|name| !right(name)) {
        source.note(format!("group {number}: left out {other}, which is not like the others"));
    }
    let device = |name: &String| match kind {
        HostGroupKind::Emulated => emulated(name),
        HostGroupKind::Iommu(_) | HostGroupKind::NoIommu => {
            pci(name, &place(number, name, source), source)
        }
    };
    let devices = names.iter().filter(|name| right(name)).map(device).collect();
    let (reported, cut) = match kind {
        HostGroupKind::Iommu(_) => reported(&format!("{directory}/reserved_regions"), source),
        HostGroupKind::Emulated | HostGroupKind::NoIommu => (Vec::new(), false),
    };
    Ok(CapturedGroup { group: HostGroup { number, kind, devices }, reported, cut })
}

/// What stands between a group's devices and memory. Since 5.16 VFIO gives the groups of emulated
/// devices the same name as those without an IOMMU, so the names of the devices decide.
fn kind(
    number: u32,
    names: &[String],
    units: &[CapturedUnit],
    source: &mut Source,
) -> Result<HostGroupKind, String> {
    let Some(first) = names.first() else { return Err("it has no devices".to_owned()) };
    let functions: Vec<&String> = names.iter().filter(|name| is_pci_address(name)).collect();
    match functions[..] {
        [] if names.iter().any(|name| is_uuid(name)) => Ok(HostGroupKind::Emulated),
        [] => Err(format!("its devices, such as {first}, are neither PCI nor emulated")),
        _ if source.line(&format!("{GROUPS}/{number}/name")).as_deref() == Some("vfio-noiommu") => {
            Ok(HostGroupKind::NoIommu)
        }
        _ => Ok(HostGroupKind::Iommu(unit_of(number, &functions, units, source)?)),
    }
}

/// The directory of a device: through its group, or, in a tree copied without those links, its bus.
fn place(number: u32, name: &str, source: &Source) -> String {
    let in_group = format!("{GROUPS}/{number}/devices/{name}");
    if source.is_directory(&in_group) { in_group } else { format!("sys/bus/pci/devices/{name}") }
}

/// The IOMMU of a group: that of its first device that tells.
fn unit_of(
    number: u32,
    devices: &[&String],
    units: &[CapturedUnit],
    source: &Source,
) -> Result<usize, String> {
    let position = |name: String| units.iter().position(|unit| unit.iommu.name == name);
    for device in devices {
        let link = format!("{}/iommu", place(number, device, source));
        if let Some(name) = source.link(&link) {
            return position(name.clone())
                .ok_or_else(|| format!("it is behind {name}, which cannot be described"));
        }
        let lists = |unit: &CapturedUnit| {
            source.is_directory(&format!("{}/devices/{device}", unit.directory))
        };
        if let Some(at) = units.iter().position(lists) {
            return Ok(at);
        }
    }
    match units.len() {
        1 => Ok(0),
        _ => Err("nothing tells which IOMMU it is behind".to_owned()),
    }
}

/// The lines of `reserved_regions` that can be read, and whether others could not.
fn reported(path: &str, source: &mut Source) -> (Vec<ReservedRegion>, bool) {
    let Some(text) = source.text(path) else {
        source
            .note(format!("{path}: not there; only the regions that follow from facts are known"));
        return (Vec::new(), true);
    };
    let mut regions = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match sysfs::parse(line) {
            Ok(region) => regions.extend(region),
            Err(error) => {
                let line = index + 1;
                source.note(format!(
                    "{path}: line {line} and what follows left out: expected {}, found {}",
                    error.expected, error.found
                ));
                return (regions, true);
            }
        }
    }
    (regions, false)
}
