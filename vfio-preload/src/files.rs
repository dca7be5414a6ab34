// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which of the program's file descriptors are ours, and what they are open on.
//!
//! Calls on other descriptors, nearly all of them, find that out from a bit each, without a lock.

use std::array;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vfio_type1::{Container, Iommufd, OpenGroup};

use crate::opened::Opened;
use crate::tape::Name;

/// What a descriptor is open on. Descriptors that were made by `dup` share it.
#[derive(Debug)]
pub(crate) enum File {
    Container(Name, Container),
    Iommufd(Name, Iommufd),
    Group(Name, OpenGroup),
    Device(Arc<Opened>),
}

/// Descriptors that can be ours: far more than most limits allow.
const BITS: usize = 1 << 16;

/// The program's descriptors.
#[derive(Debug)]
pub(crate) struct Files {
    ours: Box<[AtomicU64; BITS / 64]>,
    open: RwLock<Vec<Option<Arc<File>>>>,
}

impl Default for Files {
    fn default() -> Self {
        let ours = Box::new(array::from_fn(|_| AtomicU64::new(0)));
        Self { ours, open: RwLock::default() }
    }
}

impl Files {
    /// Whether a descriptor is ours.
    #[inline]
    pub(crate) fn has(&self, fd: RawFd) -> bool {
        let Ok(at) = usize::try_from(fd) else { return false };
        let word = self.ours.get(at / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (at % 64)) != 0)
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
        if at >= BITS || (file.is_none() && !self.has(fd)) {
            return;
        }
        let bit = 1 << (at % 64);
        let before = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            if open.len() <= at {
                open.resize(at + 1, None);
            }
            match file.is_some() {
                true => self.ours[at / 64].fetch_or(bit, Ordering::Relaxed),
                false => self.ours[at / 64].fetch_and(!bit, Ordering::Relaxed),
            };
            std::mem::replace(&mut open[at], file)
        };
        // Closed without the lock: closing a container takes a while.
        drop(before);
    }

    /// The descriptors of ours between two, inclusive.
    pub(crate) fn between(&self, first: RawFd, last: RawFd) -> Vec<RawFd> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let fds = (0..).zip(open.iter()).filter_map(|(fd, file)| file.as_ref().map(|_| fd));
        fds.filter(|fd| (first..=last).contains(fd)).collect()
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
