// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs on which the oracle and the emulator once differed, shrunk and named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]
#![allow(dead_code, reason = "there is more side by side than is used here")]

mod side_by_side;

use vfio_type1::{
    Access, Binding, FixedIommu, IommuDriver, Iova, IovaRange, Kernel, PageSizes, RegionKind,
    ReservedRegion,
};

use side_by_side::hosts::{GroupPlan, Kind, Scene, TestIommu};
use side_by_side::operations::{
    Aim, Bitmap, BitmapPage, BitmapSize, Call, Device, Door, Extent, Files, Operation, Place,
    Setting, To,
};
use side_by_side::pair::Pair;

fn iommu(page_sizes: u64) -> TestIommu {
    let plain = FixedIommu {
        driver: IommuDriver::AmdVi,
        aperture: IovaRange::new(Iova(0), Iova(u64::MAX)).unwrap(),
        page_sizes: PageSizes(page_sizes),
        coherent: false,
        isolated_msi: true,
    };
    TestIommu { plain, makes_no_domain: false }
}

fn group(kind: Kind, regions: &[(u64, u64, RegionKind)]) -> GroupPlan {
    let region = |&(first, last, kind): &_| ReservedRegion::new(first, last, kind);
    GroupPlan { kind, devices: vec![(Binding::Vfio, regions.iter().map(region).collect())] }
}

fn scene(kernel: Kernel, iommus: Vec<TestIommu>, groups: Vec<GroupPlan>) -> Scene {
    Scene { kernel, iommus, groups }
}

fn assign(group: usize) -> Operation {
    Operation::Files(Files::Assign { group, slot: 0, kind: 3 })
}

const AT_0: Place = Place { free: false, boundary: 0, pages: 0, bytes: 0 };
const ON_THE_MAPPING: Place = Place { free: true, ..AT_0 };

fn map(extent: Extent, to: To) -> Operation {
    let (slot, caller, place, flags, door) = (0, 0, AT_0, 3, Door::Typed);
    Operation::Call(Call::Map { slot, caller, place, extent, to, flags, door })
}

fn track() -> Operation {
    Operation::Call(Call::Track { slot: 0, on: true, door: Door::Typed })
}

fn get_bitmap(pages: u64, page: BitmapPage) -> Operation {
    let bitmap = bitmap(page);
    let (slot, caller, place, extent) = (0, 0, AT_0, Extent::Pages(pages));
    Operation::Call(Call::GetBitmap { slot, caller, place, extent, bitmap, door: Door::Typed })
}

fn bitmap(page: BitmapPage) -> Bitmap {
    Bitmap { room: 512, size: BitmapSize::Right, page, beyond_user: false, fill: 0 }
}

fn unmap(pages: u64) -> Operation {
    let (slot, caller, place, extent) = (0, 0, AT_0, Extent::Pages(pages));
    let (flags, bitmap, door) = (0, bitmap(BitmapPage::Right), Door::Typed);
    Operation::Call(Call::Unmap { slot, caller, place, extent, flags, bitmap, door })
}

/// Pins the first pages of the mapping for reading.
fn pin(pages: u64) -> Operation {
    let access = Access::Read;
    Operation::Device(Device::Pin { device: 0, place: ON_THE_MAPPING, pages, access })
}

#[track_caller]
fn agree(scene: &Scene, operations: &[Operation]) {
    let mut pair = Pair::new(scene);
    pair.compare_regions().unwrap();
    for operation in operations {
        pair.step(operation).unwrap_or_else(|difference| panic!("{difference}"));
    }
}

/// Before 5.4 the kernel's walk ends at the first region that starts behind the new one, here at
/// the reserved one. The MSI window that holds the new one stands behind it and is not found.
#[test]
fn before_5_4_the_walk_ends_at_the_first_region_behind() {
    let regions = [
        (0x3000, 0x5fff, RegionKind::Reserved),
        (0x0, 0x3fff, RegionKind::Msi),
        (0x1000, 0x1fff, RegionKind::Msi),
    ];
    let groups = vec![group(Kind::Iommu(0), &regions)];
    agree(&scene(Kernel::V4_19, vec![iommu(0x1000)], groups), &[]);
}

/// 7.2: page size and alignment come before "tracking off". The errno is EINVAL either way.
#[test]
fn get_bitmap_without_tracking_is_einval_whatever_else_is_wrong() {
    let host = scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::Iommu(0), &[])]);
    agree(&host, &[assign(0), get_bitmap(1, BitmapPage::Bytes(0x3000))]);
}

/// 6.1 step 4d: of a page size of 0 the kernel makes a shift of 0, so a bitmap that is large enough passes, and the
/// range that wraps is found first (7.2, recorded).
#[test]
fn a_page_size_of_0_is_refused_behind_a_range_that_wraps() {
    let host = scene(Kernel::V7_2, vec![iommu(0x1000)], vec![group(Kind::Iommu(0), &[])]);
    let (slot, caller, extent) = (0, 0, Extent::Pages(7));
    let place = Place { pages: -3, ..AT_0 };
    let (flags, door) = (1, Door::Typed);
    for bytes in [8, 7 * 0x1000 / 8] {
        let size = BitmapSize::Bytes(bytes);
        let bitmap = Bitmap { size, ..bitmap(BitmapPage::Bytes(0)) };
        let unmap = Call::Unmap { slot, caller, place, extent, flags, bitmap, door };
        agree(&host, &[assign(0), track(), Operation::Call(unmap)]);
    }
}

/// 7.6 does not say it: pages are pinned with the permissions of the mapping, not with those that
/// the device asks for. Here memory that is read-only is mapped for writing.
#[test]
fn emulated_devices_pin_with_the_permissions_of_the_mapping() {
    let host = scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::Emulated, &[])]);
    let open = Operation::Files(Files::OpenEmulated);
    agree(&host, &[assign(0), open, map(Extent::Pages(1), To::RamEnd(0)), pin(1)]);
}

/// 7.6, dma_rw: that there is nothing to copy is found before that there is no driver.
#[test]
fn copying_nothing_is_einval_without_a_driver_too() {
    let host = scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::NoIommu, &[])]);
    let (group, caller, told) = (0, 0, None);
    let open = Operation::Files(Files::OpenDevice { group, caller, device: 0, told });
    let copy = |length| Operation::Device(Device::DmaWrite { device: 0, place: AT_0, length });
    let assign = Operation::Files(Files::Assign { group, slot: 0, kind: 8 });
    let noiommu = Operation::Set(Setting::NoIommuMode { enable: true });
    agree(&host, &[noiommu, assign, open, copy(0), copy(1)]);
}

/// 7.6 does not say it: what a refused pin_pages pinned is released, but stays dirty.
#[test]
fn pages_of_a_refused_pin_stay_dirty() {
    let host = scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::Emulated, &[])]);
    let program = [
        assign(0),
        track(),
        Operation::Files(Files::OpenEmulated),
        map(Extent::Pages(1), To::Ram(0)),
        pin(2),
        get_bitmap(1, BitmapPage::Right),
    ];
    agree(&host, &program);
}

/// 6.2: a device is told at most eleven times to let go of a mapping, and lets go of one pin each time.
#[test]
fn eleven_pins_of_a_page_are_let_go_of_and_twelve_are_not() {
    for pins in [11, 12] {
        let host = scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::Emulated, &[])]);
        let mut program = vec![
            assign(0),
            Operation::Files(Files::OpenEmulated),
            map(Extent::Pages(1), To::Ram(0)),
        ];
        program.extend((0..pins).map(|_| pin(1)));
        program.push(unmap(1));
        agree(&host, &program);
    }
}

/// 3.12 does not say it: domains that share no page size leave all but MAP with the CPU's page.
#[test]
fn without_a_common_page_size_the_cpu_page_counts() {
    let mut other = iommu(0x4000);
    other.plain.coherent = true;
    let groups = vec![group(Kind::Iommu(0), &[]), group(Kind::Iommu(1), &[])];
    let host = scene(Kernel::V7_3, vec![iommu(0x4020_1000), other], groups);
    let program = [
        assign(0),
        assign(1),
        map(Extent::Pages(1), To::Ram(0)),
        track(),
        get_bitmap(1, BitmapPage::Right),
    ];
    agree(&host, &program);
}

/// 3.7 step 4 merges what the remaining devices list, region by region, not the groups' own merged
/// lists. Regions that reach around the top tell the difference.
#[test]
fn a_refresh_merges_the_devices_regions_anew() {
    let regions = [(0x1000, 0x1fff, RegionKind::Msi), (u64::MAX - 0x1fff, 0x0, RegionKind::Msi)];
    let groups = vec![group(Kind::Iommu(0), &regions), group(Kind::Iommu(0), &[])];
    let leave = Operation::Files(Files::UnsetContainer { group: 1 });
    let host = scene(Kernel::SERIES_2018_V6, vec![iommu(0x1000)], groups);
    agree(&host, &[assign(0), assign(1), leave]);
}

/// 5.1 step 12, "pin and map": area by area, so a page that the IOMMU does not take decides before
/// one behind it that is not there.
#[test]
fn pinning_and_mapping_take_turns() {
    let mut narrow = iommu(0x1000);
    narrow.plain.aperture = IovaRange::new(Iova(0), Iova(0)).unwrap();
    narrow.plain.driver = IommuDriver::SmmuV3;
    let host = scene(Kernel::V4_19, vec![narrow], vec![group(Kind::Iommu(0), &[])]);
    let (slot, caller, place, flags, door) = (0, 0, AT_0, 1, Door::Typed);
    let (extent, to) = (Extent::Pages(4), To::End(1));
    let map = Operation::Call(Call::Map { slot, caller, place, extent, to, flags, door });
    agree(&host, &[assign(0), map]);
}

// What follows did not differ: each holds a rule of which hardly any generated program noticed
// that it was gone.

const CALL: Door = Door::Typed;

fn files(files: Files) -> Operation {
    Operation::Files(files)
}

fn set(setting: Setting) -> Operation {
    Operation::Set(setting)
}

fn open_emulated() -> Operation {
    files(Files::OpenEmulated)
}

fn leave(group: usize) -> Operation {
    files(Files::UnsetContainer { group })
}

fn join(group: usize, caller: usize) -> Operation {
    files(Files::SetContainer { group, caller, target: Aim::Slot(0), door: CALL })
}

/// MAP by a process, `pages` at the page `at`.
fn map_at(caller: usize, at: i64, pages: u64, to: To, flags: u32) -> Operation {
    let (slot, place, extent) = (0, Place { pages: at, ..AT_0 }, Extent::Pages(pages));
    Operation::Call(Call::Map { slot, caller, place, extent, to, flags, door: CALL })
}

fn unmap_vaddrs() -> Operation {
    let (slot, caller, place, extent) = (0, 0, AT_0, Extent::Bytes(0));
    let bitmap = bitmap(BitmapPage::Right);
    Operation::Call(Call::Unmap { slot, caller, place, extent, flags: 6, bitmap, door: CALL })
}

/// Whatever lies behind an IOMMU first, then what a device emulates.
fn iommu_and_emulated() -> Scene {
    let groups = vec![group(Kind::Iommu(0), &[]), group(Kind::Emulated, &[])];
    scene(Kernel::V7_3, vec![iommu(0x1000)], groups)
}

fn emulated() -> Scene {
    scene(Kernel::V7_3, vec![iommu(0x1000)], vec![group(Kind::Emulated, &[])])
}

/// 5.4: with the mapping goes whether it is exempt from the limit, here seen by a later pin.
#[test]
fn a_takeover_moves_cap_ipc_lock() {
    for has in [false, true] {
        let program = [
            set(Setting::IpcLock { process: 0, has: !has }),
            set(Setting::IpcLock { process: 1, has }),
            assign(0),
            map_at(0, 0, 2, To::Ram(0), 3),
            unmap_vaddrs(),
            map_at(1, 0, 2, To::Ram(0), 4),
            assign(1),
            open_emulated(),
            leave(0),
            set(Setting::Memlock { process: 1, pages: 1 }),
            pin(2),
        ];
        agree(&iommu_and_emulated(), &program);
    }
}

/// 7.6: unpin_pages stops at the first page that is not mapped; the pin behind it stays.
#[test]
fn unpin_stops_at_a_hole() {
    let on = |boundary| Place { boundary, ..ON_THE_MAPPING };
    let pin =
        |boundary| Device::Pin { device: 0, place: on(boundary), pages: 1, access: Access::Read };
    let program = [
        assign(0),
        open_emulated(),
        map_at(0, 0, 1, To::Ram(0), 3),
        map_at(0, 2, 1, To::Ram(2), 3),
        Operation::Device(pin(0)),
        Operation::Device(pin(1)),
        Operation::Device(Device::Unpin { device: 0, place: on(0), pages: 3 }),
    ];
    agree(&emulated(), &program);
}

/// 5.1 step 8: an update has the bounds of the mapping.
#[test]
fn an_update_has_the_bounds_of_the_mapping() {
    for (at, pages) in [(0, 1), (1, 1), (0, 3), (1, 2), (0, 2)] {
        let program = [
            assign(0),
            map_at(0, 0, 2, To::Ram(0), 3),
            unmap_vaddrs(),
            map_at(0, at, pages, To::Ram(8), 4),
        ];
        agree(&iommu_and_emulated(), &program);
    }
}

/// 3.11: a replay pins against the caller's limit, whoever owns the mapping.
#[test]
fn a_replay_pins_for_the_caller() {
    for caller in [0, 1] {
        let program = [
            set(Setting::IpcLock { process: 0, has: false }),
            set(Setting::Memlock { process: 1, pages: 1 }),
            assign(1),
            map_at(0, 0, 2, To::Ram(0), 3),
            files(Files::OpenGroup { group: 0, caller }),
            join(0, caller),
        ];
        agree(&iommu_and_emulated(), &program);
    }
}

/// 7.3: what GET_BITMAP reports is clean from then on.
#[test]
fn get_bitmap_cleans() {
    let write = Device::DmaWrite { device: 0, place: ON_THE_MAPPING, length: 1 };
    let program = [
        assign(0),
        open_emulated(),
        map(Extent::Pages(2), To::Ram(0)),
        track(),
        Operation::Device(write),
        get_bitmap(2, BitmapPage::Right),
        get_bitmap(2, BitmapPage::Right),
    ];
    agree(&emulated(), &program);
}

/// 7.6: what a device writes, across the border of two mappings, is what it reads again.
#[test]
fn dma_write_writes_what_it_is_given() {
    let place = Place { bytes: 0xff0, ..ON_THE_MAPPING };
    let program = [
        assign(0),
        open_emulated(),
        map_at(0, 0, 1, To::Ram(0), 3),
        map_at(0, 1, 1, To::Ram(5), 3),
        Operation::Device(Device::DmaWrite { device: 0, place, length: 0x20 }),
        Operation::Device(Device::DmaRead { device: 0, place, length: 0x20 }),
    ];
    agree(&emulated(), &program);
}

/// 7.6: the memory of a process that has ended is not there any more.
#[test]
fn dma_rw_fails_when_the_owner_has_ended() {
    let (device, place, length) = (0, ON_THE_MAPPING, 1);
    let program = [
        assign(0),
        open_emulated(),
        map_at(1, 0, 1, To::Ram(0), 3),
        set(Setting::Exit),
        Operation::Device(Device::DmaRead { device, place, length }),
        Operation::Device(Device::DmaWrite { device, place, length }),
    ];
    agree(&emulated(), &program);
}
