// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the reports of `show` and `check` have in common.

use serde::Serialize;
use vfio_type1::{Errno, IovaRange};

use crate::style::Style;

/// A refusal, by a kernel or before one is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The errno's name; none if no kernel was asked.
    pub errno: Option<String>,
    /// Why, and what to do.
    pub why: String,
}

impl Refusal {
    /// A kernel's refusal.
    pub fn new(errno: Errno, error: &dyn std::error::Error) -> Self {
        Self { errno: Some(errno.to_string()), why: error.to_string() }
    }

    /// The line of a report for groups that cannot be assigned.
    pub(crate) fn not_assigned(&self) -> String {
        let paint = Style.warning();
        format!("  {paint}cannot be assigned: {}{paint:#}\n", self.text())
    }

    /// `EINVAL: why`.
    pub(crate) fn text(&self) -> String {
        match &self.errno {
            Some(errno) => format!("{errno}: {}", self.why),
            None => self.why.clone(),
        }
    }
}

/// A range of addresses. They are hexadecimal text, because many readers of JSON lose the low bits
/// of large numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first address.
    pub first: String,
    /// The last address, inclusive.
    pub last: String,
}

impl From<IovaRange> for Range {
    fn from(range: IovaRange) -> Self {
        Self { first: range.first().to_string(), last: range.last().to_string() }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}
