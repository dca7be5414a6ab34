// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory of this very process, by its own addresses.
//!
//! This is what a VMM maps: guest RAM at the address where it has mmapped it.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use vfio_type1::{
    Access, Errno, Fault, Memory, MemoryChange, MemoryChanges, PageSize, PinFault, PinnedRun,
    Vaddr, VaddrRange,
};

/// The memory of this process.
///
/// A mapping needs memory behind all of it that can be read, or written if devices may write, as the
/// kernel's pinning does. Pages are not kept from being unmapped afterwards: a device that comes upon
/// memory that is gone gets a fault with [`OwnMemory::checked`]. A program that tells of what it unmaps,
/// by [`OwnMemory::record`], has stale mappings found by [`vfio_type1::Vfio::set_watch`].
#[derive(Debug)]
pub struct OwnMemory {
    copies: Copies,
    changes: MemoryChanges,
}

#[derive(Clone, Copy, Debug)]
enum Copies {
    Checked,
    Direct,
}

impl OwnMemory {
    /// Copies by system calls, which answer with a fault where there is no memory. Copies of a few
    /// kilobytes take several times as long as [`Self::direct`]'s.
    ///
    /// # Safety
    ///
    /// Memory that is mapped into a container, or whose address is passed to the byte door, may be
    /// accessed by the process only in ways that allow for a device that changes it at any time: by raw
    /// pointers, atomics or volatile accesses, never through references.
    #[expect(unsafe_code, reason = "the contract cannot be checked: it is about the whole process")]
    pub unsafe fn checked() -> Arc<Self> {
        Self::new(Copies::Checked)
    }

    /// Copies by plain loads and stores, as fast as `memcpy`.
    ///
    /// # Safety
    ///
    /// As with [`Self::checked`]. Besides, memory that is mapped into a container must stay there, with
    /// its permissions, until it is unmapped from the container, and what is passed to the byte door must
    /// be memory. That is what `VfioOps::vfio_dma_map` of `vfio-ioctls` asks for real devices too.
    #[expect(unsafe_code, reason = "the contract cannot be checked: it is about the whole process")]
    pub unsafe fn direct() -> Arc<Self> {
        Self::new(Copies::Direct)
    }

    fn new(copies: Copies) -> Arc<Self> {
        Arc::new(Self { copies, changes: MemoryChanges::new() })
    }

    /// Notes that memory is about to go or to be used anew: see [`MemoryChanges::record`].
    pub fn record(&self, range: VaddrRange, change: MemoryChange) {
        self.changes.record(range, change);
    }
}

impl Memory for OwnMemory {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        match self.copies {
            Copies::Checked => read_checked(from, into),
            Copies::Direct => read_direct(from, into),
        }
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        match self.copies {
            Copies::Checked => write_checked(to, bytes),
            Copies::Direct => write_direct(to, bytes),
        }
    }

    fn pin(&self, pages: VaddrRange, access: Access) -> Result<PinnedRun, PinFault> {
        let fault = PinFault { at: pages.first(), errno: Errno::EFAULT };
        let areas = areas().map_err(|_| PinFault { errno: Errno::ENOMEM, ..fault })?;
        let mut end = None;
        for area in areas.iter().filter(|area| area.allows(access)) {
            let goes_on = end.map_or(area.range.contains(pages.first()), |last: Vaddr| {
                last.0.checked_add(1) == Some(area.range.first().0)
            });
            if goes_on {
                end = Some(area.range.last());
            }
        }
        let last = end.ok_or(fault)?.min(pages.last());
        Ok(PinnedRun { last, charged: true })
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        Some(&self.changes)
    }
}

/// An area of `/proc/self/maps`.
struct Area {
    range: VaddrRange,
    readable: bool,
    writable: bool,
}

impl Area {
    fn allows(&self, access: Access) -> bool {
        self.readable && (self.writable || !access.writes())
    }
}

/// The areas of this process, ascending.
fn areas() -> std::io::Result<Vec<Area>> {
    Ok(fs::read_to_string("/proc/self/maps")?.lines().filter_map(parse_area).collect())
}

/// `7f0000000000-7f0000001000 rw-p ...`: the end is exclusive.
fn parse_area(line: &str) -> Option<Area> {
    let (range, rest) = line.split_once(' ')?;
    let (first, end) = range.split_once('-')?;
    let [first, end] = [first, end].map(|text| u64::from_str_radix(text, 16).ok());
    let range = VaddrRange::new(Vaddr(first?), Vaddr(end?.checked_sub(1)?))?;
    Some(Area { range, readable: rest.starts_with('r'), writable: rest.get(1..2) == Some("w") })
}

/// The part of a system call's copy that was done ends at a page without memory.
fn fault(at: Vaddr, done: usize) -> Fault {
    let page = PageSize::P4K.bytes();
    Fault { at: Vaddr((at.0.saturating_add(done as u64)) / page * page).max(at) }
}

fn address(at: Vaddr) -> Result<usize, Fault> {
    usize::try_from(at.0).map_err(|_| Fault { at })
}

fn read_checked(from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
    let length = into.len();
    let remote = [RemoteIoVec { base: address(from)?, len: length }];
    let done = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(into)], &remote).unwrap_or(0);
    if done == length { Ok(()) } else { Err(fault(from, done)) }
}

fn write_checked(to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
    let remote = [RemoteIoVec { base: address(to)?, len: bytes.len() }];
    let done = process_vm_writev(Pid::this(), &[IoSlice::new(bytes)], &remote).unwrap_or(0);
    if done == bytes.len() { Ok(()) } else { Err(fault(to, done)) }
}

#[expect(unsafe_code, reason = "a copy from an address that the caller of `direct` vouches for")]
fn read_direct(from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
    let from = std::ptr::with_exposed_provenance::<u8>(address(from)?);
    // SAFETY: whoever called `OwnMemory::direct` keeps mapped memory in place and readable, and only
    // mapped memory is asked for. `into` is a Rust slice, which the process does not map for devices,
    // so the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    Ok(())
}

#[expect(unsafe_code, reason = "a copy to an address that the caller of `direct` vouches for")]
fn write_direct(to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(address(to)?);
    // SAFETY: as in `read_direct`; writable, since a mapping that allows writing was pinned so.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: &[u8]) -> VaddrRange {
        let first = bytes.as_ptr().expose_provenance() as u64;
        let aligned = first.next_multiple_of(4096);
        VaddrRange::from_size(Vaddr(aligned), 4096).unwrap()
    }

    fn checked() -> Arc<OwnMemory> {
        #[expect(unsafe_code, reason = "the tests look at their memory before and after only")]
        // SAFETY: no reference to what is written is used while it is written.
        unsafe {
            OwnMemory::checked()
        }
    }

    #[test]
    fn memory_is_where_it_is() {
        let memory = checked();
        let mut own = vec![7_u8; 3 * 4096];
        let at = Vaddr(own.as_mut_ptr().expose_provenance() as u64);
        let mut back = [0; 16];
        memory.read(at, &mut back).unwrap();
        assert_eq!(back, [7; 16]);
        memory.write(at, &[9; 4]).unwrap();
        assert_eq!(own[..5], [9, 9, 9, 9, 7]);
        assert!(memory.pin(page(&own), Access::ReadWrite).is_ok());
        assert_eq!(memory.read(Vaddr(0x10), &mut back), Err(Fault { at: Vaddr(0x10) }));
        let nowhere = VaddrRange::from_size(Vaddr(0), 4096).unwrap();
        assert_eq!(memory.pin(nowhere, Access::Read).unwrap_err().at, Vaddr(0));
    }

    #[test]
    fn read_only_memory_is_not_pinned_for_writing() {
        static CONSTANT: [u8; 3 * 4096] = [1; 3 * 4096];
        let memory = checked();
        assert!(memory.pin(page(&CONSTANT), Access::Read).is_ok());
        assert_eq!(memory.pin(page(&CONSTANT), Access::Write).unwrap_err().errno, Errno::EFAULT);
        assert!(memory.write(page(&CONSTANT).first(), &[0]).is_err());
    }
}
