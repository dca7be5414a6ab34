// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What SET_IRQS does, case by case.

use vfio_sim::device::{CONFIG_REGION, IrqIndex};
use vfio_type1::{Errno, Kernel};

use crate::scene::{CLOSED, FIRST_FD, Scene, errno, fds};

/// Nobody has been signalled.
const NOBODY: [i32; 0] = [];

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

const LINE: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;

const A: i32 = FIRST_FD;
const B: i32 = FIRST_FD + 1;
const C: i32 = FIRST_FD + 2;

fn give(scene: &Scene, index: u32, start: u32, numbers: &[i32]) -> Option<Errno> {
    let count = u32::try_from(numbers.len()).unwrap();
    errno(scene.set_irqs([EVENTFD | TRIGGER, index, start, count], &fds(numbers)))
}

fn turn_off(scene: &Scene, index: u32) -> Option<Errno> {
    errno(scene.set_irqs([NONE | TRIGGER, index, 0, 0], &[]))
}

/// Which vectors of MSI or MSI-X are set up, by their eventfds.
fn wired(scene: &Scene, index: IrqIndex) -> Vec<Option<i32>> {
    scene.signals();
    let vectors = 0..scene.device.irq_count(index);
    let eventfd = |vector| {
        let is_set = scene.device.trigger(index, vector);
        let signalled = scene.signalled();
        assert_eq!(signalled.len(), usize::from(is_set));
        signalled.first().copied()
    };
    vectors.map(eventfd).collect()
}

#[test]
fn parts_of_the_vectors_can_be_changed_while_they_are_on() {
    let scene = Scene::new(Kernel::V6_1);
    assert_eq!(give(&scene, MSI, 0, &[A, B, C]), None);
    assert_eq!(give(&scene, MSI, 1, &[-1]), None);
    assert_eq!(wired(&scene, IrqIndex::Msi), [Some(A), None, Some(C), None]);
    assert_eq!(give(&scene, MSI, 0, &[C, A]), None);
    assert_eq!(wired(&scene, IrqIndex::Msi), [Some(C), Some(A), Some(C), None]);
    assert_eq!(turn_off(&scene, MSI), None);
    assert_eq!(wired(&scene, IrqIndex::Msi), [None; 4]);
    assert_eq!(turn_off(&scene, MSI), Some(Errno::EINVAL), "it is off already");
}

#[test]
fn turning_on_from_a_vector_on_leaves_those_below_without_eventfds() {
    let scene = Scene::new(Kernel::NEWEST);
    assert_eq!(give(&scene, MSIX, 2, &[A]), None);
    assert_eq!(wired(&scene, IrqIndex::Msix)[..4], [None, None, Some(A), None]);
    // No vectors from vector 2 on are two without eventfds.
    let scene = Scene::new(Kernel::V6_1);
    assert_eq!(give(&scene, MSIX, 2, &[]), None);
    assert_eq!(give(&scene, MSIX, 1, &[B]), None);
    assert_eq!(give(&scene, MSIX, 2, &[B]), Some(Errno::EINVAL));
}

#[test]
fn msix_grows_from_6_5_and_msi_never() {
    for kernel in Kernel::ALL {
        let grows = kernel.behaviours().dynamic_msix;
        let scene = Scene::new(kernel);
        assert_eq!(give(&scene, MSIX, 0, &[A]), None);
        let expected = if grows { None } else { Some(Errno::EINVAL) };
        assert_eq!(give(&scene, MSIX, 5, &[B]), expected, "{kernel}");
        assert_eq!(wired(&scene, IrqIndex::Msix)[5], Some(B).filter(|_| grows), "{kernel}");
        assert_eq!(turn_off(&scene, MSIX), None);
        assert_eq!(give(&scene, MSI, 0, &[A]), None);
        assert_eq!(give(&scene, MSI, 1, &[B]), Some(Errno::EINVAL), "{kernel}");
    }
}

#[test]
fn what_is_refused_for_size_changes_nothing_up_to_6_4_and_takes_away_after() {
    for kernel in Kernel::ALL {
        let scene = Scene::new(kernel);
        assert_eq!(give(&scene, MSI, 0, &[A, B]), None);
        assert_eq!(give(&scene, MSI, 1, &[C, C]), Some(Errno::EINVAL));
        let second = Some(B).filter(|_| !kernel.behaviours().dynamic_msix);
        assert_eq!(wired(&scene, IrqIndex::Msi), [Some(A), second, None, None], "{kernel}");
    }
}

#[test]
fn a_bad_eventfd_takes_those_before_it_along() {
    let scene = Scene::new(Kernel::NEWEST);
    assert_eq!(give(&scene, MSIX, 0, &[A, CLOSED]), Some(Errno::EBADF));
    assert_eq!(give(&scene, LINE, 0, &[A]), None, "MSI-X was not turned on");
    assert_eq!(turn_off(&scene, LINE), None);

    assert_eq!(give(&scene, MSIX, 0, &[A, A, A, A]), None);
    assert_eq!(give(&scene, MSIX, 1, &[B, CLOSED, B]), Some(Errno::EBADF));
    assert_eq!(wired(&scene, IrqIndex::Msix)[..4], [Some(A), None, None, Some(A)]);
    assert_eq!(give(&scene, MSIX, 1, &[B]), None, "it is still on");
}

#[test]
fn vectors_can_be_signalled_by_their_owner() {
    let scene = Scene::new(Kernel::NEWEST);
    assert_eq!(give(&scene, MSIX, 0, &[A, B, -1, C]), None);
    scene.set_irqs([NONE | TRIGGER, MSIX, 1, 1], &[]).unwrap();
    assert_eq!(scene.signalled(), [B]);
    scene.set_irqs([NONE | TRIGGER, MSIX, 0, 8], &[]).unwrap();
    assert_eq!(scene.signalled(), [A, B, C]);
    scene.set_irqs([BOOL | TRIGGER, MSIX, 0, 4], &[1, 0, 1, 255]).unwrap();
    assert_eq!(scene.signalled(), [A, C]);
    scene.set_irqs([BOOL | TRIGGER, MSIX, 0, 0], &[]).unwrap();
    assert_eq!(scene.signalled(), NOBODY);
    // Up to 6.4 the vectors must be on.
    let older = Scene::new(Kernel::V6_1);
    assert_eq!(give(&older, MSIX, 0, &[A]), None);
    let refused = older.set_irqs([NONE | TRIGGER, MSIX, 0, 8], &[]);
    assert_eq!(errno(refused), Some(Errno::EINVAL));
    assert_eq!(older.signalled(), NOBODY);
}

#[test]
fn the_line_is_masked_when_it_fires_and_fires_again_when_unmasked() {
    let scene = Scene::new(Kernel::NEWEST);
    assert_eq!(give(&scene, LINE, 0, &[A]), None);
    let mask = |action, data: &[u8]| {
        let kind = if data.is_empty() { NONE } else { BOOL };
        scene.set_irqs([kind | action, LINE, 0, 1], data).unwrap();
    };
    scene.device.write_u32(0, 0, 1).unwrap();
    assert_eq!(scene.signalled(), [A]);
    mask(UNMASK, &[0]);
    assert_eq!(scene.signalled(), NOBODY);
    mask(UNMASK, &[]);
    assert_eq!(scene.signalled(), [A], "it is still asserted");
    mask(MASK, &[1]);
    scene.device.write_u32(0, 0, 0).unwrap();
    mask(UNMASK, &[1]);
    mask(MASK, &[]);
    scene.device.write_u32(0, 0, 1).unwrap();
    assert_eq!(scene.signalled(), NOBODY, "it is masked");
    // Another eventfd does not unmask it.
    assert_eq!(give(&scene, LINE, 0, &[B]), None);
    assert_eq!(scene.signalled(), NOBODY);
    mask(UNMASK, &[]);
    assert_eq!(scene.signalled(), [B]);
    // A bad one leaves the good one.
    assert_eq!(give(&scene, LINE, 0, &[CLOSED]), Some(Errno::EBADF));
    mask(UNMASK, &[]);
    assert_eq!(scene.signalled(), [B]);
    // There is no eventfd that unmasks; then there is none to take away.
    scene.set_irqs([EVENTFD | UNMASK, LINE, 0, 1], &fds(&[-1])).unwrap();
    assert_eq!(turn_off(&scene, LINE), None);
    scene.device.unmask_line();
    assert_eq!(scene.signalled(), NOBODY);
}

#[test]
fn an_eventfd_unmasks_the_line() {
    let scene = Scene::new(Kernel::NEWEST);
    let unmask_by = |fd| scene.set_irqs([EVENTFD | UNMASK, LINE, 0, 1], &fds(&[fd])).unwrap();
    assert_eq!(give(&scene, LINE, 0, &[A]), None);
    scene.device.write_u32(0, 0, 1).unwrap();
    assert_eq!(scene.signalled(), [A]);
    // One that is signalled already does its work at once, and each time again.
    scene.signal(B);
    unmask_by(B);
    scene.wait_for(A);
    scene.signal(B);
    scene.wait_for(A);
    assert_eq!(scene.signalled(), NOBODY);
    // It goes when it is taken away, and when the line is turned off.
    unmask_by(-1);
    scene.signal(B);
    assert_eq!(scene.signalled(), [B], "nobody else has read it");
    unmask_by(B);
    assert_eq!(turn_off(&scene, LINE), None);
    assert_eq!(give(&scene, LINE, 0, &[A]), None);
    scene.wait_for(A);
    scene.signal(B);
    assert_eq!(scene.signalled(), [B]);
    // Another one takes its place.
    unmask_by(B);
    unmask_by(C);
    scene.signal(C);
    scene.wait_for(A);
    scene.signal(B);
    assert_eq!(scene.signalled(), [B]);
}

#[test]
fn a_line_that_the_command_register_disables_tells_nobody() {
    let scene = Scene::new(Kernel::NEWEST);
    let command = |value: u16| {
        scene.device.write(CONFIG_REGION, 4, &value.to_le_bytes()).unwrap();
    };
    command(0x0402);
    assert_eq!(give(&scene, LINE, 0, &[A]), None);
    scene.set_irqs([NONE | TRIGGER, LINE, 0, 1], &[]).unwrap();
    scene.set_irqs([NONE | UNMASK, LINE, 0, 1], &[]).unwrap();
    scene.device.write_u32(0, 0, 1).unwrap();
    assert_eq!(scene.signalled(), NOBODY);
    command(0x0002);
    assert_eq!(scene.signalled(), [A]);
    // It is masked now, and turning it off and on again unmasks it.
    command(0x0402);
    command(0x0002);
    assert_eq!(scene.signalled(), [A]);
    scene.set_irqs([BOOL | TRIGGER, LINE, 0, 1], &[1]).unwrap();
    scene.set_irqs([BOOL | TRIGGER, LINE, 0, 1], &[0]).unwrap();
    assert_eq!(scene.signalled(), [A]);
}

#[test]
fn errors_and_requests_have_an_eventfd_beside_the_others() {
    for (index, kind) in [(3, IrqIndex::Error), (4, IrqIndex::Request)] {
        let scene = Scene::new(Kernel::NEWEST);
        assert_eq!(give(&scene, MSIX, 0, &[C]), None);
        assert_eq!(give(&scene, index, 0, &[A]), None);
        assert!(scene.device.trigger(kind, 0));
        scene.set_irqs([NONE | TRIGGER, index, 0, 1], &[]).unwrap();
        scene.set_irqs([BOOL | TRIGGER, index, 0, 1], &[1]).unwrap();
        scene.set_irqs([BOOL | TRIGGER, index, 0, 1], &[0]).unwrap();
        assert_eq!(scene.signalled(), [A; 3]);
        // Only -1 takes it away; a bad number leaves it.
        assert_eq!(give(&scene, index, 0, &[-2]), None);
        assert_eq!(give(&scene, index, 0, &[CLOSED]), Some(Errno::EBADF));
        assert!(scene.device.trigger(kind, 0));
        assert_eq!(give(&scene, index, 0, &[-1]), None);
        assert!(!scene.device.trigger(kind, 0));
        scene.set_irqs([BOOL | TRIGGER, index, 0, 1], &[1]).unwrap();
        assert_eq!(give(&scene, index, 0, &[B]), None);
        assert_eq!(turn_off(&scene, index), None);
        assert_eq!(turn_off(&scene, index), Some(Errno::EINVAL));
        assert_eq!(wired(&scene, IrqIndex::Msix)[0], Some(C));
    }
}

#[test]
fn configuration_space_shows_what_is_on() {
    let scene = Scene::new(Kernel::NEWEST);
    let capability = |id: u8| {
        let mut at = [0; 1];
        let mut byte = |offset: u8| {
            scene.device.read(CONFIG_REGION, u64::from(offset), &mut at).unwrap();
            at[0]
        };
        let mut at = byte(0x34);
        while byte(at) != id {
            at = byte(at + 1);
        }
        (byte(at + 2), byte(at + 3))
    };
    assert_eq!((capability(5).0 & 1, capability(0x11).1 & 0x80), (0, 0));
    assert_eq!(give(&scene, MSIX, 0, &[A]), None);
    assert_eq!((capability(5).0 & 1, capability(0x11).1 & 0x80), (0, 0x80));
    assert_eq!(turn_off(&scene, MSIX), None);
    assert_eq!(give(&scene, MSI, 0, &[A]), None);
    assert_eq!((capability(5).0 & 1, capability(0x11).1 & 0x80), (1, 0));
}
