// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! This library's own file descriptors. The program does not know them, and must neither meet nor close them.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, RawFd};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use vfio_sim::device::FIRST_DESCRIPTOR;

use crate::fd_set::FdSet;

/// Those that are open now.
static KEPT: FdSet = FdSet::new();

/// A descriptor of the library's. While it is there, the program's calls do not close it.
#[derive(Debug)]
pub(crate) struct Kept(RawFd);

/// A copy of a descriptor.
pub(crate) fn copy(file: impl AsFd) -> Result<Kept, Errno> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Out of the way of the program's, if the limit has room there.
    let half = RawFd::try_from(limit / 2).unwrap_or(FIRST_DESCRIPTOR);
    let first = half.min(FIRST_DESCRIPTOR);
    let high = rustix::io::fcntl_dupfd_cloexec(&file, first);
    let copy = high.or_else(|_| rustix::io::fcntl_dupfd_cloexec(&file, 0))?.into_raw_fd();
    KEPT.set(copy, true);
    Ok(Kept(copy))
}

impl AsFd for Kept {
    #[expect(unsafe_code, reason = "the descriptor of a copy")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open until this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Kept {
    /// By the system call: `close` is the program's.
    #[expect(unsafe_code, reason = "nobody else closes it")]
    fn drop(&mut self) {
        KEPT.set(self.0, false);
        // SAFETY: nobody has it any more.
        unsafe { rustix::io::close(self.0) };
    }
}

/// Counts one that stays open for as long as the process runs.
pub(crate) fn protect(fd: RawFd) {
    KEPT.set(fd, true);
}

/// Whether a descriptor is the library's.
pub(crate) fn keeps(fd: RawFd) -> bool {
    KEPT.has(fd)
}

/// The parts of a range of descriptors, both ends inclusive, that are the program's.
pub(crate) fn others(first: RawFd, last: RawFd) -> Vec<(RawFd, RawFd)> {
    let (mut parts, mut from) = (Vec::new(), first);
    for kept in KEPT.between(first, last) {
        if from < kept {
            parts.push((from, kept - 1));
        }
        from = kept + 1;
    }
    if from <= last {
        parts.push((from, last));
    }
    parts
}
