// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Emulated devices on an address space (`iommufd_access_attach` in `drivers/iommu/iommufd/device.c`;
//! spec 9). They have no domain; what they need is that mappings are whole pages.

use super::ObjectId;
use super::attach::IoasAttachError;
use super::context::State;
use super::ioas::Ioas;
use super::objects::{Attached, Device};

impl State {
    /// Lets an emulated device use an address space, in place of the one it used before.
    pub(super) fn attach_access(
        &mut self,
        id: ObjectId,
        device: &Device,
        target: ObjectId,
    ) -> Result<ObjectId, IoasAttachError> {
        let no_object = IoasAttachError::NoSuchObject { id: target };
        self.objects.ioas_mut(target).ok_or(no_object)?.add_access(id)?;
        if let Some(before) = device.attached.filter(|before| before.ioas != target) {
            self.detach_access(id, before.ioas);
        }
        if let Some(device) = self.objects.device_mut(id) {
            device.attached = Some(Attached { ioas: target, domain: None });
        }
        Ok(target)
    }

    pub(super) fn detach_access(&mut self, id: ObjectId, ioas: ObjectId) {
        if let Some(ioas) = self.objects.ioas_mut(ioas) {
            ioas.accesses.remove(&id);
            // An access less asks for no larger alignment.
            let _ = ioas.realign();
        }
    }
}

impl Ioas {
    fn add_access(&mut self, id: ObjectId) -> Result<(), IoasAttachError> {
        let new = self.accesses.insert(id);
        self.realign().inspect_err(|_| {
            if new {
                self.accesses.remove(&id);
            }
        })?;
        Ok(())
    }
}
