// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator and the oracle side by side: each operation is done on both and compared, then
//! all that can be seen from outside is.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use vfio_sim::oracle::{Answer, Dirty, OnUnmap, Oracle, OracleInfo, OracleMapping, Span, Target};
use vfio_type1::abi::{GroupReply, command};
use vfio_type1::{
    Container, DirtyPages, FdTarget, GroupId, GroupKind, Iova, IovaRange, MapDma, MappingInfo,
    ModelMemory, OpenDevice, OpenGroup, Process, UnmapDma, UserBitmap, Vaddr, VaddrRange, Vfio,
};

use crate::hosts::{Scene, device_name};
use crate::operations::{
    Aim, Bitmap, BitmapPage, BitmapSize, Door, Extent, Operation, PROCESSES, Place, SLOTS, To,
};
use crate::rules::{Rule, known_difference};

/// Memory that can be written; memory to read follows it, then nothing.
const RAM: u64 = 0x1000_0000_0000;
const RAM_BYTES: u64 = 0x0300_0000;
const ROM_BYTES: u64 = 0x0080_0000;
/// Enough for a mapping that no dirty bitmap covers.
const HUGE: u64 = 0x0020_0000_0000_0000;
const HUGE_BYTES: u64 = 1 << 53;
/// Pages at whose end arguments and bitmaps are put: what follows is not there.
const ARGUMENT: u64 = 0x3000_0000_0000;
const READ_ONLY: u64 = 0x3100_0000_0000;
const BITMAP: u64 = 0x3200_0000_0000;
const PAGE: u64 = 0x1000;
/// How far a mapping goes to the next boundary: the oracle keeps a `bool` for each page.
const MAPPED_PAGES: u64 = 600;
/// The bytes at the end of such a page that are compared.
const WATCHED: u64 = 0x200;

/// A device that both have open.
struct Opened {
    group: usize,
    number: usize,
    device: OpenDevice,
}

pub(crate) struct Pair {
    oracle: Oracle,
    vfio: Vfio,
    ids: Vec<GroupId>,
    /// Which groups are emulated.
    emulated: Vec<bool>,
    groups: Vec<Option<OpenGroup>>,
    /// What each slot holds: the emulator's container, and the oracle's number for it.
    containers: Vec<Option<(Container, usize)>>,
    devices: Vec<Opened>,
    made: usize,
    processes: Vec<(Arc<Process>, Arc<ModelMemory>)>,
    exited: bool,
    /// Where the host's regions and apertures begin, and what follows their ends.
    boundaries: Vec<u64>,
}

/// How often each answer was seen.
static TALLY: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn tally(what: &str, answer: &str) {
    *TALLY.lock().unwrap().entry(format!("{what}: {answer}")).or_default() += 1;
}

/// Prints what was seen (`--nocapture` shows it).
pub(crate) fn print_tally() {
    for (answer, count) in &*TALLY.lock().unwrap() {
        println!("{count:9} {answer}");
    }
}

/// Holds two answers against each other.
fn agree<T: PartialEq + Debug, E: Rule>(
    what: &str,
    emulator: Result<T, E>,
    oracle: Answer<T>,
) -> Result<(), String> {
    let emulator = emulator.map_err(Rule::refusal);
    let answer = oracle.as_ref().map_or_else(|refusal| refusal.rule.as_str(), |_| "ok");
    tally(what, answer);
    if let (Err(emulator), Err(oracle)) = (&emulator, &oracle)
        && known_difference(emulator, oracle)
    {
        return Ok(());
    }
    same(what, &emulator, &oracle)
}

fn same<T: PartialEq + Debug>(what: &str, emulator: &T, oracle: &T) -> Result<(), String> {
    if emulator == oracle {
        return Ok(());
    }
    Err(format!("{what}\nemulator {emulator:x?}\noracle   {oracle:x?}"))
}

fn span(range: &IovaRange) -> Span {
    Span { first: range.first().0, last: range.last().0 }
}

impl Pair {
    pub(crate) fn new(scene: &Scene) -> Self {
        let groups = scene.describe();
        let ids: Vec<GroupId> = groups.iter().map(|group| group.id()).collect();
        let emulated = groups.iter().map(|group| matches!(group.kind, GroupKind::Emulated));
        let emulated = emulated.collect();
        let mut oracle = Oracle::new(&scene.kernel, &groups);
        let regions = groups.iter().flat_map(|group| &group.devices).flat_map(|d| &d.regions);
        let mut boundaries: Vec<u64> =
            regions.flat_map(|region| [region.first.0, region.last.0.wrapping_add(1)]).collect();
        let apertures = scene.iommus.iter().map(|iommu| iommu.plain.aperture);
        boundaries.extend(
            apertures.flat_map(|range| [range.first().0, range.last().0.wrapping_add(1)]),
        );
        let vfio = Vfio::new(scene.kernel, groups).unwrap();
        let processes = (0..PROCESSES).map(|_| process(&mut oracle)).collect();
        Self {
            oracle,
            vfio,
            emulated,
            groups: ids.iter().map(|_| None).collect(),
            ids,
            containers: (0..SLOTS).map(|_| None).collect(),
            devices: Vec::new(),
            made: 0,
            processes,
            exited: false,
            boundaries,
        }
    }

    /// Whether the groups' regions were merged alike.
    pub(crate) fn merged_alike(&self) -> Result<(), String> {
        for (at, id) in self.ids.iter().enumerate() {
            let emulator = self.vfio.merged_regions(*id);
            same("regions", &emulator, &self.oracle.regions(at).to_vec())?;
        }
        Ok(())
    }

    /// Whether a container's page has changed while it tracks dirty pages. The kernel does not make
    /// its bitmaps anew and may write behind them, so nothing is promised from here on.
    pub(crate) fn outgrew_bitmaps(&self) -> bool {
        self.containers.iter().flatten().any(|(_, number)| self.oracle.outgrew_bitmaps(*number))
    }

    /// One operation on both, and the comparison.
    pub(crate) fn step(&mut self, operation: &Operation) -> Result<(), String> {
        tally("all", "steps");
        self.apply(operation).and_then(|()| self.compare()).map_err(|difference| {
            format!("after {operation:x?}:\n{difference}")
        })
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        match *operation {
            Operation::OpenContainer { slot } => {
                let made = (self.vfio.open_container(), self.oracle.open_container());
                self.containers[slot] = Some(made);
            }
            Operation::CloseContainer { slot } => self.containers[slot] = None,
            Operation::OpenGroup { group, caller } => return self.open_group(group, caller),
            Operation::CloseGroup { group } => {
                let group = group % self.ids.len();
                if self.groups[group].take().is_some() {
                    self.oracle.close_group(group);
                }
            }
            Operation::SetContainer { group, caller, target, door } => {
                return self.set_container(group, caller, target, door);
            }
            Operation::UnsetContainer { group } => {
                let group = group % self.ids.len();
                let Some(file) = &self.groups[group] else { return Ok(()) };
                let emulator = file.unset_container();
                return agree("UNSET_CONTAINER", emulator, self.oracle.unset_container(group));
            }
            Operation::Status { group, door } => return self.status(group, door),
            Operation::SetIommu { slot, caller, kind, door } => {
                return self.set_iommu(slot, caller, kind, door);
            }
            Operation::Map { slot, caller, place, extent, to, flags, door } => {
                let (iova, size) = self.range(slot, place, extent);
                let size = if matches!(extent, Extent::ToBoundary(_) | Extent::Mappings(..)) {
                    size.min(MAPPED_PAGES * self.page(slot))
                } else {
                    size
                };
                let vaddr = self.vaddr(slot, to);
                let request = MapDma { iova: Iova(iova), vaddr: Vaddr(vaddr), size, flags };
                return self.map(slot, caller, &request, door);
            }
            Operation::Unmap { slot, caller, place, extent, flags, bitmap, door } => {
                let (iova, size) = self.range(slot, place, extent);
                let bitmap = self.bitmap(slot, caller, size, bitmap);
                let request = UnmapDma { iova: Iova(iova), size, flags, bitmap };
                return self.unmap(slot, caller, &request, door);
            }
            Operation::Track { slot, on, door } => {
                let request = if on { Dirty::Start } else { Dirty::Stop };
                return self.dirty(slot, 0, &request, door);
            }
            Operation::GetBitmap { slot, caller, place, extent, bitmap, door } => {
                let (iova, size) = self.range(slot, place, extent);
                let bitmap = self.bitmap(slot, caller, size, bitmap);
                return self.dirty(slot, caller, &Dirty::Get(iova, size, bitmap), door);
            }
            Operation::DirtyFlags { slot, flags, door } => {
                let bytes = [8, flags].map(u32::to_le_bytes).concat();
                return self.ioctl(slot, 0, command::IOMMU_DIRTY_PAGES, bytes, door);
            }
            Operation::GetInfo { slot, argsz, door } => {
                let mut bytes = argsz.to_le_bytes().to_vec();
                bytes.extend([0xa5; 250]);
                return self.ioctl(slot, 0, command::IOMMU_GET_INFO, bytes, door);
            }
            Operation::Command { slot, command, arg } => {
                let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
                let emulator = container.ioctl(&self.processes[0].0, command, arg);
                let oracle = self.oracle.ioctl(*number, 0, command, arg);
                return agree("ioctl", emulator, oracle);
            }
            Operation::Assign { group, slot, kind } => return self.assign(group, slot, kind),
            Operation::OpenDevice { group, caller, device, told } => {
                self.open_device(group, caller, device)?;
                if let (Some(does), Some(last)) = (told, self.devices.len().checked_sub(1)) {
                    self.on_unmap(last, does);
                }
            }
            Operation::OpenEmulated => {
                let emulated = (0..self.ids.len()).filter(|group| self.emulated[*group]);
                for group in emulated.collect::<Vec<_>>() {
                    self.open_device(group, 0, 0)?;
                    self.on_unmap(self.devices.len().saturating_sub(1), OnUnmap::LetsGo);
                }
            }
            Operation::OnUnmap { device, does } => self.on_unmap(device, does),
            Operation::CloseDevice { device } => {
                if !self.devices.is_empty() {
                    let opened = self.devices.remove(device % self.devices.len());
                    self.oracle.close_device(opened.group, opened.number);
                }
            }
            Operation::Pin { device, place, pages, access } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                let (opened, iova) = (&self.devices[at], iova & !0xfff);
                let emulator = opened.device.pin_pages(Iova(iova), pages, access);
                let (group, number) = (opened.group, opened.number);
                let oracle = self.oracle.pin_pages(group, number, iova, pages, access);
                return agree("pin_pages", emulator, oracle);
            }
            Operation::Unpin { device, place, pages } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                let (opened, iova) = (&self.devices[at], iova & !0xfff);
                // Past the top the emulator lets go of nothing, the document of what lies below.
                let pages = pages.min((u64::MAX - iova) / PAGE + 1);
                opened.device.unpin_pages(Iova(iova), pages);
                self.oracle.unpin_pages(opened.group, iova, pages);
            }
            Operation::DmaRead { device, place, length } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                // What lies behind the top of the space is not in the document.
                let length = length.min(u64::MAX - iova);
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                let opened = &self.devices[at];
                let emulator = opened.device.dma_read(Iova(iova), &mut bytes).map(|()| bytes);
                let oracle = self.oracle.dma_read(opened.group, iova, length);
                return agree("dma_read", emulator, oracle);
            }
            Operation::DmaWrite { device, place, length } => {
                let Some((at, iova)) = self.on_device(device, place) else { return Ok(()) };
                let length = length.min(u64::MAX - iova);
                let bytes: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
                let opened = &self.devices[at];
                let emulator = opened.device.dma_write(Iova(iova), &bytes);
                let oracle = self.oracle.dma_write(opened.group, iova, &bytes);
                return agree("dma_write", emulator, oracle);
            }
            Operation::Memlock { process, pages } => {
                self.processes[process].0.set_memlock(pages << 12 | 0xfff);
                self.oracle.set_memlock(process, pages << 12 | 0xfff);
            }
            Operation::IpcLock { process, has } => {
                self.processes[process].0.set_cap_ipc_lock(has);
                self.oracle.set_ipc_lock(process, has);
            }
            Operation::RawIo { process, has } => {
                self.processes[process].0.set_cap_sys_rawio(has);
                self.oracle.set_sys_rawio(process, has);
            }
            Operation::UnsafeInterrupts { allow } => {
                self.vfio.set_allow_unsafe_interrupts(allow);
                self.oracle.set_allow_unsafe_interrupts(allow);
            }
            Operation::NoIommuMode { enable } => {
                self.vfio.set_noiommu(enable);
                self.oracle.set_noiommu_mode(enable);
            }
            Operation::EntryLimit { mappings } => {
                self.vfio.set_dma_entry_limit(mappings);
                self.oracle.set_dma_entry_limit(mappings);
            }
            Operation::Exit => {
                self.processes[1].0.exit();
                self.oracle.exit(1);
                self.exited = true;
            }
        }
        Ok(())
    }

    /// A process that has exited calls nothing: the first one does it instead.
    fn caller(&self, caller: usize) -> usize {
        if self.exited { 0 } else { caller }
    }

    fn open_group(&mut self, group: usize, caller: usize) -> Result<(), String> {
        let (group, caller) = (group % self.ids.len(), self.caller(caller));
        let emulator = self.vfio.open_group(self.ids[group], &self.processes[caller].0);
        let oracle = self.oracle.open_group(group, caller);
        let emulator = emulator.map(|opened| self.groups[group] = Some(opened));
        agree("open group", emulator, oracle)
    }

    fn set_container(
        &mut self,
        group: usize,
        caller: usize,
        aim: Aim,
        door: Door,
    ) -> Result<(), String> {
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

    /// What a program does to use a group, as far as it is not done.
    fn assign(&mut self, group: usize, slot: usize, kind: u64) -> Result<(), String> {
        if self.containers[slot].is_none() {
            self.apply(&Operation::OpenContainer { slot })?;
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

    fn status(&mut self, group: usize, door: Door) -> Result<(), String> {
        let group = group % self.ids.len();
        let Some(file) = self.groups[group].clone() else { return Ok(()) };
        let arg = self.put(0, vec![8, 0, 0, 0, 0xa5, 0xa5, 0xa5, 0xa5], door, true);
        let process = Arc::clone(&self.processes[0].0);
        let emulator =
            file.ioctl(&process, command::GROUP_GET_STATUS, arg, |_| FdTarget::Closed);
        let emulator = emulator.map(|reply| assert!(matches!(reply, GroupReply::Done)));
        agree("GET_STATUS", emulator, self.oracle.status_ioctl(group, 0, arg))?;
        self.compare_page(0, ARGUMENT)
    }

    fn set_iommu(
        &mut self,
        slot: usize,
        caller: usize,
        kind: u64,
        door: Door,
    ) -> Result<(), String> {
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

    fn map(
        &mut self,
        slot: usize,
        caller: usize,
        request: &MapDma,
        door: Door,
    ) -> Result<(), String> {
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

    fn unmap(
        &mut self,
        slot: usize,
        caller: usize,
        request: &UnmapDma,
        door: Door,
    ) -> Result<(), String> {
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

    fn dirty(
        &mut self,
        slot: usize,
        caller: usize,
        request: &Dirty,
        door: Door,
    ) -> Result<(), String> {
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
    ) -> Result<(), String> {
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
    fn put(&mut self, caller: usize, mut bytes: Vec<u8>, door: Door, argsz: bool) -> u64 {
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

    fn poke(&mut self, process: usize, to: u64, bytes: &[u8]) {
        self.processes[process].1.poke(Vaddr(to), bytes).unwrap();
        self.oracle.poke(process, to, bytes);
    }

    fn open_device(&mut self, group: usize, caller: usize, device: u32) -> Result<(), String> {
        let (group, caller) = (group % self.ids.len(), self.caller(caller));
        let Some(file) = &self.groups[group] else { return Ok(()) };
        let name = device_name(u32::try_from(group).unwrap() + 1, device);
        let emulator = file.open_device(&name, &self.processes[caller].0);
        self.made += 1;
        let number = self.made;
        let oracle = self.oracle.open_device(group, caller, &name, number);
        let emulator =
            emulator.map(|device| self.devices.push(Opened { group, number, device }));
        agree("GET_DEVICE_FD", emulator, oracle)
    }

    fn on_unmap(&mut self, device: usize, does: OnUnmap) {
        if self.devices.is_empty() {
            return;
        }
        let opened = &self.devices[device % self.devices.len()];
        opened.device.on_unmap(move |unpinner, iova| {
            if does == OnUnmap::LetsGo {
                unpinner.unpin(iova);
            }
        });
        self.oracle.on_unmap(opened.group, opened.number, does);
    }

    /// An open device, an emulated one if there is one, and an address for it.
    fn on_device(&mut self, device: usize, place: Place) -> Option<(usize, u64)> {
        let emulated = |at: &usize| self.emulated[self.devices[*at].group];
        let mut candidates: Vec<usize> = (0..self.devices.len()).filter(emulated).collect();
        if candidates.is_empty() && !place.free {
            candidates = (0..self.devices.len()).collect();
        }
        let at = *candidates.get(device % candidates.len().max(1))?;
        let mappings = self.mappings(0);
        if !place.free || mappings.is_empty() {
            return Some((at, self.range(0, place, Extent::Pages(1)).0));
        }
        let mapping = mappings[place.boundary % mappings.len()];
        let offset = place.pages.rem_euclid(8) * 0x1000 + place.bytes;
        Some((at, mapping.iova.first.wrapping_add_signed(offset)))
    }

    /// The container's page; 4 KiB if there is none.
    fn page(&mut self, slot: usize) -> u64 {
        let number = self.containers[slot].as_ref().map(|(_, number)| *number);
        let info = number.and_then(|number| self.oracle.info(number).ok());
        let sizes = info.map_or(0, |info| info.page_sizes);
        if sizes == 0 { PAGE } else { 1 << sizes.trailing_zeros() }
    }

    fn mappings(&self, slot: usize) -> Vec<OracleMapping> {
        let number = self.containers[slot].as_ref().map(|(_, number)| *number);
        number.map(|number| self.oracle.mappings(number)).unwrap_or_default()
    }

    /// Addresses where something begins or has just ended.
    fn boundaries(&mut self, slot: usize) -> Vec<u64> {
        let mut all = self.boundaries.clone();
        all.push(0);
        let number = self.containers[slot].as_ref().map(|(_, number)| *number);
        let info = number.and_then(|number| self.oracle.info(number).ok());
        let ranges = info.map(|info| info.ranges).unwrap_or_default();
        let mapped = self.mappings(slot).into_iter().map(|mapping| mapping.iova);
        all.extend(
            ranges.into_iter().chain(mapped).flat_map(|r| [r.first, r.last.wrapping_add(1)]),
        );
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where a valid range begins, and where a mapping has just ended.
    fn free(&mut self, slot: usize) -> Vec<u64> {
        let number = self.containers[slot].as_ref().map(|(_, number)| *number);
        let info = number.and_then(|number| self.oracle.info(number).ok());
        let ranges = info.map(|info| info.ranges).unwrap_or_default();
        let ends = self.mappings(slot).into_iter().map(|mapping| mapping.iova.last);
        let ends = ends.filter_map(|last| last.checked_add(1));
        ranges.into_iter().map(|range| range.first).chain(ends).collect()
    }

    /// An address and a size.
    fn range(&mut self, slot: usize, place: Place, extent: Extent) -> (u64, u64) {
        let page = self.page(slot);
        let boundaries = self.boundaries(slot);
        let free = if place.free { self.free(slot) } else { Vec::new() };
        let candidates = if free.is_empty() { &boundaries } else { &free };
        let boundary = candidates[place.boundary % candidates.len()];
        let first = boundary.next_multiple_of_or_wrap(page);
        let first = first.wrapping_add_signed(place.pages.wrapping_mul(page as i64));
        let first = first.wrapping_add_signed(place.bytes);
        match extent {
            Extent::Pages(pages) => (first, pages * page),
            Extent::Ragged(pages) => (first, pages * page + 0x234),
            Extent::ToBoundary(number) => {
                let mut above = boundaries.iter().filter(|boundary| **boundary > first);
                let end = above.nth(number).copied().unwrap_or(0);
                (first, end.wrapping_sub(first) & !(page - 1))
            }
            Extent::Mappings(from, to) => {
                let mappings = self.mappings(slot);
                if mappings.is_empty() {
                    return (first, page);
                }
                let from = mappings[from % mappings.len()].iova;
                let to = mappings[to % mappings.len()].iova;
                let (low, high) = (from.first.min(to.first), from.last.max(to.last));
                (low, (high - low).wrapping_add(1))
            }
            Extent::Huge => (first, page << 31),
            Extent::Bytes(bytes) => (if bytes == 0 { place.boundary as u64 / 40 } else { first }, bytes),
        }
    }

    fn vaddr(&mut self, slot: usize, to: To) -> u64 {
        let page = self.page(slot);
        match to {
            To::Ram(pages) => RAM + pages * page % RAM_BYTES,
            To::RamEnd(pages) => RAM + RAM_BYTES - pages * page,
            To::End(pages) => RAM + RAM_BYTES + ROM_BYTES - (pages * page).min(ROM_BYTES),
            To::Huge => HUGE,
            To::Exactly(address) => address,
        }
    }

    /// A bitmap for a range of `size` bytes, and what its buffer holds before.
    fn bitmap(&mut self, slot: usize, caller: usize, size: u64, plan: Bitmap) -> UserBitmap {
        let caller = self.caller(caller);
        self.poke(caller, BITMAP + PAGE - WATCHED, &[plan.fill; WATCHED as usize]);
        let page = self.page(slot);
        let right = 8 * (size / page).div_ceil(64);
        UserBitmap {
            page_size: match plan.page {
                BitmapPage::Right => page,
                BitmapPage::Bytes(bytes) => bytes,
            },
            bytes: match plan.size {
                BitmapSize::Right => right,
                BitmapSize::OneWordLess => right.saturating_sub(8),
                BitmapSize::Bytes(bytes) => bytes,
            },
            data: Vaddr(if plan.beyond_user { 1 << 56 } else { BITMAP + PAGE - plan.room }),
        }
    }

    /// All that can be seen from outside.
    fn compare(&mut self) -> Result<(), String> {
        for (at, (process, _)) in self.processes.iter().enumerate() {
            if process.is_alive() {
                let locked = self.oracle.locked_pages(at);
                same(&format!("locked pages of {at}"), &process.locked_pages(), &locked)?;
            }
        }
        for (at, file) in self.groups.iter().enumerate() {
            let Some(file) = file else { continue };
            let status = file.status();
            let status = (status.viable, status.container_set);
            same(&format!("status of group {at}"), &status, &self.oracle.status(at))?;
        }
        for slot in 0..SLOTS {
            self.compare_container(slot)?;
        }
        Ok(())
    }

    fn compare_container(&mut self, slot: usize) -> Result<(), String> {
        let Some((container, number)) = &self.containers[slot] else { return Ok(()) };
        container.check_invariants()?;
        let groups: Vec<GroupId> =
            self.oracle.groups(*number).into_iter().map(|group| self.ids[group]).collect();
        same("groups", &container.groups(), &groups)?;
        let mappings: Vec<OracleMapping> = container.mappings().iter().map(mapping).collect();
        same("mappings", &mappings, &self.oracle.mappings(*number))?;
        for id in 0..12 {
            let oracle = self.oracle.check_extension(*number, id);
            same(&format!("extension {id}"), &container.check_extension(id), &oracle)?;
        }
        let info = container.info().map(|info| OracleInfo {
            page_sizes: info.page_sizes.0,
            migration: info.migration.map(|m| (m.page_sizes.0, m.max_bitmap_bytes)),
            available: info.entries_left.map(u64::from),
            ranges: info.iova_ranges.iter().map(span).collect(),
        });
        same("info", &info.map_err(Rule::refusal), &self.oracle.info(*number))
    }

    /// The end of one of the pages for arguments and bitmaps.
    fn compare_page(&self, process: usize, page: u64) -> Result<(), String> {
        let from = page + PAGE - WATCHED;
        let mut bytes = vec![0; WATCHED as usize];
        self.processes[process].0.memory().read(Vaddr(from), &mut bytes).unwrap();
        let oracle = self.oracle.peek(process, from, WATCHED);
        let differs = (from..).zip(bytes.into_iter().zip(oracle)).find(|(_, (a, b))| a != b);
        let [emulator, oracle] = [differs.map(|(at, (a, _))| (at, a)), differs.map(|(at, (_, b))| (at, b))];
        same("the first byte that differs", &emulator, &oracle)
    }
}

fn mapping(info: &MappingInfo) -> OracleMapping {
    OracleMapping {
        iova: span(&info.iova),
        vaddr: info.vaddr.0,
        access: info.access,
        vaddr_invalid: info.vaddr_invalid,
        charged: info.locked_pages,
    }
}

/// An ioctl's structure: `argsz`, flags, and numbers of 64 bits.
fn structure(argsz: u32, flags: u32, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = [argsz, flags].map(u32::to_le_bytes).concat();
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// The same process for both.
fn process(oracle: &mut Oracle) -> (Arc<Process>, Arc<ModelMemory>) {
    let memory = Arc::new(ModelMemory::new());
    let number = oracle.add_process();
    let areas = [
        (RAM, RAM_BYTES, true),
        (RAM + RAM_BYTES, ROM_BYTES, false),
        (HUGE, HUGE_BYTES, true),
        (ARGUMENT, PAGE, true),
        (READ_ONLY, PAGE, false),
        (BITMAP, PAGE, true),
    ];
    for (first, size, writable) in areas {
        memory.add(VaddrRange::from_size(Vaddr(first), size).unwrap(), writable).unwrap();
        oracle.add_memory(number, first, first + (size - 1), writable);
    }
    (Process::new(Arc::clone(&memory) as Arc<_>), memory)
}

trait Align {
    fn next_multiple_of_or_wrap(self, page: u64) -> u64;
}

impl Align for u64 {
    /// The next multiple of a page at or above; 0 above the last one.
    fn next_multiple_of_or_wrap(self, page: u64) -> u64 {
        self.wrapping_add(page - 1) & !(page - 1)
    }
}
