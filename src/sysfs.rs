// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The text of `/sys/kernel/iommu_groups/<n>/reserved_regions`.
//!
//! Linux prints a line per region of a group's merged list: `0x%016x 0x%016x %s`, the first
//! address, the last one (inclusive), the kind (`iommu_group_show_resv_regions` in
//! `drivers/iommu/iommu.c`; spec 4.3). Both MSI kinds print `msi`, so the text does not tell a
//! hardware window from a software one; type1 treats them alike.

use std::fmt::Write as _;

use crate::addr::Iova;
use crate::reserved::{RegionKind, RegionList, ReservedRegion};

/// The most bytes a kernel with [`crate::Behaviours::sysfs_one_page`] prints; the rest is cut off.
const SYSFS_LIMIT: usize = 4095;

/// The word sysfs prints for `kind`.
pub fn kind_name(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Direct => "direct",
        RegionKind::DirectRelaxable => "direct-relaxable",
        RegionKind::Reserved => "reserved",
        RegionKind::Msi | RegionKind::SoftwareMsi => "msi",
    }
}

/// The text for `list`, with its newlines; cut to one page less a byte when `one_page`.
pub fn render(list: &RegionList, one_page: bool) -> String {
    let mut text = String::new();
    for region in list {
        let (first, last) = (region.first.0, region.last.0);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{first:#018x} {last:#018x} {}", kind_name(region.kind));
    }
    if one_page {
        text.truncate(SYSFS_LIMIT);
    }
    text
}

/// What is wrong with a `reserved_regions` text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct SysfsError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

/// Parses the text of a `reserved_regions` file, exactly as the kernel prints it: two numbers of
/// sixteen lower-case hexadecimal digits, one space between fields, a newline after each line.
///
/// `msi` is read as [`RegionKind::Msi`]. A last line without its newline is an error, since sysfs
/// cuts the text of long lists and a cut line would give a wrong region.
pub fn parse(text: &str) -> Result<Vec<ReservedRegion>, SysfsError> {
    text.split_inclusive('\n')
        .enumerate()
        .map(|(index, line)| parse_line(line, index + 1))
        .collect()
}

/// Parses one line, which must end with a newline; `number` is its number for errors.
fn parse_line(line: &str, number: usize) -> Result<ReservedRegion, SysfsError> {
    let mut cursor = Cursor { rest: line, line: number, column: 1 };
    let first = cursor.address()?;
    cursor.literal(" ", "one space")?;
    let last = cursor.address()?;
    cursor.literal(" ", "one space")?;
    let kind = cursor.kind()?;
    cursor.literal("\n", "the end of the line")?;
    Ok(ReservedRegion { first, last, kind })
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, expected: &'static str) -> SysfsError {
        let found = match self.rest.split_whitespace().next() {
            _ if self.rest.is_empty() => "the end of the text".to_owned(),
            _ if self.rest.starts_with('\n') => "the end of the line".to_owned(),
            _ if self.rest.starts_with(' ') => "a space".to_owned(),
            Some(word) => format!("\"{}\"", word.escape_debug()),
            None => format!("\"{}\"", self.rest.escape_debug()),
        };
        SysfsError { line: self.line, column: self.column, expected, found }
    }

    fn literal(&mut self, text: &str, expected: &'static str) -> Result<(), SysfsError> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.error(expected))?;
        self.column += text.chars().count();
        Ok(())
    }

    fn address(&mut self) -> Result<Iova, SysfsError> {
        const EXPECTED: &str = "an address such as 0x00000000fee00000";
        let wrong = self.error(EXPECTED);
        let digits = self.rest.strip_prefix("0x").and_then(|digits| digits.get(..16));
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = digits.filter(|digits| digits.bytes().all(is_digit)).ok_or(wrong.clone())?;
        let value = u64::from_str_radix(digits, 16).map_err(|_| wrong)?;
        self.rest = &self.rest[2 + digits.len()..];
        self.column += 2 + digits.len();
        Ok(Iova(value))
    }

    fn kind(&mut self) -> Result<RegionKind, SysfsError> {
        const EXPECTED: &str = "direct, direct-relaxable, reserved or msi";
        let word = self.rest.split(char::is_whitespace).next().unwrap_or_default();
        let kind = RegionKind::ALL.into_iter().find(|&kind| kind_name(kind) == word);
        let kind = kind.ok_or_else(|| self.error(EXPECTED))?;
        self.rest = &self.rest[word.len()..];
        self.column += word.len();
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserved::MergeRule;

    const AMD: &str = "0x00000000fee00000 0x00000000feefffff msi\n\
                       0x000000fd00000000 0x000000ffffffffff reserved\n";

    fn list(text: &str) -> RegionList {
        RegionList::merged(parse(text).unwrap(), MergeRule::SortedByStart)
    }

    #[test]
    fn text_survives_a_round_trip() {
        assert_eq!(render(&list(AMD), true), AMD);
        assert_eq!(render(&list(""), true), "");
    }

    #[test]
    fn a_zero_length_region_prints_its_last_below_its_first() {
        let text = "0x00000000b0200000 0x00000000b01fffff direct\n";
        assert_eq!(render(&list(text), true), text);
    }

    #[test]
    fn errors_name_line_column_and_expectation() {
        let at = |text: &str| {
            let error = parse(text).unwrap_err();
            (error.line, error.column, error.to_string())
        };
        let (line, column, message) = at("0x00000000fee00000 0x00000000feefffff misc\n");
        assert_eq!((line, column), (1, 39));
        assert!(message.contains("found \"misc\""), "{message}");
        assert_eq!(at("0x00000000fee00000  0x00000000feefffff msi\n").1, 20);
        assert_eq!(at(&format!("{AMD}fee00000 feefffff msi\n")).0, 3);
        assert_eq!(at("0x00000000FEE00000 0x00000000feefffff msi\n").1, 1);
        assert_eq!(at("0x00000000fee00000 0x00000000feefffff msi").1, 42);
        assert!(at("\t").2.ends_with("found \"\\t\""), "{}", at("\t").2);
        assert_eq!(
            at("\n").2,
            "line 1, column 1: expected an address such as \
                                0x00000000fee00000, found the end of the line"
        );
    }

    #[test]
    fn a_long_list_is_cut_to_one_page() {
        let regions = (0..200).map(|n| ReservedRegion::new(n * 16, n * 16 + 1, RegionKind::Msi));
        let list = RegionList::merged(regions, MergeRule::SortedByStart);
        assert_eq!(render(&list, true).len(), 4095);
        assert_eq!(render(&list, false).len(), 200 * 42);
    }
}
