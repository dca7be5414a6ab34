// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! File descriptors in a process that may be shared with a program.

use std::os::fd::{OwnedFd, RawFd};

use rustix::io;

/// The same file by a high number, if there is room: a program that shares this process may close low ones
/// that it does not know.
pub(super) fn moved_up(file: OwnedFd) -> OwnedFd {
    const HIGH: RawFd = 700;
    io::fcntl_dupfd_cloexec(&file, HIGH).unwrap_or(file)
}
