// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Host files: a machine described in TOML, for a person to read and edit.
//!
//! `vfio-sim/HOSTS.md` explains the format. This file owns the text: every mistake is reported with
//! its line, the field, and what was expected.

use std::collections::HashMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;
use vfio_type1::{
    Binding, IommuDriver, IovaRange, Kernel, PageSize, PageSizes, RegionKind, ReservedRegion,
};

use crate::host::{Host, HostDevice, HostGroup, HostGroupKind, HostIommu, HostRegion, Widths, age};
use crate::names::{iommu_driver, is_pci_address, is_uuid};
use crate::number::{Number, NumberError, Text, parse_number, parse_range};

/// A host file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostFileError {
    /// The file cannot be read.
    #[error("{file}: cannot read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        error: String,
    },
    /// Something in the file is wrong.
    #[error("{file}:{line}:{column}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    description: String,
    page_size: Option<Spanned<Number>>,
    #[serde(default)]
    allow_unsafe_interrupts: bool,
    #[serde(default)]
    iommu: Vec<Iommu>,
    #[serde(default)]
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Iommu {
    name: Option<Spanned<String>>,
    driver: Text<Driver>,
    aperture: Text<RangeText>,
    page_sizes: Spanned<Number>,
    coherent: bool,
    isolated_msi: bool,
    #[serde(default)]
    from: Vec<Newer>,
}

/// What a newer kernel makes of an IOMMU.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Newer {
    kernel: Spanned<Text<Kernel>>,
    aperture: Option<Text<RangeText>>,
    page_sizes: Option<Spanned<Number>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    number: Spanned<u32>,
    kind: Option<GroupKind>,
    iommu: Option<Spanned<String>>,
    #[serde(default)]
    device: Vec<Device>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum GroupKind {
    Iommu,
    Emulated,
    Noiommu,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Device {
    name: Spanned<String>,
    #[serde(default)]
    description: String,
    #[serde(default = "vfio_pci")]
    driver: String,
    #[serde(default)]
    regions: Vec<Spanned<String>>,
}

fn vfio_pci() -> String {
    "vfio-pci".to_owned()
}

struct Driver(IommuDriver);

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        iommu_driver(text).map(Self)
    }
}

struct RangeText(IovaRange);

impl FromStr for RangeText {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        parse_range(text).map(Self)
    }
}

/// Parses `RANGE KIND [since KERNEL]`.
fn parse_region(text: &str) -> Result<HostRegion, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (range, kind, since) = match words[..] {
        [range, kind] => (range, kind, None),
        [range, kind, "since", kernel] => (range, kind, Some(kernel)),
        // As sysfs prints it.
        [first, last, kind] => return sysfs_region(first, last, kind),
        _ => {
            return Err(format!("\"{text}\" is not a region: write RANGE KIND [since KERNEL]"));
        }
    };
    let since: Option<Kernel> =
        since.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
    let region = region(range, region_kind(kind)?).map_err(|error| error.to_string())?;
    Ok(HostRegion { region, since })
}

fn sysfs_region(first: &str, last: &str, kind: &str) -> Result<HostRegion, String> {
    let kind = region_kind(kind)?;
    let range = region(&format!("{first}-{last}"), kind).map_err(|error| error.to_string())?;
    Ok(HostRegion { region: range, since: None })
}

/// Firmware may state a region of no bytes, which only the form FIRST+0 can say.
fn region(range: &str, kind: RegionKind) -> Result<ReservedRegion, NumberError> {
    if let Some(first) = range.strip_suffix("+0") {
        return Ok(ReservedRegion::from_length(parse_number(first)?, 0, kind));
    }
    let range = parse_range(range)?;
    Ok(ReservedRegion { first: range.first(), last: range.last(), kind })
}

const KINDS: [(&str, RegionKind); 5] = [
    ("direct", RegionKind::Direct),
    ("direct-relaxable", RegionKind::DirectRelaxable),
    ("reserved", RegionKind::Reserved),
    ("msi", RegionKind::Msi),
    ("software-msi", RegionKind::SoftwareMsi),
];

/// The word for a kind in host files.
pub fn region_kind_name(kind: RegionKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

fn region_kind(name: &str) -> Result<RegionKind, String> {
    let known = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    known.ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        format!("unknown region kind \"{name}\"; known are {}", names.join(", "))
    })
}

/// The largest host file, in bytes: far more than a machine needs.
const MAX_FILE: u64 = 16 << 20;

/// Reads a text of `limit` bytes at most.
fn read_limited(path: &Path, limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(format!("the file has more than {limit} bytes"));
    }
    Ok(text)
}

/// Reads a host file.
pub fn load(path: &Path) -> Result<Host, HostFileError> {
    let file = path.display().to_string();
    let text = read_limited(path, MAX_FILE)
        .map_err(|error| HostFileError::Unreadable { file: file.clone(), error })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &file, &text)
}

/// Parses the text of a host file. `name` becomes the host's, `file` stands in errors.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Host, HostFileError> {
    let invalid = |problem: Problem| problem.in_file(file, text);
    let parsed: File = toml::from_str(text).map_err(|error| {
        invalid(Problem { span: error.span(), text: error.message().replace('\n', "; ") })
    })?;
    build(name, parsed).map_err(invalid)
}

/// What is wrong, and where in the text.
struct Problem {
    span: Option<Range<usize>>,
    text: String,
}

impl Problem {
    fn at<T>(place: &Spanned<T>, text: String) -> Self {
        Self { span: Some(place.span()), text }
    }

    fn nowhere(text: impl Into<String>) -> Self {
        Self { span: None, text: text.into() }
    }

    fn in_file(self, file: &str, text: &str) -> HostFileError {
        let offset = self.span.map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        HostFileError::Invalid { file: file.to_owned(), line, column, problem: self.text }
    }
}

fn build(name: &str, file: File) -> Result<Host, Problem> {
    let page_size = match &file.page_size {
        None => PageSize::P4K,
        Some(size) => PageSize::new(size.get_ref().0)
            .filter(|page| *page >= PageSize::P4K)
            .ok_or_else(|| {
                let size = size.get_ref().0;
                let problem = format!("page-size {size:#x} is not a power of two from 4K up");
                Problem { span: file.page_size.as_ref().map(Spanned::span), text: problem }
            })?,
    };
    let mut iommus = Iommus::default();
    for iommu in file.iommu {
        iommus.add(iommu)?;
    }
    let mut groups = Groups::default();
    for group in file.group {
        groups.add(group, &iommus)?;
    }
    if groups.list.is_empty() {
        return Err(Problem::nowhere("the host has no [[group]]"));
    }
    Ok(Host {
        name: name.to_owned(),
        description: file.description,
        page_size,
        allow_unsafe_interrupts: file.allow_unsafe_interrupts,
        iommus: iommus.list,
        groups: groups.list,
    })
}

#[derive(Default)]
struct Iommus {
    list: Vec<HostIommu>,
}

impl Iommus {
    fn add(&mut self, iommu: Iommu) -> Result<(), Problem> {
        let name = match iommu.name {
            None => format!("iommu{}", self.list.len()),
            Some(name) if self.position(name.get_ref()).is_some() => {
                let problem = format!("two IOMMUs have the name \"{}\"", name.get_ref());
                return Err(Problem::at(&name, problem));
            }
            Some(name) => name.into_inner(),
        };
        let widths =
            Widths { aperture: iommu.aperture.0.0, page_sizes: page_sizes(&iommu.page_sizes)? };
        self.list.push(HostIommu {
            name,
            driver: iommu.driver.0.0,
            coherent: iommu.coherent,
            isolated_msi: iommu.isolated_msi,
            newer: newer(widths, iommu.from)?,
            widths,
        });
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

fn page_sizes(sizes: &Spanned<Number>) -> Result<PageSizes, Problem> {
    match sizes.get_ref().0 {
        0 => Err(Problem::at(sizes, "page-sizes must have a bit set, such as 0x1000".to_owned())),
        bits => Ok(PageSizes(bits)),
    }
}

/// Each entry repeats the one before, but for what it states.
fn newer(widths: Widths, changes: Vec<Newer>) -> Result<Vec<(Kernel, Widths)>, Problem> {
    let mut newer: Vec<(Kernel, Widths)> = Vec::new();
    for change in changes {
        let (last, before) = newer.last().map_or((None, widths), |(k, w)| (Some(*k), *w));
        let kernel = change.kernel.get_ref().0;
        if let Some(last) = last.filter(|last| age(&kernel) <= age(last)) {
            let problem = format!("kernel {kernel} does not follow {last}: oldest first");
            return Err(Problem::at(&change.kernel, problem));
        }
        let aperture = change.aperture.map_or(before.aperture, |range| range.0.0);
        let sizes = change.page_sizes.as_ref().map(page_sizes).transpose()?;
        newer.push((kernel, Widths { aperture, page_sizes: sizes.unwrap_or(before.page_sizes) }));
    }
    Ok(newer)
}

#[derive(Default)]
struct Groups {
    list: Vec<HostGroup>,
    /// Each device and its group.
    devices: HashMap<String, u32>,
}

impl Groups {
    fn add(&mut self, group: Group, iommus: &Iommus) -> Result<(), Problem> {
        let number = *group.number.get_ref();
        let kind = match group.kind.unwrap_or(GroupKind::Iommu) {
            GroupKind::Iommu => HostGroupKind::Iommu(iommus.of_group(&group)?),
            GroupKind::Emulated => HostGroupKind::Emulated,
            GroupKind::Noiommu => HostGroupKind::NoIommu,
        };
        if let Some(iommu) = group.iommu.as_ref().filter(|_| group.kind != Some(GroupKind::Iommu))
            && group.kind.is_some()
        {
            let problem = "a group that is emulated or noiommu has no IOMMU".to_owned();
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
        let mut regions = Vec::new();
        for text in &device.regions {
            let region = parse_region(text.get_ref());
            regions.push(region.map_err(|problem| Problem::at(text, problem))?);
        }
        // The driver of an emulated device is its parent's; it is there for VFIO.
        let emulated = kind == HostGroupKind::Emulated;
        let binding = if emulated { Binding::Vfio } else { binding(&device.driver) };
        Ok(HostDevice { name, description: device.description, binding, regions })
    }
}

fn check_name(name: &str, kind: HostGroupKind) -> Result<(), String> {
    if kind == HostGroupKind::Emulated {
        let problem = format!("\"{name}\" is not a UUID, by which emulated devices are named");
        return if is_uuid(name) { Ok(()) } else { Err(problem) };
    }
    let problem = format!("\"{name}\" is not a PCI address such as 0000:00:03.0");
    if is_pci_address(name) { Ok(()) } else { Err(problem) }
}

fn binding(driver: &str) -> Binding {
    match driver {
        "none" => Binding::Unbound,
        "pci-stub" | "pcieport" => Binding::NoDma,
        _ if driver.starts_with("vfio") => Binding::Vfio,
        _ => Binding::Kernel(driver.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Iova;

    const IOMMU: &str = "[[iommu]]\ndriver = \"vtd\"\naperture = \"0-0xffff\"\n\
        page-sizes = \"0x1000\"\ncoherent = false\nisolated-msi = true\n";

    fn problem(rest: &str) -> String {
        parse("test", "test.toml", &format!("{IOMMU}{rest}")).unwrap_err().to_string()
    }

    fn device(name: &str, regions: &str) -> String {
        format!(
            "[[group]]\nnumber = 1\n[[group.device]]\nname = \"{name}\"\nregions = [{regions}]\n"
        )
    }

    #[test]
    fn mistakes_are_reported_with_line_and_field() {
        let cases = [
            ("", "test.toml:1:1: the host has no [[group]]"),
            ("[[group]]\nnumber = 1\n", "test.toml:8:10: group 1 has no device"),
            (&device("00:03.0", ""), "test.toml:10:8: \"00:03.0\" is not a PCI address"),
            (&device("0000:00:03.0", "\"5-4 msi\""), "test.toml:11:12: range \"5-4\" ends below"),
            (&device("0000:00:03.0", "\"0+1 mis\""), "11:12: unknown region kind \"mis\""),
            (&device("0000:00:03.0", "\"0+1\""), "write RANGE KIND"),
            (&device("0000:00:03.0", "\"0+1 msi since 6.6\""), "unknown kernel \"6.6\""),
            ("[[group]]\nnumber = -1\n", "test.toml:8:10: "),
            ("[[group]]\nnumbr = 1\n", "test.toml:8:1: unknown field `numbr`"),
            ("[[group]\n", "test.toml:7:"),
        ];
        for (rest, expected) in cases {
            let problem = problem(rest);
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn twins_are_refused() {
        let group = device("0000:00:03.0", "");
        assert!(problem(&format!("{group}{group}")).contains("two groups have the number 1"));
        let second = group.replace("number = 1", "number = 2");
        assert!(problem(&format!("{group}{second}")).contains("is in group 1 already"));
    }

    #[test]
    fn a_region_of_no_bytes_can_be_stated() {
        let text = format!("{IOMMU}{}", device("0000:00:03.0", "\"0x2000+0 direct\""));
        let host = parse("test", "test.toml", &text).unwrap();
        let region = host.groups[0].devices[0].regions[0].region;
        assert_eq!((region.first, region.last), (Iova(0x2000), Iova(0x1fff)));
    }
}
