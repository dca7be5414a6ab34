// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device and its file: what VFIO_GROUP_GET_DEVICE_FD returns.
//!
//! The file is a memory file as long as all regions, each at its index times 2^40, as the kernel lays them
//! out. Reads and writes of it come to the device. A BAR with memory is mapped from it; of a BAR with
//! registers the mapping is there but may not be accessed, so that each access traps.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use vfio_sim::device::{BarContent, PciDevice};
use vfio_type1::{Errno, OpenDevice};

use crate::own;
use crate::tape::Name;
use crate::world::World;

/// The bits of a file offset that are the offset in a region (`VFIO_PCI_OFFSET_SHIFT`).
const REGION_SHIFT: u32 = 40;

/// Regions that there is room for.
const REGIONS: u64 = 16;

/// A device of the host, whether it is open or not.
pub(crate) struct Slot {
    pub(crate) device: PciDevice,
    file: OwnedFd,
    /// How often it is open.
    opens: Mutex<u32>,
}

impl Slot {
    pub(crate) fn new(device: PciDevice) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("vfio-device", flags)?;
        rustix::fs::ftruncate(&file, REGIONS << REGION_SHIFT)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let file = own::keep(&file)?;
        Ok(Self { device, file, opens: Mutex::default() })
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)
    }
}

/// A device that is open. It stays so while a descriptor of it or a mapping is there.
#[derive(Debug)]
pub(crate) struct Opened {
    name: Name,
    slot: Arc<Slot>,
    _open: OpenDevice,
}

/// Where in a device's file an offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) region: u8,
    pub(crate) offset: u64,
}

impl Place {
    /// The kernel takes no negative offset.
    pub(crate) fn of(offset: i64) -> Result<Self, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let region = u8::try_from(offset >> REGION_SHIFT).map_err(|_| Errno::EINVAL)?;
        Ok(Self { region, offset: offset & ((1 << REGION_SHIFT) - 1) })
    }

    fn in_file(self) -> u64 {
        (u64::from(self.region) << REGION_SHIFT) + self.offset
    }
}

impl Opened {
    /// Opens the device once more.
    pub(crate) fn new(name: Name, slot: Arc<Slot>, open: OpenDevice) -> Self {
        *slot.opens.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self { name, slot, _open: open }
    }

    /// Its name in the recording.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn device(&self) -> &PciDevice {
        &self.slot.device
    }

    /// A descriptor of the file, for the program.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.slot.file, 0).map_err(errno)
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.slot.file.as_fd()
    }

    /// Reads a region, as `pread` does.
    pub(crate) fn read(&self, place: Place, into: &mut [u8]) -> Result<usize, Errno> {
        let read = self.device().read(place.region, place.offset, into);
        let read = read.map_err(|error| error.errno())?;
        if self.has_memory(place.region) {
            rustix::io::pread(self.file(), &mut into[..read], place.in_file()).map_err(errno)?;
        }
        Ok(read)
    }

    /// Writes a region, as `pwrite` does.
    pub(crate) fn write(&self, place: Place, bytes: &[u8]) -> Result<usize, Errno> {
        let written = self.device().write(place.region, place.offset, bytes);
        // A store is when a device works.
        if let Some((world, tape)) = World::get().and_then(|w| Some((w, w.tape.as_ref()?))) {
            tape.notes(world);
        }
        let written = written.map_err(|error| error.errno())?;
        if self.has_memory(place.region) {
            rustix::io::pwrite(self.file(), &bytes[..written], place.in_file()).map_err(errno)?;
        }
        Ok(written)
    }

    /// Whether a region is a BAR of memory, which is in the file, where mappings show it.
    fn has_memory(&self, region: u8) -> bool {
        let mut bars = self.device().function().bars.iter();
        bars.any(|bar| bar.index == region && bar.content == BarContent::Memory)
    }

    /// What a mapping of `length` bytes from `place` on would show. EINVAL for what cannot be mapped.
    pub(crate) fn mappable(&self, place: Place, length: u64) -> Result<BarContent, Errno> {
        let function = self.device().function();
        let bar = function.bars.iter().find(|bar| bar.index == place.region);
        let bar = bar.filter(|_| self.device().can_mmap(place.region)).ok_or(Errno::EINVAL)?;
        let end = place.offset.checked_add(length);
        match end.is_some_and(|end| end <= bar.size) {
            true => Ok(bar.content),
            false => Err(Errno::EINVAL),
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut opens = self.slot.opens.lock().unwrap_or_else(PoisonError::into_inner);
        *opens -= 1;
        if *opens == 0 {
            self.slot.device.release();
        }
    }
}
