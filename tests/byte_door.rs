// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the byte door reads and writes exactly the bytes that the kernel does (spec 1.2, 4 to
//! 7). The recordings hold it to that call by call; here every `argsz` and every flag is swept,
//! with canaries, and against the typed door.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{RAM, Rig, group, msi, vtd};
use vfio_type1::abi::{ContainerIoctlError, FileOperation, command, container_file_errno};
use vfio_type1::{
    Access, Container, Errno, InfoChain, Kernel, MapDma, Memory as _, ModelMemory, Process, Vaddr,
    VaddrRange, extension,
};

/// Arguments end here: what follows is not mapped.
const END: u64 = 0x3000_0000_0000;
const CANARY: u8 = 0xa5;

/// A rig whose process can pass arguments.
fn rig(kernel: Kernel) -> (Rig, Arc<ModelMemory>) {
    let mut rig = Rig::new(kernel, extension::TYPE1V2, vec![group(&vtd(48), 1, vec![msi()])]);
    let memory = common::memory();
    memory.add(VaddrRange::from_size(Vaddr(END - 0x1000), 0x1000).unwrap(), true).unwrap();
    rig.process = Process::new(Arc::clone(&memory) as Arc<_>);
    (rig, memory)
}

/// Issues an ioctl on bytes that end where memory ends; returns the result and the bytes after.
fn ioctl(
    container: &Container,
    process: &Arc<Process>,
    command: u32,
    bytes: &[u8],
) -> (Result<i32, ContainerIoctlError>, Vec<u8>) {
    let arg = END - bytes.len() as u64;
    process.memory().write(Vaddr(arg), bytes).unwrap();
    let result = container.ioctl(process, command, arg);
    let mut after = vec![0; bytes.len()];
    process.memory().read(Vaddr(arg), &mut after).unwrap();
    (result, after)
}

fn with_argsz(argsz: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![CANARY; length];
    let argsz = u32::try_from(argsz).unwrap().to_le_bytes();
    let count = length.min(4);
    bytes[..count].copy_from_slice(&argsz[..count]);
    bytes
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

#[test]
fn get_info_writes_what_each_kernel_writes_for_every_argsz() {
    for kernel in Kernel::ALL {
        let (rig, _) = rig(kernel);
        // Two ranges: header 24, then what the kernel's chain holds (spec 7.1).
        let needed = match kernel.behaviours().info_chain {
            InfoChain::None => 16,
            InfoChain::IovaRanges => 40 + 32,
            InfoChain::Packed => 84 + 32,
            InfoChain::Aligned => 88 + 32,
        };
        for argsz in 0..=needed + 1 {
            let before = with_argsz(argsz, needed + 8);
            let (result, after) =
                ioctl(&rig.container, &rig.process, command::IOMMU_GET_INFO, &before);
            let errno = result.map_err(|error| error.errno());
            if argsz < 16 {
                assert_eq!((errno, after), (Err(Errno::EINVAL), before), "{kernel}, {argsz}");
                continue;
            }
            assert_eq!(errno, Ok(0), "{kernel}, {argsz}");
            let fits = argsz >= needed;
            let header = match kernel.behaviours().info_chain {
                InfoChain::None => 16,
                InfoChain::IovaRanges | InfoChain::Packed => {
                    if argsz < 20 {
                        16
                    } else {
                        20
                    }
                }
                InfoChain::Aligned => argsz.min(24),
            };
            let chain = kernel.behaviours().info_chain != InfoChain::None;
            if chain && !fits {
                assert_eq!(u32_at(&after, 0) as usize, needed, "{kernel}, {argsz}");
            } else {
                assert_eq!(u32_at(&after, 0) as usize, argsz, "{kernel}, {argsz}");
            }
            let written = if chain && fits { needed } else { header };
            assert_eq!(&after[written..], &before[written..], "{kernel}, {argsz}: canaries");
            if chain && header < 24 && fits {
                assert_eq!(&after[20..24], [CANARY; 4], "{kernel}, {argsz}: never written");
            }
        }
    }
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
    for kernel in [Kernel::SERIES_2018_V6, Kernel::V5_10, Kernel::V6_12] {
        let (rig, _) = rig(kernel);
        let bytes = with_argsz(256, 256);
        let (_, after) = ioctl(&rig.container, &rig.process, command::IOMMU_GET_INFO, &bytes);
        let typed: Vec<_> = rig.valid().iter().map(|r| (r.first().0, r.last().0)).collect();
        assert_eq!(ranges_in(&after), typed, "{kernel}");
        assert_eq!(typed.len(), 2);
    }
}

#[test]
fn arguments_that_end_early_fault_and_short_argsz_is_refused() {
    let cases = [
        (command::IOMMU_GET_INFO, 16),
        (command::IOMMU_MAP_DMA, 32),
        (command::IOMMU_UNMAP_DMA, 24),
        (command::IOMMU_DIRTY_PAGES, 8),
    ];
    let (rig, _) = rig(Kernel::NEWEST);
    for (command, minimum) in cases {
        for length in 0..minimum {
            let bytes = with_argsz(minimum, length);
            let (result, after) = ioctl(&rig.container, &rig.process, command, &bytes);
            let errno = result.map_err(|error| error.errno());
            assert_eq!((errno, after), (Err(Errno::EFAULT), bytes), "{command:#x}, {length}");
        }
        for argsz in 0..minimum {
            let bytes = with_argsz(argsz, 64);
            let (result, after) = ioctl(&rig.container, &rig.process, command, &bytes);
            let errno = result.map_err(|error| error.errno());
            assert_eq!((errno, after), (Err(Errno::EINVAL), bytes), "{command:#x}, {argsz}");
        }
    }
}

#[test]
fn every_flag_bit_alone_is_known_or_refused() {
    for kernel in Kernel::ALL {
        let (rig, _) = rig(kernel);
        for bit in 0..32u32 {
            let mut bytes = with_argsz(32, 32);
            bytes[4..8].copy_from_slice(&(1u32 << bit).to_le_bytes());
            bytes[8..16].copy_from_slice(&RAM.to_le_bytes());
            bytes[16..24].copy_from_slice(&(u64::from(bit) << 20).to_le_bytes());
            bytes[24..32].copy_from_slice(&0x1000u64.to_le_bytes());
            let (result, after) =
                ioctl(&rig.container, &rig.process, command::IOMMU_MAP_DMA, &bytes);
            assert_eq!(after, bytes, "MAP writes nothing back");
            let expected = match bit {
                0 | 1 => Ok(0),
                2 if kernel.behaviours().update_vaddr => Err(Errno::ENOENT),
                _ => Err(Errno::EINVAL),
            };
            assert_eq!(result.map_err(|error| error.errno()), expected, "{kernel}, {bit}");
        }
    }
}

#[test]
fn unmap_tells_how_much_and_faults_only_after_it_is_done() {
    let (rig, memory) = rig(Kernel::NEWEST);
    let map = || {
        let request = MapDma::new(0x1000, RAM, 0x2000, Access::ReadWrite);
        rig.container.map(&rig.process, &request).unwrap();
    };
    map();
    let mut bytes = with_argsz(24, 24);
    bytes[4..8].fill(0);
    bytes[8..16].copy_from_slice(&0u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
    let (result, after) = ioctl(&rig.container, &rig.process, command::IOMMU_UNMAP_DMA, &bytes);
    assert_eq!(result, Ok(0));
    assert_eq!(after[16..24], 0x2000u64.to_le_bytes());

    map();
    memory.poke(Vaddr(common::ROM), &bytes).unwrap();
    let error =
        rig.container.ioctl(&rig.process, command::IOMMU_UNMAP_DMA, common::ROM).unwrap_err();
    assert_eq!(error.errno(), Errno::EFAULT);
    assert_eq!(rig.mapped(), [], "the unmap has happened");
}

#[test]
fn commands_are_dispatched_by_state() {
    let (rig, _) = rig(Kernel::NEWEST);
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
    use vfio_type1::FdTarget;
    use vfio_type1::abi::GroupReply;
    let (rig, memory) = rig(Kernel::NEWEST);
    let group = &rig.groups[0];
    let call = |command, bytes: &[u8]| {
        let arg = END - bytes.len() as u64;
        memory.write(Vaddr(arg), bytes).unwrap();
        let reply = group.ioctl(&rig.process, command, arg, |_| FdTarget::Closed);
        let mut after = vec![0; bytes.len()];
        memory.read(Vaddr(arg), &mut after).unwrap();
        (reply.map_err(|error| error.errno()), after)
    };
    let (reply, after) = call(command::GROUP_GET_STATUS, &with_argsz(8, 8));
    assert!(matches!(reply, Ok(GroupReply::Done)));
    assert_eq!(after, [8, 0, 0, 0, 3, 0, 0, 0]);
    let (reply, _) = call(command::GROUP_GET_DEVICE_FD, b"0000:00:01.0\0");
    let Ok(GroupReply::Device(device)) = reply else { panic!("{reply:?}") };
    assert_eq!(device.name(), "0000:00:01.0");
    let errno = |bytes: &[u8]| call(command::GROUP_GET_DEVICE_FD, bytes).0.unwrap_err();
    assert_eq!(errno(b"0000:00:01.0"), Errno::EFAULT, "no NUL before the end of memory");
    assert_eq!(errno(b"0000:00:01.0 vf_token=1\0"), Errno::EINVAL);
    assert_eq!(errno(b"\xff\0"), Errno::ENODEV);
    assert_eq!(errno(&[b'a'; 4096]), Errno::EINVAL);
    assert_eq!(call(command::IOMMU_GET_INFO, &[]).0.unwrap_err(), Errno::ENOTTY);
}

#[test]
fn other_file_operations_are_refused() {
    let errno = |kernel, operation| container_file_errno(&kernel, operation);
    assert_eq!(errno(Kernel::V5_10, FileOperation::Mmap), Errno::EINVAL);
    assert_eq!(errno(Kernel::V6_1, FileOperation::Mmap), Errno::ENODEV);
    assert_eq!(errno(Kernel::V6_1, FileOperation::ReadOrWrite), Errno::EINVAL);
    assert_eq!(errno(Kernel::V6_1, FileOperation::Seek), Errno::ESPIPE);
}
