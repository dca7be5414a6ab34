// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls and answers of a recording, as a person reads them.

use std::fmt::Write as _;

use vfio_type1::Errno;
use vfio_type1::abi::command;

use crate::trace::{Answer, Call, Trace};

/// An answer in words; of bytes, the part from the first that differs from `other`.
pub(crate) fn answer_in_words(answer: Answer, bytes: &[u8], other: &[u8], text: bool) -> String {
    let mut words = match answer {
        Answer { value: -1, errno } => format!("-1 {}", Errno(errno)),
        Answer { value, .. } => value.to_string(),
    };
    if text && bytes != other {
        let _ = write!(words, ", \"{}\"", String::from_utf8_lossy(bytes).escape_debug());
    } else if bytes != other {
        let same = bytes.iter().zip(other).take_while(|(a, b)| a == b).count();
        let from = same.saturating_sub(same % 8).min(bytes.len());
        let _ = write!(words, ", bytes from {from}: ");
        for byte in bytes[from..].iter().take(24) {
            let _ = write!(words, "{byte:02x}");
        }
    }
    words
}

/// A call as a person reads it.
pub(crate) fn call_in_words(trace: &Trace, call: &Call) -> String {
    match call {
        Call::OpenContainer(file) => format!("open container {}", trace.file(*file)),
        Call::OpenIommufd(file) => format!("open iommufd {}", trace.file(*file)),
        Call::OpenGroup(file, device) => {
            format!("open group of {} as {}", trace.text(*device), trace.file(*file))
        }
        Call::OpenDevice(_, group, name) => {
            format!("{}: VFIO_GROUP_GET_DEVICE_FD {}", trace.file(*group), trace.text(*name))
        }
        Call::OpenCdev(file, device) => {
            format!("open {} as {}", trace.text(*device), trace.file(*file))
        }
        Call::Bind(device, iommufd) => {
            format!("{}: VFIO_DEVICE_BIND_IOMMUFD {}", trace.file(*device), trace.file(*iommufd))
        }
        Call::SetContainer(group, container) => {
            format!("{}: VFIO_GROUP_SET_CONTAINER {}", trace.file(*group), trace.file(*container))
        }
        Call::Ioctl(file, command, before, _) => {
            let argument = describe_argument(*command, trace.bytes(before));
            format!("{}: {} {argument}", trace.file(*file), command_name(*command))
        }
        Call::IoctlValue(file, command, value) => {
            format!("{}: {} {value:#x}", trace.file(*file), command_name(*command))
        }
        Call::Poke(at, length, byte) => format!("fill {length:#x} bytes at {at} with {byte:#x}"),
        Call::SetMemory(range, None) => format!("take memory {range} away"),
        Call::SetMemory(range, Some(_)) => format!("memory {range}"),
        Call::Peek(at, length, _) => format!("read {length:#x} bytes at {at}"),
        Call::Sysfs(device, _) => format!("reserved_regions of {}", trace.text(*device)),
        Call::Close(file) => format!("close {}", trace.file(*file)),
        Call::DropIpcLock => "drop CAP_IPC_LOCK".to_owned(),
        Call::SetMemlock(bytes) => format!("set RLIMIT_MEMLOCK to {bytes:#x}"),
    }
}

fn command_name(command: u32) -> String {
    command::name(command).map_or_else(|| format!("ioctl {command:#x}"), str::to_owned)
}

/// The fields of a request, as far as its bytes go.
fn describe_argument(command: u32, bytes: &[u8]) -> String {
    let fields: &[(&str, usize, usize)] = match command {
        command::IOMMU_MAP_DMA => {
            &[("flags", 4, 4), ("iova", 16, 8), ("size", 24, 8), ("vaddr", 8, 8)]
        }
        command::IOMMU_UNMAP_DMA => &[("flags", 4, 4), ("iova", 8, 8), ("size", 16, 8)],
        command::IOAS_MAP => &[
            ("flags", 4, 4),
            ("ioas_id", 8, 4),
            ("iova", 32, 8),
            ("length", 24, 8),
            ("user_va", 16, 8),
        ],
        command::IOAS_UNMAP => &[("ioas_id", 4, 4), ("iova", 8, 8), ("length", 16, 8)],
        command::HWPT_ALLOC => &[("flags", 4, 4), ("dev_id", 8, 4), ("pt_id", 12, 4)],
        command::GET_HW_INFO => {
            &[("flags", 4, 4), ("dev_id", 8, 4), ("data_len", 12, 4), ("data_uptr", 16, 8)]
        }
        command::IOMMU_DIRTY_PAGES => &[("flags", 4, 4), ("iova", 8, 8), ("size", 16, 8)],
        _ => &[],
    };
    // Iommufd's own have numbers from that of DESTROY on.
    let own = command & !0x7f == command::IOMMU_DESTROY;
    let first = (if own { "size" } else { "argsz" }, 0, 4);
    let mut text = String::from("{");
    for (name, offset, size) in std::iter::once(&first).chain(fields) {
        let Some(field) = bytes.get(*offset..offset + size) else {
            continue;
        };
        let value = field.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        let separator = if text.len() > 1 { ", " } else { "" };
        let _ = write!(text, "{separator}{name} {value:#x}");
    }
    text + "}"
}
