// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The start of the ACPI table IVRS, which says how wide the addresses of AMD-Vi are (AMD I/O
//! Virtualization Technology Specification, 48882, "IVinfo"). Its blocks are not read.

/// Where Linux shows the table, to root.
pub(crate) const PATH: &str = "sys/firmware/acpi/tables/IVRS";

/// The size of a table without blocks, in bytes: header, IVinfo, eight reserved.
pub(crate) const SIZE: usize = 48;

/// Where IVinfo is, behind the header that all ACPI tables have, and VASize in it, in bits.
const IVINFO: usize = 36;
const VA_SIZE: u32 = 15;
const VA_SIZE_MASK: u32 = 0x7f;

/// A table without blocks that states a virtual address size.
pub(crate) fn table(virtual_address_bits: u32) -> [u8; SIZE] {
    const CHECKSUM: usize = 9;
    const REVISION: u8 = 2;
    let mut table = [0; SIZE];
    let header = b"IVRS\x30\0\0\0".iter().chain(&[REVISION]);
    table.iter_mut().zip(header).for_each(|(place, byte)| *place = *byte);
    let info = ((virtual_address_bits & VA_SIZE_MASK) << VA_SIZE).to_le_bytes();
    table.iter_mut().skip(IVINFO).zip(info).for_each(|(place, byte)| *place = byte);
    // All bytes add up to 0.
    table[CHECKSUM] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

/// The virtual address size that a table states, 64 if it states none (QEMU's has 0); `None` if it is
/// no such table.
pub(crate) fn virtual_address_bits(table: &[u8]) -> Option<u32> {
    let bytes = table.strip_prefix(b"IVRS")?.get(IVINFO - 4..IVINFO)?;
    let info = u32::from_le_bytes(bytes.try_into().ok()?);
    let bits = info >> VA_SIZE & VA_SIZE_MASK;
    Some(if (32..=64).contains(&bits) { bits } else { 64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_it_was_made_of() {
        for bits in [32, 48, 64] {
            let table = table(bits);
            assert_eq!(virtual_address_bits(&table), Some(bits));
            assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
        assert_eq!(virtual_address_bits(&table(0)), Some(64));
        // IVinfo of a Ryzen, from its table as iasl prints it: 64 bits.
        let mut real = table(0);
        real[IVINFO..IVINFO + 4].copy_from_slice(&0x0020_3041u32.to_le_bytes());
        assert_eq!(virtual_address_bits(&real), Some(64));
        for nonsense in [&b""[..], b"IVRS", b"DMAR", &[0; 48]] {
            assert_eq!(virtual_address_bits(nonsense), None);
        }
    }
}
