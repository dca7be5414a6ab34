// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests to a container, on both, through either door.

use vfio_sim::oracle::Dirty;
use vfio_type1::abi::command;
use vfio_type1::{DirtyPages, Iova, MapDma, UnmapDma, UserBitmap, Vaddr};

use super::aim::{ARGUMENT, BITMAP, MAPPED_PAGES, PAGE, READ_ONLY, WATCHED};
use super::operations::{Call, Door, Extent, Place, To};
use super::pair::{Difference, Pair, agree, same};

impl Pair {
    pub(crate) fn call(&mut self, operation: &Call) -> Difference {
        match *operation {
            Call::Map { slot, caller, place, extent, to, flags, door } => {
                let request = self.map_request(slot, place, extent, to, flags);
                self.map(slot, caller, &request, door)
            }
            Call::Unmap { slot, caller, place, extent, flags, bitmap, door } => {
                let (iova, size) = self.range(slot, place, extent);
                let bitmap = self.bitmap(slot, caller, size, bitmap);
                let request = UnmapDma { iova: Iova(iova), size, flags, bitmap };
                self.unmap(slot, caller, &request, door)
            }
            Call::Track { slot, on, door } => {
                let request = if on { Dirty::Start } else { Dirty::Stop };
                self.dirty(slot, 0, &request, door)
            }
            Call::GetBitmap { slot, caller, place, extent, bitmap, door } => {
                let (iova, size) = self.range(slot, place, extent);
                let bitmap = self.bitmap(slot, caller, size, bitmap);
                self.dirty(slot, caller, &Dirty::Get(iova, size, bitmap), door)
            }
            Call::DirtyFlags { slot, flags, door } => {
                let bytes = [8, flags].map(u32::to_le_bytes).concat();
                self.ioctl(slot, 0, command::IOMMU_DIRTY_PAGES, bytes, door)
            }
            Call::GetInfo { slot, argsz, door } => {
                let mut bytes = argsz.to_le_bytes().to_vec();
                bytes.extend([0xa5; 250]);
                self.ioctl(slot, 0, command::IOMMU_GET_INFO, bytes, door)
            }
            Call::Command { slot, command, arg } => {
                let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
                let emulator = container.ioctl(&self.processes[0].0, command, arg);
                agree("ioctl", emulator, self.oracle.ioctl(*number, 0, command, arg))
            }
        }
    }

    fn map_request(
        &mut self,
        slot: usize,
        place: Place,
        extent: Extent,
        to: To,
        flags: u32,
    ) -> MapDma {
        let (iova, mut size) = self.range(slot, place, extent);
        let page = self.page(slot);
        // What could be tracked is kept short: the oracle has a `bool` for each page.
        if (MAPPED_PAGES..1 << 31).contains(&(size / page)) {
            size = MAPPED_PAGES * page + size % page;
        }
        MapDma { iova: Iova(iova), vaddr: Vaddr(self.vaddr(slot, to)), size, flags }
    }

    fn map(&mut self, slot: usize, caller: usize, request: &MapDma, door: Door) -> Difference {
        let caller = self.caller(caller);
        if let Door::Bytes { .. } = door {
            let numbers = [request.vaddr.0, request.iova.0, request.size];
            let bytes = structure(32, request.flags, &numbers);
            return self.ioctl(slot, caller, command::IOMMU_MAP_DMA, bytes, door);
        }
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        let emulator = container.map(&self.processes[caller].0, request);
        agree("MAP_DMA", emulator, self.oracle.map(*number, caller, request))
            .map_err(|difference| format!("{request:x?}\n{difference}"))
    }

    fn unmap(&mut self, slot: usize, caller: usize, request: &UnmapDma, door: Door) -> Difference {
        let caller = self.caller(caller);
        if let Door::Bytes { .. } = door {
            let UserBitmap { page_size, bytes, data } = request.bitmap;
            let numbers = [request.iova.0, request.size, page_size, bytes, data.0];
            let bytes = structure(48, request.flags, &numbers);
            self.ioctl(slot, caller, command::IOMMU_UNMAP_DMA, bytes, door)?;
            return self.compare_page(caller, BITMAP);
        }
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        let emulator = container.unmap(&self.processes[caller].0, request);
        agree("UNMAP_DMA", emulator, self.oracle.unmap(*number, caller, request))
            .and_then(|()| self.compare_page(caller, BITMAP))
            .map_err(|difference| format!("{request:x?}\n{difference}"))
    }

    fn dirty(&mut self, slot: usize, caller: usize, request: &Dirty, door: Door) -> Difference {
        let caller = self.caller(caller);
        let (flags, typed, numbers) = match *request {
            Dirty::Start => (DirtyPages::START, DirtyPages::Start, vec![]),
            Dirty::Stop => (DirtyPages::STOP, DirtyPages::Stop, vec![]),
            Dirty::Get(iova, size, bitmap) => {
                let numbers = vec![iova, size, bitmap.page_size, bitmap.bytes, bitmap.data.0];
                let typed = DirtyPages::GetBitmap { iova: Iova(iova), size, bitmap };
                (DirtyPages::GET_BITMAP, typed, numbers)
            }
        };
        if let Door::Bytes { .. } = door {
            let size = 8 + 8 * u32::try_from(numbers.len()).unwrap();
            let bytes = structure(size, flags, &numbers);
            self.ioctl(slot, caller, command::IOMMU_DIRTY_PAGES, bytes, door)?;
            return self.compare_page(caller, BITMAP);
        }
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        let emulator = container.dirty_pages(&self.processes[caller].0, &typed);
        agree("DIRTY_PAGES", emulator, self.oracle.dirty(*number, caller, request))
            .and_then(|()| self.compare_page(caller, BITMAP))
            .map_err(|difference| format!("{request:x?}\n{difference}"))
    }

    /// The byte door of a container, with the bytes that come back.
    fn ioctl(
        &mut self,
        slot: usize,
        caller: usize,
        command: u32,
        bytes: Vec<u8>,
        door: Door,
    ) -> Difference {
        let shown = format!("{command:x} {bytes:x?}");
        let arg = self.put(caller, bytes, door, true);
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        let emulator = container.ioctl(&self.processes[caller].0, command, arg);
        let name = command::name(command).unwrap_or("ioctl");
        agree(name, emulator, self.oracle.ioctl(*number, caller, command, arg))
            .and_then(|()| self.compare_page(caller, ARGUMENT))
            .map_err(|difference| format!("{shown}\n{difference}"))
    }

    /// Puts an argument into the caller's memory; returns its address.
    pub(crate) fn put(
        &mut self,
        caller: usize,
        mut bytes: Vec<u8>,
        door: Door,
        argsz: bool,
    ) -> u64 {
        let (off, cut, read_only) = match door {
            Door::Typed => (0, 0, false),
            Door::Bytes { argsz, cut, read_only } => (argsz, cut, read_only),
        };
        if argsz {
            let stated = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes[..4].copy_from_slice(&stated.wrapping_add_signed(off).to_le_bytes());
        }
        bytes.truncate(bytes.len().saturating_sub(usize::try_from(cut).unwrap()));
        let end = if read_only { READ_ONLY } else { ARGUMENT } + PAGE;
        let arg = end - bytes.len() as u64;
        self.poke(caller, arg, &bytes);
        arg
    }

    pub(crate) fn poke(&mut self, process: usize, to: u64, bytes: &[u8]) {
        self.processes[process].1.poke(Vaddr(to), bytes).unwrap();
        self.oracle.poke(process, to, bytes);
    }

    /// The end of one of the pages for arguments and bitmaps.
    pub(crate) fn compare_page(&self, process: usize, page: u64) -> Difference {
        let from = page + PAGE - WATCHED as u64;
        let mut bytes = vec![0; WATCHED];
        self.processes[process].0.memory().read(Vaddr(from), &mut bytes).unwrap();
        let oracle = self.oracle.peek(process, from, WATCHED as u64);
        let differs = (from..).zip(bytes.into_iter().zip(oracle)).find(|(_, (a, b))| a != b);
        let [emulator, oracle] =
            [differs.map(|(at, (a, _))| (at, a)), differs.map(|(at, (_, b))| (at, b))];
        same("the first byte that differs", &emulator, &oracle)
    }
}

/// An ioctl's structure: `argsz`, flags, and numbers of 64 bits.
fn structure(argsz: u32, flags: u32, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = [argsz, flags].map(u32::to_le_bytes).concat();
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}
