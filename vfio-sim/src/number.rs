// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers and ranges as people write them, on the command line and in host files.
//!
//! A number is decimal or `0x` hexadecimal, with an optional K, M, G, T or P for a power of 1024.
//! A range is `FIRST-LAST`, both ends included, or `FIRST+SIZE`; `FIRST..LAST`, as the tool prints
//! ranges, includes both ends too.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use vfio_type1::{Iova, IovaRange, PageSize, RangeError};

/// What is wrong with a number or a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It is not a number.
    #[error("\"{text}\" is not a number: write decimal or 0x hexadecimal, with K, M, G, T or P")]
    NotANumber {
        /// What was given.
        text: String,
    },
    /// It does not fit in 64 bits.
    #[error("\"{text}\" does not fit in 64 bits")]
    TooLarge {
        /// What was given.
        text: String,
    },
    /// It is decimal, and no page begins there; read as hexadecimal one would.
    #[error("\"{text}\" is decimal, {value:#x}; write 0x{text} if you mean that")]
    LooksHexadecimal {
        /// What was given.
        text: String,
        /// What it is.
        value: u64,
    },
    /// It is not a range.
    #[error("\"{text}\" is not a range: write FIRST-LAST (inclusive) or FIRST+SIZE")]
    NotARange {
        /// What was given.
        text: String,
    },
    /// The last address is below the first.
    #[error("range \"{text}\" ends below its start; LAST is inclusive and must be FIRST or above")]
    Backwards {
        /// What was given.
        text: String,
    },
    /// The size is zero, or the range runs past the end of the space.
    #[error("range \"{text}\": {error}")]
    Impossible {
        /// What was given.
        text: String,
        /// What is wrong with it.
        error: RangeError,
    },
}

/// Parses a number.
pub fn parse_number(text: &str) -> Result<u64, NumberError> {
    let not_a_number = || NumberError::NotANumber { text: text.to_owned() };
    let (digits, shift) = match text.char_indices().last().ok_or_else(not_a_number)? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        (at, 't' | 'T') => (&text[..at], 40),
        (at, 'p' | 'P') => (&text[..at], 50),
        _ => (text, 0),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(not_a_number());
    }
    let too_large = || NumberError::TooLarge { text: text.to_owned() };
    let value = u64::from_str_radix(digits, radix).map_err(|_| too_large())?;
    if digits == text && looks_hexadecimal(digits, value) {
        return Err(NumberError::LooksHexadecimal { text: text.to_owned(), value });
    }
    value.checked_mul(1 << shift).ok_or_else(too_large)
}

/// Eight decimal digits or more that begin a page only if they are hexadecimal: somebody has copied
/// an address without its 0x.
fn looks_hexadecimal(digits: &str, decimal: u64) -> bool {
    let page = PageSize::P4K;
    digits.len() >= 8
        && !page.is_aligned(decimal)
        && u64::from_str_radix(digits, 16).is_ok_and(|value| page.is_aligned(value))
}

/// Parses a range.
pub fn parse_range(text: &str) -> Result<IovaRange, NumberError> {
    let impossible = |error| NumberError::Impossible { text: text.to_owned(), error };
    if let Some((first, size)) = text.split_once('+') {
        let (first, size) = (parse_number(first.trim())?, parse_number(size.trim())?);
        return IovaRange::from_size(Iova(first), size).map_err(impossible);
    }
    let not_a_range = || NumberError::NotARange { text: text.to_owned() };
    let ends = text.split_once("..").or_else(|| text.split_once('-'));
    let (first, last) = ends.ok_or_else(not_a_range)?;
    let (first, last) = (parse_number(first.trim())?, parse_number(last.trim())?);
    let backwards = || NumberError::Backwards { text: text.to_owned() };
    IovaRange::new(Iova(first), Iova(last)).ok_or_else(backwards)
}

/// A number in a host file: an integer, or a text such as `"0x1000"` or `"64K"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 4096, \"0x1000\" or \"4K\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                let value = u64::try_from(value);
                value.map(Number).map_err(|_| E::custom("a number must not be negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                parse_number(text).map(Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// A register or an ID: hexadecimal with or without `0x`, as sysfs, `lspci` and boot logs print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) value: u64,
    /// How many digits were written.
    pub(crate) digits: usize,
}

impl Register {
    /// How many digits a class has, or more for what is none.
    fn of_class(value: u64) -> usize {
        if value < 1 << 24 { 6 } else { 16 }
    }
}

impl FromStr for Register {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let value = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = value.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let value =
            value.ok_or_else(|| format!("\"{text}\" is not hexadecimal, such as 0x8086"))?;
        Ok(Self { value, digits: digits.len() })
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected hexadecimal, such as \"0x8086\"")]
        enum Written {
            Integer(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            // TOML has hexadecimal integers too; it does not tell how they were written.
            Written::Integer(value) => Ok(Self { value, digits: Self::of_class(value) }),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// A value in a host file that is written as text and has a [`FromStr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_both_bases_and_suffixes() {
        assert_eq!(parse_number("0"), Ok(0));
        assert_eq!(parse_number("4096"), Ok(4096));
        assert_eq!(parse_number("0xfee00000"), Ok(0xfee0_0000));
        assert_eq!(parse_number("4K"), Ok(4096));
        assert_eq!(parse_number("0x10M"), Ok(16 << 20));
        assert_eq!(parse_number("1t"), Ok(1 << 40));
        assert_eq!(parse_number("8P"), Ok(8 << 50));
        assert_eq!(parse_number("0xffffffffffffffff"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "K", "0x", "-1", "+1", "1.5G", "12Q", "0xg", "1 K", "1KK", "٣"] {
            assert!(matches!(parse_number(text), Err(NumberError::NotANumber { .. })), "{text}");
        }
        for text in ["40000000", "0100000000"] {
            let error = parse_number(text).unwrap_err().to_string();
            assert!(error.contains(&format!("write 0x{text} if you mean that")), "{error}");
        }
        assert_eq!(parse_number("40960000"), Ok(40_960_000));
        for text in ["0x10000000000000000", "16384P", "18446744073709551616"] {
            assert!(matches!(parse_number(text), Err(NumberError::TooLarge { .. })), "{text}");
        }
    }

    #[test]
    fn ranges_take_both_forms() {
        let range = |first, last| IovaRange::new(Iova(first), Iova(last)).unwrap();
        assert_eq!(parse_range("0x1000-0x1fff"), Ok(range(0x1000, 0x1fff)));
        assert_eq!(parse_range("0x1000..0x1fff"), Ok(range(0x1000, 0x1fff)));
        assert_eq!(parse_range("0x1000+4K"), Ok(range(0x1000, 0x1fff)));
        assert_eq!(parse_range("0-0xffffffffffffffff"), Ok(IovaRange::full()));
        assert_eq!(parse_range("0xffffffffffffffff+1"), Ok(range(u64::MAX, u64::MAX)));
    }

    #[test]
    fn impossible_ranges_say_why() {
        let message = |text| parse_range(text).unwrap_err().to_string();
        assert!(message("5-4").contains("ends below its start"));
        assert!(message("5+0").contains("its size is 0"));
        assert!(message("0xffffffffffffffff+2").contains("past the end"));
        assert!(message("5").contains("FIRST-LAST"));
        assert!(message("5-").contains("not a number"));
    }
}
