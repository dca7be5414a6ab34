// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host tried with other settings than its own: a smaller table of mappings, odd page sizes, injected
//! failures. The host itself stays as it is described.

use std::fmt;
use std::str::FromStr;

use vfio_type1::{FaultPlan, FaultPlanError, PageSizes};

use crate::number::{NumberError, parse_number};

/// Settings for [`Host::boot_with`](crate::host::Host::boot_with). The default changes nothing.
///
/// As text it is a list of items with commas between them: `entries:100` for the limit of mappings,
/// `pages:0x200000` for the page sizes of each IOMMU (bit n: pages of 2^n bytes), and the items of a
/// [`FaultPlan`].
///
/// ```
/// use vfio_sim::knobs::Knobs;
/// use vfio_type1::PageSizes;
///
/// let knobs: Knobs = "entries:100,pages:2M,map:3".parse()?;
/// assert_eq!((knobs.entries, knobs.pages), (Some(100), Some(PageSizes(0x20_0000))));
/// assert_eq!(knobs.to_string(), "entries:100,pages:0x200000,map:3");
/// # Ok::<(), vfio_sim::knobs::KnobsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// The module parameter `dma_entry_limit`.
    pub entries: Option<u32>,
    /// The page sizes of every IOMMU.
    pub pages: Option<PageSizes>,
    /// What shall fail.
    pub plan: FaultPlan,
}

/// Why settings cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnobsError {
    /// An item is none of those above.
    #[error(
        "\"{item}\" is no setting; write entries:N, pages:BITMAP, map:N, pin:N, allocation:N, with \
         =ERRNO behind map and pin if you like, or seed:SEED/ONE-IN, with @POINT+POINT behind it"
    )]
    UnknownItem {
        /// The item.
        item: String,
    },
    /// An item stands there twice.
    #[error("{item} is given twice; give it once")]
    Twice {
        /// Its name.
        item: &'static str,
    },
    /// A number is none.
    #[error("{item}: {error}")]
    Number {
        /// The item.
        item: &'static str,
        /// What is wrong with the number.
        error: NumberError,
    },
    /// The limit does not fit in 32 bits.
    #[error("entries is {given}; the parameter goes up to {}", u32::MAX)]
    TooManyEntries {
        /// The limit given.
        given: u64,
    },
    /// An IOMMU maps pages of some size.
    #[error("pages is 0; set bit n for pages of 2^n bytes")]
    NoPages,
    /// The plan of failures cannot be.
    #[error(transparent)]
    Plan(FaultPlanError),
}

impl Knobs {
    /// Whether the host keeps its own settings and nothing fails.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn set_entries(&mut self, text: &str) -> Result<(), KnobsError> {
        let item = "entries";
        let given = parse_number(text).map_err(|error| KnobsError::Number { item, error })?;
        let limit = u32::try_from(given).map_err(|_| KnobsError::TooManyEntries { given })?;
        once(item, self.entries.replace(limit))
    }

    fn set_pages(&mut self, text: &str) -> Result<(), KnobsError> {
        let item = "pages";
        let given = parse_number(text).map_err(|error| KnobsError::Number { item, error })?;
        if given == 0 {
            return Err(KnobsError::NoPages);
        }
        once(item, self.pages.replace(PageSizes(given)))
    }
}

fn once<T>(item: &'static str, earlier: Option<T>) -> Result<(), KnobsError> {
    earlier.map_or(Ok(()), |_| Err(KnobsError::Twice { item }))
}

impl FromStr for Knobs {
    type Err = KnobsError;

    fn from_str(text: &str) -> Result<Self, KnobsError> {
        let (mut knobs, mut plan) = (Self::default(), Vec::new());
        for item in text.split(',').map(str::trim) {
            match item.split_once(':') {
                Some(("entries", number)) => knobs.set_entries(number)?,
                Some(("pages", number)) => knobs.set_pages(number)?,
                Some(_) => plan.push(item),
                None => return Err(KnobsError::UnknownItem { item: item.to_owned() }),
            }
        }
        knobs.plan = plan.join(",").parse().map_err(|error| match error {
            FaultPlanError::UnknownItem { item } => KnobsError::UnknownItem { item },
            error => KnobsError::Plan(error),
        })?;
        Ok(knobs)
    }
}

impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.map(|entries| format!("entries:{entries}"));
        let pages = self.pages.map(|pages| format!("pages:{:#x}", pages.0));
        let plan = (!self.plan.is_empty()).then(|| self.plan.to_string());
        let items: Vec<String> = [entries, pages, plan].into_iter().flatten().collect();
        f.write_str(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::{Assigned, Selection};
    use vfio_type1::{Access, Kernel, MapDma, MapError};

    #[test]
    fn settings_are_printed_as_they_are_read() {
        for text in
            ["entries:100,pages:0x200000,map:3", "entries:0", "pages:0xa000", "seed:1/2@pin"]
        {
            assert_eq!(text.parse::<Knobs>().unwrap().to_string(), text);
        }
        let mixed: Knobs = "map:3, pages:2M ,pin:1,entries:1K".parse().unwrap();
        assert_eq!(mixed.to_string(), "entries:1024,pages:0x200000,map:3,pin:1");
        assert!(!mixed.is_default() && Knobs::default().is_default());
    }

    #[test]
    fn odd_page_sizes_decide_what_is_aligned() {
        let host = crate::hosts::find("vtd48").unwrap();
        let vfio = host.boot_with(Kernel::NEWEST, &"pages:0xa000".parse().unwrap()).unwrap();
        let selection = Selection::of_devices(&host, &["0000:00:03.0".to_owned()]).unwrap();
        let Assigned { container, process, .. } = &selection.assign(&vfio).unwrap();
        assert_eq!(container.info().unwrap().page_sizes, PageSizes(0xa000));
        let map = |iova: u64, size| {
            container.map(process, &MapDma::new(iova, 0, size, Access::ReadWrite))
        };
        map(0x2000, 0x6000).unwrap();
        assert!(matches!(map(0x9000, 0x2000), Err(MapError::Misaligned { .. })));
        assert!(matches!(map(0xa000, 0x1000), Err(MapError::Misaligned { .. })));
    }

    #[test]
    fn bad_settings_say_what_is_allowed() {
        for (text, expected) in [
            ("", "\"\" is no setting; write entries:N, pages:BITMAP, map:N"),
            ("map:3,", "\"\" is no setting"),
            ("entry:3", "\"entry:3\" is no setting; write entries:N"),
            ("entries", "\"entries\" is no setting"),
            ("entries:many", "entries: \"many\" is not a number"),
            ("entries:4G", "entries is 4294967296; the parameter goes up to 4294967295"),
            ("entries:1,entries:1", "entries is given twice; give it once"),
            ("pages:0", "pages is 0; set bit n"),
            ("pages:4K,pages:2M", "pages is given twice"),
            ("map:0", "the number of the passage is 0; count from 1"),
            ("map:1=EFOO", "unknown errno \"EFOO\""),
        ] {
            let problem = text.parse::<Knobs>().unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }
}
