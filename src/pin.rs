// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pinning a mapping's pages and counting them against the locked-memory limit
//! (`vfio_pin_pages_remote` in `vfio_iommu_type1.c`; spec 5.2, 5.3).

use crate::errno::Errno;
use crate::memory::{Access, PinFault};
use crate::page_size::PageSize;
use crate::process::{OverMemlock, Process};
use crate::range::VaddrRange;

/// Why pages could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// A page is not there, or lacks a permission. EFAULT, or what the memory says.
    #[error("{0}")]
    Fault(PinFault),
    /// The locked-memory limit would be passed. ENOMEM.
    #[error("{0}")]
    OverMemlock(OverMemlock),
    /// The process has exited. ENODEV.
    #[error("the process that owns the memory has exited")]
    NoProcess,
}

impl PinError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Fault(fault) => fault.errno,
            Self::OverMemlock(_) => Errno::ENOMEM,
            Self::NoProcess => Errno::ENODEV,
        }
    }
}

/// How pages are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    /// The limit is not looked at.
    pub(crate) exempt: bool,
    /// Pages of the range that are charged already.
    pub(crate) already: u64,
    /// The page the account counts in.
    pub(crate) page: PageSize,
}

/// Why pages could not be pinned and entered into a domain.
#[derive(Debug)]
pub(crate) enum EnterError {
    Pin(PinError),
    /// The IOMMU driver's errno.
    Iommu(Errno),
}

/// Pins all of `pages` and returns how many to charge. After each run of pages that are pinned
/// together, `enter` gets the run to put it into the IOMMU's page tables. So the first thing that
/// is wrong in the order of addresses decides: a bad page, the limit, or the IOMMU.
pub(crate) fn pin_range(
    process: &Process,
    pages: VaddrRange,
    access: Access,
    charge: Charge,
    enter: impl Fn(VaddrRange) -> Result<(), Errno>,
) -> Result<u64, EnterError> {
    if !process.is_alive() {
        return Err(EnterError::Pin(PinError::NoProcess));
    }
    let pin_error = |error| EnterError::Pin(PinError::Fault(error));
    let mut charged = 0;
    let mut rest = Some(pages);
    while let Some(pages) = rest {
        let run = process.memory().pin(pages, access).map_err(pin_error)?;
        let last = run.last.clamp(pages.first(), pages.last());
        let pinned = VaddrRange::new(pages.first(), last).unwrap_or(pages);
        if run.charged {
            charged += pinned.pages(charge.page);
            let new = charged.saturating_sub(charge.already);
            process
                .check_charge(new, charge.exempt, charge.page)
                .map_err(|error| EnterError::Pin(PinError::OverMemlock(error)))?;
        }
        enter(pinned).map_err(EnterError::Iommu)?;
        rest = pages.above(last);
    }
    Ok(charged.saturating_sub(charge.already))
}

/// Pins pages that no domain needs to know of.
pub(crate) fn pin_only(
    process: &Process,
    pages: VaddrRange,
    access: Access,
    charge: Charge,
) -> Result<u64, PinError> {
    pin_range(process, pages, access, charge, |_| Ok(())).map_err(|error| match error {
        EnterError::Pin(error) => error,
        EnterError::Iommu(errno) => PinError::Fault(PinFault { at: pages.first(), errno }),
    })
}
