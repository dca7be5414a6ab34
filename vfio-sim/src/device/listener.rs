// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An eventfd that a device signals.

use std::fmt;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

/// An eventfd that is signalled without ever waiting for its owner, even if it is a blocking one.
pub(super) struct Listener {
    eventfd: EventFd,
}

impl Listener {
    pub(super) fn new(eventfd: EventFd) -> Self {
        Self { eventfd }
    }

    pub(super) fn signal(&self) {
        let mut room = [PollFd::from_borrowed_fd(self.descriptor(), PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Without room the owner has more signals to read than it will ever count.
        if poll(&mut room, Some(&at_once)) == Ok(1) {
            let _ = self.eventfd.write(1);
        }
    }

    #[expect(unsafe_code, reason = "the eventfd's type does not lend its descriptor")]
    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the eventfd is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.eventfd.as_raw_fd()) }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.eventfd.fmt(f)
    }
}
