// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What comes of a layout on a host, in a word.

use serde::{Deserialize, Serialize};

/// What comes of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every step was done, and every range is mapped at the end, unless a step unmapped it.
    Fits,
    /// The kernel refused a step.
    Refused,
    /// No step was refused, but a range is not mapped at the end, or an UNMAP left behind what it was
    /// asked to remove. Devices go wrong, and no error says so.
    Lost,
    /// No group could be assigned, so nothing was tried.
    NotAssigned,
}

impl Verdict {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::NotAssigned => "no dev",
        }
    }

    /// What several containers come to: the worst of those that could be made.
    pub fn of_all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let rank = |verdict: &Self| match verdict {
            Self::NotAssigned => 0,
            Self::Fits => 1,
            Self::Lost => 2,
            Self::Refused => 3,
        };
        verdicts.into_iter().max_by_key(rank).unwrap_or(Self::NotAssigned)
    }
}
