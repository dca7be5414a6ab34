// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An eventfd that a device signals.

use std::fmt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use crate::device::descriptor::lent;

/// An eventfd that is signalled without ever waiting for its owner, even if it is a blocking one.
pub(super) struct Listener {
    eventfd: EventFd,
}

impl Listener {
    pub(super) fn new(eventfd: EventFd) -> Self {
        Self { eventfd }
    }

    pub(super) fn signal(&self) {
        let mut room = [PollFd::from_borrowed_fd(lent(&self.eventfd), PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Without room the owner has more signals to read than it will ever count.
        if poll(&mut room, Some(&at_once)) == Ok(1) {
            let _ = self.eventfd.write(1);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.eventfd.fmt(f)
    }
}
