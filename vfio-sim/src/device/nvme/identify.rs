// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a controller and its namespace say of themselves (NVMe Base 1.4, 5.15.2).

use super::event::MAX_REQUESTS;
use super::health::MAX_ERRORS;
use super::transfer::MAX_TRANSFER;
use super::{IDS, VERSION};

/// The size of each of the structures.
pub(super) const SIZE: usize = 4096;
/// The only namespace.
pub(super) const NAMESPACE: u32 = 1;
/// A command about all namespaces.
pub(super) const ALL_NAMESPACES: u32 = u32::MAX;
/// The firmware's revision.
pub(super) const FIRMWARE: [u8; 8] = *b"1.0     ";

/// Warmer than this is a warning, and this is too warm, in kelvins.
pub(super) const WARNING_TEMPERATURE: u16 = 273 + 70;
const CRITICAL_TEMPERATURE: u16 = 273 + 80;
/// Log pages can be read from any offset.
const EXTENDED_LOG: u8 = 1 << 2;
/// Optional commands: Compare, Dataset Management, Write Zeroes.
const OPTIONAL_COMMANDS: u16 = 1 << 0 | 1 << 2 | 1 << 3;
/// There is a volatile write cache, and Flush takes all namespaces at once.
const WRITE_CACHE: u8 = 0b111;
/// Deallocated blocks read as zero, and Write Zeroes deallocates.
const DEALLOCATE: u8 = 0b1001;
const THIN: u8 = 1;

/// Who a device is, to tell it from others.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Up to 20 characters of ASCII.
    pub(super) serial: String,
}

impl Identity {
    /// The controller.
    pub(super) fn controller(&self) -> Vec<u8> {
        let mut data = vec![0; SIZE];
        let (vendor, _) = IDS;
        put(&mut data, 0, &vendor.to_le_bytes());
        put(&mut data, 4, &padded::<20>(&self.serial));
        put(&mut data, 24, &padded::<40>("vfio-sim NVMe"));
        put(&mut data, 64, &FIRMWARE);
        let pages = u8::try_from((MAX_TRANSFER / 4096).ilog2()).unwrap_or(0);
        put(&mut data, 77, &[pages]);
        put(&mut data, 80, &VERSION.to_le_bytes());
        // An I/O controller.
        put(&mut data, 111, &[1]);
        // Aborts at a time, event requests, less one each; one firmware slot, read-only.
        put(&mut data, 258, &[0, less_one(MAX_REQUESTS), 0b11]);
        put(&mut data, 261, &[EXTENDED_LOG, less_one(MAX_ERRORS)]);
        put(&mut data, 266, &WARNING_TEMPERATURE.to_le_bytes());
        put(&mut data, 268, &CRITICAL_TEMPERATURE.to_le_bytes());
        // Entries have 2^6 and 2^4 bytes, no more and no less.
        put(&mut data, 512, &[0x66, 0x44]);
        put(&mut data, 516, &NAMESPACE.to_le_bytes());
        put(&mut data, 520, &OPTIONAL_COMMANDS.to_le_bytes());
        put(&mut data, 525, &[WRITE_CACHE]);
        put(&mut data, 768, self.qualified_name().as_bytes());
        // One power state, of up to 25 W.
        put(&mut data, 2048, &2500_u16.to_le_bytes());
        data
    }

    /// The namespace of `blocks` blocks, each of 2^`shift` bytes.
    pub(super) fn namespace(&self, blocks: u64, shift: u8, read_only: bool) -> Vec<u8> {
        let mut data = vec![0; SIZE];
        // Size, capacity and use.
        for at in [0, 8, 16] {
            put(&mut data, at, &blocks.to_le_bytes());
        }
        put(&mut data, 24, &[THIN]);
        put(&mut data, 33, &[DEALLOCATE]);
        put(&mut data, 99, &[u8::from(read_only)]);
        put(&mut data, 104, &self.global_id());
        put(&mut data, 120, &self.extended_id());
        put(&mut data, 130, &[shift]);
        data
    }

    /// The namespace's identifiers, each with its type and its length.
    pub(super) fn descriptors(&self) -> Vec<u8> {
        let mut data = vec![0; SIZE];
        put(&mut data, 0, &[1, 8]);
        put(&mut data, 4, &self.extended_id());
        put(&mut data, 12, &[2, 16]);
        put(&mut data, 16, &self.global_id());
        data
    }

    /// EUI64: of nobody's, but always the same for a serial number.
    fn extended_id(&self) -> [u8; 8] {
        const LOCALLY_ADMINISTERED: u8 = 0x02;
        let [_, _, _, hash @ ..] = self.hash().to_be_bytes();
        let [h0, h1, h2, h3, h4] = hash;
        [LOCALLY_ADMINISTERED, 0, 0, h0, h1, h2, h3, h4]
    }

    /// NGUID: eight bytes of one's choice, and an EUI64.
    fn global_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        put(&mut id, 0, &self.hash().to_be_bytes());
        put(&mut id, 8, &self.extended_id());
        id
    }

    /// The subsystem's name, of a UUID that anybody may make up (RFC 9562, version 8).
    fn qualified_name(&self) -> String {
        let hash = self.hash();
        let (high, low) = (hash >> 32, hash & 0xffff_ffff);
        format!("nqn.2014-08.org.nvmexpress:uuid:{high:08x}-0000-8000-8000-0000{low:08x}")
    }

    /// FNV-1a: well known, short, and the same everywhere.
    fn hash(&self) -> u64 {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.serial.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix)
    }
}

/// The namespaces above `id`.
pub(super) fn namespaces_above(id: u32) -> Vec<u8> {
    let mut data = vec![0; SIZE];
    if id < NAMESPACE {
        put(&mut data, 0, &NAMESPACE.to_le_bytes());
    }
    data
}

/// Puts a field where it is.
pub(super) fn put(data: &mut [u8], at: usize, field: &[u8]) {
    data[at..at + field.len()].copy_from_slice(field);
}

/// Text with spaces up to its size.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    field
}

fn less_one(count: usize) -> u8 {
    u8::try_from(count - 1).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_other_serials_are_others() {
        let identity = |serial: &str| Identity { serial: serial.to_owned() };
        let (one, two) = (identity("0000:01:00.0"), identity("0000:02:00.0"));
        assert_ne!(one.extended_id(), two.extended_id());
        assert_ne!(one.global_id(), two.global_id());
        assert_ne!(one.qualified_name(), two.qualified_name());
        assert_eq!(one.controller(), identity("0000:01:00.0").controller());
        let name = one.qualified_name();
        assert_eq!(name.len(), "nqn.2014-08.org.nvmexpress:uuid:".len() + 36, "{name}");
    }
}
