// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a device's owner sets up its interrupts, unmasks and tries them.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::device::interrupts::IrqIndex;
use crate::device::irq_error::IrqError;
use crate::device::pci_device::PciDevice;
use crate::device::set_irqs::{Resolve, SetIrqs};
use crate::device::unmasker::Token;

impl PciDevice {
    /// How many interrupts of a kind it has (`VFIO_DEVICE_GET_IRQ_INFO`).
    pub fn irq_count(&self, index: IrqIndex) -> u16 {
        self.shared.interrupts.count(index)
    }

    /// Sets the eventfds that interrupts are told by, from vector 0 on (`VFIO_DEVICE_SET_IRQS`). None at
    /// all turns the kind off. One kind can be on at a time.
    pub fn set_irqs(
        &self,
        index: IrqIndex,
        eventfds: Vec<Option<EventFd>>,
    ) -> Result<(), IrqError> {
        self.shared.interrupts.set(index, eventfds)?;
        self.shared.update_interrupts(&mut self.shared.lock());
        Ok(())
    }

    /// Whether the device has the vectors of a SET_IRQS.
    pub(super) fn check_irqs(
        &self,
        index: IrqIndex,
        start: u32,
        count: u32,
    ) -> Result<(), IrqError> {
        self.shared.interrupts.check_known(index, start, count)
    }

    /// Does a SET_IRQS.
    pub(super) fn apply_irqs(
        &self,
        request: &SetIrqs,
        resolve: Resolve<'_>,
    ) -> Result<(), IrqError> {
        let line_disabled = self.shared.lock().config.line_disabled();
        let device = Arc::downgrade(&self.shared);
        let unmask = move |token: &Token| {
            if let Some(device) = device.upgrade() {
                device.interrupts.unmask_line_by(token);
                device.update_interrupts(&mut device.lock());
            }
        };
        let done = self.shared.interrupts.apply(request, line_disabled, resolve, unmask);
        self.shared.update_interrupts(&mut self.shared.lock());
        done
    }

    /// Unmasks the interrupt line, which is masked each time it fires.
    pub fn unmask_line(&self) {
        self.shared.interrupts.unmask_line();
        self.shared.update_interrupts(&mut self.shared.lock());
    }

    /// Signals a vector without the device's doing, for tests; returns whether it is set up.
    pub fn trigger(&self, index: IrqIndex, vector: u16) -> bool {
        self.shared.interrupts.trigger(index, vector)
    }
}
