// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes the calls of a script on the kernel: the process of a recording, for real.
//!
//! The twin of `machine`, which makes them on the emulator. Names of files stand for descriptors; a name
//! that is not open stands for a number that is never open.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use vfio_type1::abi::command;
use vfio_type1::{Vaddr, VaddrRange};

use super::local::{CONTAINER, IOMMUFD, LocalMachine};
use super::raw::{Mapping, ioctl, ioctl_opening};
use super::{Played, Player, RecordError};
use crate::trace::{ARGUMENT_END, Call, FileIndex, MAX_ARGUMENT, TextRef, Trace};

/// A number beyond those that a kernel gives out.
const NEVER_OPEN: RawFd = i32::MAX;

pub(super) struct LocalPlayer<'a> {
    script: &'a Trace,
    machine: &'a LocalMachine,
    memory: Vec<Mapping>,
    /// Ends where the next page is not mapped.
    argument: Mapping,
    /// By name. A name that is opened again stands for the newest file of it that is open.
    files: Vec<Vec<OwnedFd>>,
}

impl<'a> LocalPlayer<'a> {
    /// Maps the memory that the script describes.
    pub(super) fn new(script: &'a Trace, machine: &'a LocalMachine) -> Result<Self, RecordError> {
        let map = |range, writable| {
            Mapping::new(range, writable).map_err(|error| RecordError::Memory { range, error })
        };
        let memory = script.memory.iter().map(|area| map(area.range, area.writable));
        let memory = memory.collect::<Result<_, _>>()?;
        let size = MAX_ARGUMENT as u64;
        let range = VaddrRange::from_size(Vaddr(ARGUMENT_END - size), size);
        let argument = map(range.unwrap_or_else(|_| VaddrRange::full()), true)?;
        let files = script.files.iter().map(|_| Vec::new()).collect();
        Ok(Self { script, machine, memory, argument, files })
    }

    fn number(&self, file: FileIndex) -> RawFd {
        self.files[file].last().map_or(NEVER_OPEN, |file| file.as_raw_fd())
    }

    fn opened(&mut self, name: FileIndex, file: OwnedFd) -> Played {
        self.files[name].push(file);
        Played::default()
    }

    fn open(&mut self, file: FileIndex, path: &str) -> Played {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(opened) => self.opened(file, opened.into()),
            Err(error) => refused(&error),
        }
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`: recordings show 0 for whatever number the device gets.
    fn open_device(&mut self, file: FileIndex, group: FileIndex, name: TextRef) -> Played {
        let mut name = self.script.text(name).as_bytes().to_vec();
        name.push(0);
        let at = self.place(&name);
        match ioctl_opening(self.number(group), command::GROUP_GET_DEVICE_FD, at) {
            Ok(device) => self.opened(file, device),
            Err(error) => refused(&error),
        }
    }

    fn set_container(&self, group: FileIndex, container: FileIndex) -> Played {
        let at = self.place(&self.number(container).to_le_bytes());
        answered(ioctl(self.number(group), command::GROUP_SET_CONTAINER, at))
    }

    fn ioctl(&self, file: FileIndex, command: u32, before: &[u8]) -> Played {
        let at = self.place(before);
        let result = match command {
            command::GROUP_GET_DEVICE_FD => {
                ioctl_opening(self.number(file), command, at).map(|_closed_again| 0)
            }
            _ => ioctl(self.number(file), command, at),
        };
        let mut after = vec![0; before.len()];
        // The same bytes that `place` has written.
        let _ = self.argument.read(Vaddr(at), &mut after);
        Played { after, ..answered(result) }
    }

    fn bind(&self, device: FileIndex, iommufd: FileIndex) -> Played {
        let fields = [16, 0, self.number(iommufd), 0].map(i32::to_le_bytes);
        let at = self.place(fields.as_flattened());
        answered(ioctl(self.number(device), command::DEVICE_BIND_IOMMUFD, at))
    }

    /// Puts an argument where it ends at an unmapped page; its address.
    fn place(&self, bytes: &[u8]) -> u64 {
        let at = ARGUMENT_END - bytes.len() as u64;
        // The script's parser and the length of device names keep arguments shorter than the mapping.
        let _ = self.argument.write(Vaddr(at), bytes);
        at
    }

    fn poke(&self, line: usize, at: Vaddr, bytes: &[u8]) -> Result<Played, RecordError> {
        if self.memory.iter().any(|memory| memory.write(at, bytes)) {
            return Ok(Played::default());
        }
        Err(outside(line, at, bytes.len(), "write"))
    }

    fn peek(&self, line: usize, at: Vaddr, length: usize) -> Result<Played, RecordError> {
        let mut after = vec![0; length];
        if self.memory.iter().any(|memory| memory.read(at, &mut after)) {
            return Ok(Played { after, ..Played::default() });
        }
        Err(outside(line, at, length, "read"))
    }

    fn sysfs(&self, line: usize, device: TextRef) -> Result<Played, RecordError> {
        let device = self.script.text(device);
        let text = self.machine.regions(device);
        let text =
            text.ok_or_else(|| RecordError::NoSuchDevice { line, device: device.to_owned() })?;
        Ok(Played { after: text.into_bytes(), ..Played::default() })
    }
}

/// The node of a device's own.
fn cdev(device: &str) -> Option<String> {
    let directory = format!("/sys/bus/pci/devices/{device}/vfio-dev");
    let node = std::fs::read_dir(directory).ok()?.next()?.ok()?.file_name();
    Some(format!("/dev/vfio/devices/{}", node.to_string_lossy()))
}

impl Player for LocalPlayer<'_> {
    fn play(&mut self, line: usize, call: &Call) -> Result<Played, RecordError> {
        let done = |result: io::Result<()>| {
            result.map(|()| Played::default()).map_err(|error| RecordError::Call { line, error })
        };
        match call {
            Call::OpenContainer(file) => Ok(self.open(*file, CONTAINER)),
            Call::OpenIommufd(file) => Ok(self.open(*file, IOMMUFD)),
            Call::OpenGroup(file, device) => {
                let path = self.machine.group_file(self.script.text(*device));
                Ok(self.open(*file, &path.unwrap_or_default()))
            }
            Call::OpenCdev(file, device) => {
                let path = cdev(self.script.text(*device)).unwrap_or_default();
                Ok(self.open(*file, &path))
            }
            Call::Bind(device, iommufd) => Ok(self.bind(*device, *iommufd)),
            Call::OpenDevice(file, group, name) => Ok(self.open_device(*file, *group, *name)),
            Call::SetContainer(group, container) => Ok(self.set_container(*group, *container)),
            Call::Ioctl(file, command, before, _) => {
                Ok(self.ioctl(*file, *command, self.script.bytes(before)))
            }
            Call::IoctlValue(file, command, value) => {
                Ok(answered(ioctl(self.number(*file), *command, *value)))
            }
            Call::Poke(at, length, byte) => self.poke(line, *at, &vec![*byte; *length]),
            Call::SetMemory(range, _) => Err(RecordError::MemoryChanges { line, range: *range }),
            Call::Peek(at, length, _) => self.peek(line, *at, *length),
            Call::Sysfs(device, _) => self.sysfs(line, *device),
            Call::Close(file) => Ok(match self.files[*file].pop() {
                Some(_) => Played::default(),
                None => refused(&io::Error::from_raw_os_error(vfio_type1::Errno::EBADF.0)),
            }),
            Call::DropIpcLock => done(drop_ipc_lock()),
            Call::SetMemlock(bytes) => done(set_memlock(*bytes)),
        }
    }
}

fn drop_ipc_lock() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    sets.inheritable.remove(CapabilitySet::IPC_LOCK);
    Ok(set_capabilities(None, sets)?)
}

fn set_memlock(bytes: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: None })?)
}

fn answered(result: io::Result<i32>) -> Played {
    match result {
        Ok(value) => Played { value: value.into(), ..Played::default() },
        Err(error) => refused(&error),
    }
}

fn refused(error: &io::Error) -> Played {
    Played { value: -1, errno: error.raw_os_error().unwrap_or_default(), after: Vec::new() }
}

fn outside(line: usize, at: Vaddr, length: usize, verb: &'static str) -> RecordError {
    RecordError::OutsideMemory { line, range: format!("{at}+{length:#x}"), verb }
}
