// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which of the program's file descriptors are ours, and what they are open on.
//!
//! Calls on other descriptors, nearly all of them, find that out from a bit each, without a lock.

use std::os::fd::RawFd;
use std::sync::{Arc, PoisonError, RwLock};

use vfio_type1::{Container, Iommufd, OpenGroup};

use crate::fd_set::FdSet;
use crate::kvm::KvmDevice;
use crate::opened::Opened;
use crate::tape::Name;

/// What a descriptor is open on. Descriptors that were made by `dup` share it.
#[derive(Debug)]
pub(crate) enum File {
    Container(Name, Container),
    Iommufd(Name, Iommufd),
    Group(Name, OpenGroup),
    Device(Arc<Opened>),
    Kvm(KvmDevice),
    /// A file of the parent's, by its number.
    Inherited(RawFd),
}

/// The program's descriptors.
#[derive(Debug)]
pub(crate) struct Files {
    ours: Box<FdSet>,
    open: RwLock<Vec<Option<Arc<File>>>>,
}

impl Default for Files {
    fn default() -> Self {
        Self { ours: Box::new(FdSet::new()), open: RwLock::default() }
    }
}

impl Files {
    /// Whether a descriptor is ours.
    #[inline]
    pub(crate) fn has(&self, fd: RawFd) -> bool {
        self.ours.has(fd)
    }

    /// What a descriptor is open on, if it is ours.
    #[inline]
    pub(crate) fn get(&self, fd: RawFd) -> Option<Arc<File>> {
        if !self.has(fd) {
            return None;
        }
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(usize::try_from(fd).ok()?)?.clone()
    }

    /// Notes what a descriptor is open on: a file of ours, or another one.
    pub(crate) fn set(&self, fd: RawFd, file: Option<Arc<File>>) {
        let Ok(at) = usize::try_from(fd) else { return };
        if file.is_none() && !self.has(fd) {
            return;
        }
        let before = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            if !self.ours.set(fd, file.is_some()) {
                return;
            }
            if open.len() <= at {
                open.resize(at + 1, None);
            }
            std::mem::replace(&mut open[at], file)
        };
        // Closed without the lock: closing a container takes a while.
        drop(before);
    }

    /// Forgets a descriptor without its file, whose lock may never open: a child has it from its parent.
    pub(crate) fn forget(&self, fd: RawFd) {
        self.ours.set(fd, false);
    }

    /// The descriptors of ours between two, inclusive.
    pub(crate) fn between(&self, first: RawFd, last: RawFd) -> Vec<RawFd> {
        self.ours.between(first, last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::{Kernel, Vfio};

    #[test]
    fn a_file_goes_with_its_last_descriptor() {
        let vfio = Vfio::new(Kernel::NEWEST, []).unwrap();
        let files = Files::default();
        let file = Arc::new(File::Container(Name::new(), vfio.open_container()));
        files.set(3, Some(Arc::clone(&file)));
        files.set(70, Some(Arc::clone(&file)));
        assert!(files.has(3) && files.has(70) && !files.has(4) && !files.has(-1));
        assert_eq!(files.between(0, i32::MAX), [3, 70]);
        assert!(files.between(4, 69).is_empty());
        files.set(3, None);
        assert!(!files.has(3) && files.get(3).is_none());
        assert_eq!(Arc::strong_count(&file), 2);
        files.set(70, None);
        assert_eq!(Arc::strong_count(&file), 1);
        // One beyond the bits is not ours, whatever it is.
        files.set(i32::MAX, Some(file));
        assert!(!files.has(i32::MAX));
    }
}
