// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An open device, as far as the container is concerned with it (spec 2.6, 2.7, 7.6).
//!
//! It keeps its group open. The driver of an emulated device reaches the process's memory through
//! it: it pins pages, is told to let go of them, and copies.

use std::fmt;
use std::sync::Arc;

use crate::addr::Iova;
use crate::callback::Unpinner;
use crate::emulated::{DmaRwError, MAX_PIN_PAGES, PinPagesError, Transfer};
use crate::group::GroupFile;
use crate::host::{GroupId, GroupKind};
use crate::memory::Access;
use crate::range::IovaRange;
use crate::state::Core;
use crate::sync::atomic::{AtomicU64, Ordering};

/// An open device. Dropping it closes it.
pub struct OpenDevice {
    file: Arc<GroupFile>,
    container: Arc<Core>,
    name: String,
    /// The number under which the container knows its unmap callback; 0 without one.
    callback: AtomicU64,
}

impl OpenDevice {
    pub(crate) fn new(file: Arc<GroupFile>, container: Arc<Core>, name: String) -> Self {
        Self { file, container, name, callback: AtomicU64::new(0) }
    }

    /// The device's name, such as `0000:00:03.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.file.group.id
    }

    /// Registers what is called before pages that emulated devices have pinned are unmapped. It
    /// gets the whole mapping, and must unpin every page of it that it has pinned, through the
    /// [`Unpinner`] it is given.
    ///
    /// No lock is held while it runs. A second registration replaces the first. The callback is
    /// dropped with the device; one that owns the device keeps it open for ever.
    pub fn on_unmap(&self, callback: impl Fn(&Unpinner<'_>, IovaRange) + Send + Sync + 'static) {
        let number = self.container.register(Arc::new(callback));
        let replaced = self.callback.swap(number, Ordering::Relaxed);
        self.container.unregister(replaced);
    }

    /// Pins `pages` CPU pages from `iova` on (`vfio_pin_pages`), so that the
    /// device's driver may access them at any time. A page may be pinned more than once.
    ///
    /// For devices of emulated groups with an unmap callback only. A refusal pins nothing.
    pub fn pin_pages(&self, iova: Iova, pages: u64, access: Access) -> Result<(), PinPagesError> {
        if !matches!(self.file.group.kind, GroupKind::Emulated) {
            return Err(PinPagesError::NotEmulated { group: self.group() });
        }
        if pages == 0 {
            return Err(PinPagesError::NoPages);
        }
        if self.callback.load(Ordering::Relaxed) == 0 {
            return Err(PinPagesError::NoCallback);
        }
        if pages > MAX_PIN_PAGES {
            return Err(PinPagesError::TooMany { pages });
        }
        self.container
            .with_type1(|type1| type1.pin_pages(iova, pages, access))
            .unwrap_or(Err(PinPagesError::NoDriver))
    }

    /// Lets go of pages once (`vfio_unpin_pages`): the undoing of one [`Self::pin_pages`]. Pages
    /// that are not pinned are passed over; more than [`MAX_PIN_PAGES`] are not looked at.
    pub fn unpin_pages(&self, iova: Iova, pages: u64) {
        if pages > MAX_PIN_PAGES {
            return;
        }
        // Without a driver there are no mappings and so no pins.
        let _ = self.container.with_type1(|type1| type1.unpin_pages(iova, pages));
    }

    /// Copies out of the process's memory (`vfio_dma_rw`). On an error, what lies in lower
    /// mappings has been copied.
    pub fn dma_read(&self, iova: Iova, into: &mut [u8]) -> Result<(), DmaRwError> {
        self.dma_rw(iova, Transfer::Read(into))
    }

    /// Copies into the process's memory (`vfio_dma_rw`), and marks the pages dirty.
    pub fn dma_write(&self, iova: Iova, bytes: &[u8]) -> Result<(), DmaRwError> {
        self.dma_rw(iova, Transfer::Write(bytes))
    }

    fn dma_rw(&self, iova: Iova, copy: Transfer<'_>) -> Result<(), DmaRwError> {
        if copy.len() == 0 {
            return Err(DmaRwError::Empty);
        }
        self.container
            .with_type1(|type1| type1.dma_rw(iova, copy))
            .unwrap_or(Err(DmaRwError::NoDriver))
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        self.container.unregister(self.callback.load(Ordering::Relaxed));
        self.file.device_closed();
    }
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice")
            .field("name", &self.name)
            .field("group", &self.group())
            .finish_non_exhaustive()
    }
}
