// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Log pages: what went wrong, how the device is, its firmware (NVMe Base 1.4, 5.14.1).

use std::collections::VecDeque;

use super::identify::{FIRMWARE, put};
use super::status::Status;

/// How many errors are kept.
pub(super) const MAX_ERRORS: usize = 64;

const ERROR_ENTRY_SIZE: usize = 64;
const HEALTH_SIZE: usize = 512;
const FIRMWARE_SIZE: usize = 512;
/// As warm as a device that has nothing to do, in kelvins.
const TEMPERATURE: u16 = 273 + 40;

/// Identifiers of log pages.
pub(super) const ERRORS: u8 = 1;
pub(super) const HEALTH: u8 = 2;
const FIRMWARE_SLOTS: u8 = 3;

/// A command that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) queue: u16,
    pub(super) id: u16,
    pub(super) status: Status,
    pub(super) block: u64,
    pub(super) namespace: u32,
}

/// What a device counts. The numbers stay over resets and when it is switched off (5.14.1.2), the entries
/// of the error log do not (5.14.1.1).
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The latest failures, newest first.
    failures: VecDeque<Failure>,
    failed: u64,
    reads: u64,
    writes: u64,
    /// In bytes.
    read: u64,
    written: u64,
}

impl Health {
    pub(super) fn note_failure(&mut self, failure: Failure) {
        self.failed += 1;
        self.failures.truncate(MAX_ERRORS - 1);
        self.failures.push_front(failure);
    }

    /// Clears the error log. The next error is numbered on.
    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
    }

    pub(super) fn note_read(&mut self, bytes: u64) {
        self.reads += 1;
        self.read = self.read.saturating_add(bytes);
    }

    pub(super) fn note_write(&mut self, bytes: u64) {
        self.writes += 1;
        self.written = self.written.saturating_add(bytes);
    }

    /// A log page, if there is such a page.
    pub(super) fn page(&self, id: u8, read_only: bool) -> Option<Vec<u8>> {
        match id {
            ERRORS => Some(self.errors()),
            HEALTH => Some(self.health(read_only)),
            FIRMWARE_SLOTS => Some(firmware()),
            _ => None,
        }
    }

    fn errors(&self) -> Vec<u8> {
        let mut log = vec![0; MAX_ERRORS * ERROR_ENTRY_SIZE];
        let numbers = (1..=self.failed).rev();
        let entries = log.chunks_exact_mut(ERROR_ENTRY_SIZE);
        for ((entry, failure), number) in entries.zip(&self.failures).zip(numbers) {
            put(entry, 0, &number.to_le_bytes());
            put(entry, 8, &failure.queue.to_le_bytes());
            put(entry, 10, &failure.id.to_le_bytes());
            put(entry, 12, &(failure.status.field() << 1).to_le_bytes());
            // Which field of the command it was is not told.
            put(entry, 14, &[0xff; 2]);
            put(entry, 16, &failure.block.to_le_bytes());
            put(entry, 24, &failure.namespace.to_le_bytes());
        }
        log
    }

    fn health(&self, read_only: bool) -> Vec<u8> {
        const MEDIA_READ_ONLY: u8 = 1 << 3;
        let mut log = vec![0; HEALTH_SIZE];
        put(&mut log, 0, &[if read_only { MEDIA_READ_ONLY } else { 0 }]);
        put(&mut log, 1, &TEMPERATURE.to_le_bytes());
        // All of its spare space, of which a tenth would be too little.
        put(&mut log, 3, &[100, 10]);
        // In units of a thousand sectors.
        put(&mut log, 32, &self.read.div_ceil(512_000).to_le_bytes());
        put(&mut log, 48, &self.written.div_ceil(512_000).to_le_bytes());
        put(&mut log, 64, &self.reads.to_le_bytes());
        put(&mut log, 80, &self.writes.to_le_bytes());
        // Switched on once.
        put(&mut log, 112, &[1]);
        put(&mut log, 176, &self.failed.to_le_bytes());
        log
    }
}

/// One slot, which is active.
fn firmware() -> Vec<u8> {
    let mut log = vec![0; FIRMWARE_SIZE];
    put(&mut log, 0, &[1]);
    put(&mut log, 8, &FIRMWARE);
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failure_is_first_and_old_ones_go() {
        let mut health = Health::default();
        for id in 0..70 {
            let status = Status::LbaOutOfRange;
            health.note_failure(Failure { queue: 1, id, status, block: 5, namespace: 1 });
        }
        let log = health.page(ERRORS, false).unwrap();
        assert_eq!(log[..12], [70, 0, 0, 0, 0, 0, 0, 0, 1, 0, 69, 0]);
        assert_eq!(log[63 * 64..][..12], [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 6, 0]);
        assert_eq!((log.len(), log[16]), (4096, 5));
        let health = health.page(HEALTH, true).unwrap();
        assert_eq!((health[0], health[176]), (8, 70));
    }
}
