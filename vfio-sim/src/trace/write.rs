// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes recordings and scripts: header lines, and calls with or without their answers.

use std::fmt::{self, Display, Write as _};
use std::io;

use vfio_type1::{FixedIommu, VaddrRange};

use super::{Answer, Area, Call, MemoryKind, Trace};
use crate::names::iommu_driver_name;

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
            Call::OpenContainer(file) => write!(f, "container {}", trace.file(*file)),
            Call::OpenIommufd(file) => write!(f, "iommufd {}", trace.file(*file)),
            Call::OpenGroup(file, device) => {
                write!(f, "group {} {}", trace.file(*file), trace.text(*device))
            }
            Call::OpenDevice(file, group, name) => {
                let (file, group) = (trace.file(*file), trace.file(*group));
                write!(f, "device {file} {group} {}", trace.text(*name))
            }
            Call::OpenCdev(file, device) => {
                write!(f, "cdev {} {}", trace.file(*file), trace.text(*device))
            }
            Call::Bind(device, iommufd) => {
                write!(f, "bind {} {}", trace.file(*device), trace.file(*iommufd))
            }
            Call::SetContainer(group, container) => {
                write!(f, "setc {} {}", trace.file(*group), trace.file(*container))
            }
            Call::Ioctl(file, command, before, _) => {
                write!(f, "ioctl {} {command:x} {}", trace.file(*file), Hex(trace.bytes(before)))
            }
            Call::IoctlValue(file, command, value) => {
                write!(f, "ioctlv {} {command:x} {value:x}", trace.file(*file))
            }
            Call::SetMemory(range, kind) => MemoryCall(*range, *kind).fmt(f),
            Call::Poke(at, length, byte) => write!(f, "poke {:x} {length:x} {byte:x}", at.0),
            Call::Peek(at, length, _) => write!(f, "peek {:x} {length:x}", at.0),
            Call::Sysfs(device, _) => write!(f, "sysfs {}", trace.text(*device)),
            Call::Close(file) => write!(f, "close {}", trace.file(*file)),
            Call::DropIpcLock => f.write_str("nocaplock"),
            Call::SetMemlock(bytes) => write!(f, "memlock {bytes:#x}"),
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
