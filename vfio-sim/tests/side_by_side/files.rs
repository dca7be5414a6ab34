// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Containers, groups and devices as files, on both.

use std::sync::Arc;

use vfio_sim::oracle::{OnUnmap, Target};
use vfio_type1::FdTarget;
use vfio_type1::abi::{GroupReply, command};

use super::aim::ARGUMENT;
use super::hosts::device_name;
use super::operations::{Aim, Door, Files};
use super::pair::{Difference, Opened, Pair, agree};

impl Pair {
    pub(crate) fn files(&mut self, operation: &Files) -> Difference {
        match *operation {
            Files::OpenContainer { slot } => self.open_container(slot),
            Files::CloseContainer { slot } => self.containers[slot] = None,
            Files::OpenGroup { group, caller } => self.open_group(group, caller)?,
            Files::CloseGroup { group } => self.close_group(group),
            Files::SetContainer { group, caller, target, door } => {
                self.set_container(group, caller, target, door)?;
            }
            Files::UnsetContainer { group } => self.unset_container(group)?,
            Files::Status { group, door } => self.status(group, door)?,
            Files::SetIommu { slot, caller, kind, door } => {
                self.set_iommu(slot, caller, kind, door)?;
            }
            Files::Assign { group, slot, kind } => self.assign(group, slot, kind)?,
            Files::OpenDevice { group, caller, device, told } => {
                self.open_device(group, caller, device)?;
                if let (Some(does), Some(last)) = (told, self.devices.len().checked_sub(1)) {
                    self.on_unmap(last, does);
                }
            }
            Files::OpenEmulated => self.open_emulated()?,
            Files::CloseDevice { device } => self.close_device(device),
        }
        Ok(())
    }

    fn open_container(&mut self, slot: usize) {
        let made = (self.vfio.open_container(), self.oracle.open_container());
        self.containers[slot] = Some(made);
    }

    fn open_group(&mut self, group: usize, caller: usize) -> Difference {
        let (group, caller) = (group % self.ids.len(), self.caller(caller));
        let emulator = self.vfio.open_group(self.ids[group], &self.processes[caller].0);
        let oracle = self.oracle.open_group(group, caller);
        let emulator = emulator.map(|opened| self.groups[group] = Some(opened));
        agree("open group", emulator, oracle)
    }

    fn close_group(&mut self, group: usize) {
        let group = group % self.ids.len();
        if self.groups[group].take().is_some() {
            self.oracle.close_group(group);
        }
    }

    fn set_container(&mut self, group: usize, caller: usize, aim: Aim, door: Door) -> Difference {
        let (group, caller) = (group % self.ids.len(), self.caller(caller));
        let Some(file) = self.groups[group].clone() else { return Ok(()) };
        let (fd, theirs, ours) = match aim {
            Aim::Slot(slot) => {
                let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
                (5, FdTarget::Container(container.clone()), Target::Container(*number))
            }
            Aim::Closed => (6, FdTarget::Closed, Target::Closed),
            Aim::Other => (7, FdTarget::Other, Target::Other),
            Aim::Negative => (-1, FdTarget::Closed, Target::Closed),
        };
        let process = Arc::clone(&self.processes[caller].0);
        let Door::Bytes { .. } = door else {
            let emulator = file.set_container_fd(fd, theirs, &process);
            let oracle = self.oracle.set_container(group, caller, fd, ours);
            return agree("SET_CONTAINER", emulator, oracle);
        };
        let arg = self.put(caller, i32::to_le_bytes(fd).to_vec(), door, false);
        let emulator = file.ioctl(&process, command::GROUP_SET_CONTAINER, arg, |_| theirs);
        let oracle = self.oracle.set_container_ioctl(group, caller, arg, |_| ours);
        agree("SET_CONTAINER", emulator.map(|_| ()), oracle)
    }

    fn unset_container(&mut self, group: usize) -> Difference {
        let group = group % self.ids.len();
        let Some(file) = &self.groups[group] else { return Ok(()) };
        let emulator = file.unset_container();
        agree("UNSET_CONTAINER", emulator, self.oracle.unset_container(group))
    }

    fn status(&mut self, group: usize, door: Door) -> Difference {
        let group = group % self.ids.len();
        let Some(file) = self.groups[group].clone() else { return Ok(()) };
        let arg = self.put(0, vec![8, 0, 0, 0, 0xa5, 0xa5, 0xa5, 0xa5], door, true);
        let process = Arc::clone(&self.processes[0].0);
        let emulator = file.ioctl(&process, command::GROUP_GET_STATUS, arg, |_| FdTarget::Closed);
        let emulator = emulator.map(|reply| assert!(matches!(reply, GroupReply::Done)));
        agree("GET_STATUS", emulator, self.oracle.status_ioctl(group, 0, arg))?;
        self.compare_page(0, ARGUMENT)
    }

    fn set_iommu(&mut self, slot: usize, caller: usize, kind: u64, door: Door) -> Difference {
        let caller = self.caller(caller);
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        let process = &self.processes[caller].0;
        if let Door::Typed = door {
            let emulator = container.set_iommu(process, kind);
            return agree("SET_IOMMU", emulator, self.oracle.set_iommu(*number, caller, kind));
        }
        let emulator = container.ioctl(process, command::SET_IOMMU, kind);
        let oracle = self.oracle.ioctl(*number, caller, command::SET_IOMMU, kind);
        agree("SET_IOMMU", emulator, oracle)
    }

    /// What a program does to use a group, as far as it is not done.
    fn assign(&mut self, group: usize, slot: usize, kind: u64) -> Difference {
        if self.containers[slot].is_none() {
            self.open_container(slot);
        }
        if self.groups[group % self.ids.len()].is_none() {
            self.open_group(group, 0)?;
        }
        self.set_container(group, 0, Aim::Slot(slot), Door::Typed)?;
        let number = self.containers[slot].as_ref().map(|(_, number)| *number);
        if number.is_some_and(|number| !self.oracle.has_driver(number)) {
            self.set_iommu(slot, 0, kind, Door::Typed)?;
        }
        Ok(())
    }

    fn open_device(&mut self, group: usize, caller: usize, device: u32) -> Difference {
        let (group, caller) = (group % self.ids.len(), self.caller(caller));
        let Some(file) = &self.groups[group] else { return Ok(()) };
        let name = device_name(u32::try_from(group).unwrap() + 1, device);
        let emulator = file.open_device(&name, &self.processes[caller].0);
        self.made += 1;
        let number = self.made;
        let oracle = self.oracle.open_device(group, caller, &name, number);
        let emulator = emulator.map(|device| self.devices.push(Opened { group, number, device }));
        agree("GET_DEVICE_FD", emulator, oracle)
    }

    fn open_emulated(&mut self) -> Difference {
        for group in 0..self.ids.len() {
            if self.emulated[group] {
                self.open_device(group, 0, 0)?;
                self.on_unmap(self.devices.len().saturating_sub(1), OnUnmap::LetsGo);
            }
        }
        Ok(())
    }

    fn close_device(&mut self, device: usize) {
        if !self.devices.is_empty() {
            let opened = self.devices.remove(device % self.devices.len());
            self.oracle.close_device(opened.group, opened.number);
        }
    }
}
