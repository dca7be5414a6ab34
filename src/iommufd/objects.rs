// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The objects of an iommufd, by the numbers that programs know them by (`iommufd_object` in
//! `drivers/iommu/iommufd/main.c`). A new object gets the lowest free number, from 1 on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ioas::Ioas;
use crate::host::{DeviceDescription, Group, GroupKind};

/// The number of an object.
pub(crate) type ObjectId = u32;

#[derive(Debug, Default)]
pub(super) struct Objects(BTreeMap<ObjectId, Object>);

#[derive(Debug)]
pub(super) enum Object {
    Ioas(Box<Ioas>),
    /// A domain (`HWPT`) of an address space.
    Domain {
        ioas: ObjectId,
    },
    Device(Device),
}

/// A device that is bound to the iommufd.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) group: Arc<Group>,
    pub(super) name: String,
    /// Where it is attached.
    pub(super) attached: Option<Attached>,
}

/// Where a device is attached; an emulated one has no domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) ioas: ObjectId,
    pub(super) domain: Option<ObjectId>,
}

impl Device {
    pub(super) fn is_emulated(&self) -> bool {
        matches!(self.group.kind, GroupKind::Emulated)
    }

    pub(super) fn description(&self) -> Option<&DeviceDescription> {
        self.group.devices.iter().find(|device| device.name == self.name)
    }
}

impl Objects {
    /// The number that the next object gets.
    pub(super) fn free_id(&self) -> ObjectId {
        let taken = self.0.keys().zip(1..).take_while(|(id, expected)| **id == *expected);
        taken.last().map_or(1, |(id, _)| id + 1)
    }

    pub(super) fn add(&mut self, object: Object) -> ObjectId {
        let id = self.free_id();
        self.0.insert(id, object);
        id
    }

    pub(super) fn insert(&mut self, id: ObjectId, object: Object) {
        self.0.insert(id, object);
    }

    pub(super) fn remove(&mut self, id: ObjectId) -> Option<Object> {
        self.0.remove(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: ObjectId) -> Option<&Object> {
        self.0.get(&id)
    }

    pub(super) fn ioas(&self, id: ObjectId) -> Option<&Ioas> {
        match self.0.get(&id) {
            Some(Object::Ioas(ioas)) => Some(ioas),
            _ => None,
        }
    }

    pub(super) fn ioas_mut(&mut self, id: ObjectId) -> Option<&mut Ioas> {
        match self.0.get_mut(&id) {
            Some(Object::Ioas(ioas)) => Some(ioas),
            _ => None,
        }
    }

    pub(super) fn device(&self, id: ObjectId) -> Option<&Device> {
        match self.0.get(&id) {
            Some(Object::Device(device)) => Some(device),
            _ => None,
        }
    }

    pub(super) fn device_mut(&mut self, id: ObjectId) -> Option<&mut Device> {
        match self.0.get_mut(&id) {
            Some(Object::Device(device)) => Some(device),
            _ => None,
        }
    }

    /// The bound devices, by number.
    pub(super) fn devices(&self) -> impl Iterator<Item = (ObjectId, &Device)> {
        self.0.iter().filter_map(|(id, object)| match object {
            Object::Device(device) => Some((*id, device)),
            Object::Ioas(_) | Object::Domain { .. } => None,
        })
    }

    /// The numbers of the address spaces, ascending.
    pub(super) fn ioas_ids(&self) -> impl Iterator<Item = ObjectId> {
        self.0.iter().filter(|(_, object)| matches!(object, Object::Ioas(_))).map(|(id, _)| *id)
    }

    /// The address spaces.
    pub(super) fn all_ioas(&self) -> impl Iterator<Item = &Ioas> {
        self.0.values().filter_map(|object| match object {
            Object::Ioas(ioas) => Some(&**ioas),
            Object::Device(_) | Object::Domain { .. } => None,
        })
    }
}
