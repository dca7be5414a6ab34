// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `mmap`, `munmap`, `mremap` and `mprotect` do where a device's memory is, or will be.

use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};
use vfio_sim::device::BarContent;
use vfio_type1::abi::FileOperation;
use vfio_type1::{Errno, MemoryChange, Vaddr, VaddrRange};

use crate::calls;
use crate::files::File;
use crate::guard::PAGE;
use crate::inside;
use crate::opened::{Opened, Place};
use crate::windows::Window;
use crate::world::World;

/// What `mmap` was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapRequest {
    pub(crate) at: u64,
    pub(crate) bytes: usize,
    pub(crate) prot: i32,
    pub(crate) flags: i32,
    pub(crate) offset: i64,
}

/// `mmap` of one of our files. Returns the address.
pub(crate) fn mmap(world: &World, file: &File, request: MapRequest) -> Result<u64, Errno> {
    let opened = calls::device(world, file, FileOperation::Mmap)?;
    let place = Place::of(request.offset)?;
    let bytes = (request.bytes as u64).checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    if request.flags & libc::MAP_TYPE == libc::MAP_PRIVATE {
        return Err(Errno::EINVAL);
    }
    let content = opened.mappable(place, bytes)?;
    let trapped = content != BarContent::Memory;
    let prot = ProtFlags::from_bits_retain(u32::try_from(request.prot).unwrap_or(0));
    let real = if trapped { ProtFlags::empty() } else { prot };
    let at = map_file(opened, request, real)?;
    let range = VaddrRange::from_size(Vaddr(at), bytes).map_err(|_| Errno::EINVAL)?;
    world.windows.add(Window {
        range,
        device: Arc::clone(opened),
        region: place.region,
        offset: place.offset,
        trapped,
        readable: prot.contains(ProtFlags::READ),
        writable: prot.contains(ProtFlags::WRITE),
    });
    Ok(at)
}

#[expect(unsafe_code, reason = "the program asks for the mapping")]
fn map_file(opened: &Opened, request: MapRequest, prot: ProtFlags) -> Result<u64, Errno> {
    let flags = MapFlags::from_bits_retain(u32::try_from(request.flags).unwrap_or(0));
    let offset = u64::try_from(request.offset).map_err(|_| Errno::EINVAL)?;
    let at = std::ptr::with_exposed_provenance_mut(usize::try_from(request.at).unwrap_or(0));
    // SAFETY: it is the program that replaces its memory, if it does, as it asked the kernel to.
    let mapped = unsafe { rustix::mm::mmap(at, request.bytes, prot, flags, opened.file(), offset) };
    let mapped = mapped.map_err(|error| Errno(error.raw_os_error()))?;
    Ok(mapped.expose_provenance() as u64)
}

/// Notes that other things are at addresses now, or nothing.
pub(crate) fn unmapped(at: u64, bytes: usize) {
    let Some(world) = World::get() else { return };
    let _inside = inside::enter();
    let Some(bytes) = (bytes as u64).checked_next_multiple_of(PAGE) else { return };
    // What is not at a page's start the kernel refuses.
    if let Some(range) =
        VaddrRange::from_size(Vaddr(at), bytes).ok().filter(|_| at.is_multiple_of(PAGE))
    {
        if let Some(tape) = &world.tape {
            world.memory.record(range, MemoryChange::Unmapped);
            tape.gone(&range);
        }
        // A device that this closes is told here, after the list has been let go of.
        let closed = world.windows.remove(&range);
        if !closed.is_empty() {
            drop(closed);
            world.note_findings();
        }
    }
}

/// Notes that other pages are in the place of those that `madvise` has given back. Nobody but a recording
/// needs to know.
pub(crate) fn advised(at: u64, bytes: usize, advice: i32) {
    let Some(world) = World::get() else { return };
    let Some(tape) = &world.tape else { return };
    let _inside = inside::enter();
    let bytes = (bytes as u64).checked_next_multiple_of(PAGE).unwrap_or(0);
    let range = VaddrRange::from_size(Vaddr(at), bytes).ok().filter(|range| tape.knows(range));
    let replaced = match (range, advice) {
        (Some(range), libc::MADV_FREE | libc::MADV_REMOVE) => vec![range],
        // Of shared memory the same pages come back.
        (Some(range), libc::MADV_DONTNEED | libc::MADV_DONTNEED_LOCKED) => private_parts(&range),
        _ => return,
    };
    for part in replaced {
        world.memory.record(part, MemoryChange::Replaced);
        tape.gone(&part);
    }
}

/// What private mappings have in a range, as `/proc/self/maps` lists them.
fn private_parts(range: &VaddrRange) -> Vec<VaddrRange> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let part = |line: &str| {
        let (addresses, rest) = line.split_once(' ')?;
        let (first, end) = addresses.split_once('-')?;
        let [first, end] = [first, end].map(|at| u64::from_str_radix(at, 16).ok());
        let mapping = VaddrRange::new(Vaddr(first?), Vaddr(end?.checked_sub(1)?))?;
        mapping.intersection(range).filter(|_| rest.as_bytes().get(3) == Some(&b'p'))
    };
    maps.lines().filter_map(part).collect()
}

/// Whether `mremap` would make a mapping of a device longer, which the kernel refuses (EFAULT).
pub(crate) fn grows(at: u64, bytes: usize, new: usize) -> bool {
    let _inside = inside::enter();
    let range = VaddrRange::from_size(Vaddr(at), bytes as u64).ok();
    let window = || World::get()?.windows.overlapping(&range?);
    new > bytes && window().is_some()
}

/// Notes that memory has been moved, or been made longer or shorter where it is.
pub(crate) fn moved(from: u64, bytes: usize, to: u64, new: usize) {
    let Some(world) = World::get() else { return };
    let _inside = inside::enter();
    let range = |at: u64, bytes: usize| VaddrRange::from_size(Vaddr(at), bytes as u64).ok();
    let windows = range(from, bytes).map_or(Vec::new(), |old| world.windows.remove(&old));
    if to != from {
        unmapped(from, bytes);
        unmapped(to, new);
    } else if let Some(less) = bytes.checked_sub(new) {
        unmapped(from + new as u64, less);
    }
    let Some(there) = range(to, new) else { return };
    for window in windows {
        let at = |vaddr: Vaddr| Vaddr(to + (vaddr.0 - from));
        let range = VaddrRange::new(at(window.range.first()), at(window.range.last()));
        if let Some(range) = range.and_then(|range| range.intersection(&there)) {
            world.windows.add(Window { range, ..window });
        }
    }
}

/// Notes the new protection of registers in a range, and returns where they are: their pages stay as they
/// are.
pub(crate) fn protected(at: u64, bytes: usize, prot: i32) -> Vec<VaddrRange> {
    let Some(world) = World::get().filter(|world| !world.windows.is_empty()) else {
        return Vec::new();
    };
    let _inside = inside::enter();
    let bytes = (bytes as u64).checked_next_multiple_of(PAGE).unwrap_or(0);
    let range = VaddrRange::from_size(Vaddr(at), bytes).ok().filter(|_| at.is_multiple_of(PAGE));
    let change = |window: &mut Window| {
        window.readable = prot & libc::PROT_READ != 0;
        window.writable = prot & libc::PROT_WRITE != 0;
    };
    range.map_or(Vec::new(), |range| world.windows.change_trapped(&range, change))
}
