// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! This library's own file descriptors. The program does not know them, and must neither meet nor close them.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};

use rustix::process::{Resource, getrlimit};

use crate::fd_set::FdSet;

/// They are numbered from here on, out of the way of the program's, if the limit has room there.
const FIRST: RawFd = 700;

/// Those that stay open for as long as the process runs.
static KEPT: FdSet = FdSet::new();

/// A copy of a descriptor.
pub(crate) fn copy(file: impl AsFd) -> io::Result<OwnedFd> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let first = RawFd::try_from(limit / 2).map_or(FIRST, |half| half.min(FIRST));
    let high = rustix::io::fcntl_dupfd_cloexec(&file, first);
    Ok(high.or_else(|_| rustix::io::fcntl_dupfd_cloexec(&file, 0))?)
}

/// A copy that stays open for as long as the process runs.
pub(crate) fn keep(file: impl AsFd) -> io::Result<OwnedFd> {
    let copy = copy(file)?;
    KEPT.set(copy.as_raw_fd(), true);
    Ok(copy)
}

/// Counts a descriptor among those that stay open.
pub(crate) fn protect(fd: RawFd) {
    KEPT.set(fd, true);
}

/// Whether a descriptor is one that stays open.
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
