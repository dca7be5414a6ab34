// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An open device, as far as the container is concerned with it (spec 2.6, 2.7, 7.6).
//!
//! In a container it keeps its group open. The driver of an emulated device reaches the process's memory through
//! it: it pins pages, is told to let go of them, and copies.

use std::fmt;
use std::sync::Arc;

use crate::addr::Iova;
use crate::callback::{UnmapCallback, Unpinner};
use crate::emulated::{DmaRwError, MAX_PIN_PAGES, PinPagesError, Transfer};
use crate::group::GroupFile;
use crate::host::{Group, GroupId, GroupKind};
use crate::iommufd::Bound;
use crate::memory::Access;
use crate::range::IovaRange;
use crate::state::Core;
use crate::sync::atomic::{AtomicU64, Ordering};

/// An open device. Dropping it closes it.
pub struct OpenDevice {
    reach: Reach,
    group: Arc<Group>,
    name: String,
    /// The number under which the container knows its unmap callback; 0 without one.
    callback: AtomicU64,
}

/// By what an open device reaches memory.
pub(crate) enum Reach {
    /// The group's container. The device keeps the group open.
    Container(Arc<Core>, Arc<GroupFile>),
    /// An iommufd, which the device keeps open; the group may be closed.
    Iommufd(Arc<Bound>),
    /// It has no IOMMU, and its group is in an iommufd.
    NoIommu,
}

impl Reach {
    /// Registers an unmap callback and returns its number, which is never 0.
    fn register(&self, callback: UnmapCallback) -> u64 {
        match self {
            Self::Container(container, _) => container.register(callback),
            Self::Iommufd(bound) => bound.context().register(callback),
            Self::NoIommu => 0,
        }
    }

    fn unregister(&self, number: u64) {
        match self {
            Self::Container(container, _) => container.unregister(number),
            Self::Iommufd(bound) => bound.context().unregister(number),
            Self::NoIommu => {}
        }
    }
}

impl OpenDevice {
    pub(crate) fn new(group: Arc<Group>, reach: Reach, name: String) -> Self {
        Self { reach, group, name, callback: AtomicU64::new(0) }
    }

    /// The device's name, such as `0000:00:03.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.group.id
    }

    /// Registers what is called before pages that emulated devices have pinned are unmapped. It
    /// gets the whole mapping, and must unpin every page of it that it has pinned, through the
    /// [`Unpinner`] it is given.
    ///
    /// No lock is held while it runs. A second registration replaces the first. The callback is
    /// dropped with the device; one that owns the device keeps it open for ever.
    pub fn on_unmap(&self, callback: impl Fn(&Unpinner<'_>, IovaRange) + Send + Sync + 'static) {
        let number = self.reach.register(Arc::new(callback));
        let replaced = self.callback.swap(number, Ordering::Relaxed);
        self.reach.unregister(replaced);
    }

    /// Pins `pages` CPU pages from `iova` on (`vfio_pin_pages`), so that the
    /// device's driver may access them at any time. A page may be pinned more than once.
    ///
    /// For devices of emulated groups with an unmap callback only. A refusal pins nothing.
    pub fn pin_pages(&self, iova: Iova, pages: u64, access: Access) -> Result<(), PinPagesError> {
        if !matches!(self.group.kind, GroupKind::Emulated) {
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
        match &self.reach {
            Reach::Container(container, _) => container
                .with_type1(|type1| type1.pin_pages(iova, pages, access))
                .unwrap_or(Err(PinPagesError::NoDriver)),
            Reach::Iommufd(bound) => Ok(bound.pin_pages(iova, pages, access)?),
            Reach::NoIommu => Err(PinPagesError::NoDriver),
        }
    }

    /// Lets go of pages once (`vfio_unpin_pages`): the undoing of one [`Self::pin_pages`]. Pages
    /// that are not pinned are passed over; more than [`MAX_PIN_PAGES`] are not looked at.
    pub fn unpin_pages(&self, iova: Iova, pages: u64) {
        if pages > MAX_PIN_PAGES {
            return;
        }
        match &self.reach {
            Reach::Container(container, _) => {
                // Without a driver there are no mappings and so no pins.
                let _ = container.with_type1(|type1| type1.unpin_pages(iova, pages));
            }
            Reach::Iommufd(bound) => bound.unpin_pages(iova, pages),
            Reach::NoIommu => {}
        }
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
        match &self.reach {
            Reach::Container(container, _) => container
                .with_type1(|type1| type1.dma_rw(iova, copy))
                .unwrap_or(Err(DmaRwError::NoDriver)),
            Reach::Iommufd(bound) => Ok(bound.dma_rw(iova, copy)?),
            Reach::NoIommu => Err(DmaRwError::NoDriver),
        }
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        self.reach.unregister(self.callback.load(Ordering::Relaxed));
        if let Reach::Container(_, group) = &self.reach {
            group.device_closed();
        }
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
