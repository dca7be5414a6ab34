// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the byte door dispatches as the kernel does and says what the typed door says (spec 1.2,
//! 2, 7.1). Every `argsz` is swept in `sweep_argsz`, every flag in `sweep_flags`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::Rig;
use common::bytes::{Bytes, Door, Place};
use vfio_type1::abi::{FileOperation, GroupReply, command, container_file_errno};
use vfio_type1::{Container, Errno, FdTarget, Kernel};

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// An independent reader of the chain: follows `next` and finds the ranges.
fn ranges_in(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut offset = u32_at(bytes, 16) as usize;
    while offset != 0 {
        if u32_at(bytes, offset) == 1 | 1 << 16 {
            let count = u32_at(bytes, offset + 8) as usize;
            let words =
                bytes[offset + 16..].chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap()));
            let words: Vec<u64> = words.take(2 * count).collect();
            return words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        }
        offset = u32_at(bytes, offset + 4) as usize;
    }
    Vec::new()
}

#[test]
fn the_chain_leads_to_the_typed_ranges() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.name() != "4.19") {
        let door = Door::of(Rig::plain(kernel));
        let mut bytes = Bytes::header(256, 0).0;
        bytes.resize(256, 0);
        let after = door.call(command::IOMMU_GET_INFO, Place::AtEnd, &bytes).bytes;
        let typed: Vec<_> = door.rig.valid().iter().map(|r| (r.first().0, r.last().0)).collect();
        assert_eq!(ranges_in(&after), typed, "{kernel}");
        assert_eq!(typed.len(), 2);
    }
}

#[test]
fn commands_are_dispatched_by_state() {
    let rig = Rig::plain(Kernel::NEWEST);
    let errno = |container: &Container, command| {
        container.ioctl(&rig.process, command, 0).map_err(|error| error.errno())
    };
    let empty = rig.vfio.open_container();
    for command in [0x3b70, 0x3b71, 0x3b73, 0x5401, 0x3b67] {
        assert_eq!(errno(&empty, command), Err(Errno::EINVAL), "{command:#x}");
    }
    for command in [0x3b73, 0x3b74, 0x5401, 0x3b67, 0xc000_3b70] {
        assert_eq!(errno(&rig.container, command), Err(Errno::ENOTTY), "{command:#x}");
    }
    assert_eq!(errno(&empty, command::GET_API_VERSION), Ok(0));
    let extension = |id| rig.container.ioctl(&rig.process, command::CHECK_EXTENSION, id);
    assert_eq!((extension(1), extension(1 << 32 | 1)), (Ok(1), Ok(0)));
}

#[test]
fn a_group_answers_and_opens_devices_by_bytes() {
    let door = Door::of(Rig::plain(Kernel::NEWEST));
    let (group, process) = (&door.rig.groups[0], &door.rig.process);
    let arg = door.put(Place::AtEnd, b"0000:00:01.0\0");
    let reply = group.ioctl(process, command::GROUP_GET_DEVICE_FD, arg, |_| FdTarget::Closed);
    let Ok(GroupReply::Device(device)) = reply else { panic!("{reply:?}") };
    assert_eq!(device.name(), "0000:00:01.0");
    let errno = |name: &[u8]| door.call(command::GROUP_GET_DEVICE_FD, Place::AtEnd, name).errno();
    assert_eq!(errno(b"0000:00:01.0 vf_token=1\0"), Err(Errno::EINVAL));
    assert_eq!(errno(b"\xff\0"), Err(Errno::ENODEV));
    let reply = group.ioctl(process, command::IOMMU_GET_INFO, 0, |_| FdTarget::Closed);
    assert_eq!(reply.unwrap_err().errno(), Errno::ENOTTY);
}

#[test]
fn other_file_operations_are_refused() {
    let errno = |kernel, operation| container_file_errno(&kernel, operation);
    assert_eq!(errno(Kernel::V5_10, FileOperation::Mmap), Errno::EINVAL);
    assert_eq!(errno(Kernel::V6_1, FileOperation::Mmap), Errno::ENODEV);
    assert_eq!(errno(Kernel::V6_1, FileOperation::ReadOrWrite), Errno::EINVAL);
    assert_eq!(errno(Kernel::V6_1, FileOperation::Seek), Errno::ESPIPE);
}
