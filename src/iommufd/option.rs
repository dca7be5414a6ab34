// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `IOMMU_OPTION`: how pinned pages are counted, and whether an address space uses large pages
//! (`iommufd_option` in `drivers/iommu/iommufd/main.c`).

use super::Iommufd;
use super::large_pages::LargePagesError;
use super::native::NoSuchIoas;
use crate::errno::Errno;
use crate::process::Account;

/// An option, and what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IommuOption {
    /// Whether pinned pages count at the process, as type1's do (1), or at its user (0), as at first
    /// (`IOMMU_OPTION_RLIMIT_MODE`).
    RlimitMode,
    /// Whether the address space with this number uses large pages (`IOMMU_OPTION_HUGE_PAGES`): 1, as at
    /// first, or 0.
    HugePages(u32),
}

/// Why an option cannot be read or set: one variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such address space. ENOENT.
    #[error(transparent)]
    NoSuchIoas(#[from] NoSuchIoas),
    /// The iommufd has objects already; how they count cannot change. EBUSY.
    #[error("the iommufd has objects already; set the mode first of all")]
    InUse,
    /// The option takes 0 and 1. EINVAL.
    #[error("the option is 0 or 1, not {value}")]
    BadValue {
        /// The value given.
        value: u64,
    },
    /// The address space cannot do without large pages any more.
    #[error(transparent)]
    LargePages(#[from] LargePagesError),
}

impl OptionError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchIoas(error) => error.errno(),
            Self::InUse => Errno::EBUSY,
            Self::BadValue { .. } => Errno::EINVAL,
            Self::LargePages(error) => error.errno(),
        }
    }
}

impl Iommufd {
    /// `IOMMU_OPTION` with GET.
    pub fn option(&self, option: IommuOption) -> Result<u64, OptionError> {
        let mut state = self.context.lock();
        Ok(match option {
            IommuOption::RlimitMode => u64::from(state.account == Account::Process),
            IommuOption::HugePages(id) => u64::from(state.ioas(id)?.large_pages),
        })
    }

    /// `IOMMU_OPTION` with SET.
    pub fn set_option(&self, option: IommuOption, value: u64) -> Result<(), OptionError> {
        let mut state = self.context.lock();
        let bad_value = OptionError::BadValue { value };
        match option {
            IommuOption::RlimitMode if !state.objects.is_empty() => Err(OptionError::InUse),
            IommuOption::RlimitMode => {
                state.account = match value {
                    0 => Account::User,
                    1 => Account::Process,
                    _ => return Err(bad_value),
                };
                Ok(())
            }
            IommuOption::HugePages(id) => {
                let ioas = state.ioas(id)?;
                match value {
                    0 | 1 => Ok(ioas.set_large_pages(value == 1)?),
                    _ => Err(bad_value),
                }
            }
        }
    }
}
