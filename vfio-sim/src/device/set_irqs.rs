// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `VFIO_DEVICE_SET_IRQS` does to the interrupts of a device (`vfio_pci_set_irqs_ioctl` and what it
//! calls in `drivers/vfio/pci/vfio_pci_intrs.c`).
//!
//! A device has the vectors that a request names: that is looked at before.

use crate::device::interrupts::{Interrupts, IrqIndex, Wiring};
use crate::device::irq_error::IrqError;
use crate::device::listener::Listener;
use crate::device::unmasker::{Token, Unmasker};

/// A file descriptor that is no eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEventFd {
    /// It is not open.
    Closed,
    /// It is another kind of file.
    Other,
}

/// What a file descriptor of the caller is.
pub(super) type Resolve<'a> = &'a dyn Fn(i32) -> Result<Listener, NotEventFd>;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Mask,
    Unmask,
    Trigger,
}

/// What is said of each vector.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// That it is meant.
    None,
    /// Whether it is meant.
    Bools(Vec<bool>),
    /// Its eventfd; a negative number takes it away.
    EventFds(Vec<i32>),
}

/// A request whose vectors the device has.
#[derive(Clone, Debug)]
pub(super) struct SetIrqs {
    pub(super) flags: u32,
    pub(super) index: IrqIndex,
    /// `None` if the flags do not have one.
    pub(super) action: Option<Action>,
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) data: Data,
}

impl SetIrqs {
    fn turns_off(&self) -> bool {
        self.count == 0 && matches!(self.data, Data::None)
    }

    /// Whether the vector at a place in the request is meant.
    fn means(&self, at: usize) -> bool {
        match &self.data {
            Data::Bools(bools) => bools.get(at).is_some_and(|means| *means),
            Data::None | Data::EventFds(_) => true,
        }
    }

    /// The eventfd of the only vector, if eventfds are given.
    fn only_eventfd(&self) -> Option<i32> {
        match &self.data {
            Data::EventFds(fds) => fds.first().copied(),
            Data::None | Data::Bools(_) => None,
        }
    }

    fn require_one(&self) -> Result<(), IrqError> {
        if self.count == 1 { Ok(()) } else { Err(IrqError::NotOne { index: self.index }) }
    }
}

impl Interrupts {
    /// Does what a request asks. `line_disabled` is bit 10 of the command register; `unmask` is what an eventfd does
    /// that unmasks the line.
    pub(super) fn apply(
        &self,
        request: &SetIrqs,
        line_disabled: bool,
        resolve: Resolve<'_>,
        unmask: impl Fn(&Token) + Send + 'static,
    ) -> Result<(), IrqError> {
        match (request.index, request.action) {
            (IrqIndex::Line, Some(Action::Trigger)) => {
                self.lock().trigger_line(request, line_disabled, resolve)
            }
            (IrqIndex::Line, Some(Action::Mask)) => self.lock().mask_line(request),
            (IrqIndex::Line, Some(Action::Unmask)) => {
                self.lock().unmask_line(request, resolve, unmask)
            }
            (IrqIndex::Msi | IrqIndex::Msix, Some(Action::Trigger)) => {
                self.lock().trigger_messages(request, self.dynamic_msix, resolve)
            }
            (IrqIndex::Error | IrqIndex::Request, Some(Action::Trigger)) => {
                self.lock().trigger_single(request, resolve)
            }
            (index, _) => Err(IrqError::Action { index, flags: request.flags }),
        }
    }
}

impl Wiring {
    /// The line has to be on, and is the only one.
    fn check_line(&self, request: &SetIrqs) -> Result<(), IrqError> {
        match self.on {
            Some(IrqIndex::Line) => request.require_one(),
            _ => Err(IrqError::Off { index: IrqIndex::Line }),
        }
    }

    fn mask_line(&mut self, request: &SetIrqs) -> Result<(), IrqError> {
        self.check_line(request)?;
        match request.only_eventfd() {
            Some(_) => return Err(IrqError::MaskByEventfd),
            None => self.line_masked |= request.means(0),
        }
        Ok(())
    }

    fn unmask_line(
        &mut self,
        request: &SetIrqs,
        resolve: Resolve<'_>,
        unmask: impl Fn(&Token) + Send + 'static,
    ) -> Result<(), IrqError> {
        self.check_line(request)?;
        match request.only_eventfd() {
            Some(fd) if fd < 0 => self.unmasker = None,
            // In the place of one before. The kernel answers EBUSY, unless that has been closed: it is not seen here.
            Some(fd) => {
                let unmasker = Unmasker::start(eventfd(fd, resolve)?, unmask);
                self.unmasker = Some(unmasker.map_err(|_| IrqError::NoThread)?);
            }
            None => self.line_masked &= !request.means(0),
        }
        Ok(())
    }

    fn trigger_line(
        &mut self,
        request: &SetIrqs,
        line_disabled: bool,
        resolve: Resolve<'_>,
    ) -> Result<(), IrqError> {
        let is_on = self.on == Some(IrqIndex::Line);
        if is_on && request.turns_off() {
            self.turn_off();
            return Ok(());
        }
        self.check_kind(IrqIndex::Line)?;
        request.require_one()?;
        if let Some(fd) = request.only_eventfd() {
            self.listeners = vec![listener(fd, resolve)?];
            self.on = Some(IrqIndex::Line);
            return Ok(());
        }
        if !is_on {
            return Err(IrqError::Off { index: IrqIndex::Line });
        }
        if request.means(0) && !line_disabled {
            self.signal(0);
        }
        Ok(())
    }

    fn trigger_messages(
        &mut self,
        request: &SetIrqs,
        dynamic_msix: bool,
        resolve: Resolve<'_>,
    ) -> Result<(), IrqError> {
        let index = request.index;
        let is_on = self.on == Some(index);
        if is_on && request.turns_off() {
            self.turn_off();
            return Ok(());
        }
        self.check_kind(index)?;
        if let Data::EventFds(fds) = &request.data {
            return self.give_out(request, fds, dynamic_msix, resolve);
        }
        let last = request.start + request.count;
        match is_on {
            false => return Err(IrqError::Off { index }),
            true if !dynamic_msix => self.check_is_on(index, last)?,
            true => {}
        }
        for at in (0..request.count).filter(|at| request.means(*at)) {
            self.signal(request.start + at);
        }
        Ok(())
    }

    /// Gives out vectors, and turns their kind on if nothing is.
    fn give_out(
        &mut self,
        request: &SetIrqs,
        fds: &[i32],
        dynamic_msix: bool,
        resolve: Resolve<'_>,
    ) -> Result<(), IrqError> {
        let (index, first) = (request.index, request.start);
        let vectors = first + request.count;
        let turns_on = self.on.is_none();
        if turns_on && vectors == 0 {
            return Err(IrqError::NoVectors { index });
        }
        if turns_on {
            self.on = Some(index);
            self.listeners.resize_with(vectors, || None);
        } else if !dynamic_msix {
            self.check_is_on(index, vectors.max(first + 1))?;
        }
        for (vector, fd) in (first..).zip(fds) {
            let Err(error) = self.set_vector(index, vector, *fd, resolve) else { continue };
            if turns_on {
                self.turn_off();
            } else {
                // Those of the request that came before go with it.
                let before = self.listeners.iter_mut().take(vector).skip(first);
                before.for_each(|place| *place = None);
            }
            return Err(error);
        }
        Ok(())
    }

    /// The old eventfd goes, whatever becomes of the new one.
    fn set_vector(
        &mut self,
        index: IrqIndex,
        vector: usize,
        fd: i32,
        resolve: Resolve<'_>,
    ) -> Result<(), IrqError> {
        if let Some(place) = self.listeners.get_mut(vector) {
            *place = None;
        }
        if fd < 0 {
            return Ok(());
        }
        if index == IrqIndex::Msix && vector >= self.listeners.len() {
            self.listeners.resize_with(vector + 1, || None);
        }
        self.check_is_on(index, vector + 1)?;
        self.listeners[vector] = listener(fd, resolve)?;
        Ok(())
    }

    /// Refuses vectors beyond those that are on.
    fn check_is_on(&self, index: IrqIndex, vectors: usize) -> Result<(), IrqError> {
        let on = self.listeners.len();
        match vectors <= on {
            true => Ok(()),
            false => Err(IrqError::BeyondOn { index, on, vector: vectors - 1 }),
        }
    }

    fn trigger_single(&mut self, request: &SetIrqs, resolve: Resolve<'_>) -> Result<(), IrqError> {
        let index = request.index;
        let Some(single) = self.single(index) else { return Err(IrqError::Off { index }) };
        match &request.data {
            Data::None if single.is_none() => return Err(IrqError::Off { index }),
            Data::None if request.count == 0 => *single = None,
            Data::None => single.iter().for_each(Listener::signal),
            Data::Bools(_) | Data::EventFds(_) => {
                request.require_one()?;
                match request.only_eventfd() {
                    Some(-1) => *single = None,
                    // Other negative numbers change nothing.
                    Some(fd) if fd < 0 => {}
                    Some(fd) => *single = listener(fd, resolve)?,
                    None if request.means(0) => single.iter().for_each(Listener::signal),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// The eventfd behind a file descriptor of the caller, or none for a negative one.
fn listener(fd: i32, resolve: Resolve<'_>) -> Result<Option<Listener>, IrqError> {
    if fd < 0 {
        return Ok(None);
    }
    eventfd(fd, resolve).map(Some)
}

fn eventfd(fd: i32, resolve: Resolve<'_>) -> Result<Listener, IrqError> {
    resolve(fd).map_err(|problem| match problem {
        NotEventFd::Closed => IrqError::ClosedFd { fd },
        NotEventFd::Other => IrqError::NoEventFd { fd },
    })
}
