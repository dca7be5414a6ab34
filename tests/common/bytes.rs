// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The byte door as a program meets it: arguments in memory with canaries around them, and errnos.

use std::fmt::Debug;
use std::sync::Arc;

use vfio_type1::abi::{GroupReply, command};
use vfio_type1::{
    Errno, FdTarget, GroupDescription, Kernel, Memory as _, ModelMemory, Process, Vaddr, VaddrRange,
};

use super::{ROM, Rig};

/// Memory that can be written ends here; the next byte is not mapped.
pub(crate) const END: u64 = 0x3000_0000_0000;
/// Fills memory around arguments.
pub(crate) const CANARY: u8 = 0xa5;
/// The container's descriptor in the process; no other is open.
pub(crate) const CONTAINER_FD: i32 = 7;
const PAGE: usize = 0x1000;

/// Where an argument lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In memory, with canaries before and behind it.
    Inside,
    /// Its last byte is the last one before unmapped memory.
    AtEnd,
    /// Memory that can only be read.
    ReadOnly,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Inside, Self::AtEnd, Self::ReadOnly];

    /// The page that the argument lies in.
    fn page(self) -> u64 {
        match self {
            Self::Inside | Self::AtEnd => END - PAGE as u64,
            Self::ReadOnly => ROM,
        }
    }

    fn offset(self, length: usize) -> usize {
        match self {
            Self::Inside | Self::ReadOnly => PAGE / 4,
            Self::AtEnd => PAGE - length,
        }
    }
}

/// What a call gave: what the ioctl returned, and the argument's bytes afterwards.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) result: Result<i32, Refusal>,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn errno(&self) -> Result<i32, Errno> {
        self.result.as_ref().map(|value| *value).map_err(|refusal| refusal.errno)
    }
}

/// An errno, and the rule behind it: the debug text of the error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) rule: String,
}

impl Refusal {
    pub(crate) fn new(errno: Errno, error: &impl Debug) -> Self {
        Self { errno, rule: format!("{error:?}") }
    }
}

/// A rig whose process passes arguments in bytes.
pub(crate) struct Door {
    pub(crate) rig: Rig,
    pub(crate) memory: Arc<ModelMemory>,
}

impl Door {
    /// All groups of the host in one container of `kind`.
    pub(crate) fn new(kernel: Kernel, kind: u64, host: Vec<GroupDescription>) -> Self {
        Self::of(Rig::new(kernel, kind, host))
    }

    /// Gives the rig a process with memory for arguments.
    pub(crate) fn of(mut rig: Rig) -> Self {
        let memory = super::memory();
        let page = VaddrRange::from_size(Vaddr(Place::AtEnd.page()), PAGE as u64).unwrap();
        memory.add(page, true).unwrap();
        rig.process = Process::new(Arc::clone(&memory) as Arc<_>);
        Self { rig, memory }
    }

    /// Puts an argument into its place, with canaries around it, and returns its address.
    pub(crate) fn put(&self, place: Place, bytes: &[u8]) -> u64 {
        let mut page = [CANARY; PAGE];
        let offset = place.offset(bytes.len());
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.memory.poke(Vaddr(place.page()), &page).unwrap();
        place.page() + offset as u64
    }

    /// Issues an ioctl on an argument in its place. Nothing around the argument may change.
    pub(crate) fn call(&self, command: u32, place: Place, bytes: &[u8]) -> Answer {
        let arg = self.put(place, bytes);
        let result = self.ioctl(command, arg);
        let mut page = [0; PAGE];
        self.memory.read(Vaddr(place.page()), &mut page).unwrap();
        let (before, rest) = page.split_at(place.offset(bytes.len()));
        let (bytes, behind) = rest.split_at(bytes.len());
        let canaries = [CANARY; PAGE];
        assert!(before == &canaries[..before.len()], "{command:#x} wrote before its argument");
        assert!(behind == &canaries[..behind.len()], "{command:#x} wrote behind its argument");
        Answer { result, bytes: bytes.to_vec() }
    }

    /// Issues an ioctl: one of a group's on the first group, others on the container.
    pub(crate) fn ioctl(&self, command: u32, arg: u64) -> Result<i32, Refusal> {
        let Rig { container, process, groups, .. } = &self.rig;
        match command {
            command::GROUP_GET_STATUS..=command::GROUP_GET_DEVICE_FD => {
                let resolve = |fd| match fd {
                    CONTAINER_FD => FdTarget::Container(container.clone()),
                    _ => FdTarget::Closed,
                };
                let reply = groups[0].ioctl(process, command, arg, resolve);
                match reply {
                    Ok(GroupReply::Done) => Ok(0),
                    Ok(GroupReply::Device(_)) => Ok(3),
                    Err(error) => Err(Refusal::new(error.errno(), &error)),
                }
            }
            _ => container
                .ioctl(process, command, arg)
                .map_err(|error| Refusal::new(error.errno(), &error)),
        }
    }
}

/// The fields of a structure, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// `argsz` and `flags`, with which every structure begins.
    pub(crate) fn header(argsz: u32, flags: u32) -> Self {
        Self::default().u32(argsz).u32(flags)
    }

    #[must_use]
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    #[must_use]
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// The release of a kernel, major and minor. The series of 2018 was made for 4.18.
pub(crate) fn release(kernel: Kernel) -> (u32, u32) {
    match kernel.name() {
        "2018-v6" => (4, 18),
        name => {
            let (major, minor) = name.split_once('.').unwrap();
            (major.parse().unwrap(), minor.parse().unwrap())
        }
    }
}
