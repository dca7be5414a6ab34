// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An eventfd of a device's owner.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

/// An eventfd that a device signals, or is signalled by. It is signalled without ever waiting for its owner, even
/// if it is a blocking one.
pub struct Listener {
    eventfd: Box<dyn AsFd + Send + Sync>,
}

impl Listener {
    /// Whatever holds an eventfd open.
    pub fn new(eventfd: impl AsFd + Send + Sync + 'static) -> Self {
        Self { eventfd: Box::new(eventfd) }
    }

    pub(super) fn signal(&self) {
        let mut room = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Without room the owner has more signals to read than it will ever count.
        if poll(&mut room, Some(&at_once)) == Ok(1) {
            let _ = rustix::io::write(self, &1_u64.to_ne_bytes());
        }
    }

    /// Takes the signals that there are; whether there are any.
    pub(super) fn take(&self) -> bool {
        rustix::io::read(self, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl From<EventFd> for Listener {
    fn from(eventfd: EventFd) -> Self {
        Self::new(Lent(eventfd))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_fd().fmt(f)
    }
}

/// rust-vmm's type, which does not lend its descriptor.
struct Lent(EventFd);

impl AsFd for Lent {
    #[expect(unsafe_code, reason = "the eventfd's type does not lend its descriptor")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the eventfd is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
