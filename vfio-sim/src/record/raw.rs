// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory at given addresses, and ioctls with any argument: what safe code cannot state.
//!
//! The memory of a [`Mapping`] is never borrowed, only copied to and from: the kernel and devices
//! change it at any time.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use vfio_type1::{Vaddr, VaddrRange};

/// Areas up to this size get their pages at once, so that a recording does not depend on which pages
/// were touched before. Larger ones are not backed until they are used.
const FILLED_AT_ONCE: u64 = 1 << 28;

/// Anonymous memory at an address of the script's choice.
#[derive(Debug)]
pub(super) struct Mapping {
    range: VaddrRange,
    writable: bool,
}

impl Mapping {
    /// Maps `range`, which must be free.
    pub(super) fn new(range: VaddrRange, writable: bool) -> io::Result<Self> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let mut flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE;
        if range.size().is_some_and(|size| size <= FILLED_AT_ONCE) {
            flags |= MapFlags::POPULATE;
        }
        let (address, size) = (pointer(range.first())?, length(&range)?);
        #[expect(unsafe_code, reason = "the flag keeps what is mapped already; see below")]
        // SAFETY: with FIXED_NOREPLACE no existing mapping is touched.
        let mapped = unsafe { mmap_anonymous(address, size, access, flags)? };
        // Kernels before 4.17 take the flag for a hint.
        if mapped != address {
            let _elsewhere = Self { range: at(mapped, size)?, writable };
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Self { range, writable })
    }

    /// Copies from memory; `false` if `into` is longer than what the mapping has from there.
    #[must_use]
    pub(super) fn read(&self, from: Vaddr, into: &mut [u8]) -> bool {
        let Some(address) = self.place(from, into.len()) else { return false };
        #[expect(unsafe_code, reason = "a copy out of memory that the mapping keeps")]
        // SAFETY: `place` has found all bytes inside a live, readable mapping, which Rust has no
        // reference into; what the kernel writes at the same time may be torn and is only data.
        unsafe {
            std::ptr::copy_nonoverlapping(address, into.as_mut_ptr(), into.len());
        }
        true
    }

    /// Copies to memory; `false` if the mapping cannot be written or does not have that many bytes.
    #[must_use]
    pub(super) fn write(&self, to: Vaddr, bytes: &[u8]) -> bool {
        let place = self.place(to, bytes.len()).filter(|_| self.writable);
        let Some(address) = place else { return false };
        #[expect(unsafe_code, reason = "a copy into memory that the mapping keeps")]
        // SAFETY: as in `read`, and the mapping can be written.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len());
        }
        true
    }

    /// The pointer to `length` bytes of this mapping; `None` if they are not all inside.
    fn place(&self, first: Vaddr, length: usize) -> Option<*mut u8> {
        let wanted = VaddrRange::from_size(first, u64::try_from(length).ok()?.max(1)).ok()?;
        self.range.contains_range(&wanted).then_some(())?;
        Some(pointer(first).ok()?.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (Ok(address), Ok(size)) = (pointer(self.range.first()), length(&self.range)) else {
            return;
        };
        #[expect(unsafe_code, reason = "gives back what `new` has mapped")]
        // SAFETY: nothing points into the mapping, see `read`. That it fails is harmless.
        let _ = unsafe { munmap(address, size) };
    }
}

/// An ioctl with any command and argument: the return value, or what the kernel answered.
///
/// The kernel may read and write wherever the argument, or memory it points to, says. That is what a
/// script is trusted with.
pub(super) fn ioctl(file: RawFd, command: u32, argument: u64) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "the argument is the script's, and may be wrong on purpose")]
    // SAFETY: the argument is a number, or points into a mapping that Rust has no reference into.
    // Scripts point elsewhere only to where nothing is mapped; the module says so to their authors.
    let value =
        unsafe { vmm_sys_util::ioctl::ioctl_with_val(&Raw(file), command.into(), argument) };
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// An ioctl that answers with a new descriptor, as [`ioctl`].
pub(super) fn ioctl_opening(file: RawFd, command: u32, argument: u64) -> io::Result<OwnedFd> {
    let number = ioctl(file, command, argument)?;
    #[expect(unsafe_code, reason = "the kernel answers with a number, and nobody else has seen it")]
    // SAFETY: the number is a new descriptor, and this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A file number, which need not be open.
struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

fn pointer(address: Vaddr) -> io::Result<*mut c_void> {
    let address = usize::try_from(address.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(std::ptr::with_exposed_provenance_mut(address))
}

fn length(range: &VaddrRange) -> io::Result<usize> {
    let size = range.size().and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn at(mapped: *mut c_void, size: usize) -> io::Result<VaddrRange> {
    let first = Vaddr(mapped.expose_provenance() as u64);
    VaddrRange::from_size(first, size as u64).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(writable: bool, first: u64) -> Mapping {
        Mapping::new(VaddrRange::from_size(Vaddr(first), 0x2000).unwrap(), writable).unwrap()
    }

    #[test]
    fn memory_is_copied_in_and_out_and_no_further_than_it_goes() {
        let memory = mapping(true, 0x1234_0000_0000);
        assert!(memory.write(Vaddr(0x1234_0000_1ffe), b"ab"));
        let mut bytes = [0; 3];
        assert!(memory.read(Vaddr(0x1234_0000_1ffd), &mut bytes));
        assert_eq!(bytes, [0, b'a', b'b']);
        assert!(!memory.read(Vaddr(0x1234_0000_1ffe), &mut bytes));
        assert!(!memory.write(Vaddr(0x1233_ffff_ffff), b"a"));
    }

    #[test]
    fn read_only_memory_is_not_written() {
        let memory = mapping(false, 0x1235_0000_0000);
        assert!(!memory.write(Vaddr(0x1235_0000_0000), b"a"));
        assert!(memory.read(Vaddr(0x1235_0000_0000), &mut [0]));
    }

    #[test]
    fn what_is_mapped_already_stays() {
        let first = mapping(true, 0x1236_0000_0000);
        assert!(first.write(Vaddr(0x1236_0000_1000), b"a"));
        let second = VaddrRange::from_size(Vaddr(0x1236_0000_1000), 0x1000).unwrap();
        assert_eq!(Mapping::new(second, true).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut byte = [0];
        assert!(first.read(Vaddr(0x1236_0000_1000), &mut byte));
        assert_eq!(byte, *b"a");
    }

    #[test]
    fn an_ioctl_on_a_file_that_is_not_open_says_so() {
        assert_eq!(ioctl(1_000_000, 0x3b64, 0).unwrap_err().raw_os_error(), Some(9));
    }
}
