// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands about blocks: the NVM command set (NVMe Base 1.4, 6).

use super::Nvme;
use super::command::{Command, io, low_byte};
use super::identify::{ALL_NAMESPACES, NAMESPACE};
use super::status::Status;
use crate::device::link::Link;

/// In dword 12: the data are to outlive a power failure when the command is over.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Of Dataset Management: the ranges are not in use any more.
const DEALLOCATE: u32 = 1 << 2;
/// A range of Dataset Management: attributes, blocks, the first block.
const RANGE_SIZE: usize = 16;

/// Bytes of the disk.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    length: u64,
}

impl Nvme {
    /// Does an I/O command; returns its result.
    pub(super) fn io(&mut self, it: &Command, link: &Link<'_>) -> Result<u32, Status> {
        let all = it.opcode == io::FLUSH && it.namespace == ALL_NAMESPACES;
        if it.namespace != NAMESPACE && !all {
            return Err(Status::InvalidNamespace);
        }
        match it.opcode {
            io::FLUSH => self.disk.flush(),
            io::WRITE => self.write_blocks(it, link),
            io::READ => self.read_blocks(it, link),
            io::COMPARE => self.compare(it, link),
            io::WRITE_ZEROES => self.write_zeroes(it),
            io::DATASET_MANAGEMENT => self.dataset_management(it, link),
            _ => Err(Status::InvalidOpcode),
        }
        .map(|()| 0)
    }

    fn read_blocks(&mut self, it: &Command, link: &Link<'_>) -> Result<(), Status> {
        let span = self.aim(it, link)?;
        self.transfer
            .write_memory(link, |done, piece| self.disk.read(span.first + done as u64, piece))?;
        self.health.note_read(span.length);
        Ok(())
    }

    fn write_blocks(&mut self, it: &Command, link: &Link<'_>) -> Result<(), Status> {
        self.disk.check_writable()?;
        let span = self.aim(it, link)?;
        self.transfer
            .read_memory(link, |done, piece| self.disk.write(span.first + done as u64, piece))?;
        self.health.note_write(span.length);
        self.settle(it)
    }

    fn compare(&mut self, it: &Command, link: &Link<'_>) -> Result<(), Status> {
        let span = self.aim(it, link)?;
        let disk = &self.disk;
        self.transfer.read_memory(link, |done, piece| {
            let mut here = vec![0; piece.len()];
            disk.read(span.first + done as u64, &mut here)?;
            if here == piece { Ok(()) } else { Err(Status::CompareFailure) }
        })?;
        self.health.note_read(span.length);
        Ok(())
    }

    fn write_zeroes(&mut self, it: &Command) -> Result<(), Status> {
        self.disk.check_writable()?;
        let span = self.span(it.first_block(), it.blocks())?;
        self.disk.zero(span.first, span.length)?;
        self.settle(it)
    }

    /// The ranges are all looked at before the first one is deallocated. Other uses of the command are
    /// hints, which change nothing.
    fn dataset_management(&mut self, it: &Command, link: &Link<'_>) -> Result<(), Status> {
        let count = usize::from(low_byte(it.words[0])) + 1;
        let mut list = vec![0; count * RANGE_SIZE];
        self.transfer.aim(it, list.len() as u64, self.registers.page_size(), link)?;
        self.transfer.read_memory(link, |done, piece| {
            list[done..done + piece.len()].copy_from_slice(piece);
            Ok(())
        })?;
        let spans = list.as_chunks().0.iter().map(|range| self.range(range));
        let spans = spans.collect::<Result<Vec<Span>, Status>>()?;
        if it.words[1] & DEALLOCATE == 0 {
            return Ok(());
        }
        self.disk.check_writable()?;
        spans.into_iter().try_for_each(|span| self.disk.zero(span.first, span.length))
    }

    /// A range of Dataset Management. It may be empty.
    fn range(&self, range: &[u8; RANGE_SIZE]) -> Result<Span, Status> {
        let [_, _, _, _, n0, n1, n2, n3, first @ ..] = *range;
        let blocks = u32::from_le_bytes([n0, n1, n2, n3]);
        self.span(u64::from_le_bytes(first), u64::from(blocks))
    }

    /// The bytes of the disk that a command is about, when the memory for them has been found.
    fn aim(&mut self, it: &Command, link: &Link<'_>) -> Result<Span, Status> {
        let span = self.span(it.first_block(), it.blocks())?;
        self.transfer.aim(it, span.length, self.registers.page_size(), link)?;
        Ok(span)
    }

    fn span(&self, first: u64, blocks: u64) -> Result<Span, Status> {
        let end = first.checked_add(blocks).filter(|end| *end <= self.blocks());
        let block = u64::from(self.block_size);
        // In bytes they are no more than the disk has, so they fit.
        end.map(|_| Span { first: first * block, length: blocks * block })
            .ok_or(Status::LbaOutOfRange)
    }

    /// After a write: without a cache, and if the command says so, it is not over before the data are safe.
    fn settle(&self, it: &Command) -> Result<(), Status> {
        if self.features.write_cache && it.words[2] & FORCE_UNIT_ACCESS == 0 {
            return Ok(());
        }
        self.disk.flush()
    }
}
