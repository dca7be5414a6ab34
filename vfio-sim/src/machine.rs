// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process of a recording, on the emulator: its memory, its files, its calls.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use vfio_type1::abi::GroupReply;
use vfio_type1::{
    Access, Container, Errno, Fault, FdTarget, GroupId, Iommufd, MappingInfo, Memory,
    MemoryChanges, ModelMemory, OpenCdev, OpenDevice, OpenGroup, PinFault, PinnedRun, Process,
    Vaddr, VaddrRange, Vfio,
};

use crate::trace::{ARGUMENT_END, Call, FileIndex, MAX_ARGUMENT, MemoryKind, TextRef, Trace};

/// The recording process: its memory and its open files.
pub(crate) struct Machine<'a> {
    trace: &'a Trace,
    vfio: Vfio,
    memory: Arc<ModelMemory>,
    bars: Arc<Bars>,
    process: Arc<Process>,
    /// By name. A name that is opened again stands for the newest file of it that is open.
    files: Vec<Vec<File>>,
    /// The ioctl argument after the last call, or what was read.
    pub(crate) after: Vec<u8>,
}

/// The process's memory, some of which is a device's: its pages are pinned without being the process's own.
struct Bars {
    memory: Arc<ModelMemory>,
    ranges: Mutex<Vec<VaddrRange>>,
}

impl Bars {
    fn set(&self, range: VaddrRange, bar: bool) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = |old: VaddrRange| old.without(&range).collect::<Vec<_>>();
        *ranges = std::mem::take(&mut *ranges).into_iter().flat_map(rests).collect();
        ranges.extend(bar.then_some(range));
    }

    /// Whether an address is a BAR's, and how far that is so, up to `last`.
    fn at(&self, at: Vaddr, last: Vaddr) -> (bool, Vaddr) {
        let ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = ranges.iter().find(|bar| bar.contains(at)) {
            return (true, last.min(bar.last()));
        }
        let next = ranges.iter().map(|bar| bar.first()).filter(|first| *first > at).min();
        (false, next.map_or(last, |next| last.min(Vaddr(next.0 - 1))))
    }
}

impl Memory for Bars {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(from, into)
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.memory.write(to, bytes)
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        let (bar, last) = self.at(pages.first(), pages.last());
        if bar {
            return Ok(PinnedRun { last, charged: false });
        }
        self.memory.pin(VaddrRange::new(pages.first(), last).unwrap_or(pages), access)
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        self.memory.changes()
    }
}

enum File {
    Container(Container),
    Iommufd(Iommufd),
    Cdev(OpenCdev),
    Group(OpenGroup),
    Device(#[expect(dead_code, reason = "open for as long as it is held")] OpenDevice),
}

/// What mappings are in: a container, or an address space of an iommufd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    file: FileIndex,
    /// Of an iommufd, unless there is no such address space.
    ioas: Option<u32>,
}

impl Space {
    /// Whether a MAP into `later` can make good one that was to go here and was refused.
    pub(crate) fn is_served_by(&self, later: &Self) -> bool {
        self.file == later.file && self.ioas.is_none_or(|ioas| later.ioas == Some(ioas))
    }
}

/// What the emulator answered: a value, or an errno and the rule behind it.
pub(crate) type CallResult = Result<i64, Refused>;

pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) rule: Box<dyn Display>,
}

impl Refused {
    fn new(errno: Errno, rule: impl Display + 'static) -> Self {
        Self { errno, rule: Box::new(rule) }
    }
}

impl<'a> Machine<'a> {
    pub(crate) fn new(trace: &'a Trace, vfio: Vfio) -> Self {
        let memory = Arc::new(ModelMemory::new());
        // The parser has checked that the areas are apart.
        for area in &trace.memory {
            let _ = memory.add(area.range, area.writable);
        }
        let size = MAX_ARGUMENT as u64;
        if let Ok(range) = VaddrRange::from_size(Vaddr(ARGUMENT_END - size), size) {
            let _ = memory.add(range, true);
        }
        let bars = Arc::new(Bars { memory: Arc::clone(&memory), ranges: Mutex::default() });
        let process = Process::new(Arc::clone(&bars) as Arc<_>);
        let files = trace.files.iter().map(|_| Vec::new()).collect();
        Self { trace, vfio, memory, bars, process, files, after: Vec::new() }
    }

    /// Makes a call, and keeps what it left behind in [`Self::after`].
    pub(crate) fn call(&mut self, call: &Call) -> CallResult {
        self.after.clear();
        match call {
            Call::OpenContainer(file) => {
                Ok(self.opened(*file, File::Container(self.vfio.open_container())))
            }
            Call::OpenIommufd(file) => {
                let opened = self.vfio.open_iommu();
                let iommufd = opened.map_err(|error| Refused::new(error.errno(), error))?;
                Ok(self.opened(*file, File::Iommufd(iommufd)))
            }
            Call::OpenGroup(file, device) => self.open_group(*file, *device),
            Call::OpenDevice(file, group, name) => self.open_device(*file, *group, *name),
            Call::OpenCdev(file, device) => {
                let opened = self.vfio.open_cdev(self.trace.text(*device));
                let cdev = opened.map_err(|error| Refused::new(error.errno(), error))?;
                Ok(self.opened(*file, File::Cdev(cdev)))
            }
            Call::Bind(device, iommufd) => self.bind(*device, *iommufd),
            Call::SetContainer(group, container) => self.set_container(*group, *container),
            Call::Ioctl(file, command, before, _) => {
                self.ioctl(*file, *command, self.trace.bytes(before))
            }
            Call::IoctlValue(file, command, value) => self.ioctl_value(*file, *command, *value),
            Call::Poke(at, length, byte) => {
                let bytes = vec![*byte; *length];
                self.memory
                    .poke(*at, &bytes)
                    .map(|()| 0)
                    .map_err(|f| Refused::new(Errno::EFAULT, f))
            }
            Call::SetMemory(range, kind) => self.set_memory(*range, *kind),
            Call::Peek(at, length, _) => {
                self.after.resize(*length, 0);
                let read = self.memory.read(*at, &mut self.after);
                read.map(|()| 0).map_err(|fault| Refused::new(Errno::EFAULT, fault))
            }
            Call::Sysfs(device, _) => self.sysfs(*device),
            Call::Close(file) => self.close(*file),
            Call::DropIpcLock => {
                self.process.set_cap_ipc_lock(false);
                Ok(0)
            }
            Call::SetMemlock(bytes) => {
                self.process.set_memlock(*bytes);
                Ok(0)
            }
        }
    }

    /// What is mapped in the containers and iommufds that are open.
    pub(crate) fn mappings(&self) -> Vec<MappingInfo> {
        let of = |file: &File| match file {
            File::Container(container) => container.mappings(),
            File::Iommufd(iommufd) => {
                let spaces = iommufd.address_spaces().into_iter();
                spaces.flat_map(|ioas| iommufd.mappings(ioas)).collect()
            }
            File::Cdev(_) | File::Group(_) | File::Device(_) => Vec::new(),
        };
        self.files.iter().flatten().flat_map(of).collect()
    }

    /// What a MAP on a file maps into, which names an address space of an iommufd or, by type1's call, does
    /// not.
    pub(crate) fn space(&self, file: FileIndex, named: Option<u32>) -> Space {
        let ioas = match self.file(file) {
            Some(File::Iommufd(iommufd)) => {
                let is_there = |ioas: &u32| iommufd.address_spaces().contains(ioas);
                named.or_else(|| iommufd.compat_ioas()).filter(is_there)
            }
            _ => None,
        };
        Space { file, ioas }
    }

    /// How many mappings are live there.
    pub(crate) fn mapping_count(&self, Space { file, ioas }: Space) -> usize {
        match self.file(file) {
            Some(File::Container(container)) => container.mapping_count(),
            Some(File::Iommufd(iommufd)) => ioas.map_or(0, |ioas| iommufd.mapping_count(ioas)),
            _ => 0,
        }
    }

    fn set_memory(&self, range: VaddrRange, kind: Option<MemoryKind>) -> CallResult {
        let refused = |error| Refused::new(Errno::EINVAL, error);
        self.memory.remove(range).map_err(refused)?;
        if let Some(kind) = kind {
            let writable = kind != MemoryKind::ReadOnly;
            self.memory.add(range, writable).map_err(refused)?;
        }
        self.bars.set(range, kind == Some(MemoryKind::Bar));
        Ok(0)
    }

    fn opened(&mut self, name: FileIndex, file: File) -> i64 {
        self.files[name].push(file);
        0
    }

    fn file(&self, name: FileIndex) -> Option<&File> {
        self.files[name].last()
    }

    fn open_group(&mut self, file: FileIndex, device: TextRef) -> CallResult {
        let name = self.trace.text(device);
        let name = name.strip_prefix("noiommu:").unwrap_or(name);
        // Of a device without a group there is no node to open.
        let group = self.vfio.group_of(name).unwrap_or(GroupId::Numbered(u32::MAX));
        let opened = self.vfio.open_group(group, &self.process);
        let opened = opened.map_err(|error| Refused::new(error.errno(), error))?;
        Ok(self.opened(file, File::Group(opened)))
    }

    fn open_device(&mut self, file: FileIndex, group: FileIndex, name: TextRef) -> CallResult {
        let Some(File::Group(group)) = self.file(group) else {
            return Err(bad_fd());
        };
        let opened = group.open_device(self.trace.text(name), &self.process);
        let opened = opened.map_err(|error| Refused::new(error.errno(), error))?;
        Ok(self.opened(file, File::Device(opened)))
    }

    fn set_container(&self, group: FileIndex, container: FileIndex) -> CallResult {
        let Some(File::Group(group)) = self.file(group) else {
            return Err(bad_fd());
        };
        group
            .set_container_fd(number(container), self.target(container), &self.process)
            .map(|()| 0)
            .map_err(|error| Refused::new(error.errno(), error))
    }

    fn bind(&self, device: FileIndex, iommufd: FileIndex) -> CallResult {
        let Some(File::Cdev(device)) = self.file(device) else {
            return Err(bad_fd());
        };
        let bound = device.bind_fd(number(iommufd), self.target(iommufd));
        bound.map(|_| 0).map_err(|error| Refused::new(error.errno(), error))
    }

    /// What a descriptor of this file leads to.
    fn target(&self, file: FileIndex) -> FdTarget {
        match self.file(file) {
            Some(File::Container(container)) => FdTarget::Container(container.clone()),
            Some(File::Iommufd(iommufd)) => FdTarget::Iommufd(iommufd.clone()),
            Some(File::Group(_) | File::Device(_) | File::Cdev(_)) => FdTarget::Other,
            None => FdTarget::Closed,
        }
    }

    /// The argument's bytes are placed so that they end where memory ends.
    fn ioctl(&mut self, file: FileIndex, command: u32, before: &[u8]) -> CallResult {
        let arg = ARGUMENT_END - before.len() as u64;
        let placed = self.memory.write(Vaddr(arg), before);
        placed.map_err(|fault| Refused::new(Errno::EFAULT, fault))?;
        let result = self.ioctl_value(file, command, arg);
        self.after.resize(before.len(), 0);
        let read = self.memory.read(Vaddr(arg), &mut self.after);
        read.map_err(|fault| Refused::new(Errno::EFAULT, fault))?;
        result
    }

    fn ioctl_value(&self, file: FileIndex, command: u32, arg: u64) -> CallResult {
        match self.file(file) {
            Some(File::Container(container)) => container
                .ioctl(&self.process, command, arg)
                .map(i64::from)
                .map_err(|error| Refused::new(error.errno(), error)),
            Some(File::Iommufd(iommufd)) => iommufd
                .ioctl(&self.process, command, arg)
                .map(i64::from)
                .map_err(|error| Refused::new(error.errno(), error)),
            Some(File::Group(group)) => group
                .ioctl(&self.process, command, arg, |_| FdTarget::Closed)
                .map(|reply| match reply {
                    GroupReply::Done | GroupReply::Device(_) => 0,
                })
                .map_err(|error| Refused::new(error.errno(), error)),
            Some(File::Cdev(device)) => device
                .ioctl(&self.process, command, arg, |_| FdTarget::Closed)
                .map(i64::from)
                .map_err(|error| Refused::new(error.errno(), error)),
            Some(File::Device(_)) => {
                Err(Refused::new(Errno::ENOTTY, "devices have no ioctls here"))
            }
            None => Err(bad_fd()),
        }
    }

    fn sysfs(&mut self, device: TextRef) -> CallResult {
        let name = self.trace.text(device);
        let text = self.vfio.group_of(name).and_then(|group| self.vfio.reserved_regions(group));
        let text = text.ok_or_else(|| Refused::new(Errno::ENOENT, "no such device"))?;
        self.after.extend(text.trim().bytes());
        Ok(0)
    }

    fn close(&mut self, file: FileIndex) -> CallResult {
        self.files[file].pop().map(|_| 0).ok_or_else(bad_fd)
    }
}

/// The number of a descriptor: any will do.
fn number(file: FileIndex) -> i32 {
    i32::try_from(file).unwrap_or(0)
}

fn bad_fd() -> Refused {
    Refused::new(Errno::EBADF, "the file is not open, or not a file of the right kind")
}
