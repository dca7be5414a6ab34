// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Data pointers: the memory that a command names by PRP entries and lists (NVMe Base 1.4, 4.3), and the
//! way to it and from it.
//!
//! All pointers of a command are read and checked before any data moves. Data move by a buffer, and
//! pages that lie one behind another in one go.

use vfio_type1::Iova;

use super::command::Command;
use super::status::Status;
use crate::device::link::Link;

/// The most bytes that a command moves.
pub(super) const MAX_TRANSFER: u64 = 1 << 20;

const BUFFER_SIZE: usize = 64 << 10;
/// A pointer in a list.
const ENTRY_SIZE: u64 = 8;
/// Data begin at a dword, lists at a pointer, and all but the first page at its start.
const DATA_ALIGNMENT: u64 = 4;

/// Memory in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    first: u64,
    length: u64,
}

/// The memory of a command.
#[derive(Debug)]
pub(super) struct Transfer {
    segments: Vec<Segment>,
    buffer: Vec<u8>,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { segments: Vec::new(), buffer: vec![0; BUFFER_SIZE] }
    }
}

impl Transfer {
    /// Finds the `length` bytes that a command names, in pages of `page` bytes.
    pub(super) fn aim(
        &mut self,
        command: &Command,
        length: u64,
        page: u64,
        link: &Link<'_>,
    ) -> Result<(), Status> {
        if length > MAX_TRANSFER {
            return Err(Status::InvalidField);
        }
        self.segments.clear();
        check_aligned(command.prp1, DATA_ALIGNMENT)?;
        let first = length.min(page - command.prp1 % page);
        self.add(command.prp1, first);
        match length - first {
            0 => Ok(()),
            left if left <= page => {
                check_aligned(command.prp2, page)?;
                self.add(command.prp2, left);
                Ok(())
            }
            left => self.follow(command.prp2, left, page, link),
        }
    }

    /// Follows a list. If more is left than it can name, its last entry leads to the next one, which
    /// begins a page: so each list but the first has room for data, and there is an end.
    fn follow(
        &mut self,
        mut list: u64,
        mut left: u64,
        page: u64,
        link: &Link<'_>,
    ) -> Result<(), Status> {
        check_aligned(list, ENTRY_SIZE)?;
        while left != 0 {
            let wanted = left.div_ceil(page);
            let there = (page - list % page) / ENTRY_SIZE;
            let entries = self.read_list(list, wanted.min(there), link)?;
            let (data, next) = match entries.split_last() {
                Some((next, data)) if wanted > there => (data, *next),
                _ => (&entries[..], 0),
            };
            for entry in data {
                check_aligned(*entry, page)?;
                let piece = left.min(page);
                self.add(*entry, piece);
                left -= piece;
            }
            check_aligned(next, page)?;
            list = next;
        }
        Ok(())
    }

    fn read_list(&mut self, list: u64, count: u64, link: &Link<'_>) -> Result<Vec<u64>, Status> {
        let size = usize::try_from(count * ENTRY_SIZE).unwrap_or(usize::MAX);
        let bytes = self.buffer.get_mut(..size).ok_or(Status::InvalidField)?;
        link.read(Iova(list), bytes).map_err(|_| Status::DataTransfer)?;
        Ok(bytes.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect())
    }

    fn add(&mut self, first: u64, length: u64) {
        match self.segments.last_mut() {
            Some(last) if last.first.checked_add(last.length) == Some(first) => {
                last.length += length
            }
            _ => self.segments.push(Segment { first, length }),
        }
    }

    /// Writes memory: `fill` gets each piece to be filled, and how many bytes are before it.
    pub(super) fn write_memory(
        &mut self,
        link: &Link<'_>,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.each(|done, at, piece| {
            fill(done, piece)?;
            link.write(at, piece).map_err(|_| Status::DataTransfer)
        })
    }

    /// Reads memory: `take` gets each piece, and how many bytes are before it.
    pub(super) fn read_memory(
        &mut self,
        link: &Link<'_>,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.each(|done, at, piece| {
            link.read(at, piece).map_err(|_| Status::DataTransfer)?;
            take(done, piece)
        })
    }

    fn each(
        &mut self,
        mut go: impl FnMut(usize, Iova, &mut [u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut done = 0;
        for Segment { mut first, mut length } in self.segments.iter().copied() {
            while length != 0 {
                let size = usize::try_from(length).map_or(BUFFER_SIZE, |it| it.min(BUFFER_SIZE));
                go(done, Iova(first), &mut self.buffer[..size])?;
                done += size;
                let size = size as u64;
                (first, length) = (first.wrapping_add(size), length - size);
            }
        }
        Ok(())
    }
}

fn check_aligned(address: u64, alignment: u64) -> Result<(), Status> {
    if address.is_multiple_of(alignment) { Ok(()) } else { Err(Status::PrpOffset) }
}
