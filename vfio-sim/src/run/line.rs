// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls of a recording as text, each by itself: what a running program writes, call by call.

use std::fmt::{self, Display};

use vfio_type1::VaddrRange;

use crate::trace::MemoryKind;
use crate::trace::write::{Hex, MemoryCall};

/// How a remark begins that tells of a device's fault.
pub const FAULT: &str = "fault:";

/// How a remark begins that tells of a program's mistake.
pub const MISTAKE: &str = "mistake:";

/// A call. Files are named by what the program chooses.
#[expect(missing_debug_implementations, reason = "it is text to be")]
pub enum Line<'a> {
    /// Open `/dev/vfio/vfio`.
    Container(&'a dyn Display),
    /// Open the group of a device.
    Group(&'a dyn Display, &'a str),
    /// Open a device: its file, its group, its name.
    Device(&'a dyn Display, &'a dyn Display, &'a str),
    /// Open `/dev/iommu`.
    Iommufd(&'a dyn Display),
    /// Open a device by its own node.
    Cdev(&'a dyn Display, &'a str),
    /// Bind a device to an iommufd.
    Bind(&'a dyn Display, &'a dyn Display),
    /// Put a group into a container or an iommufd.
    SetContainer(&'a dyn Display, &'a dyn Display),
    /// An ioctl on bytes: before and after.
    Ioctl(&'a dyn Display, u32, &'a [u8], &'a [u8]),
    /// An ioctl whose argument is a number.
    IoctlValue(&'a dyn Display, u32, u64),
    /// Close a file.
    Close(&'a dyn Display),
    /// Drop CAP_IPC_LOCK.
    DropIpcLock,
    /// Set RLIMIT_MEMLOCK, in bytes.
    SetMemlock(u64),
}

impl Line<'_> {
    /// The line, with its answer.
    pub fn answered(&self, value: i64, errno: i32) -> String {
        match self {
            Self::Ioctl(_, _, _, after) => format!("{self} => {value} {errno} {}", Hex(after)),
            Self::DropIpcLock | Self::SetMemlock(_) => format!("{self} => {value}"),
            _ => format!("{self} => {value} {errno}"),
        }
    }
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(file) => write!(f, "container {file}"),
            Self::Group(file, device) => write!(f, "group {file} {device}"),
            Self::Device(file, group, device) => write!(f, "device {file} {group} {device}"),
            Self::Iommufd(file) => write!(f, "iommufd {file}"),
            Self::Cdev(file, device) => write!(f, "cdev {file} {device}"),
            Self::Bind(device, iommufd) => write!(f, "bind {device} {iommufd}"),
            Self::SetContainer(group, container) => write!(f, "setc {group} {container}"),
            Self::Ioctl(file, command, before, _) => {
                write!(f, "ioctl {file} {command:x} {}", Hex(before))
            }
            Self::IoctlValue(file, command, value) => {
                write!(f, "ioctlv {file} {command:x} {value:x}")
            }
            Self::Close(file) => write!(f, "close {file}"),
            Self::DropIpcLock => f.write_str("nocaplock"),
            Self::SetMemlock(bytes) => write!(f, "memlock {bytes:#x}"),
        }
    }
}

/// A line that says what memory is in a range from now on, or that there is none.
pub fn memory(range: VaddrRange, kind: Option<MemoryKind>) -> String {
    MemoryCall(range, kind).to_string()
}

/// A remark, on one line.
pub fn remark(text: &str) -> String {
    format!("## {}", text.replace('\n', " "))
}
