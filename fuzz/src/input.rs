// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values out of bytes. Every input means something, and a short one means much: addresses are
//! places near those where rules change.

/// Bytes that are read from front to back. Behind the end there are zeroes.
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

/// Where the interesting addresses are: the ends of the space and of apertures, the MSI window, the
/// process's memory.
const ANCHORS: [u64; 8] = [
    0,
    0u64.wrapping_sub(16 << 12),
    0xfee0_0000 - (4 << 12),
    (1 << 39) - (8 << 12),
    (1 << 48) - (8 << 12),
    crate::machine::RAM,
    crate::machine::ROM,
    crate::machine::END - (4 << 12),
];

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.take(4).iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// A number that is likely to matter: a few pages behind an anchor, a power of two, a small one,
    /// or any.
    pub(crate) fn word(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..=127 => {
                let pages = u64::from(self.byte() % 32) << 12;
                ANCHORS[usize::from(kind) % ANCHORS.len()].wrapping_add(pages)
            }
            kind @ 128..=191 => 1 << (kind % 64),
            192..=223 => u64::from(self.byte()),
            _ => self.u64(),
        }
    }
}
