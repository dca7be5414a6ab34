// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts as VFIO gives them out: an eventfd for each vector (`VFIO_DEVICE_SET_IRQS`,
//! `drivers/vfio/pci/vfio_pci_intrs.c`).
//!
//! One kind is on at a time. The interrupt line is masked when it has fired, until its owner unmasks
//! it; if the device still asserts it then, it fires again.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vfio_type1::Errno;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::device::model::Function;

/// The kinds of interrupts, by their index in VFIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqIndex {
    /// The interrupt line (`VFIO_PCI_INTX_IRQ_INDEX`, 0).
    Line,
    /// MSI (`VFIO_PCI_MSI_IRQ_INDEX`, 1).
    Msi,
    /// MSI-X (`VFIO_PCI_MSIX_IRQ_INDEX`, 2).
    Msix,
}

impl fmt::Display for IrqIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
        })
    }
}

/// Interrupts that cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IrqError {
    /// The device has fewer vectors. EINVAL.
    #[error("the device has {known} {index} vectors; {wanted} are asked for")]
    TooMany {
        /// The kind.
        index: IrqIndex,
        /// How many it has.
        known: u16,
        /// How many are asked for.
        wanted: usize,
    },
    /// Interrupts of another kind are on. EINVAL.
    #[error("{on} is on; turn it off before {wanted}")]
    OtherKind {
        /// What is on.
        on: IrqIndex,
        /// What is asked for.
        wanted: IrqIndex,
    },
    /// An eventfd cannot be watched, most likely since the process has too many files open. ENOMEM.
    #[error("an eventfd cannot be used: {problem}")]
    Unusable {
        /// What the operating system says.
        problem: String,
    },
}

impl IrqError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::TooMany { .. } | Self::OtherKind { .. } => Errno::EINVAL,
            Self::Unusable { .. } => Errno::ENOMEM,
        }
    }
}

/// The interrupts of a device.
#[derive(Debug)]
pub(super) struct Interrupts {
    vectors: [u16; 3],
    wiring: Mutex<Wiring>,
}

#[derive(Debug, Default)]
struct Wiring {
    on: Option<IrqIndex>,
    listeners: Vec<Option<Listener>>,
    line_masked: bool,
}

/// An eventfd that is signalled without ever waiting for its owner, even if it is a blocking one.
struct Listener {
    eventfd: EventFd,
    room: Epoll,
}

impl Listener {
    fn new(eventfd: EventFd) -> io::Result<Self> {
        let room = Epoll::new()?;
        let event = EpollEvent::new(EventSet::OUT, 0);
        room.ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)?;
        Ok(Self { eventfd, room })
    }

    fn signal(&self) {
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

impl Interrupts {
    pub(super) fn new(function: &Function) -> Self {
        let Function { interrupt_line, msi_vectors, msix_vectors, .. } = *function;
        let vectors = [u16::from(interrupt_line), msi_vectors, msix_vectors];
        Self { vectors, wiring: Mutex::default() }
    }

    pub(super) fn count(&self, index: IrqIndex) -> u16 {
        self.vectors[index as usize]
    }

    /// Sets the eventfds of an index, from vector 0 on; none at all turns it off.
    pub(super) fn set(
        &self,
        index: IrqIndex,
        eventfds: Vec<Option<EventFd>>,
    ) -> Result<(), IrqError> {
        let (known, wanted) = (self.count(index), eventfds.len());
        if wanted > usize::from(known) {
            return Err(IrqError::TooMany { index, known, wanted });
        }
        let mut wiring = self.lock();
        match wiring.on {
            Some(on) if on != index => return Err(IrqError::OtherKind { on, wanted: index }),
            _ => {}
        }
        let on = (!eventfds.is_empty()).then_some(index);
        let listen = |eventfd: Option<EventFd>| eventfd.map(Listener::new).transpose();
        let listeners = eventfds.into_iter().map(listen).collect::<io::Result<_>>();
        let unusable = |error: io::Error| IrqError::Unusable { problem: error.to_string() };
        *wiring = Wiring { on, listeners: listeners.map_err(unusable)?, line_masked: false };
        Ok(())
    }

    /// Turns off whatever is on.
    pub(super) fn turn_off(&self) {
        *self.lock() = Wiring::default();
    }

    pub(super) fn unmask_line(&self) {
        self.lock().line_masked = false;
    }

    /// Which kind is on.
    pub(super) fn on(&self) -> Option<IrqIndex> {
        self.lock().on
    }

    /// Sends a message. A device that was given fewer MSI vectors than it has puts all that are above
    /// into the last one.
    pub(super) fn message(&self, vector: u16) {
        let wiring = self.lock();
        match wiring.on {
            Some(IrqIndex::Msix) => wiring.signal(usize::from(vector)),
            Some(IrqIndex::Msi) => {
                let last = wiring.listeners.len().saturating_sub(1);
                wiring.signal(usize::from(vector).min(last))
            }
            Some(IrqIndex::Line) | None => false,
        };
    }

    /// Tells the level of the interrupt line.
    pub(super) fn set_line(&self, asserted: bool) {
        let mut wiring = self.lock();
        if asserted && wiring.on == Some(IrqIndex::Line) && !wiring.line_masked {
            wiring.line_masked = true;
            wiring.signal(0);
        }
    }

    /// Signals a vector whatever the device does, as `VFIO_IRQ_SET_DATA_NONE` with
    /// `VFIO_IRQ_SET_ACTION_TRIGGER` does; returns whether it is set up.
    pub(super) fn trigger(&self, index: IrqIndex, vector: u16) -> bool {
        let wiring = self.lock();
        wiring.on == Some(index) && wiring.signal(usize::from(vector))
    }

    fn lock(&self) -> MutexGuard<'_, Wiring> {
        // The wiring is replaced whole, so a panic leaves it usable.
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring {
    fn signal(&self, vector: usize) -> bool {
        let listener = self.listeners.get(vector).and_then(Option::as_ref);
        if let Some(listener) = listener {
            listener.signal();
        }
        listener.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::edu::Edu;
    use crate::device::model::Model as _;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn eventfd() -> (EventFd, EventFd) {
        let ours = EventFd::new(EFD_NONBLOCK).unwrap();
        (ours.try_clone().unwrap(), ours)
    }

    #[test]
    fn one_kind_is_on_at_a_time() {
        let interrupts = Interrupts::new(&Edu::default().function());
        let (theirs, ours) = eventfd();
        interrupts.set(IrqIndex::Msi, vec![Some(theirs)]).unwrap();
        interrupts.message(0);
        interrupts.message(7);
        assert_eq!(ours.read().unwrap(), 2, "vector 7 was not given out");
        let (theirs, ours) = eventfd();
        let refused = interrupts.set(IrqIndex::Line, vec![Some(theirs)]).unwrap_err();
        assert_eq!(refused.to_string(), "MSI is on; turn it off before INTx");
        let refused = interrupts.set(IrqIndex::Msix, vec![None]).unwrap_err();
        assert_eq!(refused.to_string(), "the device has 0 MSI-X vectors; 1 are asked for");
        interrupts.set(IrqIndex::Msi, Vec::new()).unwrap();
        interrupts.message(0);
        assert!(ours.read().is_err() && interrupts.on().is_none());
    }

    #[test]
    fn an_owner_that_does_not_read_keeps_nobody_waiting() {
        let interrupts = Interrupts::new(&Edu::default().function());
        let full = EventFd::new(0).unwrap();
        full.write(u64::MAX - 1).unwrap();
        interrupts.set(IrqIndex::Msi, vec![Some(full.try_clone().unwrap())]).unwrap();
        interrupts.message(0);
        assert_eq!(full.read().unwrap(), u64::MAX - 1);
        interrupts.message(0);
        assert_eq!(full.read().unwrap(), 1);
    }

    #[test]
    fn the_line_fires_once_until_it_is_unmasked() {
        let interrupts = Interrupts::new(&Edu::default().function());
        let (theirs, ours) = eventfd();
        interrupts.set(IrqIndex::Line, vec![Some(theirs)]).unwrap();
        interrupts.set_line(true);
        interrupts.set_line(true);
        assert_eq!(ours.read().unwrap(), 1);
        interrupts.unmask_line();
        interrupts.set_line(false);
        assert!(ours.read().is_err());
        interrupts.set_line(true);
        assert_eq!(ours.read().unwrap(), 1);
        assert!(interrupts.trigger(IrqIndex::Line, 0) && !interrupts.trigger(IrqIndex::Msi, 0));
        assert_eq!(ours.read().unwrap(), 1);
    }
}
