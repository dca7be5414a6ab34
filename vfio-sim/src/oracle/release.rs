// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel releases as numbers, so that "from 6.18" reads as `from(6, 18)`.
//!
//! The oracle does not ask `Behaviours`: which release does what is read once more from the
//! document.

use vfio_type1::Kernel;

/// A release such as 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Release {
    number: (u32, u32),
    /// The series of 2018 on top of 4.18 (section 8).
    series_2018: bool,
}

impl Release {
    pub(super) fn of(kernel: &Kernel) -> Self {
        if kernel.name() == "2018-v6" {
            return Self { number: (4, 18), series_2018: true };
        }
        let numbers = kernel.name().split_once('.');
        let parsed =
            numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        Self { number: parsed.unwrap_or((u32::MAX, 0)), series_2018: false }
    }

    /// "≥ major.minor". 6.1 stands for 6.1.192, which has the vaddr rework of 6.3.
    pub(super) fn from(self, major: u32, minor: u32) -> bool {
        self.number >= (major, minor)
    }

    /// "≤ major.minor".
    pub(super) fn up_to(self, major: u32, minor: u32) -> bool {
        self.number <= (major, minor)
    }

    /// Section 8: the valid list came with 5.4, and with the series that was never released.
    pub(super) fn has_list(self) -> bool {
        self.series_2018 || self.from(5, 4)
    }
}
