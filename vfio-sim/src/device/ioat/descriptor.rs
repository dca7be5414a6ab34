// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptors: what a channel is told to do, in memory.

/// The size of a descriptor in bytes; its address is a multiple of it.
pub const DESCRIPTOR_SIZE: usize = 64;

/// A descriptor. The last half of its 64 bytes is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// How many bytes.
    pub size: u32,
    /// The operation in the highest 8 bits, and the bits below.
    pub control: u32,
    /// Where to read from, or the pattern to fill with.
    pub source: u64,
    /// Where to write to.
    pub destination: u64,
    /// The address of the next descriptor, which may be this one.
    pub next: u64,
}

impl Descriptor {
    /// Control: an interrupt when it is done.
    pub const INTERRUPT: u32 = 1 << 0;
    /// Control: write the completion when it is done.
    pub const COMPLETION: u32 = 1 << 3;
    /// Control: do nothing else.
    pub const NULL: u32 = 1 << 5;

    /// The operation that copies.
    pub const COPY: u8 = 0;
    /// The operation that fills with eight bytes, over and over.
    pub const FILL: u8 = 1;

    /// Copies `size` bytes.
    pub fn copy(source: u64, destination: u64, size: u32) -> Self {
        Self { size, source, destination, ..Self::default() }
    }

    /// Writes `size` bytes of `pattern`, its lowest byte first.
    pub fn fill(pattern: u64, destination: u64, size: u32) -> Self {
        let control = u32::from(Self::FILL) << 24;
        Self { size, control, source: pattern, destination, ..Self::default() }
    }

    /// The number of the operation.
    pub fn operation(&self) -> u8 {
        let [.., operation] = self.control.to_le_bytes();
        operation
    }

    pub(super) fn has(&self, bit: u32) -> bool {
        self.control & bit != 0
    }

    /// The descriptor in memory.
    pub fn to_bytes(self) -> [u8; DESCRIPTOR_SIZE] {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        let first = u64::from(self.control) << 32 | u64::from(self.size);
        let words = [first, self.source, self.destination, self.next];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The descriptor that is in memory so.
    pub fn from_bytes(bytes: &[u8; DESCRIPTOR_SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let [s0, s1, s2, s3, c0, c1, c2, c3] = words[0];
        Self {
            size: u32::from_le_bytes([s0, s1, s2, s3]),
            control: u32::from_le_bytes([c0, c1, c2, c3]),
            source: word(1),
            destination: word(2),
            next: word(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_what_its_bytes_say() {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
        let descriptor = Descriptor::from_bytes(&bytes);
        let expected = Descriptor {
            size: 0x0302_0100,
            control: 0x0706_0504,
            source: 0x0f0e_0d0c_0b0a_0908,
            destination: 0x1716_1514_1312_1110,
            next: 0x1f1e_1d1c_1b1a_1918,
        };
        assert_eq!(descriptor, expected);
        assert_eq!(descriptor.operation(), 7);
        assert_eq!(descriptor.to_bytes()[..32], bytes[..32]);
    }
}
