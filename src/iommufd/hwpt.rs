// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Domains that a program makes itself (`iommufd_hwpt_alloc` in `drivers/iommu/iommufd/hw_pagetable.c`).
//!
//! Such a domain translates by an address space before a device is attached to it, and until the program
//! destroys it. Attaching a device to the address space never chooses it. Only those without nesting,
//! dirty tracking, page requests and PASIDs are modelled.

use std::sync::Arc;

use super::Iommufd;
use super::attach_error::IoasAttachError;
use super::context::State;
use super::objects::{Device, Object, ObjectId};
use crate::errno::Errno;

/// The iommufd has no device with this number that an IOMMU translates for. ENOENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the iommufd has no device {id} behind an IOMMU; VFIO_DEVICE_BIND_IOMMUFD tells its number"
)]
pub struct NoSuchDevice {
    /// The number given.
    pub id: u32,
}

impl NoSuchDevice {
    /// What the kernel answers.
    pub fn errno(self) -> Errno {
        Errno::ENOENT
    }
}

/// A request for a domain, as the caller states it; it may break any rule (`struct iommu_hwpt_alloc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwptAlloc {
    /// The device whose IOMMU makes it.
    pub device: u32,
    /// The address space to translate by.
    pub ioas: u32,
    /// 0, [`HwptAlloc::NEST_PARENT`] and the others.
    pub flags: u32,
    /// The kind of the driver's data; 0 for none.
    pub data_type: u32,
    /// How much of it there is, in bytes.
    pub data_len: u32,
}

impl HwptAlloc {
    /// Others can be nested in it (`IOMMU_HWPT_ALLOC_NEST_PARENT`). Not modelled.
    pub const NEST_PARENT: u32 = 1;
    /// The IOMMU notes what devices write (`IOMMU_HWPT_ALLOC_DIRTY_TRACKING`). Not modelled.
    pub const DIRTY_TRACKING: u32 = 2;
    /// Page requests go to a queue (`IOMMU_HWPT_FAULT_ID_VALID`). Not modelled.
    pub const FAULT_ID_VALID: u32 = 4;
    /// It can be attached to a PASID (`IOMMU_HWPT_ALLOC_PASID`, from 6.14). Not modelled.
    pub const PASID: u32 = 8;

    /// A plain domain of an address space.
    pub fn new(device: u32, ioas: u32) -> Self {
        Self { device, ioas, flags: 0, data_type: 0, data_len: 0 }
    }
}

/// Why HWPT_ALLOC was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HwptAllocError {
    /// Data of a kind without a length, or a length without a kind. EINVAL.
    #[error("data of type {data_type} is {data_len} bytes long; set both, or neither")]
    DataLength {
        /// The kind given.
        data_type: u32,
        /// The length given, in bytes.
        data_len: u32,
    },
    /// There is no such device. ENOENT.
    #[error(transparent)]
    NoSuchDevice(#[from] NoSuchDevice),
    /// The object to translate by is none that a domain can be made of. EINVAL.
    #[error("object {id} is no address space; allocate one with IOMMU_IOAS_ALLOC")]
    NotAnIoas {
        /// The number given.
        id: u32,
    },
    /// A flag that iommufd does not know. EOPNOTSUPP.
    #[error("flags {flags:#x} has bits that iommufd does not know; it knows {known:#x}")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
        /// The flags known.
        known: u32,
    },
    /// The domain is to do what is not here. EOPNOTSUPP, as from an IOMMU that cannot do it.
    #[error(
        "IOMMU_HWPT_ALLOC {what}, which is not modelled; ask for flags 0, no data, and an address space"
    )]
    NotModelled {
        /// What asks for it, and for what.
        what: &'static str,
    },
    /// The address space or the IOMMU does not take the domain.
    #[error("no page table for object {ioas}: {error}")]
    Refused {
        /// The address space.
        ioas: u32,
        /// Why.
        error: Box<IoasAttachError>,
    },
}

impl HwptAllocError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::DataLength { .. } | Self::NotAnIoas { .. } => Errno::EINVAL,
            Self::NoSuchDevice(error) => error.errno(),
            Self::UnknownFlags { .. } | Self::NotModelled { .. } => Errno::EOPNOTSUPP,
            Self::Refused { error, .. } => error.errno(),
        }
    }
}

impl Iommufd {
    /// `IOMMU_HWPT_ALLOC`: makes a domain for the device's IOMMU and enters all mappings of the address space;
    /// returns its number. A device can be attached to it ([`OpenCdev::attach`](crate::OpenCdev::attach)).
    ///
    /// What the domain cannot translate is not valid from now on; what the device reserves, only while it is
    /// attached.
    pub fn hwpt_alloc(&self, request: &HwptAlloc) -> Result<u32, HwptAllocError> {
        let HwptAlloc { device, ioas, data_type, data_len, .. } = *request;
        if (data_type == 0) != (data_len == 0) {
            return Err(HwptAllocError::DataLength { data_type, data_len });
        }
        let mut state = self.context.lock();
        let device = state.translated_device(device)?.clone();
        match state.objects.get(ioas) {
            Some(Object::Ioas(_)) => check_modelled(request)?,
            Some(Object::Domain { .. }) => {
                let what = "with a page table for pt_id asks for nesting";
                return Err(HwptAllocError::NotModelled { what });
            }
            Some(Object::Device(_)) | None => return Err(HwptAllocError::NotAnIoas { id: ioas }),
        }
        let made = state.make_domain(&device, ioas);
        made.map_err(|error| HwptAllocError::Refused { ioas, error: Box::new(error) })
    }

    /// Whether there is a device with this number, and an IOMMU translates for it.
    pub(crate) fn check_device(&self, id: u32) -> Result<(), NoSuchDevice> {
        self.context.lock().translated_device(id).map(|_| ())
    }
}

fn check_modelled(request: &HwptAlloc) -> Result<(), HwptAllocError> {
    let asked_for = [
        (HwptAlloc::NEST_PARENT, "with flag NEST_PARENT asks for nesting"),
        (
            HwptAlloc::DIRTY_TRACKING,
            "with flag DIRTY_TRACKING asks for dirty tracking by the IOMMU",
        ),
        (HwptAlloc::FAULT_ID_VALID, "with flag FAULT_ID_VALID asks for page requests"),
        (HwptAlloc::PASID, "with flag PASID asks for PASIDs"),
    ];
    let flags = request.flags;
    let known = asked_for.iter().fold(0, |known, (flag, _)| known | flag);
    if flags & !known != 0 {
        return Err(HwptAllocError::UnknownFlags { flags, known });
    }
    let by_flag = asked_for.iter().find(|(flag, _)| flags & flag != 0).map(|(_, what)| *what);
    let by_data = (request.data_type != 0).then_some("with data of the IOMMU's asks for nesting");
    match by_flag.or(by_data) {
        Some(what) => Err(HwptAllocError::NotModelled { what }),
        None => Ok(()),
    }
}

impl State {
    /// The device with this number; emulated ones are none that an IOMMU translates for.
    fn translated_device(&self, id: ObjectId) -> Result<&Device, NoSuchDevice> {
        let device = self.objects.device(id).filter(|device| device.group.iommu().is_some());
        device.filter(|device| !device.is_emulated()).ok_or(NoSuchDevice { id })
    }

    fn make_domain(
        &mut self,
        device: &Device,
        ioas: ObjectId,
    ) -> Result<ObjectId, IoasAttachError> {
        let new = self.objects.free_id();
        let no_object = IoasAttachError::NoSuchObject { id: ioas };
        let (Some(space), Some(iommu)) = (self.objects.ioas_mut(ioas), device.group.iommu()) else {
            return Err(no_object);
        };
        space.add_domain(&device.group, &Arc::clone(iommu), new, false)?;
        self.objects.insert(new, Object::Domain { ioas });
        Ok(new)
    }
}
