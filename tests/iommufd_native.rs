// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program that uses `/dev/iommu` and `/dev/vfio/devices` finds address spaces, devices that
//! translate by them, and the errnos of the kernel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{RAM, ROM, device_name, group, memory, msi, process, range, vtd};
use proptest::prelude::*;
use vfio_type1::abi::command;
use vfio_type1::{
    Access, BusMaster, DeviceDescription, DmaFault, Errno, FaultCause, FdTarget, IoasMap,
    IommuOption, Iommufd, Iova, Kernel, Memory as _, ModelMemory, OpenCdev, Process, RegionKind,
    ReservedRegion, Vaddr, Vfio,
};

/// The last 64 bytes of memory.
const LAST: u64 = RAM + (1 << 30) - 64;

/// Two devices behind VT-d, of 48 and of 39 bits, and an iommufd.
struct Scene {
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    vfio: Vfio,
    iommufd: Iommufd,
}

impl Scene {
    fn new() -> Self {
        let narrow = ReservedRegion::new(0x10_0000, 0x1f_ffff, RegionKind::Reserved);
        let host = [group(&vtd(48), 1, vec![msi()]), group(&vtd(39), 2, vec![msi(), narrow])];
        let vfio = Vfio::new(Kernel::V7_3, host).unwrap();
        let memory = memory();
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let iommufd = vfio.open_iommu().unwrap();
        Self { memory, process, vfio, iommufd }
    }

    fn bound(&self, number: u32) -> OpenCdev {
        let device = self.vfio.open_cdev(&device_name(number)).unwrap();
        device.bind(&self.iommufd).unwrap();
        device
    }

    fn map(&self, ioas: u32, iova: u64, vaddr: u64, size: u64) -> Result<Iova, Errno> {
        let request = IoasMap::anywhere(ioas, vaddr, size, Access::ReadWrite).at(iova);
        self.iommufd.ioas_map(&self.process, &request).map_err(|error| error.errno())
    }

    /// Where memory is put for which no address is stated.
    fn place(&self, ioas: u32, vaddr: u64, size: u64) -> Result<u64, Errno> {
        let request = IoasMap::anywhere(ioas, vaddr, size, Access::ReadWrite);
        let placed = self.iommufd.ioas_map(&self.process, &request);
        placed.map(|iova| iova.0).map_err(|error| error.errno())
    }

    fn bus_master(&self, number: u32) -> BusMaster {
        self.vfio.bus_master(&device_name(number)).unwrap()
    }

    /// Issues a command whose argument is these bytes; its errno, and the bytes afterwards.
    fn issue(&self, command: u32, argument: &[u8]) -> (Result<i32, Errno>, Vec<u8>) {
        self.memory.poke(Vaddr(RAM), argument).unwrap();
        let result = self.iommufd.ioctl(&self.process, command, RAM);
        let mut after = vec![0; argument.len()];
        self.memory.read(Vaddr(RAM), &mut after).unwrap();
        (result.map_err(|error| error.errno()), after)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        assert_eq!(self.iommufd.check_invariants(), Ok(()));
    }
}

fn read(device: &BusMaster, iova: u64) -> Result<u8, DmaFault> {
    let mut byte = [0];
    device.read(Iova(iova), &mut byte).map(|()| byte[0])
}

#[test]
fn a_device_translates_by_the_address_space_it_is_attached_to() {
    let scene = Scene::new();
    let (one, two) = (scene.iommufd.ioas_alloc(), scene.iommufd.ioas_alloc());
    scene.map(one, 0, RAM, 0x1000).unwrap();
    scene.map(two, 0, RAM + 0x1000, 0x1000).unwrap();
    scene.memory.poke(Vaddr(RAM), &[1]).unwrap();
    scene.memory.poke(Vaddr(RAM + 0x1000), &[2]).unwrap();
    let (device, bus) = (scene.bound(1), scene.bus_master(1));
    let cause = |result: Result<u8, DmaFault>| result.unwrap_err().cause;
    assert!(matches!(cause(read(&bus, 0)), FaultCause::NotAttached { .. }));
    device.attach(one).unwrap();
    assert_eq!(read(&bus, 0), Ok(1));
    device.attach(two).unwrap();
    assert_eq!(read(&bus, 0), Ok(2));
    bus.write(Iova(0), &[7]).unwrap();
    let mut byte = [0];
    scene.memory.read(Vaddr(RAM + 0x1000), &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!(scene.iommufd.ioas_unmap(two, 0, 0x1000), Ok(0x1000));
    assert!(matches!(cause(read(&bus, 0)), FaultCause::Unmapped(_)));
    device.attach(one).unwrap();
    assert_eq!(read(&bus, 0), Ok(1));
    device.detach().unwrap();
    assert!(matches!(cause(read(&bus, 0)), FaultCause::NotAttached { .. }));
}

#[test]
fn address_spaces_are_told_with_what_is_mapped_in_them() {
    let scene = Scene::new();
    assert_eq!(scene.iommufd.address_spaces(), []);
    let one = scene.iommufd.ioas_alloc();
    // Neither a device nor its domain is one.
    let device = scene.bound(1);
    device.attach(one).unwrap();
    let two = scene.iommufd.ioas_alloc();
    assert_eq!(scene.iommufd.address_spaces(), [one, two]);
    scene.map(two, 0, RAM, 0x1000).unwrap();
    scene.map(two, 0x1000, RAM, 0x1000).unwrap();
    assert_eq!((scene.iommufd.mapping_count(one), scene.iommufd.mapping_count(two)), (0, 2));
    scene.iommufd.destroy(two).unwrap();
    assert_eq!((scene.iommufd.address_spaces(), scene.iommufd.mapping_count(two)), (vec![one], 0));
}

#[test]
fn a_device_that_is_closed_is_detached_and_its_group_is_free() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    scene.map(ioas, 0, RAM, 0x1000).unwrap();
    let (device, bus) = (scene.bound(1), scene.bus_master(1));
    device.attach(ioas).unwrap();
    assert!(read(&bus, 0).is_ok());
    drop(device);
    assert!(read(&bus, 0).is_err());
    let open = |group: u32| {
        scene.vfio.open_group(vfio_type1::GroupId::Numbered(group), &scene.process).unwrap()
    };
    let group = open(1);
    assert!(group.status().viable);
    group.set_container(&scene.vfio.open_container(), &scene.process).unwrap();
}

#[test]
fn mappings_live_as_long_as_a_descriptor_or_a_device_does() {
    let scene = Scene::new();
    let iommufd = scene.vfio.open_iommu().unwrap();
    let ioas = iommufd.ioas_alloc();
    let request = IoasMap::anywhere(ioas, RAM, 0x1000, Access::Read).at(0);
    iommufd.ioas_map(&scene.process, &request).unwrap();
    let device = scene.vfio.open_cdev(&device_name(1)).unwrap();
    device.bind(&iommufd).unwrap();
    device.attach(ioas).unwrap();
    drop(iommufd);
    let bus = scene.bus_master(1);
    assert!(read(&bus, 0).is_ok());
    drop(device);
    assert!(read(&bus, 0).is_err());
}

#[test]
fn valid_ranges_are_what_nobody_reserves_and_come_back() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    let valid = || scene.iommufd.ioas_ranges(ioas).unwrap().ranges;
    let all = vec![range(0, u64::MAX)];
    let with_one = vec![range(0, 0xfedf_ffff), range(0xfef0_0000, (1 << 48) - 1)];
    let with_both =
        vec![range(0, 0xf_ffff), range(0x20_0000, 0xfedf_ffff), range(0xfef0_0000, (1 << 39) - 1)];
    assert_eq!(valid(), all);
    let (one, two) = (scene.bound(1), scene.bound(2));
    one.attach(ioas).unwrap();
    assert_eq!(valid(), with_one);
    two.attach(ioas).unwrap();
    assert_eq!(valid(), with_both);
    two.detach().unwrap();
    assert_eq!(valid(), with_one);
    drop(one);
    assert_eq!(valid(), all);
}

#[test]
fn a_refusal_names_the_region_and_whose_it_is() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    let device = scene.bound(1);
    device.attach(ioas).unwrap();
    let request = IoasMap::anywhere(ioas, RAM, 0x1000, Access::Read);
    let text = |iova: u64| {
        scene.iommufd.ioas_map(&scene.process, &request.at(iova)).unwrap_err().to_string()
    };
    assert_eq!(
        text(0xfee0_0000),
        "iova 0xfee00000..0xfee00fff touches the MSI window 0xfee00000..0xfeefffff of group 1 \
         (0000:00:01.0); nearest free range of this size starts at 0xfedff000"
    );
    assert!(text(1 << 48).contains("the aperture of group 1's Intel VT-d"), "{}", text(1 << 48));
    drop(device);
    scene.map(ioas, 0x1f_f000, RAM, 0x1000).unwrap();
    let error = scene.bound(2).attach(ioas).unwrap_err();
    assert_eq!(error.errno(), Errno::EADDRINUSE);
    assert_eq!(
        error.to_string(),
        "0000:00:02.0 cannot be attached: mapping 0x1ff000..0x1fffff overlaps the reserved region \
         0x100000..0x1fffff of group 2 (0000:00:02.0); unmap it before attaching the device"
    );
}

#[test]
fn new_objects_get_the_lowest_free_number() {
    let scene = Scene::new();
    let iommufd = &scene.iommufd;
    assert_eq!([iommufd.ioas_alloc(), iommufd.ioas_alloc(), iommufd.ioas_alloc()], [1, 2, 3]);
    iommufd.destroy(2).unwrap();
    let device = scene.vfio.open_cdev(&device_name(1)).unwrap();
    assert_eq!(device.bind(iommufd), Ok(2));
    // The domain, which is what the device is attached to.
    assert_eq!(device.attach(1), Ok(4));
    assert_eq!(iommufd.destroy(1).unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(iommufd.destroy(4).unwrap_err().errno(), Errno::EBUSY);
    // Another device shares it, if its IOMMU can.
    assert_eq!(scene.bound(2).attach(4).unwrap_err().errno(), Errno::EINVAL);
    drop(device);
    assert_eq!(iommufd.destroy(4).unwrap_err().errno(), Errno::ENOENT);
    iommufd.destroy(1).unwrap();
    assert_eq!(iommufd.ioas_alloc(), 1);
}

#[test]
fn memory_goes_to_the_lowest_place_that_is_as_aligned_as_it_is() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    // Never the first page; a huge page if the memory is one, its offset if it is none.
    assert_eq!(scene.place(ioas, RAM, 0x1000), Ok(0x1000));
    assert_eq!(scene.place(ioas, RAM, 0x20_0000), Ok(0x20_0000));
    assert_eq!(scene.place(ioas, RAM + 0x1000, 0x20_0000), Ok(0x40_0000));
    assert_eq!(scene.place(ioas, RAM + 0x4000, 0x4000), Ok(0x4000));
    assert_eq!(scene.place(ioas, RAM + 0x808, 8), Ok(0x2808));
    let device = scene.bound(1);
    scene.iommufd.ioas_unmap(ioas, 0, u64::MAX).unwrap();
    device.attach(ioas).unwrap();
    let allow = [(Iova(0xfedf_f000), Iova(0xfef0_1fff))];
    assert!(scene.iommufd.allow_iovas(ioas, &allow).is_err());
    let allow = [(Iova(0x7001), Iova(0xafff)), (Iova(0x1_0000), Iova(0x1_0fff))];
    scene.iommufd.allow_iovas(ioas, &allow).unwrap();
    assert_eq!(scene.place(ioas, RAM, 0x1000), Ok(0x8000));
    assert_eq!(scene.place(ioas, RAM, 0x2000), Err(Errno::ENOSPC));
    assert_eq!(scene.place(ioas, RAM + 0x1000, 0x2000), Ok(0x9000));
    assert_eq!(scene.place(ioas, RAM, 0x1000), Ok(0x1_0000));
    assert_eq!(scene.place(ioas, RAM, 0x1000), Err(Errno::ENOSPC));
    // What is stated need not be allowed.
    assert_eq!(scene.map(ioas, 0, RAM, 0x1000), Ok(Iova(0)));
}

#[test]
fn pages_count_at_the_user_or_at_the_process_or_not_at_all() {
    let charged = |mode: u64, privileged: bool| {
        let scene = Scene::new();
        scene.process.set_cap_ipc_lock(privileged);
        scene.process.set_memlock(0x3fff);
        scene.iommufd.set_option(IommuOption::RlimitMode, mode).unwrap();
        assert_eq!(scene.iommufd.option(IommuOption::RlimitMode), Ok(mode));
        let ioas = scene.iommufd.ioas_alloc();
        let locked = || (scene.process.user_locked_pages(), scene.process.locked_pages());
        scene.map(ioas, 0, RAM, 0x2000).unwrap();
        assert_eq!(locked(), (0, 0), "nothing is pinned before a device is attached");
        let device = scene.bound(1);
        device.attach(ioas).unwrap();
        let one_more = scene.map(ioas, 0x4000, RAM, 0x1000);
        let at_the_limit = scene.map(ioas, 0x5000, RAM, 0x1000);
        let attached = locked();
        drop(device);
        assert_eq!(locked(), (0, 0));
        (attached, one_more.is_ok(), at_the_limit)
    };
    assert_eq!(charged(0, false), ((3, 0), true, Err(Errno::ENOMEM)));
    assert_eq!(charged(1, false), ((0, 3), true, Err(Errno::ENOMEM)));
    assert_eq!(charged(0, true), ((0, 0), true, Ok(Iova(0x5000))));
}

#[test]
fn a_structure_may_be_longer_than_known_if_it_ends_in_zeroes() {
    let lengths = [
        (command::IOMMU_DESTROY, 8),
        (command::IOAS_ALLOC, 12),
        (command::IOAS_ALLOW_IOVAS, 24),
        (command::IOAS_IOVA_RANGES, 32),
        (command::IOAS_MAP, 40),
        (command::IOAS_UNMAP, 24),
        (command::IOMMU_OPTION, 24),
        (command::IOMMU_VFIO_IOAS, 12),
    ];
    for (command, known) in lengths {
        let answer = |size: u32, tail: u8| {
            let scene = Scene::new();
            scene.iommufd.set_compat_ioas(scene.iommufd.ioas_alloc()).unwrap();
            let mut argument = [0; 64];
            argument[..4].copy_from_slice(&size.to_le_bytes());
            // WRITEABLE to map, the address space to unmap, and a size for both.
            argument[4] = if command == command::IOAS_UNMAP { 1 } else { 2 };
            argument[17] = if known > 17 { 0x10 } else { 0 };
            argument[63] = tail;
            scene.memory.poke(Vaddr(LAST), &argument).unwrap();
            let result = scene.iommufd.ioctl(&scene.process, command, LAST);
            result.map_err(|error| error.errno())
        };
        let plain = answer(known, 0xff);
        assert!(!matches!(plain, Err(Errno::EINVAL | Errno::E2BIG | Errno::EFAULT)), "{plain:?}");
        for size in 0..known {
            assert_eq!(answer(size, 0), Err(Errno::EINVAL), "{command:#x} of {size}");
        }
        for size in known..=63 {
            assert_eq!(answer(size, 0xff), plain, "{command:#x} of {size}");
        }
        assert_eq!(answer(64, 0), plain, "{command:#x}");
        assert_eq!(answer(64, 1), Err(Errno::E2BIG), "{command:#x}");
        assert_eq!(answer(u32::MAX, 0), Err(Errno::EFAULT), "{command:#x}");
    }
}

#[test]
fn ranges_are_told_as_far_as_there_is_room() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    let device = scene.bound(1);
    device.attach(ioas).unwrap();
    let ask = |room: u32| {
        scene.memory.poke(Vaddr(RAM + 0x1000), &[0xa5; 48]).unwrap();
        let words = [32, ioas, room, 0, 0x1000, 0x1000, 0, 0];
        let argument: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        let (result, after) = scene.issue(command::IOAS_IOVA_RANGES, &argument);
        let mut ranges = [0; 48];
        scene.memory.read(Vaddr(RAM + 0x1000), &mut ranges).unwrap();
        let written = ranges.chunks(16).take_while(|range| range != &[0xa5; 16]).count();
        (result, after[8], u64::from_le_bytes(after[24..].try_into().unwrap()), written)
    };
    assert_eq!(ask(0), (Err(Errno::EMSGSIZE), 2, 0x1000, 0));
    assert_eq!(ask(1), (Err(Errno::EMSGSIZE), 2, 0x1000, 1));
    assert_eq!(ask(2), (Ok(0), 2, 0x1000, 2));
    assert_eq!(ask(3), (Ok(0), 2, 0x1000, 2));
}

#[test]
fn a_device_in_two_programs_is_one_programs() {
    let scene = Scene::new();
    let (device, other) = (scene.bound(1), scene.vfio.open_cdev(&device_name(1)).unwrap());
    assert_eq!(other.bind(&scene.iommufd).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(other.attach(1).unwrap_err().errno(), Errno::EINVAL);
    drop(device);
    assert!(other.bind(&scene.iommufd).is_ok());
    // Read-only memory is good for reading.
    let ioas = scene.iommufd.ioas_alloc();
    other.attach(ioas).unwrap();
    let request = IoasMap::anywhere(ioas, ROM, 0x1000, Access::Read).at(0);
    assert!(scene.iommufd.ioas_map(&process(), &request).is_ok());
    assert_eq!(scene.map(ioas, 0x1000, ROM, 0x1000), Err(Errno::EFAULT));
}

#[test]
fn a_group_changes_over_as_a_whole_or_not_at_all() {
    let mut pair = group(&vtd(48), 1, vec![msi()]);
    let hole = ReservedRegion::new(0x10_0000, 0x1f_ffff, RegionKind::Reserved);
    pair.devices.push(DeviceDescription::new("0000:00:01.1", vec![hole]));
    let vfio = Vfio::new(Kernel::V7_3, [pair]).unwrap();
    let (iommufd, process) = (vfio.open_iommu().unwrap(), process());
    let devices = ["0000:00:01.0", "0000:00:01.1"].map(|name| vfio.open_cdev(name).unwrap());
    assert!(devices.iter().all(|device| device.bind(&iommufd).is_ok()));
    let [one, two] = [(); 2].map(|()| iommufd.ioas_alloc());
    let domain = devices[0].attach(one).unwrap();
    assert_eq!(devices[1].attach(domain), Ok(domain));
    let valid = |ioas| iommufd.ioas_ranges(ioas).unwrap().ranges.len();
    assert_eq!((valid(one), valid(two)), (3, 1));

    // The other device reserves what is mapped there.
    let request = IoasMap::anywhere(two, RAM, 0x1000, Access::Read).at(0x10_0000);
    iommufd.ioas_map(&process, &request).unwrap();
    assert_eq!(devices[0].attach(two).unwrap_err().errno(), Errno::EADDRINUSE);
    assert_eq!((valid(one), valid(two)), (3, 1));
    iommufd.ioas_unmap(two, 0, u64::MAX).unwrap();
    let domain = devices[0].attach(two).unwrap();
    assert_eq!((valid(one), valid(two)), (1, 3));
    assert_eq!(devices[1].attach(two), Ok(domain), "it has moved too");
    devices[0].detach().unwrap();
    // The window of the device that stays is the only hole; the domain is still there.
    assert_eq!((valid(one), valid(two)), (1, 2));
    devices[1].detach().unwrap();
    assert_eq!((valid(one), valid(two)), (1, 1));
    assert_eq!(iommufd.check_invariants(), Ok(()));
}

#[test]
fn no_access_outlives_unmap() {
    let scene = Scene::new();
    let ioas = scene.iommufd.ioas_alloc();
    let device = scene.bound(1);
    device.attach(ioas).unwrap();
    let bus = scene.bus_master(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = 0u8;
            while !stop.load(Ordering::Relaxed) {
                byte = byte.wrapping_add(1);
                // It is unmapped half of the time.
                let _ = bus.write(Iova(0), &[byte]);
            }
        });
        let now = || {
            let mut byte = [0];
            scene.memory.read(Vaddr(RAM), &mut byte).unwrap();
            byte
        };
        for round in 0..200 {
            scene.map(ioas, 0, RAM, 0x1000).unwrap();
            let start = now();
            while round < 20 && now() == start {
                std::thread::yield_now();
            }
            match round % 3 {
                0 => assert_eq!(scene.iommufd.ioas_unmap(ioas, 0, 0x1000), Ok(0x1000)),
                1 => device.detach().unwrap(),
                _ => assert!(device.attach(scene.iommufd.ioas_alloc()).is_ok()),
            }
            let after = now();
            (0..50).for_each(|_| std::thread::yield_now());
            assert_eq!(now(), after, "round {round}");
            scene.iommufd.ioas_unmap(ioas, 0, u64::MAX).unwrap();
            device.attach(ioas).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_answered(
        calls in prop::collection::vec((0..16u32, prop::collection::vec(small_words(), 0..10)), 0..64),
    ) {
        let scene = Scene::new();
        let device = scene.vfio.open_cdev(&device_name(1)).unwrap();
        for (number, words) in calls {
            let argument: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            // A size that is out of all measure is one that ends soon.
            scene.memory.poke(Vaddr(LAST), &argument).unwrap();
            let target = |_| FdTarget::Iommufd(scene.iommufd.clone());
            match number {
                0..=8 => drop(scene.iommufd.ioctl(&scene.process, 0x3b80 + number, LAST)),
                9..=12 => drop(scene.iommufd.ioctl(&scene.process, 0x3b70 - 9 + number, LAST)),
                _ => drop(device.ioctl(&scene.process, 0x3b76 - 13 + number, LAST, target)),
            }
            prop_assert_eq!(scene.iommufd.check_invariants(), Ok(()));
        }
    }
}

/// Words that mean something here and there: sizes of structures, flags, numbers, halves of addresses.
fn small_words() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(vec![8, 12, 16, 24, 32, 40]),
        6 => 0..8u32,
        2 => (0..8u32).prop_map(|page| page << 12),
        1 => any::<u32>(),
    ]
}
