// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: address 0, the last page that an IOMMU translates and the pages at a reserved region are
//! addresses like others; what is special about the last page of the 64-bit space is what each
//! kernel makes of it (spec 3.4, 5.1, 6.1, 6.4, 7.2, 7.4, 12).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::bytes::{Door, release};
use common::{RAM, ROM, Rig, device_name, group, iommu, msi, range, vtd};
use vfio_type1::abi::command;
use vfio_type1::{
    Access, DirtyPages, Errno, Iommu, IommuDriver, Iova, Kernel, MapDma, RegionKind,
    ReservedRegion, UnmapDma, UserBitmap, Vaddr, extension,
};

const PAGE: u64 = 0x1000;
/// The last page of the space, and the one below.
const LAST: u64 = 0u64.wrapping_sub(PAGE);
const BELOW: u64 = LAST - PAGE;
const BITMAP: u64 = RAM + (64 << 20);
/// What the bitmap holds before a call.
const UNREPORTED: u64 = 0xa5a5_a5a5_a5a5_a5a5;
const KINDS: [u64; 2] = [extension::TYPE1, extension::TYPE1V2];

fn settings() -> impl Iterator<Item = (Kernel, u64)> {
    Kernel::ALL.into_iter().flat_map(|kernel| KINDS.map(|kind| (kernel, kind)))
}

fn tracks((kernel, kind): (Kernel, u64)) -> bool {
    release(kernel) >= (5, 8) && kind == extension::TYPE1V2
}

/// A request for some pages.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Map(u64, u64),
    /// MAP with flag VADDR.
    GiveVaddr(u64),
    Unmap(u64, u64),
    /// UNMAP with flag VADDR.
    TakeVaddr(u64),
    UnmapAll,
    /// UNMAP with a bitmap.
    UnmapReporting(u64, u64),
    GetBitmap(u64, u64),
}

use Ask::{GetBitmap, GiveVaddr, Map, TakeVaddr, Unmap, UnmapAll, UnmapReporting};

/// What UNMAP returns as its size, or 0.
fn ask(rig: &Rig, ask: Ask) -> Result<u64, Errno> {
    let bitmap = UserBitmap { page_size: PAGE, bytes: 8, data: Vaddr(BITMAP) };
    rig.process.memory().write(Vaddr(BITMAP), &UNREPORTED.to_le_bytes()).unwrap();
    let unmap = |request| rig.container.unmap(&rig.process, &request).map_err(|e| e.errno());
    let map = |request| rig.container.map(&rig.process, &request).map_err(|e| e.errno());
    let dirty =
        |request| rig.container.dirty_pages(&rig.process, &request).map_err(|error| error.errno());
    match ask {
        Map(iova, size) => map(MapDma::new(iova, RAM, size, Access::ReadWrite)).map(|()| 0),
        GiveVaddr(iova) => map(MapDma::update_vaddr(iova, RAM, PAGE)).map(|()| 0),
        Unmap(iova, size) => unmap(UnmapDma::new(iova, size)),
        TakeVaddr(iova) => unmap(UnmapDma::new(iova, PAGE).vaddr_only()),
        UnmapAll => unmap(UnmapDma::all()),
        UnmapReporting(iova, size) => unmap(UnmapDma::new(iova, size).with_bitmap(bitmap)),
        GetBitmap(iova, size) => {
            dirty(DirtyPages::GetBitmap { iova: Iova(iova), size, bitmap }).map(|()| 0)
        }
    }
}

fn reported(rig: &Rig) -> u64 {
    let mut word = [0; 8];
    rig.process.memory().read(Vaddr(BITMAP), &mut word).unwrap();
    u64::from_le_bytes(word)
}

fn start_tracking(rig: &Rig, setting: (Kernel, u64)) {
    if tracks(setting) {
        rig.container.dirty_pages(&rig.process, &DirtyPages::Start).unwrap();
    }
}

/// The first pages of the mappings.
fn mapped(rig: &Rig) -> Vec<u64> {
    rig.mapped().iter().map(|iova| iova.first().0).collect()
}

/// An edge inside the space: the IOMMU's width, a page that can be mapped, and the one next to it
/// that cannot, with what 4.19 says, which knows no valid list (spec 8).
type Edge = (u32, u64, Option<(u64, Result<u64, Errno>)>);

const EDGES: [Edge; 5] = [
    (48, 0, None),
    (39, (1 << 39) - PAGE, Some((1 << 39, Err(Errno::EFAULT)))),
    (48, (1 << 48) - PAGE, Some((1 << 48, Err(Errno::EFAULT)))),
    (48, 0xfee0_0000 - PAGE, Some((0xfee0_0000, Ok(0)))),
    (48, 0xfef0_0000, Some((0xfef0_0000 - PAGE, Ok(0)))),
];

#[test]
fn the_first_and_the_last_valid_page_are_like_others() {
    for setting in settings() {
        for (width, page, _) in EDGES {
            let host = vec![group(&vtd(width), 1, vec![msi()])];
            let rig = Rig::new(setting.0, setting.1, host);
            start_tracking(&rig, setting);
            let answer = |request| ask(&rig, request);
            let context = format!("{setting:?}, {page:#x}");
            assert_eq!(answer(Map(page, PAGE)), Ok(0), "{context}");
            assert_eq!(answer(Map(page, PAGE)), Err(Errno::EEXIST), "{context}");
            let device = rig.vfio.bus_master(&device_name(1)).unwrap();
            let mut byte = [0];
            device.read(Iova(page), &mut byte).unwrap();
            device.write(Iova(page + PAGE - 1), &[7]).unwrap();
            if release(setting.0) >= (5, 12) {
                assert_eq!(answer(TakeVaddr(page)), Ok(PAGE), "{context}");
                assert_eq!(answer(GiveVaddr(page)), Ok(0), "{context}");
            }
            if tracks(setting) {
                assert_eq!(
                    (answer(GetBitmap(page, PAGE)), reported(&rig)),
                    (Ok(0), 1),
                    "{context}"
                );
                let unmapped = answer(UnmapReporting(page, PAGE));
                assert_eq!((unmapped, reported(&rig)), (Ok(PAGE), 1), "{context}");
            } else {
                assert_eq!(answer(Unmap(page, PAGE)), Ok(PAGE), "{context}");
            }
            assert_eq!(answer(Unmap(page, PAGE)), Ok(0), "{context}");
            assert_eq!(answer(Map(page, PAGE)), Ok(0), "{context}");
            assert_eq!(answer(Unmap(0, LAST)), Ok(PAGE), "all but the last page, {context}");
        }
    }
}

#[test]
fn the_page_next_to_it_is_refused_alone_and_with_it() {
    for setting in settings() {
        for (width, page, next) in EDGES {
            let Some((next, without_list)) = next else { continue };
            let host = vec![group(&vtd(width), 1, vec![msi()])];
            let rig = Rig::new(setting.0, setting.1, host);
            let listed = setting.0.name() != "4.19";
            let expected = if listed { Err(Errno::EINVAL) } else { without_list };
            for request in [Map(page.min(next), 2 * PAGE), Map(next, PAGE)] {
                assert_eq!(ask(&rig, request), expected, "{setting:?}, {request:x?}");
                ask(&rig, Unmap(0, LAST)).unwrap();
            }
        }
    }
}

/// What a request about the last page gives: the answer, the mappings that it removes, and the
/// bitmap.
type Row = (Ask, Result<u64, Errno>, &'static [u64], u64);

/// With mappings of page 0, [`BELOW`] and [`LAST`], on an IOMMU that translates all addresses. Up to
/// 6.17, where the kernel loses a mapping of the last page, the emulator keeps it (SEMANTICS.md).
fn rows_about_the_last_page(setting: (Kernel, u64)) -> Vec<Row> {
    let since = |major, minor| release(setting.0) >= (major, minor);
    let refused = |request, errno| -> Row { (request, Err(errno), &[], UNREPORTED) };
    let done = |request, bytes, gone| -> Row { (request, Ok(bytes), gone, UNREPORTED) };
    let wraps = if since(6, 18) { Errno::EOVERFLOW } else { Errno::EINVAL };
    // A range that ends at the last address: fully seen, seen as empty, or refused.
    let to_the_end = |request, bytes, gone| match () {
        () if since(6, 18) => done(request, bytes, gone),
        () if since(5, 0) => done(request, 0, &[]),
        () => refused(request, Errno::EINVAL),
    };
    let mut rows = vec![
        refused(Map(LAST, PAGE), Errno::EEXIST),
        refused(Map(BELOW, 2 * PAGE), Errno::EEXIST),
        refused(Map(LAST, 2 * PAGE), wraps),
        refused(Unmap(LAST, 2 * PAGE), wraps),
        refused(Unmap(2 * PAGE, LAST), wraps),
        done(Unmap(BELOW, PAGE), PAGE, &[BELOW]),
        done(Unmap(0, LAST), 2 * PAGE, &[0, BELOW]),
        to_the_end(Unmap(LAST, PAGE), PAGE, &[LAST]),
        to_the_end(Unmap(BELOW, 2 * PAGE), 2 * PAGE, &[BELOW, LAST]),
        to_the_end(Unmap(PAGE, LAST), 2 * PAGE, &[BELOW, LAST]),
    ];
    rows.extend(match since(5, 12) {
        true => [
            done(UnmapAll, 3 * PAGE, &[0, BELOW, LAST]),
            to_the_end(TakeVaddr(LAST), PAGE, &[]),
            // Found and still valid, or not found.
            refused(GiveVaddr(LAST), if since(6, 18) { Errno::EINVAL } else { Errno::ENOENT }),
        ],
        false => [UnmapAll, TakeVaddr(LAST), GiveVaddr(LAST)].map(|r| refused(r, Errno::EINVAL)),
    });
    if !tracks(setting) {
        let errno = if since(5, 8) { Errno::EACCES } else { Errno::ENOTTY };
        rows.push(refused(GetBitmap(LAST, PAGE), errno));
        rows.push(refused(UnmapReporting(LAST, PAGE), Errno::EINVAL));
        return rows;
    }
    rows.push((GetBitmap(BELOW, PAGE), Ok(0), &[], 1));
    rows.extend(match since(6, 18) {
        true => [
            (GetBitmap(LAST, PAGE), Ok(0), &[][..], 1),
            (GetBitmap(BELOW, 2 * PAGE), Ok(0), &[], 3),
            (UnmapReporting(LAST, PAGE), Ok(PAGE), &[LAST], 1),
            (UnmapReporting(BELOW, 2 * PAGE), Ok(2 * PAGE), &[BELOW, LAST], 3),
        ],
        false => [
            refused(GetBitmap(LAST, PAGE), Errno::EINVAL),
            refused(GetBitmap(BELOW, 2 * PAGE), Errno::EINVAL),
            done(UnmapReporting(LAST, PAGE), 0, &[]),
            done(UnmapReporting(BELOW, 2 * PAGE), 0, &[]),
        ],
    });
    rows
}

/// An IOMMU that translates every address, as AMD's do up to 6.12.
fn whole_space() -> Arc<dyn Iommu> {
    Arc::new(iommu(IommuDriver::AmdVi, 64))
}

#[test]
fn the_last_page_of_the_space_is_what_each_kernel_makes_of_it() {
    for setting in settings() {
        for (request, answer, gone, bitmap) in rows_about_the_last_page(setting) {
            let rig = Rig::new(setting.0, setting.1, vec![group(&whole_space(), 1, vec![msi()])]);
            let pages = [0, BELOW, LAST];
            for page in pages {
                assert_eq!(ask(&rig, Map(page, PAGE)), Ok(0), "{setting:?}");
            }
            start_tracking(&rig, setting);
            let context = format!("{setting:?}, {request:x?}");
            assert_eq!((ask(&rig, request), reported(&rig)), (answer, bitmap), "{context}");
            let left: Vec<u64> = pages.into_iter().filter(|page| !gone.contains(page)).collect();
            assert_eq!(mapped(&rig), left, "{context}");
        }
    }
}

#[test]
fn reserved_pages_at_both_ends_are_holes_and_conflict_with_what_is_mapped() {
    for setting in settings() {
        let (listed, new) = (setting.0.name() != "4.19", release(setting.0) >= (6, 18));
        let regions = [(0, PAGE - 1), (LAST, u64::MAX)];
        let regions =
            regions.map(|(first, last)| ReservedRegion::new(first, last, RegionKind::Reserved));
        let rig = Rig::new(setting.0, setting.1, vec![group(&whole_space(), 1, regions.to_vec())]);
        let expected = if listed { vec![range(PAGE, LAST - 1)] } else { vec![] };
        assert_eq!(rig.valid(), expected, "{setting:?}");
        for page in [0, LAST] {
            let expected = if listed { Err(Errno::EINVAL) } else { Ok(0) };
            assert_eq!(ask(&rig, Map(page, PAGE)), expected, "{setting:?}, {page:#x}");
        }
        // The same regions, come too late: up to 6.17 the one at the top is not seen (3.4).
        for (page, region, conflicts) in [(0, regions[0], listed), (LAST, regions[1], new)] {
            let iommu = whole_space();
            let first = group(&iommu, 1, vec![msi()]);
            let rig = Rig::new(setting.0, setting.1, vec![first, group(&iommu, 2, vec![region])]);
            // Begin anew with the first group alone.
            rig.groups.iter().for_each(|group| group.unset_container().unwrap());
            rig.groups[0].set_container(&rig.container, &rig.process).unwrap();
            rig.container.set_iommu(&rig.process, setting.1).unwrap();
            ask(&rig, Map(page, PAGE)).unwrap();
            let added = rig.groups[1].set_container(&rig.container, &rig.process);
            let expected = if conflicts { Err(Errno::EINVAL) } else { Ok(()) };
            assert_eq!(added.map_err(|error| error.errno()), expected, "{setting:?}, {page:#x}");
            assert_eq!(mapped(&rig), [page], "{setting:?}");
        }
    }
}

#[test]
fn process_addresses_at_both_ends_are_looked_for_like_others() {
    for setting in settings() {
        let door = Door::of(Rig::new(setting.0, setting.1, vec![group(&vtd(48), 1, vec![])]));
        let (container, process) = (&door.rig.container, &door.rig.process);
        let map = |vaddr, size| {
            let request = MapDma::new(0, vaddr, size, Access::Read);
            container.map(process, &request).map_err(|error| error.errno())
        };
        let new = release(setting.0) >= (6, 18);
        let wraps = if new { Errno::EOVERFLOW } else { Errno::EINVAL };
        assert_eq!(map(0, PAGE), Err(Errno::EFAULT), "{setting:?}");
        assert_eq!(map(LAST, PAGE), Err(Errno::EFAULT), "{setting:?}");
        assert_eq!(map(LAST, 2 * PAGE), Err(wraps), "{setting:?}");
        assert_eq!(map(ROM + (1 << 20) - PAGE, 2 * PAGE), Err(Errno::EFAULT), "{setting:?}");
        assert_eq!(map(ROM + (1 << 20) - PAGE, PAGE), Ok(()), "{setting:?}");
        let commands = [command::IOMMU_GET_INFO, command::IOMMU_MAP_DMA, command::IOMMU_UNMAP_DMA];
        for command in commands.into_iter().chain([command::GROUP_GET_STATUS]) {
            for arg in [0, LAST, u64::MAX - 7, u64::MAX - 3, u64::MAX] {
                let refusal = door.ioctl(command, arg).unwrap_err();
                assert_eq!(refusal.errno, Errno::EFAULT, "{setting:?}, {command:#x}, {arg:#x}");
            }
        }
    }
}

#[test]
fn a_bitmap_may_not_reach_beyond_user_addresses() {
    for setting in settings().filter(|setting| tracks(*setting)) {
        let rig = Rig::new(setting.0, setting.1, vec![group(&vtd(48), 1, vec![])]);
        start_tracking(&rig, setting);
        ask(&rig, Map(0, PAGE)).unwrap();
        let get = |data: u64, bytes: u64| {
            let bitmap = UserBitmap { page_size: PAGE, bytes, data: Vaddr(data) };
            let request = DirtyPages::GetBitmap { iova: Iova(0), size: PAGE, bitmap };
            rig.container.dirty_pages(&rig.process, &request).map_err(|error| error.errno())
        };
        // Measured (7.4): a page below 2^47 on 5.10, and with five-level paging below 2^56 on later kernels.
        let bits = if release(setting.0) >= (6, 1) { 56 } else { 47 };
        let limit = (1 << bits) - PAGE;
        for (data, bytes, errno) in [
            (0, 8, Errno::EFAULT),
            (limit - 8, 8, Errno::EFAULT),
            (limit - 8, 9, Errno::EINVAL),
            (limit - 7, 8, Errno::EINVAL),
            (limit, 8, Errno::EINVAL),
            (u64::MAX >> 1, 8, Errno::EINVAL),
            (LAST, 8, Errno::EINVAL),
            (u64::MAX, 8, Errno::EINVAL),
        ] {
            assert_eq!(get(data, bytes), Err(errno), "{setting:?}, {data:#x}, {bytes}");
        }
    }
}
