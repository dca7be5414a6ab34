// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes recordings and scripts: header lines, and calls with or without their answers.

use std::fmt::{self, Display, Write as _};
use std::io;

use vfio_type1::{FixedIommu, Kernel, VaddrRange};

use super::{Answer, Area, Call, MemoryKind, Trace};
use crate::host::{BootError, Host, HostGroup};
use crate::names::iommu_driver_name;
use crate::run::line::Line;

/// What stands before the calls.
#[derive(Clone, Debug)]
pub(crate) struct Header<'a> {
    /// The caller's memory.
    pub(crate) memory: &'a [Area],
    /// `uname -r`.
    pub(crate) release: &'a str,
    /// The IOMMU; `None` for a host without one.
    pub(crate) iommu: Option<FixedIommu>,
    /// Whether type1 was loaded with `allow_unsafe_interrupts`.
    pub(crate) allow_unsafe_interrupts: bool,
    /// The groups, as sysfs shows them.
    pub(crate) groups: &'a [SysfsGroup],
}

/// A group, as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SysfsGroup {
    /// Its number.
    pub(crate) number: u32,
    /// Its devices.
    pub(crate) devices: Vec<String>,
    /// The text of its `reserved_regions`.
    pub(crate) regions: String,
}

/// The header of a recording on a host. It has room for one IOMMU: where the host has several, each group's is
/// another, and the recording replays on the host alone.
pub(crate) fn header(host: &Host, kernel: Kernel, memory: &[Area]) -> Result<String, BootError> {
    let vfio = host.boot(kernel)?;
    let group = |group: &HostGroup| SysfsGroup {
        number: group.number,
        devices: group.devices.iter().map(|device| device.name.clone()).collect(),
        regions: vfio.reserved_regions(group.id()).unwrap_or_default(),
    };
    let groups: Vec<SysfsGroup> = host.groups.iter().map(group).collect();
    let header = Header {
        memory,
        release: kernel.name(),
        iommu: host.iommus.first().map(|only| only.platform.iommu(&kernel, host.page_size)),
        allow_unsafe_interrupts: host.allow_unsafe_interrupts,
        groups: &groups,
    };
    let mut text = Vec::new();
    // Memory takes whatever is written to it.
    let _ = header.write(&mut text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Header<'_> {
    pub(crate) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        write!(out, "{}", MemoryLines(self.memory))?;
        writeln!(out, "# kernel {}", self.release)?;
        writeln!(out, "{}", IommuLine(self.iommu.as_ref(), self.allow_unsafe_interrupts))?;
        for group in self.groups {
            writeln!(out, "# group {}: {}", group.number, group.devices.join(" "))?;
            for region in group.regions.lines() {
                writeln!(out, "#   {region}")?;
            }
        }
        Ok(())
    }
}

/// A script without the answers and without what a recorder finds out for itself.
pub(super) fn script(trace: &Trace) -> String {
    let mut text = MemoryLines(&trace.memory).to_string();
    if trace.states_iommu {
        let host = &trace.host;
        // What a recording states holds for every kernel.
        let stated = host.iommus.first();
        let iommu = stated.map(|stated| stated.platform.iommu(&trace.kernel, host.page_size));
        let line = IommuLine(iommu.as_ref(), host.allow_unsafe_interrupts);
        let _ = writeln!(text, "{line}");
    }
    for recorded in &trace.calls {
        let _ = writeln!(text, "{}", CallLine(trace, &recorded.call));
    }
    text
}

struct MemoryLines<'a>(&'a [Area]);

impl Display for MemoryLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|Area { range, writable }| {
            let kind = if *writable { MemoryKind::ReadWrite } else { MemoryKind::ReadOnly };
            writeln!(f, "# {}", MemoryCall(*range, Some(kind)))
        })
    }
}

/// Memory that is there from now on.
pub(crate) struct MemoryCall(pub(crate) VaddrRange, pub(crate) Option<MemoryKind>);

impl Display for MemoryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(range, kind) = self;
        let kind = match kind {
            Some(MemoryKind::ReadWrite) => "rw",
            Some(MemoryKind::ReadOnly) => "ro",
            Some(MemoryKind::Bar) => "bar",
            None => "none",
        };
        write!(f, "memory {kind} {:x} {:x}", range.first().0, range.size().unwrap_or(0))
    }
}

/// The IOMMU, and whether type1 takes it without isolated MSIs.
struct IommuLine<'a>(Option<&'a FixedIommu>, bool);

impl Display for IommuLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(iommu) = self.0 else { return f.write_str("# iommu none") };
        write!(
            f,
            "# iommu {} aperture {:x} {:x} pgsizes {:x} coherent {} isolated-msi {}",
            iommu_driver_name(iommu.driver),
            iommu.aperture.first().0,
            iommu.aperture.last().0,
            iommu.page_sizes.0,
            u8::from(iommu.coherent),
            u8::from(iommu.isolated_msi),
        )?;
        f.write_str(if self.1 { " allow-unsafe-interrupts" } else { "" })
    }
}

/// A call as a script states it.
pub(crate) struct CallLine<'a>(pub(crate) &'a Trace, pub(crate) &'a Call);

impl Display for CallLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(trace, call) = self;
        match call {
            Call::SetMemory(range, kind) => MemoryCall(*range, *kind).fmt(f),
            Call::Poke(at, length, byte) => write!(f, "poke {:x} {length:x} {byte:x}", at.0),
            Call::Peek(at, length, _) => write!(f, "peek {:x} {length:x}", at.0),
            Call::Sysfs(device, _) => write!(f, "sysfs {}", trace.text(*device)),
            Call::OpenContainer(file) => Line::Container(&trace.file(*file)).fmt(f),
            Call::OpenIommufd(file) => Line::Iommufd(&trace.file(*file)).fmt(f),
            Call::OpenGroup(file, device) => {
                Line::Group(&trace.file(*file), trace.text(*device)).fmt(f)
            }
            Call::OpenDevice(file, group, device) => {
                let (file, group) = (&trace.file(*file), &trace.file(*group));
                Line::Device(file, group, trace.text(*device)).fmt(f)
            }
            Call::OpenCdev(file, device) => {
                Line::Cdev(&trace.file(*file), trace.text(*device)).fmt(f)
            }
            Call::Bind(device, iommufd) => {
                Line::Bind(&trace.file(*device), &trace.file(*iommufd)).fmt(f)
            }
            Call::SetContainer(group, container) => {
                Line::SetContainer(&trace.file(*group), &trace.file(*container)).fmt(f)
            }
            Call::Ioctl(file, command, before, after) => {
                let (before, after) = (trace.bytes(before), trace.bytes(after));
                Line::Ioctl(&trace.file(*file), *command, before, after).fmt(f)
            }
            Call::IoctlValue(file, command, value) => {
                Line::IoctlValue(&trace.file(*file), *command, *value).fmt(f)
            }
            Call::Close(file) => Line::Close(&trace.file(*file)).fmt(f),
            Call::DropIpcLock => Line::DropIpcLock.fmt(f),
            Call::SetMemlock(bytes) => Line::SetMemlock(*bytes).fmt(f),
        }
    }
}

/// What the kernel answered, with the arrow before it; nothing for a call without an answer.
pub(crate) struct AnswerText<'a>(pub(crate) &'a Call, pub(crate) Answer, pub(crate) &'a [u8]);

impl Display for AnswerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(call, Answer { value, errno }, after) = self;
        match call {
            Call::Poke(..) | Call::SetMemory(..) => Ok(()),
            Call::Peek(..) => write!(f, " => {}", Hex(after)),
            Call::Sysfs(..) => {
                let text = String::from_utf8_lossy(after);
                write!(f, " => {}", text.trim().replace('\n', ";"))
            }
            Call::Ioctl(..) => write!(f, " => {value} {errno} {}", Hex(after)),
            Call::DropIpcLock | Call::SetMemlock(_) => write!(f, " => {value}"),
            _ => write!(f, " => {value} {errno}"),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 0xf))
        })
    }
}
