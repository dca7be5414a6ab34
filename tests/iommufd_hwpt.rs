// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program can ask an iommufd for a page table of an address space, attach devices by it, and is
//! told what a kernel tells of an IOMMU that describes nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]
#![allow(clippy::cast_possible_truncation, reason = "halves of addresses")]

mod common;

use std::sync::Arc;

use common::{RAM, ROM, device_name, group, memory, msi, range, vtd};
use vfio_type1::abi::command;
use vfio_type1::{
    Access, DeviceDescription, Errno, HwptAlloc, IoasMap, Iommufd, Iova, Kernel, Memory as _,
    ModelMemory, OpenCdev, Process, Vaddr, Vfio,
};

/// Group 1 with two devices and group 2 with one, each behind VT-d of 48 and of 39 bits, and an address
/// space with a page.
struct Scene {
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    vfio: Vfio,
    iommufd: Iommufd,
    ioas: u32,
}

impl Scene {
    fn new(kernel: Kernel) -> Self {
        let mut pair = group(&vtd(48), 1, vec![msi()]);
        pair.devices.push(DeviceDescription::new("0000:00:01.1", vec![]));
        let vfio = Vfio::new(kernel, [pair, group(&vtd(39), 2, vec![])]).unwrap();
        let memory = memory();
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        process.set_cap_ipc_lock(false);
        let iommufd = vfio.open_iommu().unwrap();
        let ioas = iommufd.ioas_alloc();
        let request = IoasMap::anywhere(ioas, RAM, 0x1000, Access::ReadWrite).at(0);
        iommufd.ioas_map(&process, &request).unwrap();
        Self { memory, process, vfio, iommufd, ioas }
    }

    /// A bound device and its number.
    fn bound(&self, name: &str) -> (OpenCdev, u32) {
        let device = self.vfio.open_cdev(name).unwrap();
        let number = device.bind(&self.iommufd).unwrap();
        (device, number)
    }

    fn hwpt(&self, device: u32) -> u32 {
        self.iommufd.hwpt_alloc(&HwptAlloc::new(device, self.ioas)).unwrap()
    }

    fn destroy(&self, object: u32) -> Result<(), Errno> {
        self.iommufd.destroy(object).map_err(|error| error.errno())
    }

    fn first_byte(&self) -> Option<u8> {
        let mut byte = [0];
        let device = self.vfio.bus_master(&device_name(1)).unwrap();
        device.read(Iova(0), &mut byte).ok().map(|()| byte[0])
    }

    fn valid(&self) -> Vec<vfio_type1::IovaRange> {
        self.iommufd.ioas_ranges(self.ioas).unwrap().ranges
    }

    /// Issues a command whose argument is these words at `at`; its errno, and the words afterwards.
    fn issue(&self, command: u32, words: &[u32], at: u64) -> (Result<i32, Errno>, Vec<u32>) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.poke(Vaddr(at), &bytes).unwrap();
        let result = self.iommufd.ioctl(&self.process, command, at);
        let mut after = vec![0; bytes.len()];
        self.memory.read(Vaddr(at), &mut after).unwrap();
        let words = after.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        (result.map_err(|error| error.errno()), words.collect())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        assert_eq!(self.iommufd.check_invariants(), Ok(()));
    }
}

const V7_3: Kernel = Kernel::V7_3;

#[test]
fn a_device_translates_by_the_page_table_it_is_attached_to() {
    let scene = Scene::new(V7_3);
    scene.memory.poke(Vaddr(RAM), &[7]).unwrap();
    let (device, number) = scene.bound(&device_name(1));
    let hwpt = scene.hwpt(number);
    assert_eq!(scene.first_byte(), None);
    assert_eq!(device.attach(hwpt), Ok(hwpt));
    assert_eq!(scene.first_byte(), Some(7));
    assert_eq!(device.attach(hwpt), Ok(hwpt));
    device.detach().unwrap();
    assert_eq!(scene.first_byte(), None);
    // It is there for another time.
    assert_eq!(device.attach(hwpt), Ok(hwpt));
    assert_eq!(scene.first_byte(), Some(7));
}

#[test]
fn a_page_table_holds_the_address_space_and_its_device_holds_the_page_table() {
    let scene = Scene::new(V7_3);
    let (device, number) = scene.bound(&device_name(1));
    let hwpt = scene.hwpt(number);
    assert_eq!(scene.destroy(scene.ioas), Err(Errno::EBUSY));
    device.attach(hwpt).unwrap();
    assert_eq!(scene.destroy(hwpt), Err(Errno::EBUSY));
    // Not even a device that is closed takes it along.
    drop(device);
    assert_eq!(scene.destroy(scene.ioas), Err(Errno::EBUSY));
    assert_eq!(scene.destroy(hwpt), Ok(()));
    assert_eq!(scene.destroy(hwpt), Err(Errno::ENOENT));
    assert_eq!(scene.destroy(scene.ioas), Ok(()));
}

#[test]
fn attaching_the_address_space_never_chooses_such_a_page_table() {
    let scene = Scene::new(V7_3);
    let (device, number) = scene.bound(&device_name(1));
    let (sibling, _) = scene.bound("0000:00:01.1");
    let hwpt = scene.hwpt(number);
    device.attach(hwpt).unwrap();
    // All devices of a group have one.
    assert_eq!(sibling.attach(scene.ioas).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(sibling.attach(hwpt), Ok(hwpt));
    let automatic = device.attach(scene.ioas).unwrap();
    assert_ne!(automatic, hwpt);
    assert!(scene.first_byte().is_some());
    assert_eq!(device.attach(scene.ioas), Ok(automatic));
    assert_eq!(scene.destroy(hwpt), Ok(()));
    assert_eq!(scene.destroy(automatic), Err(Errno::EBUSY));
    let hwpt = scene.hwpt(number);
    device.attach(hwpt).unwrap();
    // The other one has gone with its last group.
    assert_eq!(scene.destroy(automatic), Err(Errno::ENOENT));
    assert!(scene.first_byte().is_some());
}

#[test]
fn the_aperture_counts_from_the_beginning_and_what_a_device_reserves_while_it_is_attached() {
    let scene = Scene::new(V7_3);
    assert_eq!(scene.valid(), [range(0, u64::MAX)]);
    let (device, number) = scene.bound(&device_name(1));
    let locked = || scene.process.user_locked_pages();
    assert_eq!(locked(), 0);
    let hwpt = scene.hwpt(number);
    let aperture = [range(0, (1 << 48) - 1)];
    assert_eq!((scene.valid(), locked()), (aperture.to_vec(), 1));
    assert_eq!(scene.iommufd.ioas_ranges(scene.ioas).unwrap().alignment.bytes(), 0x1000);
    device.attach(hwpt).unwrap();
    assert_eq!(scene.valid(), [range(0, 0xfedf_ffff), range(0xfef0_0000, (1 << 48) - 1)]);
    device.detach().unwrap();
    assert_eq!(scene.valid(), aperture);
    scene.destroy(hwpt).unwrap();
    assert_eq!((scene.valid(), locked()), (vec![range(0, u64::MAX)], 0));
    assert_eq!(scene.iommufd.ioas_ranges(scene.ioas).unwrap().alignment.bytes(), 1);
}

#[test]
fn a_device_behind_a_narrower_iommu_cannot_use_it() {
    let scene = Scene::new(V7_3);
    let (_wide, number) = scene.bound(&device_name(1));
    let (narrow, _) = scene.bound(&device_name(2));
    let hwpt = scene.hwpt(number);
    assert_eq!(narrow.attach(hwpt).unwrap_err().errno(), Errno::EINVAL);
    let other = narrow.attach(scene.ioas).unwrap();
    assert_ne!(other, hwpt);
}

#[test]
fn its_number_is_written_back_or_it_is_not_made() {
    let scene = Scene::new(V7_3);
    let (_device, number) = scene.bound(&device_name(1));
    let request = [48, 0, number, scene.ioas, 0, 0, 0, 0, 0, 0, 0, 0];
    let (result, after) = scene.issue(command::HWPT_ALLOC, &request, ROM);
    assert_eq!((result, after[4]), (Err(Errno::EFAULT), 0));
    assert_eq!(scene.valid(), [range(0, u64::MAX)]);
    // The first version ended behind the reserved field.
    let (result, after) = scene.issue(command::HWPT_ALLOC, &[24, 0, number, scene.ioas, 0, 0], RAM);
    assert_eq!((result, after[4]), (Ok(0), 3));
    let (result, after) = scene.issue(command::HWPT_ALLOC, &request, RAM);
    assert_eq!((result, after[4]), (Ok(0), 4));
    let refused = |words: &[u32]| scene.issue(command::HWPT_ALLOC, words, RAM).0.unwrap_err();
    assert_eq!(refused(&[20, 0, number, scene.ioas, 0]), Errno::EINVAL);
    assert_eq!(refused(&[24, 0, number, scene.ioas, 0, 1]), Errno::EOPNOTSUPP);
    assert_eq!(refused(&[24, 1, number, scene.ioas, 0, 0]), Errno::EOPNOTSUPP);
}

#[test]
fn nothing_is_told_of_the_iommu_and_the_buffer_is_cleared() {
    let scene = Scene::new(V7_3);
    let (_device, number) = scene.bound(&device_name(1));
    let (low, high) = (RAM as u32 + 0x100, (RAM >> 32) as u32);
    scene.memory.poke(Vaddr(RAM + 0x100), &[0xff; 0x1802]).unwrap();
    let request = [40, 0, number, 0x1801, low, high, 9, 0xff, 9, 9];
    let (result, after) = scene.issue(command::GET_HW_INFO, &request, RAM);
    assert_eq!((result, after), (Ok(0), vec![40, 0, number, 0, low, high, 0, 0, 0, 0]));
    let mut told = [1; 0x1802];
    scene.memory.read(Vaddr(RAM + 0x100), &mut told).unwrap();
    assert_eq!((&told[..0x1801], told[0x1801]), (&[0; 0x1801][..], 0xff));
    let refused = |words: &[u32]| scene.issue(command::GET_HW_INFO, words, RAM).0;
    assert_eq!(refused(&[40, 0, number, 8, 0, 0, 0, 0, 0, 0]), Err(Errno::EFAULT));
    assert_eq!(refused(&[40, 0, 99, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::ENOENT));
    assert_eq!(refused(&[40, 0, scene.ioas, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::ENOENT));
    assert_eq!(refused(&[28, 0, number, 0, 0, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(refused(&[32, 0, number, 0, 0, 0, 0, 0]), Ok(0));
    assert_eq!(refused(&[44, 0, number, 0, 0, 0, 0, 0, 0, 0, 1]), Err(Errno::E2BIG));
    assert_eq!(refused(&[40, 0, number, 0, 0, 0, 0, 0x100, 0, 0]), Err(Errno::EOPNOTSUPP));
}

#[test]
fn the_type_of_data_can_be_asked_for_from_6_18_on() {
    // A flag, and a byte that was reserved before there were PASIDs.
    for (kernel, flags) in [(Kernel::V6_12, Err(Errno::EOPNOTSUPP)), (Kernel::V7_2, Ok(0))] {
        let scene = Scene::new(kernel);
        let (_device, number) = scene.bound(&device_name(1));
        let ask = |flags, reserved| {
            let request = [40, flags, number, 0, 0, 0, 1, reserved, 0, 0];
            scene.issue(command::GET_HW_INFO, &request, RAM).0
        };
        assert_eq!(ask(0, 0), Ok(0));
        assert_eq!((ask(1, 0), ask(0, 1)), (flags, flags));
        assert_eq!(ask(2, 0), Err(Errno::EOPNOTSUPP));
    }
}

#[test]
fn a_command_that_is_not_modelled_is_named() {
    let scene = Scene::new(V7_3);
    for (command, name) in [
        (0x3b83, "IOMMU_IOAS_COPY"),
        (0x3b8c, "IOMMU_HWPT_GET_DIRTY_BITMAP"),
        (0x3b8d, "IOMMU_HWPT_INVALIDATE"),
        (0x3b8e, "IOMMU_FAULT_QUEUE_ALLOC"),
        (0x3b94, "IOMMU_HW_QUEUE_ALLOC"),
    ] {
        scene.memory.poke(Vaddr(RAM), &[40, 0, 0, 0]).unwrap();
        let error = scene.iommufd.ioctl(&scene.process, command, RAM).unwrap_err();
        assert_eq!(error.errno(), Errno::EOPNOTSUPP);
        assert!(error.is_not_modelled() && error.to_string().contains(name), "{error}");
    }
}
