// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts as VFIO gives them out: an eventfd for each vector (`VFIO_DEVICE_SET_IRQS`,
//! `drivers/vfio/pci/vfio_pci_intrs.c`). This file owns what is on and who is told; `set_irqs` has the rules.
//!
//! One of INTx, MSI and MSI-X is on at a time. The interrupt line is masked when it has fired, until its
//! owner unmasks it; if the device still asserts it then, it fires again.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::device::irq_error::IrqError;
use crate::device::listener::Listener;
use crate::device::model::Function;
use crate::device::unmasker::{Token, Unmasker};

/// The kinds of interrupts, by their index in VFIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqIndex {
    /// The interrupt line (`VFIO_PCI_INTX_IRQ_INDEX`, 0).
    Line,
    /// MSI (`VFIO_PCI_MSI_IRQ_INDEX`, 1).
    Msi,
    /// MSI-X (`VFIO_PCI_MSIX_IRQ_INDEX`, 2).
    Msix,
    /// Errors on the bus (`VFIO_PCI_ERR_IRQ_INDEX`, 3), of PCI Express devices. A simulated device has none.
    Error,
    /// The host wants the device back (`VFIO_PCI_REQ_IRQ_INDEX`, 4).
    Request,
}

impl IrqIndex {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Line, Self::Msi, Self::Msix, Self::Error, Self::Request];

    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

impl fmt::Display for IrqIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "ERR",
            Self::Request => "REQ",
        })
    }
}

/// The interrupts of a device.
#[derive(Debug)]
pub(super) struct Interrupts {
    vectors: [u16; 5],
    /// Whether MSI-X vectors can be added while it is on.
    pub(super) dynamic_msix: bool,
    wiring: Mutex<Wiring>,
}

/// Who is told of what.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    /// INTx, MSI or MSI-X.
    pub(super) on: Option<IrqIndex>,
    /// Of the kind that is on, by vector.
    pub(super) listeners: Vec<Option<Listener>>,
    pub(super) line_masked: bool,
    /// What unmasks the line beside its owner.
    pub(super) unmasker: Option<Unmasker>,
    pub(super) error: Option<Listener>,
    pub(super) request: Option<Listener>,
}

impl Interrupts {
    pub(super) fn new(function: &Function, dynamic_msix: bool) -> Self {
        let Function { interrupt_line, msi_vectors, msix_vectors, express, .. } = *function;
        let line = u16::from(interrupt_line);
        let vectors = [line, msi_vectors, msix_vectors, u16::from(express), 1];
        Self { vectors, dynamic_msix, wiring: Mutex::default() }
    }

    pub(super) fn count(&self, index: IrqIndex) -> u16 {
        self.vectors[index as usize]
    }

    /// Whether the device has vectors `start..start + count`, and the first one even if it is none of them.
    pub(super) fn check_known(
        &self,
        index: IrqIndex,
        start: u32,
        count: u32,
    ) -> Result<(), IrqError> {
        let known = self.count(index);
        let last = u64::from(start) + u64::from(count.max(1));
        match last <= u64::from(known) {
            true => Ok(()),
            false => Err(IrqError::TooMany { index, known, start, count }),
        }
    }

    /// Sets the eventfds of an index, from vector 0 on; none at all turns it off.
    pub(super) fn set(
        &self,
        index: IrqIndex,
        eventfds: Vec<Option<EventFd>>,
    ) -> Result<(), IrqError> {
        if !eventfds.is_empty() {
            self.check_known(index, 0, u32::try_from(eventfds.len()).unwrap_or(u32::MAX))?;
        }
        let listen = |eventfd: Option<EventFd>| eventfd.map(Listener::from);
        let listeners: Vec<_> = eventfds.into_iter().map(listen).collect();
        let mut wiring = self.lock();
        if let Some(single) = wiring.single(index) {
            *single = listeners.into_iter().next().flatten();
            return Ok(());
        }
        wiring.check_kind(index)?;
        wiring.on = (!listeners.is_empty()).then_some(index);
        wiring.listeners = listeners;
        wiring.line_masked = false;
        wiring.unmasker = None;
        Ok(())
    }

    /// Turns off whatever is on.
    pub(super) fn turn_off(&self) {
        *self.lock() = Wiring::default();
    }

    pub(super) fn unmask_line(&self) {
        self.lock().line_masked = false;
    }

    /// The same by an unmasker, unless another one has taken its place meanwhile.
    pub(super) fn unmask_line_by(&self, token: &Token) {
        let mut wiring = self.lock();
        if wiring.unmasker.as_ref().is_some_and(|unmasker| unmasker.is(token)) {
            wiring.line_masked = false;
        }
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
            _ => false,
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
        let mut wiring = self.lock();
        if let Some(single) = wiring.single(index) {
            single.iter().for_each(Listener::signal);
            return single.is_some();
        }
        wiring.on == Some(index) && wiring.signal(usize::from(vector))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wiring> {
        // A panic leaves a vector set or not set, and the wiring usable.
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring {
    /// The listener of a kind that has one vector, and is on beside the others.
    pub(super) fn single(&mut self, index: IrqIndex) -> Option<&mut Option<Listener>> {
        match index {
            IrqIndex::Error => Some(&mut self.error),
            IrqIndex::Request => Some(&mut self.request),
            IrqIndex::Line | IrqIndex::Msi | IrqIndex::Msix => None,
        }
    }

    /// Refuses a kind while another one is on.
    pub(super) fn check_kind(&self, wanted: IrqIndex) -> Result<(), IrqError> {
        match self.on {
            Some(on) if on != wanted => Err(IrqError::OtherKind { on, wanted }),
            _ => Ok(()),
        }
    }

    /// Turns off the kind that is on.
    pub(super) fn turn_off(&mut self) {
        self.on = None;
        self.listeners.clear();
        self.line_masked = false;
        self.unmasker = None;
    }

    pub(super) fn signal(&self, vector: usize) -> bool {
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
        let interrupts = Interrupts::new(&Edu::default().function(), true);
        let (theirs, ours) = eventfd();
        interrupts.set(IrqIndex::Msi, vec![Some(theirs)]).unwrap();
        interrupts.message(0);
        interrupts.message(7);
        assert_eq!(ours.read().unwrap(), 2, "vector 7 was not given out");
        let (theirs, ours) = eventfd();
        let refused = interrupts.set(IrqIndex::Line, vec![Some(theirs)]).unwrap_err();
        assert_eq!(refused.to_string(), "MSI is on; turn it off before INTx");
        let refused = interrupts.set(IrqIndex::Msix, vec![None]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the device has 0 MSI-X vectors; 1 from 0 on are asked for"
        );
        interrupts.set(IrqIndex::Msi, Vec::new()).unwrap();
        interrupts.message(0);
        assert!(ours.read().is_err() && interrupts.on().is_none());
    }

    #[test]
    fn an_owner_that_does_not_read_keeps_nobody_waiting() {
        let interrupts = Interrupts::new(&Edu::default().function(), true);
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
        let interrupts = Interrupts::new(&Edu::default().function(), true);
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
