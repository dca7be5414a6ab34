// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! File descriptors in a process that may be shared with a program.

use std::os::fd::{OwnedFd, RawFd};

use rustix::io;

/// From where on descriptors are that a program in the same process has not opened, and does not know: it may close
/// low ones.
pub const FIRST_DESCRIPTOR: RawFd = 700;

/// The same file by such a number, if there is room.
pub(super) fn moved_up(file: OwnedFd) -> OwnedFd {
    io::fcntl_dupfd_cloexec(&file, FIRST_DESCRIPTOR).unwrap_or(file)
}
