// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pinning the pages of a mapping, and counting them (`iopt_area_fill_domains` in
//! `drivers/iommu/iommufd/pages.c`; spec 9).
//!
//! Where type1 pins, counts and enters page by page, iommufd pins first, then asks the IOMMU drivers and
//! counts last: a bad page decides before the others do. (The kernel does so for some thousand pages at a
//! time.) With CAP_IPC_LOCK it counts nothing. Memory of other devices cannot be pinned.

use crate::errno::Errno;
use crate::inject::Injector;
use crate::memory::{Access, PinFault};
use crate::pin::PinError;
use crate::process::Process;
use crate::range::VaddrRange;

/// Pins all of `pages`. Then `enter` gets each run of pages that were pinned together, to put it into the
/// domains.
pub(super) fn pin<E: From<PinError>>(
    process: &Process,
    pages: VaddrRange,
    access: Access,
    injector: &Injector,
    enter: impl Fn(VaddrRange) -> Result<(), E>,
) -> Result<(), E> {
    if !process.is_alive() {
        return Err(PinError::NoProcess.into());
    }
    let (mut rest, mut runs) = (Some(pages), Vec::new());
    while let Some(pages) = rest {
        let at = pages.first();
        injector.pin(at)?;
        let run = process.memory().pin(pages, access).map_err(PinError::Fault)?;
        if !run.charged {
            return Err(PinError::Fault(PinFault { at, errno: Errno::EFAULT }).into());
        }
        let last = run.last.clamp(at, pages.last());
        runs.push(VaddrRange::new(at, last).unwrap_or(pages));
        rest = pages.above(last);
    }
    runs.into_iter().try_for_each(enter)
}

/// What iommufd answers. It has no answer of its own for a process that has exited.
pub(super) fn errno(error: &PinError) -> Errno {
    match error {
        PinError::NoProcess => Errno::EFAULT,
        error => error.errno(),
    }
}
