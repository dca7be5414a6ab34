// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Registers of a model in extended configuration space. VFIO hands on what is in no capability there
//! (`vfio_raw_config_read` and `vfio_raw_config_write` in `vfio_pci_config.c`).

use crate::device::model::Model;

/// Extended configuration space begins here, in bytes.
const FIRST: usize = 0x100;

/// The multiples of four whose registers an access of `length` bytes at `from` touches.
fn touched(from: usize, length: usize) -> impl Iterator<Item = usize> {
    (from & !3..from + length).step_by(4).filter(|at| *at >= FIRST)
}

/// Puts the model's registers into what was read at `from`.
pub(super) fn read(model: &dyn Model, from: usize, into: &mut [u8]) {
    for at in touched(from, into.len()) {
        let Some(value) = model.read_config(at as u64) else { continue };
        for (place, byte) in (at..).zip(value.to_le_bytes()) {
            if let Some(read) = place.checked_sub(from).and_then(|place| into.get_mut(place)) {
                *read = byte;
            }
        }
    }
}

/// Hands the model what was written at `from`.
pub(super) fn write(model: &mut dyn Model, from: usize, bytes: &[u8]) {
    for at in touched(from, bytes.len()) {
        let written = |place: usize| place.checked_sub(from).and_then(|place| bytes.get(place));
        let [value, mask] = [|byte: &u8| *byte, |_: &u8| 0xff].map(|part| {
            u32::from_le_bytes(std::array::from_fn(|byte| written(at + byte).map_or(0, part)))
        });
        model.write_config(at as u64, value, mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::link::Link;
    use crate::device::model::{Function, Register};
    use crate::device::peer::Peer;

    /// Registers at 0xfc, which is none of its own, 0x100 and 0x104; what was written last.
    #[derive(Default)]
    struct Own(Vec<(u64, u32, u32)>);

    impl Model for Own {
        fn function(&self) -> Function {
            Peer::default().function()
        }

        fn read(&mut self, _register: Register) -> u64 {
            0
        }

        fn write(&mut self, _register: Register, _value: u64, _link: &Link<'_>) {}

        fn read_config(&self, offset: u64) -> Option<u32> {
            match offset {
                0xfc | 0x100 => Some(0x4433_2211),
                0x104 => Some(0x4433_2215),
                _ => None,
            }
        }

        fn write_config(&mut self, offset: u64, value: u32, mask: u32) {
            self.0.push((offset, value, mask));
        }

        fn step(&mut self, _link: &Link<'_>) -> bool {
            false
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn accesses_are_cut_at_registers() {
        let read_at = |from, length| {
            let mut bytes = vec![0; length];
            read(&Own::default(), from, &mut bytes);
            bytes
        };
        assert_eq!(read_at(0xfe, 4), [0, 0, 0x11, 0x22]);
        assert_eq!(read_at(0x103, 3), [0x44, 0x15, 0x22]);
        assert_eq!(read_at(0x102, 1), [0x33]);
        assert_eq!(read_at(0x107, 4), [0x44, 0, 0, 0]);
        let mut own = Own::default();
        write(&mut own, 0xfe, &[9, 9, 1, 2, 3, 4, 5]);
        assert_eq!(own.0, [(0x100, 0x0403_0201, u32::MAX), (0x104, 5, 0xff)]);
        own.0.clear();
        write(&mut own, 0x102, &[7]);
        assert_eq!(own.0, [(0x100, 7 << 16, 0xff << 16)]);
    }
}
