// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! File descriptors, in a process that may be shared with a program.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::io;
use vmm_sys_util::eventfd::EventFd;

/// The same file by a high number, if there is room: a program that shares this process may close low ones
/// that it does not know.
pub(super) fn moved_up(file: OwnedFd) -> OwnedFd {
    const HIGH: RawFd = 700;
    io::fcntl_dupfd_cloexec(&file, HIGH).unwrap_or(file)
}

/// The descriptor of an eventfd.
#[expect(unsafe_code, reason = "the eventfd's type does not lend its descriptor")]
pub(super) fn lent(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}
