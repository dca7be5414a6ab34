// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each `argsz`, at each place where memory ends.

use vfio_sim::device::ioctl::command;
use vfio_type1::{Errno, Kernel, Memory as _, Vaddr};

use crate::scene::{ARGUMENT, CANARY, END, Scene, errno};

/// The commands that begin with `argsz`: the least one, and the argument's other words.
const CALLS: [(u32, u32, [u32; 4]); 7] = [
    (command::GET_INFO, 16, [0; 4]),
    (command::GET_REGION_INFO, 32, [0; 4]),
    (command::GET_IRQ_INFO, 16, [0; 4]),
    // Turns the request interrupt's loopback on a vector that has no eventfd: EINVAL behind `argsz`.
    (command::SET_IRQS, 20, [1 | 32, 4, 0, 1]),
    (command::GET_PCI_HOT_RESET_INFO, 12, [0; 4]),
    (command::PCI_HOT_RESET, 12, [0; 4]),
    (command::FEATURE, 8, [0; 4]),
];

/// What comes of a call whose `argsz` is good.
fn good(command: u32, kernel: Kernel) -> Option<Errno> {
    match command {
        command::SET_IRQS => Some(Errno::EINVAL),
        command::GET_PCI_HOT_RESET_INFO | command::PCI_HOT_RESET => Some(Errno::ENODEV),
        command::FEATURE => Some(Errno::ENOTTY),
        _ => None,
    }
    .filter(|_| command != command::FEATURE || kernel.behaviours().device_features)
}

#[test]
fn argsz_below_the_structure_is_refused_and_what_is_behind_it_left_alone() {
    for kernel in Kernel::ALL {
        for (command, least, words) in CALLS {
            for argsz in (0..=48).chain([u32::MAX]) {
                let scene = Scene::new(kernel);
                let [first, second, third, fourth] = words;
                let answer = errno(scene.call(command, &[argsz, first, second, third, fourth]));
                let knows = command != command::FEATURE || kernel.behaviours().device_features;
                let expected = match (knows, argsz < least) {
                    (false, _) => Some(Errno::ENOTTY),
                    (true, true) => Some(Errno::EINVAL),
                    (true, false) => good(command, kernel),
                };
                assert_eq!(answer, expected, "{kernel}, {command:#x}, argsz {argsz}");
                let untouched = if argsz < least { 20 } else { argsz.clamp(20, 1000) };
                let behind = ARGUMENT + u64::from(untouched);
                let mut bytes = [0; 64];
                scene.memory.read(Vaddr(behind), &mut bytes).unwrap();
                let wrote = bytes.iter().position(|byte| *byte != CANARY);
                let structure = u64::from(least).saturating_sub(u64::from(untouched));
                assert!(
                    wrote.is_none_or(|at| (at as u64) < structure),
                    "{kernel}, {command:#x}, argsz {argsz} wrote behind the structure"
                );
            }
        }
    }
}

#[test]
fn an_argument_that_is_not_all_there_is_a_fault() {
    for (command, least, words) in CALLS {
        let scene = Scene::new(Kernel::NEWEST);
        let bytes: Vec<u8> =
            [least].iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
        for missing in 1..=u64::from(least) {
            let arg = END - u64::from(least) + missing;
            let there = usize::try_from(END - arg).unwrap().min(bytes.len());
            scene.memory.write(Vaddr(arg), &bytes[..there]).unwrap();
            let answer = errno(scene.ioctl(command, arg));
            assert_eq!(answer, Some(Errno::EFAULT), "{command:#x}, {missing} bytes missing");
        }
        assert_eq!(errno(scene.ioctl(command, 0)), Some(Errno::EFAULT), "{command:#x} at 0");
        assert_eq!(errno(scene.ioctl(command, u64::MAX)), Some(Errno::EFAULT), "{command:#x}");
    }
}

#[test]
fn answers_and_data_that_do_not_fit_into_memory_are_faults() {
    let scene = Scene::new(Kernel::NEWEST);
    let at_end = |size: u64, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        scene.memory.write(Vaddr(END - size), &bytes).unwrap();
        END - size
    };
    // `argsz` claims more than is there.
    let arg = at_end(16, &[24, 0, 0, 0]);
    assert_eq!(errno(scene.ioctl(command::GET_INFO, arg)), Some(Errno::EFAULT));
    let arg = at_end(32, &[40, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(errno(scene.ioctl(command::GET_REGION_INFO, arg)), Some(Errno::EFAULT));
    let mut flags = [0; 4];
    scene.memory.read(Vaddr(arg + 4), &mut flags).unwrap();
    assert_eq!(flags, [0; 4], "the capability goes first");
    let arg = at_end(20, &[24, 4 | 32, 2, 0, 1]);
    assert_eq!(errno(scene.ioctl(command::SET_IRQS, arg)), Some(Errno::EFAULT));
}
