// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device and its file: what VFIO_GROUP_GET_DEVICE_FD returns.
//!
//! The file is a memory file as long as all regions, each at its index times 2^40, as the kernel lays them
//! out. Reads and writes of it come to the device. A BAR with memory is mapped from it; of a BAR with
//! registers the mapping is there but may not be accessed, so that each access traps.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use vfio_sim::device::ioctl::{region_at, region_offset};
use vfio_sim::device::{BarContent, CONFIG_REGION, PciDevice};
use vfio_type1::{
    Access, Errno, Fault, Memory, OpenCdev, OpenDevice, PinFault, PinnedRun, Vaddr, VaddrRange,
};

use crate::guard;
use crate::own::{self, Kept};
use crate::tape::Name;
use crate::world::World;

/// Regions that there is room for.
const REGIONS: u8 = 16;

/// A device of the host, whether it is open or not.
pub(crate) struct Slot {
    pub(crate) device: PciDevice,
    file: Kept,
    /// How often it is open.
    opens: Mutex<u32>,
}

impl Slot {
    pub(crate) fn new(device: PciDevice) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("vfio-device", flags)?;
        rustix::fs::ftruncate(&file, region_offset(REGIONS))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let file = own::copy(&file)?;
        device.descriptors().into_iter().for_each(own::protect);
        for bar in &device.function().bars {
            if let Some(memory) = device.bar_memory(bar.index) {
                let at = region_offset(bar.index);
                memory.keep_in(Arc::new(Shared::new(&file, at, bar.size)?));
            }
        }
        Ok(Self { device, file, opens: Mutex::default() })
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)
    }
}

/// The memory of a BAR, which the program may map too. It is mapped here for as long as the process runs,
/// as its device is there.
struct Shared {
    at: u64,
    bytes: u64,
}

impl Shared {
    #[expect(unsafe_code, reason = "a mapping of our own, at an address that nothing is at")]
    fn new(file: &Kept, offset: u64, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (prot, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: nothing is replaced, and what is behind the mapping is accessed through `guard` alone.
        let at = unsafe { mmap(ptr::null_mut(), length, prot, flags, file, offset) }?;
        Ok(Self { at: at.expose_provenance() as u64, bytes })
    }

    /// The address of an offset that so many bytes are at.
    fn at(&self, offset: Vaddr, length: usize) -> Result<u64, Fault> {
        let end = offset.0.checked_add(length as u64);
        match end.is_some_and(|end| end <= self.bytes) {
            true => Ok(self.at + offset.0),
            false => Err(Fault { at: offset }),
        }
    }
}

impl Memory for Shared {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        let at = self.at(from, into.len())?;
        guard::read(at, into).map_err(|_| Fault { at: from })
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        let at = self.at(to, bytes.len())?;
        guard::write(at, bytes).map_err(|_| Fault { at: to })
    }

    fn pin(&self, pages: VaddrRange, _access: Access) -> Result<PinnedRun, PinFault> {
        // Nothing is mapped by its offset in a BAR.
        Err(PinFault { at: pages.first(), errno: Errno::EFAULT })
    }
}

/// A device that is open. It stays so while a descriptor of it or a mapping is there.
#[derive(Debug)]
pub(crate) struct Opened {
    name: Name,
    slot: Arc<Slot>,
    by: OpenedBy,
    /// The offset in the file that `read` and `write` go on at. `lseek` does not move it.
    pub(crate) position: Mutex<i64>,
}

/// How a device was opened.
#[derive(Debug)]
pub(crate) enum OpenedBy {
    /// By its group.
    Group(#[expect(dead_code, reason = "open for as long as it is held")] OpenDevice),
    /// By its own node.
    Node(OpenCdev),
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
        let (region, offset) = region_at(offset).ok_or(Errno::EINVAL)?;
        Ok(Self { region, offset })
    }
}

impl Opened {
    /// Opens the device once more.
    pub(crate) fn new(name: Name, slot: Arc<Slot>, by: OpenedBy) -> Self {
        *slot.opens.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self { name, slot, by, position: Mutex::default() }
    }

    /// The device by its own node, if it was opened so.
    pub(crate) fn cdev(&self) -> Option<&OpenCdev> {
        match &self.by {
            OpenedBy::Node(cdev) => Some(cdev),
            OpenedBy::Group(_) => None,
        }
    }

    /// One that was opened by its own node does nothing before it is bound to an iommufd.
    fn check_bound(&self) -> Result<(), Errno> {
        self.cdev().map_or(Ok(()), |cdev| cdev.check_bound().map_err(|error| error.errno()))
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

    /// Whether a descriptor leads to the file.
    pub(crate) fn is_file(&self, fd: BorrowedFd<'_>) -> bool {
        let id = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        id(fd).is_ok_and(|known| id(self.file()) == Ok(known))
    }

    /// How much of a transfer of so many bytes takes place: of a BAR what is there, of configuration space all or
    /// nothing (`vfio_pci_bar_rw`, `vfio_config_do_rw`).
    pub(crate) fn within(&self, place: Place, bytes: usize) -> Result<usize, Errno> {
        let left = self.device().region_size(place.region).saturating_sub(place.offset);
        match usize::try_from(left) {
            Ok(left) if bytes > left && place.region == CONFIG_REGION => Err(Errno::EFAULT),
            // Where nothing is left, the device says what is wrong.
            Ok(left) if bytes > left && left > 0 => Ok(left),
            _ => Ok(bytes),
        }
    }

    /// Reads a region, as `pread` does.
    pub(crate) fn read(&self, place: Place, into: &mut [u8]) -> Result<usize, Errno> {
        self.check_bound()?;
        self.device().read(place.region, place.offset, into).map_err(|error| error.errno())
    }

    /// Writes a region, as `pwrite` does.
    pub(crate) fn write(&self, place: Place, bytes: &[u8]) -> Result<usize, Errno> {
        self.check_bound()?;
        let written = self.device().write(place.region, place.offset, bytes);
        // A store is when a device works.
        if let Some(world) = World::get() {
            world.note_findings();
        }
        written.map_err(|error| error.errno())
    }

    /// What a mapping of `length` bytes from `place` on would show. EINVAL for what cannot be mapped.
    pub(crate) fn mappable(&self, place: Place, length: u64) -> Result<BarContent, Errno> {
        self.check_bound()?;
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
