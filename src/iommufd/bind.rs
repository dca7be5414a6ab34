// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Binding a device to an iommufd (`iommufd_device_bind` in `drivers/iommu/iommufd/device.c`; spec 9):
//! its MSIs must be isolated, and its group's DMA is claimed. That is all a device can be refused for
//! before it is attached.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};

use super::attach_error::IoasAttachError;
use super::context::Context;
use super::objects::{Device, Object, ObjectId};
use crate::claim::{AddGroupError, Claim};
use crate::errno::Errno;
use crate::host::{Group, GroupId};
use crate::sync::Mutex;

/// Why a device cannot be bound to an iommufd: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// MSIs of the group's devices are not isolated. EPERM. The parameter is that of iommufd, not type1's.
    #[error(
        "a device of group {group} ({devices}) could forge interrupts of others: its MSIs are not \
         isolated; turn interrupt remapping on, or set iommufd.allow_unsafe_interrupts if you trust it"
    )]
    MsiNotIsolated {
        /// The group.
        group: GroupId,
        /// Its devices.
        devices: String,
    },
    /// The group's DMA cannot be claimed. EPERM, EINVAL.
    #[error(transparent)]
    Claim(#[from] AddGroupError),
}

impl BindError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::MsiNotIsolated { .. } => Errno::EPERM,
            Self::Claim(error) => error.errno(),
        }
    }
}

/// The devices of a group that are bound to an iommufd, by name.
#[derive(Debug, Default)]
pub(crate) struct BoundDevices(Mutex<BTreeMap<String, Weak<Bound>>>);

impl BoundDevices {
    /// Opens a device once more; one that is not open is bound by `bind`.
    pub(crate) fn open<E>(
        &self,
        name: &str,
        bind: impl FnOnce() -> Result<Bound, E>,
    ) -> Result<Arc<Bound>, E> {
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = bound.get(name).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let new = Arc::new(bind()?);
        bound.insert(name.to_owned(), Arc::downgrade(&new));
        Ok(new)
    }

    /// Binds a device by `bind`; `None` if it is open.
    pub(crate) fn open_alone<E>(
        &self,
        name: &str,
        bind: impl FnOnce() -> Result<Bound, E>,
    ) -> Option<Result<Arc<Bound>, E>> {
        let mut alone = false;
        let opened = self.open(name, || {
            alone = true;
            bind()
        });
        alone.then_some(opened)
    }
}

/// A device for as long as it is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    context: Arc<Context>,
    id: ObjectId,
    /// Of the group's DMA; given back when the device is detached.
    _claim: Claim,
}

impl Bound {
    pub(crate) fn new(
        context: &Arc<Context>,
        group: &Arc<Group>,
        name: &str,
    ) -> Result<Self, BindError> {
        let shared = &context.shared;
        let isolated = group.iommu().is_none_or(|iommu| iommu.isolates_msi());
        if !isolated && !shared.iommufd_unsafe_interrupts() {
            let devices = group.device_names();
            return Err(BindError::MsiNotIsolated { group: group.id, devices });
        }
        let claim = Claim::take(group, context.owner(), shared.kernel.behaviours())?;
        let device = Device { group: Arc::clone(group), name: name.to_owned(), attached: None };
        let id = context.lock().objects.add(Object::Device(device));
        Ok(Self { context: Arc::clone(context), id, _claim: claim })
    }

    /// Its number as an object of the iommufd.
    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Attaches the device to an address space or a domain; returns what it is attached to.
    pub(crate) fn attach(&self, target: ObjectId) -> Result<ObjectId, IoasAttachError> {
        let mut state = self.context.lock();
        let attached = state.attach(self.id, target)?;
        if let Some(device) = state.objects.device(self.id)
            && !device.is_emulated()
        {
            self.context.enter(&device.group);
        }
        // What devices did in another address space has ended.
        self.context.settle(state, true);
        Ok(attached)
    }

    /// Attaches the device to the address space of the type1 calls.
    pub(crate) fn attach_compat(&self) -> Result<ObjectId, IoasAttachError> {
        let compat = self.context.lock().compat;
        self.attach(compat.ok_or(IoasAttachError::NoCompatIoas)?)
    }

    /// Detaches the device, if it is attached.
    pub(crate) fn detach(&self) {
        self.context.detach(self.id);
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.context.detach(self.id);
        let device = self.context.lock().objects.remove(self.id);
        // Not ours to drop under the lock.
        drop(device);
    }
}
