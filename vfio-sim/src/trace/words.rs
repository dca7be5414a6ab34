// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The words of a recording's line, read one after the other.

use super::Answer;

/// The most bytes that one poke or peek may touch.
const MAX_LENGTH: u64 = 1 << 24;

/// The value of a hexadecimal digit.
pub(super) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The words of a line that are still to be read.
pub(super) struct Words<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace())
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> Result<(), String> {
        match self.word(keyword)? {
            word if word == keyword => Ok(()),
            word => Err(format!("expected \"{keyword}\", found \"{word}\"")),
        }
    }

    /// A hexadecimal number. `memlock` writes its number with `0x`.
    pub(super) fn hex(&mut self) -> Result<u64, String> {
        let word = self.word("a number")?;
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let valid = !digits.is_empty() && digits.bytes().all(|byte| digit(byte).is_some());
        let number = if valid { u64::from_str_radix(digits, 16).ok() } else { None };
        number.ok_or_else(|| format!("\"{word}\" is not a hexadecimal number of 64 bits"))
    }

    pub(super) fn command(&mut self) -> Result<u32, String> {
        let command = self.hex()?;
        u32::try_from(command).map_err(|_| format!("command {command:#x} has more than 32 bits"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        let byte = self.hex()?;
        u8::try_from(byte).map_err(|_| format!("{byte:#x} is not a byte"))
    }

    pub(super) fn length(&mut self) -> Result<usize, String> {
        let length = self.hex()?;
        let fits = usize::try_from(length).ok().filter(|_| length <= MAX_LENGTH);
        fits.ok_or_else(|| format!("{length:#x} bytes are more than the {MAX_LENGTH:#x} supported"))
    }

    pub(super) fn flag(&mut self, keyword: &str) -> Result<bool, String> {
        self.keyword(keyword)?;
        match self.word("0 or 1")? {
            "0" => Ok(false),
            "1" => Ok(true),
            word => Err(format!("{keyword} is 0 or 1, not \"{word}\"")),
        }
    }

    /// A decimal value, and an errno unless the call has none.
    pub(super) fn answer(&mut self) -> Result<Answer, String> {
        let word = self.word("the return value")?;
        let value = word.parse().map_err(|_| format!("\"{word}\" is not a return value"))?;
        let errno = match self.0.next() {
            None => 0,
            Some(word) => word.parse().map_err(|_| format!("\"{word}\" is not an errno"))?,
        };
        Ok(Answer { value, errno })
    }

    pub(super) fn end(&mut self) -> Result<(), String> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(format!("unexpected \"{word}\"")),
        }
    }
}

pub(super) fn plain_answer(answer: &str) -> Result<Answer, String> {
    let mut words = Words(answer.split_ascii_whitespace());
    let answer = words.answer()?;
    words.end()?;
    Ok(answer)
}
