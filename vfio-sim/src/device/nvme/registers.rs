// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The controller's registers: what it can do, how it is set up, how it is (NVMe Base 1.4, 3.1).

use super::VERSION;
use super::command::{halves, join, shorts};
use super::queue::MAX_ENTRIES;

/// Offsets of the registers, by the names that the specification gives them.
pub mod register {
    /// Controller Capabilities (read only, 64 bits).
    pub const CAP: u64 = 0x00;
    /// Version (read only).
    pub const VS: u64 = 0x08;
    /// Interrupt Mask Set: masks vectors of the interrupt line. Reads as the mask.
    pub const INTMS: u64 = 0x0c;
    /// Interrupt Mask Clear. Reads as the mask.
    pub const INTMC: u64 = 0x10;
    /// Controller Configuration.
    pub const CC: u64 = 0x14;
    /// Controller Status (read only).
    pub const CSTS: u64 = 0x1c;
    /// Admin Queue Attributes: the sizes.
    pub const AQA: u64 = 0x24;
    /// Admin Submission Queue Base Address (64 bits).
    pub const ASQ: u64 = 0x28;
    /// Admin Completion Queue Base Address (64 bits).
    pub const ACQ: u64 = 0x30;
    /// The doorbells: of each queue the submission queue's tail and the completion queue's head, 32 bits
    /// each (write only).
    pub const DOORBELLS: u64 = 0x1000;
}

/// Pages have 4 KiB at least, and 2^4 times that at most.
const MAX_PAGE_SHIFT: u32 = 4;
/// In units of 500 ms: how long a driver has to wait for the controller.
const TIMEOUT: u64 = 10;

/// Fields of CC, as they lie in it.
mod cc {
    pub(super) const ENABLE: u32 = 1;
    pub(super) const COMMAND_SET: u32 = 7 << 4;
    pub(super) const PAGE_SIZE: u32 = 15 << 7;
    pub(super) const ARBITRATION: u32 = 7 << 11;
    pub(super) const SHUTDOWN: u32 = 3 << 14;
    pub(super) const SUBMISSION_ENTRY: u32 = 15 << 16;
    pub(super) const COMPLETION_ENTRY: u32 = 15 << 20;
    /// What holds as long as the controller is enabled.
    pub(super) const FIXED: u32 = COMMAND_SET | PAGE_SIZE | ARBITRATION;
    pub(super) const WRITABLE: u32 =
        ENABLE | FIXED | SHUTDOWN | SUBMISSION_ENTRY | COMPLETION_ENTRY;
}

/// Bits of CSTS.
mod csts {
    pub(super) const READY: u32 = 1 << 0;
    pub(super) const FATAL: u32 = 1 << 1;
    pub(super) const SHUT_DOWN: u32 = 2 << 2;
}

/// The registers.
#[derive(Debug, Default)]
pub(super) struct Registers {
    mask: u32,
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Enabled,
    Disabled,
    Shutdown,
}

/// The queue that a doorbell is of, and whether it is its completion queue's.
pub(super) fn doorbell(offset: u64) -> Option<(u16, bool)> {
    let index = offset.checked_sub(register::DOORBELLS)? / 4;
    Some((u16::try_from(index / 2).ok()?, index % 2 == 1))
}

fn capabilities() -> u64 {
    const CONTIGUOUS_QUEUES: u64 = 1 << 16;
    const NVM_COMMAND_SET: u64 = 1 << 37;
    let entries = u64::from(MAX_ENTRIES) - 1;
    let page_sizes = u64::from(MAX_PAGE_SHIFT) << 52;
    entries | CONTIGUOUS_QUEUES | TIMEOUT << 24 | NVM_COMMAND_SET | page_sizes
}

impl Registers {
    /// The 64 bits at an offset that is a multiple of 8.
    pub(super) fn word(&self, offset: u64) -> u64 {
        match offset {
            register::CAP => capabilities(),
            register::VS => join(VERSION, self.mask),
            register::INTMC => join(self.mask, self.cc),
            0x18 => join(0, self.csts),
            0x20 => join(0, self.aqa),
            register::ASQ => self.asq,
            register::ACQ => self.acq,
            _ => 0,
        }
    }

    /// Writes 32 bits; returns what has to be done about it.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Option<Change> {
        const ASQ_HIGH: u64 = register::ASQ + 4;
        const ACQ_HIGH: u64 = register::ACQ + 4;
        match offset {
            register::INTMS => self.mask |= value,
            register::INTMC => self.mask &= !value,
            register::CC => return self.configure(value & cc::WRITABLE),
            register::AQA => self.aqa = value & 0x0fff_0fff,
            register::ASQ => self.asq = join(value & !0xfff, halves(self.asq).1),
            ASQ_HIGH => self.asq = join(halves(self.asq).0, value),
            register::ACQ => self.acq = join(value & !0xfff, halves(self.acq).1),
            ACQ_HIGH => self.acq = join(halves(self.acq).0, value),
            _ => {}
        }
        None
    }

    fn configure(&mut self, new: u32) -> Option<Change> {
        let old = self.cc;
        let (was, is) = (old & cc::ENABLE != 0, new & cc::ENABLE != 0);
        self.cc = if was && is { old & cc::FIXED | new & !cc::FIXED } else { new };
        match (was, is) {
            (false, true) => return Some(Change::Enabled),
            (true, false) => {
                self.csts = 0;
                self.mask = 0;
                return Some(Change::Disabled);
            }
            _ => {}
        }
        (old & cc::SHUTDOWN == 0 && new & cc::SHUTDOWN != 0).then_some(Change::Shutdown)
    }

    /// Starts the controller; returns where the admin queues are, and how many entries they have. If
    /// they cannot be, or it is set up as it cannot be, the controller fails.
    pub(super) fn start(&mut self) -> Option<((u64, u16), (u64, u16))> {
        let (submission, completion) = shorts(self.aqa);
        let page = self.page_size();
        let possible = self.cc & (cc::COMMAND_SET | cc::ARBITRATION) == 0
            && self.page_shift() <= MAX_PAGE_SHIFT
            && [submission, completion].iter().all(|size| (1..MAX_ENTRIES).contains(size))
            && [self.asq, self.acq].iter().all(|base| base.is_multiple_of(page));
        self.csts = if possible { csts::READY } else { csts::FATAL };
        possible.then(|| ((self.asq, submission + 1), (self.acq, completion + 1)))
    }

    /// Something that it cannot do without failed: nothing goes on before it is disabled.
    pub(super) fn fail(&mut self) {
        self.csts |= csts::FATAL;
    }

    pub(super) fn end_shutdown(&mut self) {
        self.csts |= csts::SHUT_DOWN;
    }

    /// Whether it takes commands.
    pub(super) fn is_running(&self) -> bool {
        self.csts == csts::READY
    }

    /// The vectors that the interrupt line does not show, a bit each.
    pub(super) fn masked(&self) -> u32 {
        self.mask
    }

    fn page_shift(&self) -> u32 {
        (self.cc & cc::PAGE_SIZE) >> 7
    }

    /// The size of a page in bytes, for the data pointers of commands.
    pub(super) fn page_size(&self) -> u64 {
        4096 << self.page_shift()
    }

    /// Whether commands are as large as they are here, 2^6 bytes.
    pub(super) fn submission_entries_fit(&self) -> bool {
        self.cc & cc::SUBMISSION_ENTRY == 6 << 16
    }

    /// Whether completions are as large as they are here, 2^4 bytes.
    pub(super) fn completion_entries_fit(&self) -> bool {
        self.cc & cc::COMPLETION_ENTRY == 4 << 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up(aqa: u32, cc: u32) -> Registers {
        let mut registers = Registers::default();
        registers.write(register::AQA, aqa);
        registers.write(register::ASQ, 0x1_1fff);
        registers.write(register::ASQ + 4, 1);
        registers.write(register::ACQ, 0x2_0000);
        assert_eq!(registers.write(register::CC, cc), Some(Change::Enabled));
        registers
    }

    #[test]
    fn the_admin_queues_are_where_they_are_said_to_be() {
        let mut registers = set_up(31 << 16 | 63, 1);
        assert_eq!(registers.start(), Some(((0x1_0001_1000, 64), (0x2_0000, 32))));
        assert!(registers.is_running());
        // The page size holds until the controller is disabled.
        assert_eq!(registers.write(register::CC, 1 | 3 << 7 | 6 << 16), None);
        assert!(registers.page_size() == 4096 && registers.submission_entries_fit());
        assert_eq!(registers.write(register::CC, 1 | 1 << 14), Some(Change::Shutdown));
        registers.end_shutdown();
        assert!(!registers.is_running());
        assert_eq!(registers.word(0x18) >> 32, 0b1001);
        assert_eq!(registers.write(register::CC, 0), Some(Change::Disabled));
        assert_eq!(registers.word(0x18), 0);
    }

    #[test]
    fn what_cannot_be_started_fails() {
        let good = 31 << 16 | 31;
        for (aqa, cc) in [
            (31 << 16, 1),
            (31, 1),
            (1024 << 16 | 31, 1),
            (good, 1 | 1 << 4),
            (good, 1 | 5 << 7),
            (good, 1 | 1 << 11),
            // The submission queue does not begin at a multiple of 8 KiB.
            (good, 1 | 1 << 7),
        ] {
            let mut registers = set_up(aqa, cc);
            assert_eq!(registers.start(), None, "{aqa:#x} {cc:#x}");
            assert_eq!(registers.word(0x18) >> 32, 2);
            assert!(!registers.is_running());
        }
    }

    #[test]
    fn masks_are_set_and_cleared_bit_by_bit() {
        let mut registers = Registers::default();
        registers.write(register::INTMS, 0b110);
        registers.write(register::INTMC, 0b010);
        assert_eq!(registers.masked(), 0b100);
        assert_eq!(registers.word(register::VS), 0b100 << 32 | u64::from(VERSION));
    }
}
