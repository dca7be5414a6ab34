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
use vfio_type1::{Iova, IovaRange, RangeError};

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
    value.checked_mul(1 << shift).ok_or_else(too_large)
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
