// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs: what an engine can be told to do, and how it ends.

use super::DESCRIPTOR_SIZE;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Copies `length` bytes from source to destination, upwards.
    Copy = 1,
    /// Writes `length` bytes of the value at the destination.
    Fill = 2,
    /// Reads `length` bytes at the source, and forgets them.
    Read = 3,
    /// Reads `length` addresses of 64 bits at the source, and writes one byte, the value, at each: the
    /// pages to dirty.
    Touch = 4,
    /// Does the `length` descriptors at the source, in order, up to the first that fails. A list in
    /// a list is a bad job.
    List = 5,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Copy, Self::Fill, Self::Read, Self::Touch, Self::List];

    pub(super) fn from_register(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| *operation as u64 == value)
    }
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// None has been started since reset.
    Idle = 0,
    /// It is at work.
    Busy = 1,
    /// It ended well.
    Done = 2,
    /// An access was refused.
    Fault = 3,
    /// There is no such operation, or a list was in a list.
    BadJob = 4,
}

/// A job, or a descriptor of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Job {
    /// The number of an [`Operation`], which may be none.
    pub operation: u64,
    /// Where it reads.
    pub source: u64,
    /// Where it writes.
    pub destination: u64,
    /// Bytes, pages or descriptors, as the operation says.
    pub length: u64,
    /// The byte to write, in the lowest 8 bits.
    pub value: u64,
}

impl Job {
    fn new(operation: Operation) -> Self {
        Self { operation: operation as u64, ..Self::default() }
    }

    /// Copies `bytes` bytes.
    pub fn copy(source: u64, destination: u64, bytes: u64) -> Self {
        Self { source, destination, length: bytes, ..Self::new(Operation::Copy) }
    }

    /// Writes `bytes` times `value`.
    pub fn fill(destination: u64, bytes: u64, value: u8) -> Self {
        Self { destination, length: bytes, value: value.into(), ..Self::new(Operation::Fill) }
    }

    /// Reads `bytes` bytes.
    pub fn read(source: u64, bytes: u64) -> Self {
        Self { source, length: bytes, ..Self::new(Operation::Read) }
    }

    /// Writes `value` at each of the `pages` addresses that are listed at `list`, 64 bits each.
    pub fn touch(list: u64, pages: u64, value: u8) -> Self {
        let value = value.into();
        Self { source: list, length: pages, value, ..Self::new(Operation::Touch) }
    }

    /// Does the `count` descriptors at `list`.
    pub fn list(list: u64, count: u64) -> Self {
        Self { source: list, length: count, ..Self::new(Operation::List) }
    }

    /// The descriptor in memory.
    pub fn to_bytes(self) -> [u8; DESCRIPTOR_SIZE] {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn words(self) -> [u64; 5] {
        [self.operation, self.source, self.destination, self.length, self.value]
    }

    pub(super) fn from_words([operation, source, destination, length, value]: [u64; 5]) -> Self {
        Self { operation, source, destination, length, value }
    }

    pub(super) fn from_bytes(bytes: &[u8; DESCRIPTOR_SIZE]) -> Self {
        let mut words = [0; 5];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = place.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Self::from_words(words)
    }
}
