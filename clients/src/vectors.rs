// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts, each an eventfd, and waiting for the next one.

use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::Result;

/// Long enough for any machine. A device that is told to copy a page takes microseconds.
const PATIENCE_MILLISECONDS: i32 = 10_000;

/// The two interrupt vectors of the engine.
pub(crate) struct Vectors {
    events: [EventFd; 2],
    epoll: Epoll,
}

impl Vectors {
    pub(crate) fn new() -> Result<Self> {
        let events = [EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?];
        let epoll = Epoll::new()?;
        for (vector, event) in (0..).zip(&events) {
            let interest = EpollEvent::new(EventSet::IN, vector);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
        }
        Ok(Self { events, epoll })
    }

    pub(crate) fn events(&self) -> Vec<&EventFd> {
        self.events.iter().collect()
    }

    /// Waits for an interrupt, and says by which vector it came.
    pub(crate) fn wait(&self) -> Result<usize> {
        let mut ready = [EpollEvent::default()];
        if self.epoll.wait(PATIENCE_MILLISECONDS, &mut ready)? == 0 {
            return Err("no interrupt came within ten seconds".into());
        }
        let vector = usize::try_from(ready[0].data())?;
        let times = self.events[vector].read()?;
        if times != 1 {
            return Err(format!("interrupt {vector} came {times} times for one job").into());
        }
        Ok(vector)
    }
}
