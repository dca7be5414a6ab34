// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmap callbacks: what drivers of emulated devices are called with before their pages go
//! (`dma_unmap` of `struct vfio_device_ops`; spec 7.6).

use std::fmt;
use std::sync::Arc;

use crate::range::IovaRange;

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

/// What has pages that emulated devices have pinned: a container, or an address space of an iommufd.
pub(crate) trait Pins {
    /// Lets go once of each page that is pinned in `iova`.
    fn unpin_range(&self, iova: &IovaRange);
}

/// What an unmap callback lets go of pages with.
pub struct Unpinner<'a> {
    pins: &'a dyn Pins,
}

impl<'a> Unpinner<'a> {
    pub(crate) fn new(pins: &'a dyn Pins) -> Self {
        Self { pins }
    }

    /// Lets go of every page that emulated devices of the container have pinned in `iova`, once
    /// each (`vfio_unpin_pages`). A page that was pinned more often stays pinned.
    pub fn unpin(&self, iova: IovaRange) {
        self.pins.unpin_range(&iova);
    }
}

impl fmt::Debug for Unpinner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpinner").finish_non_exhaustive()
    }
}
