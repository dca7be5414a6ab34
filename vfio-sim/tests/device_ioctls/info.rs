// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is told of a device, its regions and its interrupts.

use vfio_sim::device::Function;
use vfio_sim::device::ioctl::{command, region_at, region_offset};
use vfio_type1::{Errno, Kernel};

use crate::scene::{CANARY, Scene, errno, function};

const UNTOUCHED: u32 = u32::from_le_bytes([CANARY; 4]);
const RESET: u32 = 1;
const PCI: u32 = 2;
const READ_WRITE: u32 = 3;
const MMAP: u32 = 4;
const CAPS: u32 = 8;

/// `size`, `flags` and `cap_offset` of a region, asked with room for the structure and `more` bytes.
fn region(scene: &Scene, index: u32, more: u32) -> (u64, u32, u32, u32) {
    scene.call(command::GET_REGION_INFO, &[32 + more, UNTOUCHED, index, 0]).unwrap();
    let [argsz, flags, same, cap_offset, low, high, offset_low, offset_high] = scene.words::<8>();
    assert_eq!(same, index);
    let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    assert_eq!(wide(offset_low, offset_high), region_offset(u8::try_from(index).unwrap()));
    (wide(low, high), flags, cap_offset, argsz)
}

#[test]
fn a_device_is_pci_with_nine_regions_and_five_kinds_of_interrupts() {
    for kernel in Kernel::ALL {
        let scene = Scene::new(kernel);
        scene.call(command::GET_INFO, &[16]).unwrap();
        assert_eq!(scene.words::<4>(), [16, PCI | RESET, 9, 5], "{kernel}");
        // Without function level reset it says so, and refuses.
        let scene = Scene::with(kernel, Function { express: false, ..function() });
        scene.call(command::GET_INFO, &[16]).unwrap();
        assert_eq!(scene.words::<4>(), [16, PCI, 9, 5], "{kernel}");
        assert_eq!(errno(scene.ioctl(command::RESET, 0)), Some(Errno::EINVAL));
    }
}

#[test]
fn the_capability_offset_is_written_by_kernels_that_know_it() {
    let words = |kernel, argsz| {
        let scene = Scene::new(kernel);
        scene.call(command::GET_INFO, &[argsz]).unwrap();
        let [.., cap_offset, pad, behind] = scene.words::<7>();
        [cap_offset, pad, behind]
    };
    const PARTLY: u32 = UNTOUCHED & 0xff00_0000;
    for (kernel, argsz, expected) in [
        (Kernel::V4_19, 24, [UNTOUCHED; 3]),
        (Kernel::V5_10, 19, [UNTOUCHED; 3]),
        (Kernel::V5_10, 20, [0, UNTOUCHED, UNTOUCHED]),
        (Kernel::V6_1, 99, [0, UNTOUCHED, UNTOUCHED]),
        (Kernel::V6_12, 19, [PARTLY, UNTOUCHED, UNTOUCHED]),
        (Kernel::V6_12, 24, [0, 0, UNTOUCHED]),
        (Kernel::V7_3, u32::MAX, [0, 0, UNTOUCHED]),
    ] {
        assert_eq!(words(kernel, argsz), expected, "{kernel}, argsz {argsz}");
    }
}

#[test]
fn regions_have_sizes_and_what_can_be_done_with_them() {
    let scene = Scene::new(Kernel::NEWEST);
    for (index, size, flags) in [
        (0, 4096, READ_WRITE | MMAP),
        (1, 2048, READ_WRITE),
        (2, 64 << 10, READ_WRITE | MMAP),
        (3, 0, 0),
        (5, 4096, READ_WRITE),
        (6, 0, 0),
        (7, 4096, READ_WRITE),
    ] {
        assert_eq!(region(&scene, index, 0), (size, flags, 0, 32), "region {index}");
    }
    for index in [8, 9, 256, u32::MAX] {
        let answer = scene.call(command::GET_REGION_INFO, &[32, 0, index]);
        assert_eq!(errno(answer), Some(Errno::EINVAL), "region {index}");
    }
    let conventional = Scene::with(Kernel::NEWEST, Function { express: false, ..function() });
    assert_eq!(region(&conventional, 7, 0), (256, READ_WRITE, 0, 32));
}

#[test]
fn the_bar_of_the_msix_table_can_be_mapped_and_says_so() {
    let scene = Scene::new(Kernel::NEWEST);
    let flags = READ_WRITE | MMAP | CAPS;
    // Without room, how much is needed.
    for more in [0, 7] {
        assert_eq!(region(&scene, 4, more), (4096, flags, 0, 40));
        assert_eq!(scene.words::<10>()[8..], [UNTOUCHED; 2]);
    }
    for more in [8, 100] {
        assert_eq!(region(&scene, 4, more), (4096, flags, 32, 32 + more));
        assert_eq!(scene.words::<10>()[8..], [3 | 1 << 16, 0], "identifier 3, version 1");
    }
    // With a table and no vectors it is a BAR like others.
    let without = Scene::with(Kernel::NEWEST, Function { msix_vectors: 0, ..function() });
    assert_eq!(region(&without, 4, 8), (4096, READ_WRITE | MMAP, 0, 40));
}

#[test]
fn a_device_may_offer_nothing_for_mmap() {
    let scene = Scene::new(Kernel::NEWEST);
    scene.device.set_mmap(false);
    for index in 0..8 {
        assert_eq!(region(&scene, index, 8).1 & (MMAP | CAPS), 0, "region {index}");
        assert!(!scene.device.can_mmap(u8::try_from(index).unwrap()));
    }
    scene.device.set_mmap(true);
    assert_eq!(region(&scene, 4, 8).1, READ_WRITE | MMAP | CAPS);
}

#[test]
fn an_offset_in_the_file_is_one_in_a_region() {
    assert_eq!(region_at(0), Some((0, 0)));
    assert_eq!(region_at(region_offset(7) + 4), Some((7, 4)));
    assert_eq!(region_at(region_offset(7) - 1), Some((6, (1 << 40) - 1)));
    assert_eq!(region_at(u64::MAX), None);
}

#[test]
fn a_region_without_capabilities_leaves_their_offset_alone() {
    let scene = Scene::new(Kernel::NEWEST);
    scene.call(command::GET_REGION_INFO, &[32, 0, 7, 77]).unwrap();
    assert_eq!(scene.words::<4>()[3], 77);
}

#[test]
fn interrupts_have_counts_and_what_can_be_done_with_them() {
    const EVENTFD: u32 = 1;
    const LINE: u32 = EVENTFD | 2 | 4;
    const FIXED: u32 = EVENTFD | 8;
    for kernel in Kernel::ALL {
        let msix = if kernel.behaviours().dynamic_msix { EVENTFD } else { FIXED };
        let scene = Scene::new(kernel);
        let counts = [(LINE, 1), (FIXED, 4), (msix, 8), (FIXED, 1), (FIXED, 1)];
        for (index, (flags, count)) in (0..).zip(counts) {
            scene.call(command::GET_IRQ_INFO, &[16, UNTOUCHED, index]).unwrap();
            assert_eq!(scene.words::<4>(), [16, flags, index, count], "{kernel}");
        }
        assert_eq!(errno(scene.call(command::GET_IRQ_INFO, &[16, 0, 5])), Some(Errno::EINVAL));

        let none = Function {
            express: false,
            interrupt_line: false,
            msi_vectors: 0,
            msix_vectors: 0,
            ..function()
        };
        let scene = Scene::with(kernel, none);
        for (index, flags) in [(0, LINE), (1, FIXED), (2, msix)] {
            scene.call(command::GET_IRQ_INFO, &[16, 0, index]).unwrap();
            assert_eq!(scene.words::<4>(), [16, flags, index, 0], "{kernel}");
        }
        // Only PCI Express tells of errors.
        assert_eq!(errno(scene.call(command::GET_IRQ_INFO, &[16, 0, 3])), Some(Errno::EINVAL));
    }
    assert!(!Kernel::V6_1.behaviours().dynamic_msix && Kernel::V6_12.behaviours().dynamic_msix);
}
