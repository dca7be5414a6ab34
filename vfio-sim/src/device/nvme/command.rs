// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands and completions: entries of queues, and the fields in them (NVMe Base 1.4, 4.2 and 4.6).

/// The size of a submission queue entry in bytes.
pub const COMMAND_SIZE: usize = 64;
/// The size of a completion queue entry in bytes.
pub const COMPLETION_SIZE: usize = 16;

/// Opcodes of admin commands (5).
pub mod admin {
    /// Delete I/O Submission Queue.
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    /// Create I/O Submission Queue.
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Get Log Page.
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Delete I/O Completion Queue.
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    /// Create I/O Completion Queue.
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Abort.
    pub const ABORT: u8 = 0x08;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features.
    pub const GET_FEATURES: u8 = 0x0a;
    /// Asynchronous Event Request.
    pub const EVENT_REQUEST: u8 = 0x0c;
}

/// Opcodes of I/O commands (6).
pub mod io {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Compare.
    pub const COMPARE: u8 = 0x05;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// A command as it lies in a submission queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Command {
    /// Its opcode.
    pub opcode: u8,
    /// Bits 8 to 15: fused operation, and whether the data pointers are PRPs (0).
    pub flags: u8,
    /// Its identifier, which the completion repeats.
    pub id: u16,
    /// The namespace.
    pub namespace: u32,
    /// The first data pointer.
    pub prp1: u64,
    /// The second data pointer, or the list of them.
    pub prp2: u64,
    /// Dwords 10 to 15, which each command has uses of its own for.
    pub words: [u32; 6],
}

impl Command {
    /// A command of namespace 1 about `blocks` blocks, 1 to 65536, from `first` on.
    pub fn on_blocks(opcode: u8, first: u64, blocks: u32) -> Self {
        let (low, high) = halves(first);
        let words = [low, high, blocks.wrapping_sub(1) & 0xffff, 0, 0, 0];
        Self { opcode, namespace: 1, words, ..Self::default() }
    }

    /// The entry in memory.
    pub fn to_bytes(self) -> [u8; COMMAND_SIZE] {
        let first = u32::from(self.opcode) | u32::from(self.flags) << 8 | u32::from(self.id) << 16;
        let (prp1, prp2) = (halves(self.prp1), halves(self.prp2));
        let pointers = [prp1.0, prp1.1, prp2.0, prp2.1];
        let head = [first, self.namespace, 0, 0, 0, 0];
        let mut bytes = [0; COMMAND_SIZE];
        let words = head.into_iter().chain(pointers).chain(self.words);
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; COMMAND_SIZE]) -> Self {
        let [opcode, flags, id0, id1, ..] = *bytes;
        let mut words = [0; COMMAND_SIZE / 4];
        for (word, place) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*place);
        }
        let [_, namespace, _, _, _, _, low1, high1, low2, high2, rest @ ..] = words;
        let id = u16::from_le_bytes([id0, id1]);
        let (prp1, prp2) = (join(low1, high1), join(low2, high2));
        Self { opcode, flags, id, namespace, prp1, prp2, words: rest }
    }

    /// The block that it begins at, of a command about blocks.
    pub(super) fn first_block(&self) -> u64 {
        join(self.words[0], self.words[1])
    }

    /// How many blocks it is about.
    pub(super) fn blocks(&self) -> u64 {
        u64::from(self.words[2] & 0xffff) + 1
    }
}

/// A completion as it lies in a completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Completion {
    pub(super) result: u32,
    /// How far the submission queue has been read.
    pub(super) head: u16,
    pub(super) queue: u16,
    pub(super) id: u16,
    pub(super) status: u16,
    pub(super) phase: bool,
}

impl Completion {
    /// The entry: the first three dwords, and the last one, which has the phase.
    pub(super) fn to_bytes(self) -> ([u8; 12], [u8; 4]) {
        let mut bytes = [0; 12];
        let queue = u32::from(self.head) | u32::from(self.queue) << 16;
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip([self.result, 0, queue]) {
            *place = word.to_le_bytes();
        }
        let status = u32::from(self.status) << 1 | u32::from(self.phase);
        (bytes, (u32::from(self.id) | status << 16).to_le_bytes())
    }

    pub(super) fn from_bytes(bytes: &[u8; COMPLETION_SIZE]) -> Self {
        let [r0, r1, r2, r3, _, _, _, _, h0, h1, q0, q1, i0, i1, s0, s1] = *bytes;
        let status = u16::from_le_bytes([s0, s1]);
        Self {
            result: u32::from_le_bytes([r0, r1, r2, r3]),
            head: u16::from_le_bytes([h0, h1]),
            queue: u16::from_le_bytes([q0, q1]),
            id: u16::from_le_bytes([i0, i1]),
            status: status >> 1,
            phase: status & 1 != 0,
        }
    }
}

/// 64 bits of two dwords.
pub(super) fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The low and the high half.
pub(super) fn halves(value: u64) -> (u32, u32) {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_le_bytes();
    (u32::from_le_bytes([b0, b1, b2, b3]), u32::from_le_bytes([b4, b5, b6, b7]))
}

/// The low and the high half of a dword.
pub(super) fn shorts(word: u32) -> (u16, u16) {
    let [b0, b1, b2, b3] = word.to_le_bytes();
    (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([b2, b3]))
}

/// The lowest byte.
pub(super) fn low_byte(word: u32) -> u8 {
    let [low, ..] = word.to_le_bytes();
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_it_was_written() {
        let command = Command {
            flags: 0x40,
            id: 0xabcd,
            prp1: 0x1122_3344_5566_7788,
            prp2: u64::MAX - 1,
            ..Command::on_blocks(io::READ, 1 << 40 | 7, 65536)
        };
        let bytes = command.to_bytes();
        assert_eq!(bytes[..8], [2, 0x40, 0xcd, 0xab, 1, 0, 0, 0]);
        assert_eq!((bytes[24], bytes[32], bytes[40]), (0x88, 0xfe, 7));
        let again = Command::from_bytes(&bytes);
        assert_eq!(again, command);
        assert_eq!((again.first_block(), again.blocks()), (1 << 40 | 7, 65536));
    }

    #[test]
    fn the_phase_is_in_the_last_dword() {
        let completion =
            Completion { result: 1, head: 2, queue: 3, id: 4, status: 0x281, phase: true };
        let (front, back) = completion.to_bytes();
        assert_eq!(back, [4, 0, 0x03, 0x05]);
        let bytes: Vec<u8> = front.into_iter().chain(back).collect();
        assert_eq!(Completion::from_bytes(&bytes.try_into().unwrap()), completion);
    }
}
