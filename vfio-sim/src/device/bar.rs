// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory on a device, behind a BAR.

use std::sync::atomic::{AtomicBool, Ordering};

use vfio_type1::{Memory as _, ModelMemory, Vaddr, VaddrRange};

/// Memory on a device. It is zero at first, and takes space only where it has been written.
///
/// It has a lock of its own: others reach it while its device is at work.
#[derive(Debug)]
pub struct BarMemory {
    bytes: ModelMemory,
    size: u64,
    decodes: AtomicBool,
}

impl BarMemory {
    pub(super) fn new(size: u64) -> Self {
        let bytes = ModelMemory::new();
        if let Ok(range) = VaddrRange::from_size(Vaddr(0), size) {
            // Nothing else is in it; BARs with memory are whole pages.
            let _ = bytes.add(range, true);
        }
        Self { bytes, size, decodes: AtomicBool::new(true) }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads bytes. Past the end, and while the device does not decode memory, nothing answers: false,
    /// with all bits of the rest set.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let answered = self.decodes() && self.bytes.read(Vaddr(offset), into).is_ok();
        if !answered {
            let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let from = if self.decodes() { there.min(into.len()) } else { 0 };
            into[from..].fill(0xff);
        }
        answered
    }

    /// Writes bytes; false if not all of them could be.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        self.decodes() && self.bytes.write(Vaddr(offset), bytes).is_ok()
    }

    pub(super) fn decodes(&self) -> bool {
        self.decodes.load(Ordering::Acquire)
    }

    pub(super) fn set_decodes(&self, decodes: bool) {
        self.decodes.store(decodes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_answers_past_the_end_or_while_decoding_is_off() {
        let memory = BarMemory::new(0x1000);
        assert!(!memory.write(0xfff, &[1, 2]));
        let mut bytes = [0; 3];
        assert!(!memory.read(0xffe, &mut bytes));
        assert_eq!(bytes, [0, 1, 0xff]);
        assert!(!memory.read(u64::MAX, &mut bytes));
        assert_eq!(bytes, [0xff; 3]);
        memory.set_decodes(false);
        assert!(!memory.write(0, &[7]) && !memory.read(0, &mut bytes[..1]));
        memory.set_decodes(true);
        assert!(memory.read(0, &mut bytes[..1]));
        assert_eq!(bytes[0], 0);
    }
}
