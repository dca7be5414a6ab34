// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmasking the interrupt line by an eventfd (`vfio_virqfd_enable`, `drivers/vfio/virqfd.c`): a VMM lets KVM signal
//! it when the guest has seen to the device.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::{io, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::device::descriptor::moved_up;
use crate::device::listener::Listener;

/// A thread that waits for an eventfd, until this is dropped. Then it may be at work still for a moment.
#[derive(Debug)]
pub(super) struct Unmasker {
    stop: Arc<OwnedFd>,
}

/// Which one of all unmaskers that there have been.
#[derive(Clone, Debug)]
pub(super) struct Token(Arc<OwnedFd>);

impl Unmasker {
    /// Calls `unmask` each time that `signal` is signalled, and at once if it has been already.
    pub(super) fn start(
        signal: Listener,
        unmask: impl Fn(&Token) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(moved_up(stop));
        let token = Token(Arc::clone(&stop));
        let wait = move || {
            leave_signals_to_others();
            while signalled(&signal, &token.0) {
                unmask(&token);
            }
        };
        thread::Builder::new().name("vfio-unmask".to_owned()).spawn(wait)?;
        Ok(Self { stop })
    }

    pub(super) fn is(&self, token: &Token) -> bool {
        Arc::ptr_eq(&self.stop, &token.0)
    }
}

impl Drop for Unmasker {
    fn drop(&mut self) {
        // There is room: nobody else writes to it.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }
}

/// The process's signals are for its own threads; no thread can do without those of faults.
fn leave_signals_to_others() {
    let mut signals = SigSet::all();
    let faults = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGTRAP, Signal::SIGILL, Signal::SIGFPE];
    faults.into_iter().for_each(|fault| signals.remove(fault));
    // Without it the thread is interrupted now and then, which it bears.
    let _ = signals.thread_block();
}

/// Waits, and takes what was signalled. `false`: it is time to stop.
fn signalled(signal: &Listener, stop: &OwnedFd) -> bool {
    loop {
        let mut ready =
            [signal.as_fd(), stop.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut ready, None) {
            Err(Errno::INTR) => {}
            Ok(_) if ready[1].revents().is_empty() => {
                // Whoever else reads it may have been faster.
                if signal.take() {
                    return true;
                }
            }
            _ => return false,
        }
    }
}
