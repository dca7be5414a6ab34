// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pinning a mapping's pages and counting them against the locked-memory limit
//! (`vfio_pin_pages_remote` in `vfio_iommu_type1.c`; spec 5.2, 5.3).

use crate::addr::Vaddr;
use crate::errno::Errno;
use crate::inject::{Injector, OutOfMemory};
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
    /// The fault plan wants it. EFAULT, or the plan's errno.
    #[error("the page at {at} cannot be pinned: {errno}, injected as pin:{nth}")]
    Injected {
        /// The page's first address.
        at: Vaddr,
        /// Which call of `Memory::pin` it was since the plan was set, counted from 1.
        nth: u64,
        /// The plan's errno.
        errno: Errno,
    },
}

impl PinError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Fault(fault) => fault.errno,
            Self::OverMemlock(_) => Errno::ENOMEM,
            Self::NoProcess => Errno::ENODEV,
            Self::Injected { errno, .. } => *errno,
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
    NoMemory(OutOfMemory),
}

impl From<PinError> for EnterError {
    fn from(error: PinError) -> Self {
        Self::Pin(error)
    }
}

/// Pins all of `pages` and returns how many to charge. After each run of pages that are pinned
/// together, `enter` gets the run to put it into the IOMMU's page tables. So the first thing that
/// is wrong in the order of addresses decides: a bad page, the limit, or the IOMMU.
pub(crate) fn pin_range<E: From<PinError>>(
    process: &Process,
    pages: VaddrRange,
    access: Access,
    charge: Charge,
    injector: &Injector,
    enter: impl Fn(VaddrRange) -> Result<(), E>,
) -> Result<u64, E> {
    if !process.is_alive() {
        return Err(PinError::NoProcess.into());
    }
    let (mut charged, all) = (0, pages.pages(charge.page));
    let mut rest = Some(pages);
    while let Some(pages) = rest {
        injector.pin(pages.first())?;
        let run = process.memory().pin(pages, access).map_err(PinError::Fault)?;
        let last = run.last.clamp(pages.first(), pages.last());
        let pinned = VaddrRange::new(pages.first(), last).unwrap_or(pages);
        if run.charged {
            charged += pinned.pages(charge.page);
            let new = charged.saturating_sub(charge.already);
            // It fails at the first run that is too many; what was asked for is all of them.
            process.check_charge(new, charge.exempt, charge.page).map_err(|over| {
                let wanted = all.saturating_sub(charge.already);
                PinError::OverMemlock(OverMemlock { wanted, ..over })
            })?;
        }
        enter(pinned)?;
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
    injector: &Injector,
) -> Result<u64, PinError> {
    pin_range(process, pages, access, charge, injector, |_| Ok(()))
}
