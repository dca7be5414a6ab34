// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads the header of a recording: kernel, memory, IOMMU, groups and their regions.

use vfio_type1::{Iova, IovaRange, Kernel, PageSize, PageSizes, Vaddr, VaddrRange, sysfs};

use super::parser::{Form, Parser};
use super::words::Words;
use super::{ARGUMENT_END, Area, MAX_ARGUMENT, MemoryKind};
use crate::host::{ARM64_USER_LIMIT, HostDevice, HostGroup, HostGroupKind, HostIommu, HostRegion};
use crate::names::{iommu_driver, is_uuid};
use crate::pci::PciFunction;
use crate::platform::{Platform, Stated, Widths};

/// The most areas of memory a recording may describe.
const MAX_AREAS: usize = 64;

impl Parser {
    /// Reads a line that begins with `#`.
    pub(super) fn comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = Words::new(comment);
        let word = words.next();
        if word != Some("end") && !self.trace.calls.is_empty() {
            return Err("a line of the header stands behind a call".to_owned());
        }
        match word {
            Some("memory") => self.memory(&mut words),
            // A script runs on the kernel that is there.
            Some("kernel") if self.form == Form::Script => Ok(()),
            Some("kernel") => {
                let release = words.word("the kernel release")?;
                let kernel: Kernel = release.parse().map_err(|error| format!("{error}"))?;
                let arm = release.ends_with("arm64");
                self.kernel =
                    Some(if arm { kernel.with_user_limit(ARM64_USER_LIMIT) } else { kernel });
                words.end()
            }
            Some("iommu") => self.iommu(&mut words),
            Some("group") => self.group(&mut words),
            Some(word) if word.starts_with("0x") => self.region(comment.trim_start()),
            Some("end") => {
                self.ended = true;
                words.end()
            }
            _ => Err(format!("unknown header line \"#{comment}\"")),
        }
    }

    /// What `memory` says, of the header or between calls: a range, and what is there.
    pub(super) fn area(words: &mut Words<'_>) -> Result<(VaddrRange, Option<MemoryKind>), String> {
        let kind = match words.word("rw, ro, bar or none")? {
            "rw" => Some(MemoryKind::ReadWrite),
            "ro" => Some(MemoryKind::ReadOnly),
            "bar" => Some(MemoryKind::Bar),
            "none" => None,
            word => return Err(format!("memory is rw, ro, bar or none, not \"{word}\"")),
        };
        let range = VaddrRange::from_size(Vaddr(words.hex()?), words.hex()?);
        let range = range.map_err(|error| format!("memory: {error}"))?;
        if !range.is_aligned(PageSize::P4K) {
            return Err(format!("memory {range} does not start and end at page boundaries"));
        }
        let arguments =
            VaddrRange::from_size(Vaddr(ARGUMENT_END - MAX_ARGUMENT as u64), MAX_ARGUMENT as u64);
        if arguments.is_ok_and(|arguments| arguments.overlaps(&range)) {
            return Err(format!("memory {range} is where a replay places ioctl arguments"));
        }
        words.end()?;
        Ok((range, kind))
    }

    fn memory(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (range, kind) = Self::area(words)?;
        let writable = match kind {
            Some(MemoryKind::ReadWrite) => true,
            Some(MemoryKind::ReadOnly) => false,
            Some(MemoryKind::Bar) => return Err("no BAR is mapped before the calls".to_owned()),
            None => return Err("memory that is not there needs no line".to_owned()),
        };
        if let Some(area) = self.trace.memory.iter().find(|area| area.range.overlaps(&range)) {
            return Err(format!("memory {range} overlaps memory {}", area.range));
        }
        if self.trace.memory.len() == MAX_AREAS {
            return Err(format!("more than {MAX_AREAS} areas of memory"));
        }
        self.trace.memory.push(Area { range, writable });
        Ok(())
    }

    fn iommu(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if !self.trace.host.groups.is_empty() || self.trace.states_iommu {
            return Err("one \"# iommu\" line stands before the groups".to_owned());
        }
        self.trace.states_iommu = true;
        let kind = words.word("the kind of IOMMU")?;
        if kind == "none" {
            return Ok(());
        }
        let driver = iommu_driver(kind)?;
        words.keyword("aperture")?;
        let (first, last) = (words.hex()?, words.hex()?);
        let aperture =
            IovaRange::new(Iova(first), Iova(last)).ok_or("the aperture is backwards")?;
        words.keyword("pgsizes")?;
        let page_sizes = PageSizes(words.hex()?);
        let coherent = words.flag("coherent")?;
        let isolated_msi = words.flag("isolated-msi")?;
        self.trace.host.allow_unsafe_interrupts = match words.next() {
            None => false,
            Some("allow-unsafe-interrupts") => true,
            Some(word) => return Err(format!("unknown word \"{word}\"")),
        };
        self.trace.host.iommus.push(HostIommu {
            name: kind.to_owned(),
            platform: Platform::Stated(Stated {
                driver,
                coherent,
                isolated_msi,
                widths: Widths { aperture, page_sizes },
                newer: Vec::new(),
            }),
        });
        words.end()
    }

    fn group(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if !self.trace.states_iommu {
            return Err("the \"# iommu\" line must stand before the groups".to_owned());
        }
        let number = words.word("the group's number")?.strip_suffix(':');
        let number = number.and_then(|number| number.parse().ok());
        let number: u32 = number.ok_or("a group starts with \"# group NUMBER:\"")?;
        let devices: Vec<HostDevice> =
            std::iter::from_fn(|| words.next()).map(recorded_device).collect();
        let first = devices.first().ok_or("the group has no device")?;
        let kind = match self.trace.host.iommus.first() {
            _ if is_uuid(&first.name) => HostGroupKind::Emulated,
            Some(_) => HostGroupKind::Iommu(0),
            None => HostGroupKind::NoIommu,
        };
        let known = |device: &HostDevice| self.trace.host.device(&device.name).is_some();
        if let Some(twice) = devices.iter().find(|device| known(device)) {
            return Err(format!("device {} is in two groups", twice.name));
        }
        let mut names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("device {} is named twice", twice[0]));
        }
        if self.trace.host.groups.iter().any(|group| group.number == number) {
            return Err(format!("group {number} is described twice"));
        }
        self.trace.host.groups.push(HostGroup { number, kind, devices });
        Ok(())
    }

    /// A line of sysfs text: a region of the group's merged list. Which devices state it is not known, so
    /// all do. The list comes out as it was all the same: what is stated twice is merged, unless it ends at
    /// the last address or below its start. Such a region goes to the first device alone.
    fn region(&mut self, line: &str) -> Result<(), String> {
        let regions = sysfs::parse(&format!("{line}\n")).map_err(|error| {
            format!("region, column {}: expected {}", error.column, error.expected)
        })?;
        let group = self.trace.host.groups.last_mut().ok_or("a region stands before any group")?;
        for region in regions {
            let merges = region.last.0 != u64::MAX && region.first <= region.last;
            let devices = if merges { group.devices.len() } else { 1 };
            for device in group.devices.iter_mut().take(devices) {
                device.regions.push(HostRegion::always(region));
            }
        }
        Ok(())
    }
}

fn recorded_device(name: &str) -> HostDevice {
    HostDevice {
        name: name.to_owned(),
        description: String::new(),
        driver: Some("vfio-pci".to_owned()),
        pci: PciFunction::default(),
        model: None,
        regions: Vec::new(),
    }
}
