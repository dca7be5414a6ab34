// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmapping, and those who have to know of it: emulated devices let go of their pages first, and devices
//! that do DMA have ended their accesses when it returns (`iommufd_access_notify_unmap` in
//! `drivers/iommu/iommufd/device.c`).

use super::context::{Context, State};
use super::objects::ObjectId;
use super::unmap::{IoasUnmapError, Unmapped};
use crate::callback::{Pins, UnmapCallback, Unpinner};
use crate::range::IovaRange;
use crate::sync::MutexGuard;

/// How often emulated devices are told again to unpin one mapping.
const MAX_TRIES: u32 = 100;

/// The pinned pages of one address space.
struct PinsOf<'a> {
    context: &'a Context,
    ioas: ObjectId,
}

impl Pins for PinsOf<'_> {
    fn unpin_range(&self, iova: &IovaRange) {
        if let Some(ioas) = self.context.lock().objects.ioas_mut(self.ioas) {
            ioas.unpin_range(iova);
        }
    }
}

impl Context {
    /// Removes the mappings in a range of an address space, and waits until no device accesses them. The
    /// unmap callbacks of the iommufd's emulated devices run without a lock.
    pub(super) fn unmap(
        &self,
        state: MutexGuard<'_, State>,
        ioas: ObjectId,
        range: IovaRange,
    ) -> Result<u64, IoasUnmapError> {
        let mut state = state;
        let mut total: u64 = 0;
        let mut told: Option<(IovaRange, u32)> = None;
        loop {
            let Some(space) = state.objects.ioas_mut(ioas) else { return Ok(total) };
            if told.is_none() {
                space.history.count_call();
            }
            let step = space.unmap(range);
            let changed = space.note_removed();
            let callbacks: Vec<UnmapCallback> = match &step {
                Ok(Unmapped::Notify { .. }) => state.callbacks.all(),
                Ok(Unmapped::Done(_)) | Err(_) => Vec::new(),
            };
            self.settle(state, changed);
            let mapping = match step.map_err(|error| error.after(total))? {
                Unmapped::Done(removed) => return Ok(total.wrapping_add(removed)),
                Unmapped::Notify { mapping, removed } => {
                    total = total.wrapping_add(removed);
                    mapping
                }
            };
            let tries = told.filter(|(last, _)| *last == mapping).map_or(0, |(_, tries)| tries);
            if tries > MAX_TRIES {
                return Err(IoasUnmapError::StillPinned { mapping, unmapped: total });
            }
            told = Some((mapping, tries + 1));
            let unpinner = PinsOf { context: self, ioas };
            callbacks.iter().for_each(|callback| callback(&Unpinner::new(&unpinner), mapping));
            state = self.lock();
        }
    }
}
