// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: containers, groups and devices may be closed in any order, with the kernel's effect.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use common::{Rig, device_name};
use vfio_type1::{Errno, GroupId, Kernel, extension};

#[test]
fn a_closed_container_lives_on_in_its_groups() {
    let Rig { .. } = &Rig::plain(Kernel::NEWEST);
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0, 0x4000).unwrap();
    let locked = rig.process.locked_pages();
    let other = rig.container.clone();
    drop(other);
    assert_eq!((rig.process.locked_pages(), locked), (4, 4));
    assert!(rig.groups[0].status().container_set);
}

#[test]
fn the_last_group_takes_mappings_and_driver_with_it() {
    let rig = Rig::plain(Kernel::NEWEST);
    rig.map(0, 0x4000).unwrap();
    rig.groups[0].unset_container().unwrap();
    assert_eq!(rig.process.locked_pages(), 0);
    assert_eq!(rig.container.info().unwrap_err().errno(), Errno::EINVAL);
    let again = rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap_err();
    assert_eq!(again.errno(), Errno::EINVAL);
    rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
    rig.container.set_iommu(&rig.process, extension::TYPE1V2).unwrap();
    assert_eq!(rig.mapped(), []);
    assert_eq!(rig.container.info().unwrap().entries_left, Some(65535));
}

#[test]
fn an_open_device_keeps_its_group_open() {
    let mut rig = Rig::plain(Kernel::NEWEST);
    let id = GroupId::Numbered(1);
    let device = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    let second = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
    assert_eq!(rig.groups[0].unset_container().unwrap_err().errno(), Errno::EBUSY);
    rig.map(0, 0x1000).unwrap();

    rig.groups.clear();
    assert_eq!(rig.mapped().len(), 1, "closing the group leaves it attached");
    let busy = rig.vfio.open_group(id, &rig.process).unwrap_err();
    assert_eq!(busy.errno(), Errno::EBUSY);
    drop(device);
    assert_eq!(rig.mapped().len(), 1);
    drop(second);
    assert_eq!(rig.mapped(), [], "the last device detaches the group");
    rig.groups.push(rig.vfio.open_group(id, &rig.process).unwrap());
}

#[test]
fn a_closed_device_leaves_its_group_in_the_container() {
    let rig = Rig::plain(Kernel::NEWEST);
    drop(rig.groups[0].open_device(&device_name(1), &rig.process).unwrap());
    assert!(rig.groups[0].status().container_set);
    rig.groups[0].unset_container().unwrap();
}

#[test]
fn a_group_can_be_open_once_but_shared() {
    let rig = Rig::plain(Kernel::NEWEST);
    let dup = rig.groups[0].clone();
    let again = rig.vfio.open_group(dup.id(), &rig.process).unwrap_err();
    assert_eq!(again.errno(), Errno::EBUSY);
}

#[test]
fn dropping_everything_at_once_is_fine() {
    for order in 0..3 {
        let mut rig = Rig::plain(Kernel::NEWEST);
        let device = rig.groups[0].open_device(&device_name(1), &rig.process).unwrap();
        rig.map(0, 0x1000).unwrap();
        let process = rig.process.clone();
        match order {
            0 => drop((rig, device)),
            1 => drop((device, rig)),
            _ => {
                rig.groups.clear();
                drop(rig);
                drop(device);
            }
        }
        assert_eq!(process.locked_pages(), 0, "order {order}");
    }
}
