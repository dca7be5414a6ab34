// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sections 5.2 and 5.3: pinning, and what may be locked.

use vfio_type1::Errno;

use super::Process;
use super::refusal::{Answer, refuse_with};
use super::span::Span;
use super::type1::Mapping;

/// Pins all pages of `mapping` in the memory of `caller`, and says how many are to be charged:
/// those that emulated devices have not pinned through the same mapping.
///
/// Pages that lie in one area are pinned, charged, and then entered into the IOMMUs (`enter`)
/// together, since mappings may have 2^31 of them.
pub(super) fn pin(
    caller: &Process,
    mapping: &Mapping,
    enter: impl Fn(Span) -> Answer<()>,
) -> Answer<u64> {
    let mut charge = 0;
    let mut offset = 0;
    while offset < mapping.iova.size() {
        let here = mapping.vaddr + offset;
        let Some(area) = caller.memory.area(here, mapping.access.writes()) else {
            return refuse_with("Pin/Fault", Errno::EFAULT, [here]);
        };
        let in_area = (area.last - here).saturating_add(1);
        let bytes = in_area.min(mapping.iova.size() - offset);
        let first = mapping.iova.first + offset;
        let run = Span { first, last: first + (bytes - 1) };
        let pinned = mapping.pins.range(run.first..=run.last).map(|_| 1).sum::<u64>();
        charge += bytes / 4096 - pinned;
        check_limit(caller, mapping.exempt, charge).map_err(|error| error.inside("Pin"))?;
        enter(run)?;
        offset += bytes;
    }
    Ok(charge)
}

/// 5.3: `locked_vm + new > limit` is refused, unless the mapping is exempt. No page more is always
/// allowed.
pub(super) fn check_limit(process: &Process, exempt: bool, new: u64) -> Answer<()> {
    let limit = process.memlock / 4096;
    if !exempt && new > 0 && process.locked + new > limit {
        return refuse_with("OverMemlock", Errno::ENOMEM, [limit]);
    }
    Ok(())
}
