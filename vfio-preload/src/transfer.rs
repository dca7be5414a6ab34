// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `pread`, `pwrite` and their kin do on our files.

use std::sync::PoisonError;

use vfio_type1::abi::FileOperation;
use vfio_type1::{Errno, Memory as _, Vaddr};

use crate::calls::{self, Answer};
use crate::files::File;
use crate::opened::Place;
use crate::world::World;

/// What is at once in this library's own memory, on the way between a device and the program.
const CHUNK: usize = 4096;

/// Does a transfer at an offset; without one, where the last such has ended.
pub(crate) fn at(
    world: &World,
    file: &File,
    offset: Option<i64>,
    transfer: impl FnOnce(i64) -> Answer,
) -> Answer {
    if let Some(offset) = offset {
        return transfer(offset);
    }
    let opened = calls::device(world, file, FileOperation::ReadOrWrite)?;
    let mut position = opened.position.lock().unwrap_or_else(PoisonError::into_inner);
    let moved = transfer(*position)?;
    *position += moved;
    Ok(moved)
}

/// `pread` into the program's memory.
pub(crate) fn read(world: &World, file: &File, into: u64, bytes: usize, offset: i64) -> Answer {
    let opened = calls::device(world, file, FileOperation::ReadOrWrite)?;
    let place = Place::of(offset)?;
    let bytes = opened.within(place, bytes)?;
    transfer(bytes, |done, chunk| {
        let place = Place { offset: place.offset + done as u64, ..place };
        let read = opened.read(place, chunk)?;
        let to = Vaddr(into.wrapping_add(done as u64));
        world.memory.write(to, &chunk[..read]).map_err(|_| Errno::EFAULT)?;
        Ok(read)
    })
}

/// `pwrite` from the program's memory.
pub(crate) fn write(world: &World, file: &File, from: u64, bytes: usize, offset: i64) -> Answer {
    let opened = calls::device(world, file, FileOperation::ReadOrWrite)?;
    let place = Place::of(offset)?;
    let bytes = opened.within(place, bytes)?;
    transfer(bytes, |done, chunk| {
        let from = Vaddr(from.wrapping_add(done as u64));
        world.memory.read(from, chunk).map_err(|_| Errno::EFAULT)?;
        opened.write(Place { offset: place.offset + done as u64, ..place }, chunk)
    })
}

/// Does a transfer in pieces. One that fails is the answer, whatever the others did (`vfio_pci_core_do_io_rw`).
fn transfer(
    bytes: usize,
    mut piece: impl FnMut(usize, &mut [u8]) -> Result<usize, Errno>,
) -> Answer {
    let (mut done, mut buffer) = (0, [0; CHUNK]);
    while done < bytes || bytes == 0 {
        let chunk = &mut buffer[..CHUNK.min(bytes - done)];
        match piece(done, chunk)? {
            0 => break,
            moved => done += moved,
        }
    }
    i64::try_from(done).map_err(|_| Errno::EINVAL)
}

/// Does a transfer for each of a program's pieces of memory, which are listed as for `readv`, one behind the
/// other in the file. One that falls short ends it.
pub(crate) fn in_pieces(
    world: &World,
    list: u64,
    count: i32,
    offset: i64,
    piece: impl Fn(u64, usize, i64) -> Answer,
) -> Answer {
    let count = u64::try_from(count).ok().filter(|count| *count <= MAX_PIECES);
    let mut done = 0;
    for number in 0..count.ok_or(Errno::EINVAL)? {
        let (at, bytes) = listed(world, list.wrapping_add(number * 16))?;
        if bytes == 0 {
            continue;
        }
        match piece(at, bytes, offset.checked_add(done).ok_or(Errno::EINVAL)?) {
            Ok(moved) if usize::try_from(moved) == Ok(bytes) => done += moved,
            Ok(moved) => return Ok(done + moved),
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// `UIO_MAXIOV`.
const MAX_PIECES: u64 = 1024;

/// An entry of the list: an address and a number of bytes.
fn listed(world: &World, at: u64) -> Result<(u64, usize), Errno> {
    let mut entry = [[0; 8]; 2];
    world.memory.read(Vaddr(at), entry.as_flattened_mut()).map_err(|_| Errno::EFAULT)?;
    let [at, bytes] = entry.map(u64::from_le_bytes);
    let bytes = isize::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    Ok((at, bytes.unsigned_abs()))
}
