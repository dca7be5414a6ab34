// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory on a device, behind a BAR.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vfio_type1::{Memory, ModelMemory, Vaddr, VaddrRange};

/// Memory on a device. It is zero at first, and takes space only where it has been written.
///
/// It has a lock of its own: others reach it while its device is at work.
pub struct BarMemory {
    bytes: RwLock<Arc<dyn Memory>>,
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
        let bytes: Arc<dyn Memory> = Arc::new(bytes);
        Self { bytes: RwLock::new(bytes), size, decodes: AtomicBool::new(true) }
    }

    /// Lets its bytes be those of `memory` from now on, from address 0 to its size: so that a program can
    /// map them. What they were before is not taken along.
    pub fn keep_in(&self, memory: Arc<dyn Memory>) {
        *self.bytes.write().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    fn bytes(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.bytes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads bytes. Past the end, and while the device does not decode memory, nothing answers: false,
    /// with all bits of the rest set.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let answered = self.decodes() && self.bytes().read(Vaddr(offset), into).is_ok();
        if !answered {
            let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let from = if self.decodes() { there.min(into.len()) } else { 0 };
            into[from..].fill(0xff);
        }
        answered
    }

    /// Writes bytes; false if not all of them could be.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        self.decodes() && self.bytes().write(Vaddr(offset), bytes).is_ok()
    }

    pub(super) fn decodes(&self) -> bool {
        self.decodes.load(Ordering::Acquire)
    }

    pub(super) fn set_decodes(&self, decodes: bool) {
        self.decodes.store(decodes, Ordering::Release);
    }
}

impl fmt::Debug for BarMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarMemory").field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_can_be_kept_elsewhere() {
        let memory = BarMemory::new(0x1000);
        let elsewhere = Arc::new(ModelMemory::new());
        elsewhere.add(VaddrRange::from_size(Vaddr(0), 0x1000).unwrap(), true).unwrap();
        memory.keep_in(Arc::clone(&elsewhere) as Arc<_>);
        assert!(memory.write(8, b"there"));
        let mut bytes = [0; 5];
        elsewhere.read(Vaddr(8), &mut bytes).unwrap();
        assert_eq!(&bytes, b"there");
    }

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
