// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What programs ask of KVM that is about VFIO.
//!
//! KVM's VFIO device is one that a VMM tells of the groups whose devices it gives to its guest; some end if it
//! does not take them. KVM makes it, but would not know our files. Nothing follows from it here, and it is answered as KVM
//! does (`virt/kvm/vfio.c`, `kvm_vfio_set_file`, `kvm_vfio_has_attr`; Documentation/virt/kvm/devices/vfio.rst).

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_CREATE_DEVICE_TEST, KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL,
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO,
    kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use vfio_type1::{Errno, Memory as _, Vaddr, VaddrRange};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

use crate::calls::{self, Answer};
use crate::files::File;
use crate::inside;
use crate::own::Kept;
use crate::say::say_once;
use crate::world::World;

/// The type of KVM's ioctls.
const KVM: u32 = 0xae;

ioctl_iow_nr!(KVM_SET_USER_MEMORY_REGION, KVM, 0x46, kvm_userspace_memory_region);
ioctl_iow_nr!(KVM_SET_USER_MEMORY_REGION2, KVM, 0x49, kvm_userspace_memory_region2);
ioctl_iowr_nr!(KVM_CREATE_DEVICE, KVM, 0xe0, kvm_create_device);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVM, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVM, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVM, 0xe3, kvm_device_attr);

/// The device: what it has been told of, each kept open until it is told otherwise, or is closed itself.
#[derive(Debug, Default)]
pub(crate) struct KvmDevice {
    files: Mutex<Vec<(Arc<File>, Kept)>>,
}

/// After an ioctl that went to KVM, or elsewhere, and succeeded. All others find out from a comparison or two.
#[inline]
pub(crate) fn succeeded(command: u64, arg: u64) {
    // The kernel takes the lower half alone.
    let command = command & 0xffff_ffff;
    if command == KVM_CREATE_DEVICE() {
        created(arg);
    } else if [KVM_SET_USER_MEMORY_REGION(), KVM_SET_USER_MEMORY_REGION2()].contains(&command) {
        got_memory(arg);
    }
}

/// Notes what KVM has made, if it is this device.
fn created(arg: u64) {
    let _inside = inside::enter();
    let Some(world) = World::get_or_make() else { return };
    let Ok([kind, fd, flags]) = numbers(world, arg) else { return };
    if kind == kvm_device_type_KVM_DEV_TYPE_VFIO && flags & KVM_CREATE_DEVICE_TEST == 0 {
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        world.files.set(fd, Some(Arc::new(File::Kvm(KvmDevice::default()))));
    }
}

/// A guest's processor accesses its memory without us: registers in it do not trap, and KVM finds no page.
fn got_memory(arg: u64) {
    let Some(world) = World::get().filter(|world| !world.windows.is_empty()) else { return };
    let _inside = inside::enter();
    let Ok([_, _, _, _, size, upper, low, high]) = numbers(world, arg) else { return };
    let [at, size] =
        [[low, high], [size, upper]].map(|[low, high]| u64::from(high) << 32 | u64::from(low));
    let range = VaddrRange::from_size(Vaddr(at), size);
    let window = range.ok().and_then(|range| world.windows.overlapping(&range));
    if let Some(window) = window.filter(|window| window.trapped) {
        say_once(format!(
            "{}: BAR {} is mapped into a guest of KVM's, whose accesses to it fail; use vfio-sim run --no-mmap",
            window.device.device().name(),
            window.region
        ));
    }
}

impl KvmDevice {
    pub(crate) fn ioctl(&self, world: &World, command: u32, arg: u64) -> Answer {
        let command = u64::from(command);
        if command == KVM_GET_DEVICE_ATTR() {
            return Err(Errno::EPERM);
        }
        if command != KVM_SET_DEVICE_ATTR() && command != KVM_HAS_DEVICE_ATTR() {
            return Err(Errno::ENOTTY);
        }
        let [_, group, attribute, upper, low, high] = numbers(world, arg)?;
        let known = [KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL].contains(&attribute);
        if group != KVM_DEV_VFIO_FILE || !known || upper != 0 {
            return Err(Errno::ENXIO);
        }
        if command == KVM_HAS_DEVICE_ATTR() {
            return Ok(0);
        }
        let [fd] = numbers(world, u64::from(high) << 32 | u64::from(low))?;
        let fd = fd.cast_signed();
        match attribute {
            KVM_DEV_VFIO_FILE_ADD => self.add(world, fd),
            _ => self.remove(world, fd),
        }
    }

    fn add(&self, world: &World, fd: RawFd) -> Answer {
        calls::check_open(fd)?;
        let file = world.files.get(fd).ok_or(Errno::EINVAL)?;
        match *file {
            File::Group(..) => {}
            // From 6.6 on, where devices have nodes of their own.
            File::Device(_) if world.has_cdevs() => {}
            _ => return Err(Errno::EINVAL),
        }
        let copy = calls::copy(fd)?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.iter().any(|(known, _)| Arc::ptr_eq(known, &file)) {
            return Err(Errno::EEXIST);
        }
        files.push((file, copy));
        Ok(0)
    }

    fn remove(&self, world: &World, fd: RawFd) -> Answer {
        calls::check_open(fd)?;
        let file = world.files.get(fd).ok_or(Errno::ENOENT)?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let at = files.iter().position(|(known, _)| Arc::ptr_eq(known, &file));
        files.swap_remove(at.ok_or(Errno::ENOENT)?);
        Ok(0)
    }
}

/// Numbers of 32 bits in the program's memory.
fn numbers<const COUNT: usize>(world: &World, at: u64) -> Result<[u32; COUNT], Errno> {
    let mut bytes = [[0; 4]; COUNT];
    world.memory.read(Vaddr(at), bytes.as_flattened_mut()).map_err(|_| Errno::EFAULT)?;
    Ok(bytes.map(u32::from_le_bytes))
}
