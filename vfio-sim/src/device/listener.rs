// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An eventfd that a device signals.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::device::irq_error::IrqError;

/// An eventfd that is signalled without ever waiting for its owner, even if it is a blocking one.
pub(super) struct Listener {
    eventfd: EventFd,
    room: Epoll,
}

impl Listener {
    pub(super) fn new(eventfd: EventFd) -> Result<Self, IrqError> {
        Self::watch(eventfd).map_err(|error| IrqError::Unusable { problem: error.to_string() })
    }

    fn watch(eventfd: EventFd) -> io::Result<Self> {
        let room = Epoll::new()?;
        let event = EpollEvent::new(EventSet::OUT, 0);
        room.ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)?;
        Ok(Self { eventfd, room })
    }

    pub(super) fn signal(&self) {
        let has_room = self.room.wait(0, &mut [EpollEvent::default()]);
        // Without room the owner has more signals to read than it will ever count.
        if has_room.is_ok_and(|events| events == 1) {
            let _ = self.eventfd.write(1);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.eventfd.fmt(f)
    }
}
