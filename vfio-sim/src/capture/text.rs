// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A captured machine as a host file, with a head that says what to believe.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{CaptureError, Captured};
use crate::host_file::{parse, write};

impl Captured {
    /// The host file. It has been read back: it parses and says what was captured.
    pub fn text(&self, now: SystemTime) -> Result<String, CaptureError> {
        let text = self.head(now) + &write(&self.host);
        let read =
            parse(&self.host.name, "captured.toml", &text).map_err(CaptureError::NotParsed)?;
        if read != self.host {
            return Err(CaptureError::NotTheSame);
        }
        Ok(text)
    }

    fn head(&self, now: SystemTime) -> String {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (year, month, day) = date(seconds / 86400);
        let from = if self.live { "the machine it ran on" } else { "a copied tree" };
        let mut head = format!(
            "# Written by vfio-sim capture on {year}-{month:02}-{day:02}, from {from}, Linux {}.\n",
            printable(&self.release)
        );
        if !self.notes.is_empty() {
            head.push_str("# What could not be read or had to be assumed:\n");
        }
        head.extend(self.notes.iter().map(|note| format!("# - {}\n", printable(note))));
        head.push('\n');
        head
    }
}

/// A comment may have no control characters.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect()
}

/// Year, month and day of a day, counted from 1970-01-01, in the Gregorian calendar.
fn date(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    // As many turns as years have passed; the clock cannot say more than some hundred billion.
    while year < 10_000 && day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for days in months {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month.min(12), day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(58), (1970, 2, 28));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(20_454), (2026, 1, 1));
        assert_eq!(date(u64::MAX).0, 10_000);
    }

    #[test]
    fn a_note_stays_in_its_comment() {
        assert_eq!(printable("a\nb\u{7f}"), "a\\nb\\u{7f}");
    }
}
