// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Structured operations against the oracle: a host out of a few, then operations that name addresses by
//! what lies there. Answers, rules, bytes and state must agree after each step.

use vfio_sim::oracle::OnUnmap;
use vfio_type1::{
    Access, Binding, FixedIommu, IommuDriver, Iova, IovaRange, Kernel, PageSizes, RegionKind,
    ReservedRegion,
};

use crate::input::Input;
use crate::side_by_side::hosts::{GroupPlan, Kind, Scene, TestIommu};
use crate::side_by_side::operations::{
    Aim, Bitmap, BitmapPage, BitmapSize, Call, Device, Door, Extent, Files, Operation, PROCESSES,
    Place, SLOTS, Setting, To,
};
use crate::side_by_side::pair::Pair;

/// More steps than this find nothing new.
const MAX_STEPS: usize = 100;

/// The target.
pub fn operations(data: &[u8]) {
    let mut input = Input::new(data);
    let kernel = input.pick(&Kernel::ALL);
    let scene = scene(kernel, input.byte());
    let mut steps = start(input.byte(), scene.groups.len());
    while !input.is_empty() && steps.len() < MAX_STEPS {
        steps.push(operation(&mut input));
    }
    if let Err(difference) = Pair::run(&scene, &steps) {
        let steps: Vec<String> = steps.iter().map(|step| format!("  {step:x?}")).collect();
        panic!("{scene:x?}\n{}\n{difference}", steps.join("\n"));
    }
}

/// One of the hosts.
fn scene(kernel: Kernel, choice: u8) -> Scene {
    use RegionKind::{Direct, DirectRelaxable, Msi, Reserved, SoftwareMsi};
    let msi = (0xfee0_0000, 0xfeef_ffff, Msi);
    let vtd48 = || iommu(IommuDriver::IntelVtd, 0, (1 << 48) - 1, 0x4020_1000);
    let vtd39 = || iommu(IommuDriver::IntelVtd, 0, (1 << 39) - 1, 0x0020_1000);
    let all = |driver, pages| iommu(driver, 0, u64::MAX, pages);
    let behind = Kind::Iommu;
    let (iommus, groups) = match choice % 8 {
        0 => (vec![vtd48()], vec![group(behind(0), &[msi]), group(behind(0), &[msi])]),
        1 => (vec![vtd48(), vtd39()], vec![group(behind(0), &[msi]), group(behind(1), &[msi])]),
        2 => {
            let hole = (0xfd_0000_0000, 0xff_ffff_ffff, Reserved);
            let amd = all(IommuDriver::AmdVi, 0xffff_ffff_ffff_f000);
            (vec![amd], vec![group(behind(0), &[msi, hole]), group(Kind::Emulated, &[])])
        }
        3 => {
            // Groups that the kernel may refuse, and regions that do not count.
            let firmware = [(0x1000, 0x2fff, Direct), (0x8000, 0xffff, DirectRelaxable), msi];
            (vec![vtd39()], vec![group(behind(0), &firmware), group(behind(0), &[msi])])
        }
        4 => {
            // Both ends of the space, a single address, no length, no page boundary.
            let odd = [
                (0, 0xfff, Reserved),
                (0x5000, 0x4fff, Reserved),
                (0x9000, 0x9fff, Reserved),
                (0x9fff, 0xbfff, Msi),
                (u64::MAX - 0xfff, u64::MAX, SoftwareMsi),
            ];
            let virtio = all(IommuDriver::Virtio, !0xfff);
            (vec![virtio], vec![group(behind(0), &odd), group(behind(0), &odd[..2])])
        }
        5 => {
            // Pages of 16 KiB beside some of 4 KiB, an aperture that is not page-aligned.
            let smmu = iommu(IommuDriver::SmmuV3, 0x1234, 0xf_f0f0, 0x4000);
            let groups = vec![group(behind(0), &[]), group(behind(1), &[msi])];
            (vec![smmu, all(IommuDriver::SmmuV2, 0x4020_1000)], groups)
        }
        6 => (vec![vtd48()], vec![group(Kind::Emulated, &[]), group(Kind::Emulated, &[])]),
        _ => (vec![vtd39()], vec![group(Kind::NoIommu, &[]), group(behind(0), &[msi])]),
    };
    Scene { kernel, iommus, groups }
}

fn iommu(driver: IommuDriver, first: u64, last: u64, pages: u64) -> TestIommu {
    let aperture = IovaRange::new(Iova(first), Iova(last)).unwrap_or(IovaRange::full());
    let (coherent, isolated_msi) = (driver == IommuDriver::AmdVi, driver != IommuDriver::Virtio);
    let page_sizes = PageSizes(pages);
    let plain = FixedIommu { driver, aperture, page_sizes, coherent, isolated_msi };
    TestIommu { plain, makes_no_domain: false }
}

fn group(kind: Kind, regions: &[(u64, u64, RegionKind)]) -> GroupPlan {
    let region = |&(first, last, kind): &_| ReservedRegion::new(first, last, kind);
    GroupPlan { kind, devices: vec![(Binding::Vfio, regions.iter().map(region).collect())] }
}

/// What every program does first, so that most get to mapping.
fn start(choice: u8, groups: usize) -> Vec<Operation> {
    let bit = |bit: u8| choice & (1 << bit) != 0;
    let kind = if bit(0) { 1 } else { 3 };
    let mut steps = vec![
        Operation::Set(Setting::UnsafeInterrupts { allow: true }),
        Operation::Set(Setting::NoIommuMode { enable: true }),
        Operation::Set(Setting::EntryLimit { mappings: if bit(1) { 3 } else { 65535 } }),
        Operation::Set(Setting::IpcLock { process: 0, has: !bit(2) }),
        Operation::Set(Setting::Memlock { process: 0, pages: 200 }),
        Operation::Set(Setting::Memlock { process: 1, pages: 3 }),
        Operation::Files(Files::OpenContainer { slot: 0 }),
    ];
    let first = usize::from(bit(3));
    let count = if bit(4) { 1 } else { groups };
    let assign = |group| Operation::Files(Files::Assign { group, slot: 0, kind });
    steps.extend((first..first + count).map(assign));
    if bit(5) {
        steps.push(Operation::Files(Files::OpenEmulated));
    }
    steps
}

fn operation(input: &mut Input<'_>) -> Operation {
    match input.byte() % 16 {
        0..=4 => Operation::Call(map(input)),
        5..=7 => Operation::Call(unmap(input)),
        8..=10 => Operation::Call(dirty(input)),
        11..=12 => Operation::Files(files(input)),
        13..=14 => Operation::Device(device(input)),
        _ => Operation::Set(setting(input)),
    }
}

fn map(input: &mut Input<'_>) -> Call {
    let (slot, caller, door) = who(input);
    let (place, extent, to) = (place(input), extent(input), to(input));
    let flags = match input.byte() {
        byte @ 0..=191 => u32::from(byte % 3) + 1,
        192..=223 => 4,
        byte => u32::from(byte) % 32,
    };
    Call::Map { slot, caller, place, extent, to, flags, door }
}

fn unmap(input: &mut Input<'_>) -> Call {
    let (slot, caller, door) = who(input);
    let flags = input.pick(&[0, 0, 0, 1, 1, 2, 4, 4, 6, 3, 5, 8, 0x100]);
    let (place, extent) = match flags {
        // ALL takes no range.
        2 | 6 => (Place { free: false, boundary: 0, pages: 0, bytes: 0 }, Extent::Bytes(0)),
        _ => (place(input), extent(input)),
    };
    Call::Unmap { slot, caller, place, extent, flags, bitmap: bitmap(flags & 1, input), door }
}

fn dirty(input: &mut Input<'_>) -> Call {
    let (slot, caller, door) = who(input);
    match input.byte() % 8 {
        0..=1 => Call::Track { slot, on: true, door },
        2 => Call::Track { slot, on: false, door },
        3..=5 => {
            let (place, extent) = (place(input), extent(input));
            Call::GetBitmap { slot, caller, place, extent, bitmap: bitmap(1, input), door }
        }
        6 => Call::GetInfo { slot, argsz: u32::from(input.byte()), door },
        _ => Call::DirtyFlags { slot, flags: u32::from(input.byte() % 16), door },
    }
}

fn files(input: &mut Input<'_>) -> Files {
    let (slot, caller, door) = who(input);
    let group = usize::from(input.byte() % 2);
    match input.byte() % 16 {
        0..=3 => Files::Assign { group, slot, kind: input.pick(&[3, 3, 1]) },
        4..=5 => Files::UnsetContainer { group },
        6 => Files::CloseGroup { group },
        7 => Files::OpenGroup { group, caller },
        8..=9 => {
            let aims = [Aim::Slot(0), Aim::Slot(1), Aim::Closed, Aim::Other, Aim::Negative];
            Files::SetContainer { group, caller, target: input.pick(&aims), door }
        }
        10 => Files::SetIommu { slot, caller, kind: u64::from(input.byte() % 12), door },
        11 => Files::OpenContainer { slot },
        12 => Files::CloseContainer { slot },
        13 => {
            let told = [None, Some(OnUnmap::LetsGo), Some(OnUnmap::Ignores)];
            Files::OpenDevice { group, caller, device: 0, told: input.pick(&told) }
        }
        14 => Files::CloseDevice { device: usize::from(input.byte() % 4) },
        _ => Files::Status { group, door },
    }
}

fn device(input: &mut Input<'_>) -> Device {
    let device = usize::from(input.byte() % 4);
    let (place, pages) = (place(input), u64::from(input.byte() % 8));
    match input.byte() % 8 {
        0..=2 => {
            let access = input.pick(&[Access::Read, Access::Write, Access::ReadWrite]);
            Device::Pin { device, place, pages, access }
        }
        3 => Device::Unpin { device, place, pages },
        4 => Device::DmaRead { device, place, length: 0x300 * pages },
        5 => Device::DmaWrite { device, place, length: 0x300 * pages },
        choice => {
            let does = if choice == 6 { OnUnmap::LetsGo } else { OnUnmap::Ignores };
            Device::OnUnmap { device, does }
        }
    }
}

fn setting(input: &mut Input<'_>) -> Setting {
    let process = usize::from(input.byte()) % PROCESSES;
    let value = input.byte();
    let yes = value & 1 != 0;
    match input.byte() % 7 {
        0 => Setting::Memlock { process, pages: u64::from(value) },
        1 => Setting::IpcLock { process, has: yes },
        2 => Setting::RawIo { process, has: yes },
        3 => Setting::UnsafeInterrupts { allow: yes },
        4 => Setting::NoIommuMode { enable: yes },
        5 => Setting::EntryLimit { mappings: u32::from(value % 8) },
        _ => Setting::Exit,
    }
}

/// Mostly the first container, the first process and the typed door: slot, caller, door.
fn who(input: &mut Input<'_>) -> (usize, usize, Door) {
    let byte = input.byte();
    let slot = usize::from(byte % 32 == 31) % SLOTS;
    let caller = usize::from(byte / 32 == 7) % PROCESSES;
    if byte & 1 == 0 {
        return (slot, caller, Door::Typed);
    }
    let wrong = input.byte();
    let argsz = match wrong {
        0..=191 => 0,
        byte => i32::from(byte % 64) - 32,
    };
    let cut = if wrong % 16 == 15 { u64::from(input.byte() % 64) } else { 0 };
    (slot, caller, Door::Bytes { argsz, cut, read_only: wrong % 32 == 30 })
}

fn place(input: &mut Input<'_>) -> Place {
    let (choice, offset) = (input.byte(), input.byte());
    let pages = i64::from(offset % 16) - 8;
    let bytes = if offset >= 240 { i64::from(input.byte()) - 128 } else { 0 };
    let pages = if offset < 64 { 0 } else { pages };
    Place { free: choice & 1 != 0, boundary: usize::from(choice / 2), pages, bytes }
}

fn extent(input: &mut Input<'_>) -> Extent {
    let choice = input.byte();
    let small = u64::from(choice % 16);
    let (from, to) = (usize::from(choice % 4), usize::from(choice / 4 % 4));
    match choice {
        0..=95 => Extent::Pages(small + 1),
        96..=127 => Extent::Pages(small * 33),
        128..=159 => Extent::ToBoundary(from),
        160..=239 => Extent::Mappings(from, from + to),
        240..=247 => Extent::Ragged(small),
        248..=251 => Extent::Bytes(input.word()),
        _ => Extent::Huge,
    }
}

fn to(input: &mut Input<'_>) -> To {
    let choice = input.byte();
    let pages = u64::from(choice % 64);
    match choice {
        0..=127 => To::Ram(pages),
        128..=159 => To::RamEnd(pages % 8),
        160..=191 => To::End(pages % 8),
        192..=223 => To::Huge,
        _ => To::Exactly(input.word()),
    }
}

/// A bitmap; a plain one where the call takes none.
fn bitmap(taken: u32, input: &mut Input<'_>) -> Bitmap {
    let plain = Bitmap {
        room: 512,
        size: BitmapSize::Right,
        page: BitmapPage::Right,
        beyond_user: false,
        fill: 0,
    };
    if taken == 0 {
        return plain;
    }
    let choice = input.byte();
    let plain = Bitmap { fill: choice, ..plain };
    match choice % 16 {
        15 => Bitmap { beyond_user: true, ..plain },
        14 => Bitmap { room: u64::from(input.byte() % 64), ..plain },
        13 => Bitmap { size: BitmapSize::OneWordLess, ..plain },
        12 => Bitmap { size: BitmapSize::Bytes(input.word()), ..plain },
        11 => Bitmap { page: BitmapPage::Bytes(input.word()), ..plain },
        _ => plain,
    }
}
