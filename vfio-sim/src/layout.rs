// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layouts: what a VMM wants to map and where, and in which order it goes about it.
//!
//! A layout is a few ranges on a command line, or a file (`layout_file`). A file may also state the
//! steps by which a program gets there, since many failures are about order, and which verdict is
//! expected on which host.

use std::fmt;

use vfio_type1::{Access, Iova, IovaRange, Kernel, PageSize};

use crate::host::age;
use crate::number::{NumberError, parse_range};
use crate::verdict::Verdict;

/// What a VMM wants to map.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// A short name.
    pub name: String,
    /// A line about it.
    pub description: String,
    /// Where it is from, such as the address of a bug report.
    pub source: String,
    /// The ranges.
    pub ranges: Vec<WantedRange>,
    /// What the program does, in order.
    pub steps: Vec<Step>,
    /// Whether the layout states its steps. Without, they are [`Layout::plain`]'s.
    pub states_steps: bool,
    /// What is expected. Of the entries that match a host and a kernel the last one holds; where
    /// none does, the layout should fit.
    pub expectations: Vec<Expectation>,
}

/// A range that a VMM wants to map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRange {
    /// Its name: what was given before `=`, or the range as it was written.
    pub name: String,
    /// The addresses, inclusive.
    pub range: IovaRange,
    /// What is behind them.
    pub kind: RangeKind,
    /// Mapped in pieces of so many bytes, the last one shorter; whole if `None`.
    pub piece: Option<u64>,
}

/// What is behind a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Guest memory. It may be moved in parts.
    Ram,
    /// A device's registers or memory, for peers to reach: it stays whole, and one of a power of two
    /// in size starts at a multiple of it.
    Bar,
    /// Memory that devices may only read.
    Rom,
}

impl RangeKind {
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("ram", Self::Ram), ("bar", Self::Bar), ("rom", Self::Rom)];

    /// What devices may do with it.
    pub fn access(self) -> Access {
        match self {
            Self::Ram | Self::Bar => Access::ReadWrite,
            Self::Rom => Access::Read,
        }
    }
}

/// A step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The groups join the container.
    Attach,
    /// `VFIO_SET_IOMMU`.
    SetIommu(Type1),
    /// Maps the range at this place in [`Layout::ranges`].
    Map(usize),
    /// Unmaps a range.
    Unmap {
        /// The addresses, inclusive.
        range: IovaRange,
        /// Asks for the dirty pages.
        with_bitmap: bool,
    },
    /// Starts dirty tracking.
    StartDirty,
    /// Stops dirty tracking.
    StopDirty,
    /// The groups leave the container.
    Detach,
}

/// The two versions of the type1 driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type1 {
    /// UNMAP may cut mappings, and then removes them whole, or nothing.
    V1,
    /// UNMAP must not cut mappings.
    V2,
}

/// What is expected on some hosts under some kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The verdict.
    pub verdict: Verdict,
    /// Names of hosts; one that ends in `*` stands for all that begin so.
    pub hosts: Vec<String>,
    /// The oldest kernel it holds for; `None` for all.
    pub from: Option<Kernel>,
    /// The newest kernel it holds for; `None` for all.
    pub until: Option<Kernel>,
    /// A part of the reason.
    pub why: Option<String>,
}

impl Expectation {
    /// Whether one of [`Self::hosts`] stands for a host.
    pub fn names(pattern: &str, host: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(start) => host.starts_with(start),
            None => host == pattern,
        }
    }

    fn is_about(&self, host: &str, kernel: &Kernel) -> bool {
        self.hosts.iter().any(|pattern| Self::names(pattern, host))
            && self.from.is_none_or(|from| age(&from) <= age(kernel))
            && self.until.is_none_or(|until| age(kernel) <= age(&until))
    }
}

impl Layout {
    /// A layout without steps of its own: the groups join, a v2 driver is set, and the ranges are
    /// mapped in their order.
    pub fn plain(ranges: Vec<WantedRange>) -> Self {
        let mut steps = vec![Step::Attach, Step::SetIommu(Type1::V2)];
        steps.extend((0..ranges.len()).map(Step::Map));
        Self {
            name: String::new(),
            description: String::new(),
            source: String::new(),
            ranges,
            steps,
            states_steps: false,
            expectations: Vec::new(),
        }
    }

    /// What is expected on a host under a kernel; `None` if the layout expects nothing anywhere.
    pub fn expected(&self, host: &str, kernel: &Kernel) -> Option<(Verdict, Option<&str>)> {
        if self.expectations.is_empty() {
            return None;
        }
        let entry = self.expectations.iter().rev().find(|entry| entry.is_about(host, kernel));
        Some(entry.map_or((Verdict::Fits, None), |entry| (entry.verdict, entry.why.as_deref())))
    }

    /// A step as layout files write it.
    pub(crate) fn describe(&self, step: &Step) -> String {
        match step {
            Step::Attach => "attach".to_owned(),
            Step::SetIommu(Type1::V1) => "set-iommu v1".to_owned(),
            Step::SetIommu(Type1::V2) => "set-iommu v2".to_owned(),
            Step::Map(index) => format!("map {}", self.range_name(*index)),
            Step::Unmap { range, with_bitmap } => {
                let named = self.ranges.iter().find(|wanted| wanted.range == *range);
                let name = named.map_or_else(|| range.to_string(), |wanted| wanted.name.clone());
                format!("unmap {name}{}", if *with_bitmap { " with-bitmap" } else { "" })
            }
            Step::StartDirty => "start-dirty-tracking".to_owned(),
            Step::StopDirty => "stop-dirty-tracking".to_owned(),
            Step::Detach => "detach".to_owned(),
        }
    }

    fn range_name(&self, index: usize) -> &str {
        self.ranges.get(index).map_or("", |wanted| wanted.name.as_str())
    }
}

impl fmt::Display for WantedRange {
    /// As a command line takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}-{}", self.name, self.range.first(), self.range.last())
    }
}

/// A layout that cannot even be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A range is no range.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// A range has 2^64 bytes, which no request can state.
    #[error("range \"{text}\" is the whole 64-bit space, which one mapping cannot be; split it")]
    WholeSpace {
        /// What was given.
        text: String,
    },
    /// A range FIRST-LAST ends with the first byte of a page.
    #[error(
        "range \"{text}\" ends one byte into a page, since LAST is included; write {first}+{size:#x}"
    )]
    OneTooMany {
        /// What was given.
        text: String,
        /// Its first address.
        first: Iova,
        /// The size that was probably meant.
        size: u64,
    },
    /// A range has an empty name.
    #[error("\"{text}\" has no name before the =; write NAME=RANGE, or RANGE alone")]
    NoName {
        /// What was given.
        text: String,
    },
    /// Two ranges have one name.
    #[error("two ranges have the name \"{name}\"; give each its own")]
    SameName {
        /// The name.
        name: String,
    },
}

/// Parses ranges, each `[NAME=]FIRST-LAST` or `[NAME=]FIRST+SIZE`. Names that begin with `bar` or
/// `rom` tell the kind; all else is RAM.
pub fn parse_ranges(texts: &[String]) -> Result<Vec<WantedRange>, LayoutError> {
    let mut layout: Vec<WantedRange> = Vec::new();
    for text in texts {
        let (name, range) = text.split_once('=').unwrap_or((text, text));
        if name.is_empty() {
            return Err(LayoutError::NoName { text: text.clone() });
        }
        if text.contains('=') && layout.iter().any(|wanted| wanted.name == name) {
            return Err(LayoutError::SameName { name: name.to_owned() });
        }
        let range = parse_mappable(range)?;
        let lower = name.to_ascii_lowercase();
        let told = RangeKind::NAMES.iter().find(|(start, _)| lower.starts_with(start));
        let kind = told.map_or(RangeKind::Ram, |(_, kind)| *kind);
        layout.push(WantedRange { name: name.to_owned(), range, kind, piece: None });
    }
    Ok(layout)
}

/// Parses a range that one request can state.
pub(crate) fn parse_mappable(text: &str) -> Result<IovaRange, LayoutError> {
    let range = parse_range(text)?;
    let (first, page) = (range.first(), PageSize::P4K);
    match range.size() {
        None => Err(LayoutError::WholeSpace { text: text.to_owned() }),
        Some(size) if !text.contains('+') && size > 1 && page.is_aligned(first.0 | (size - 1)) => {
            Err(LayoutError::OneTooMany { text: text.to_owned(), first, size: size - 1 })
        }
        Some(_) => Ok(range),
    }
}
