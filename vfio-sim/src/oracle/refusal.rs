// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the oracle says no.

use vfio_type1::Errno;

/// What an operation gives: a value, or the rule that was broken.
pub type Answer<T> = Result<T, Refusal>;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule: variants of the emulator's errors, from the outermost to the innermost, with `/`
    /// between them.
    pub rule: String,
    /// What the kernel answers.
    pub errno: Errno,
    /// The numbers that belong to the rule where they are plain, such as the bounds of the mapping
    /// in the way.
    pub numbers: Vec<u64>,
}

impl Refusal {
    /// A rule and its errno.
    pub fn new(rule: impl Into<String>, errno: Errno) -> Self {
        Self { rule: rule.into(), errno, numbers: Vec::new() }
    }

    /// The same rule with its numbers.
    #[must_use]
    pub fn with(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.numbers.extend(numbers);
        self
    }

    /// The same rule inside another one.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        self.rule = format!("{outer}/{}", self.rule);
        self
    }
}

/// A rule that was broken, as a result.
pub(super) fn refuse<T>(rule: &str, errno: Errno) -> Answer<T> {
    Err(Refusal::new(rule, errno))
}

/// A rule that was broken and its numbers, as a result.
pub(super) fn refuse_with<T, const N: usize>(
    rule: &str,
    errno: Errno,
    numbers: [u64; N],
) -> Answer<T> {
    Err(Refusal::new(rule, errno).with(numbers))
}
