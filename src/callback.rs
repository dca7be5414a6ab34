// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmap callbacks: what drivers of emulated devices are called with before their pages go
//! (`dma_unmap` of `struct vfio_device_ops`; spec 7.6).

use std::sync::Arc;

use crate::range::IovaRange;
use crate::state::Core;

/// What an emulated device is called with before its pages are unmapped: the whole mapping.
pub(crate) type UnmapCallback = Arc<dyn Fn(&Unpinner<'_>, IovaRange) + Send + Sync>;

/// The callbacks of a container's open devices, each by a number that is never 0.
#[derive(Default)]
pub(crate) struct Callbacks {
    registered: Vec<(u64, UnmapCallback)>,
    made: u64,
}

impl Callbacks {
    pub(crate) fn add(&mut self, callback: UnmapCallback) -> u64 {
        self.made += 1;
        self.registered.push((self.made, callback));
        self.made
    }

    /// Takes a callback out. What it owns may reach its container when it is dropped, so the caller
    /// drops it without a lock.
    #[must_use]
    pub(crate) fn take(&mut self, number: u64) -> Option<UnmapCallback> {
        let at = self.registered.iter().position(|(known, _)| *known == number)?;
        Some(self.registered.remove(at).1)
    }

    pub(crate) fn all(&self) -> Vec<UnmapCallback> {
        self.registered.iter().map(|(_, callback)| Arc::clone(callback)).collect()
    }
}

/// What an unmap callback lets go of pages with.
#[derive(Debug)]
pub struct Unpinner<'a> {
    container: &'a Core,
}

impl<'a> Unpinner<'a> {
    pub(crate) fn new(container: &'a Core) -> Self {
        Self { container }
    }

    /// Lets go of every page that emulated devices of the container have pinned in `iova`, once
    /// each (`vfio_unpin_pages`). A page that was pinned more often stays pinned.
    pub fn unpin(&self, iova: IovaRange) {
        // Without a driver there are no mappings and so no pins.
        let _ = self.container.with_type1(|type1| type1.unpin_range(&iova));
    }
}
