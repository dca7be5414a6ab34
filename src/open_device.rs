// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `VFIO_GROUP_GET_DEVICE_FD`: opening a device through its group (`drivers/vfio/group.c`; spec 2.6, 9).
//!
//! In a container the group has been attached before. In an iommufd it is the device that is, when it is
//! opened first.

use std::sync::Arc;

use crate::device::{OpenDevice, Reach};
use crate::errno::Errno;
use crate::group::{Home, OpenGroup, State};
use crate::host::{Binding, DeviceDescription, GroupId, GroupKind};
use crate::iommufd::{BindError, Bound, Context, IoasAttachError};
use crate::kernel::Ownership;
use crate::process::Process;

/// Why GET_DEVICE_FD was refused: one variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenDeviceError {
    /// The group has no such device bound to VFIO. ENODEV.
    #[error("group {group} has no device \"{name}\" bound to VFIO; it has {devices}")]
    NoDevice {
        /// The group.
        group: GroupId,
        /// The name asked for.
        name: String,
        /// The names of the group's devices that are.
        devices: String,
    },
    /// Options stand behind the name, which only virtual functions take. EINVAL.
    #[error("\"{name}\": options such as vf_token are for virtual functions only")]
    Options {
        /// What was asked for.
        name: String,
    },
    /// The group is in no container. EINVAL.
    #[error("group {group} is in no container; set it first")]
    NoContainer {
        /// The group.
        group: GroupId,
    },
    /// The container has no IOMMU driver. EINVAL.
    #[error("the container of group {group} has no IOMMU driver; SET_IOMMU first")]
    NoDriver {
        /// The group.
        group: GroupId,
    },
    /// The group is not viable (up to 5.18). EINVAL.
    #[error("{device} of group {group} is bound to the kernel driver {driver}; unbind it")]
    NotViable {
        /// The group.
        group: GroupId,
        /// The device.
        device: String,
        /// Its driver.
        driver: String,
    },
    /// A noiommu group needs CAP_SYS_RAWIO. EPERM.
    #[error("group {group} has no IOMMU; the process needs CAP_SYS_RAWIO to open its devices")]
    NeedsRawIo {
        /// The group.
        group: GroupId,
    },
    /// A noiommu group is in an iommufd that has a compatibility address space. EPERM.
    #[error(
        "group {group} has no IOMMU, but its iommufd has a compatibility address space, \
         which nothing would translate by; use an iommufd without one"
    )]
    CompatIoasSet {
        /// The group.
        group: GroupId,
    },
    /// The device cannot be bound to the group's iommufd.
    #[error("{name} cannot be bound to the iommufd: {error}")]
    Bind {
        /// The device.
        name: String,
        /// Why.
        error: BindError,
    },
    /// The device cannot be attached to the compatibility address space of the group's iommufd.
    #[error("{name} cannot be attached to the iommufd: {error}")]
    Attach {
        /// The device.
        name: String,
        /// Why.
        error: Box<IoasAttachError>,
    },
}

impl OpenDeviceError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoDevice { .. } => Errno::ENODEV,
            Self::NeedsRawIo { .. } | Self::CompatIoasSet { .. } => Errno::EPERM,
            Self::Bind { error, .. } => error.errno(),
            Self::Attach { error, .. } => error.errno(),
            Self::Options { .. }
            | Self::NoContainer { .. }
            | Self::NoDriver { .. }
            | Self::NotViable { .. } => Errno::EINVAL,
        }
    }
}

impl OpenGroup {
    /// `VFIO_GROUP_GET_DEVICE_FD`: opens a device by name. It may be opened more than once.
    pub fn open_device(&self, name: &str, caller: &Process) -> Result<OpenDevice, OpenDeviceError> {
        let name_first = self.kernel().behaviours().device_name_first;
        let mut state = self.file.lock();
        if name_first {
            self.find_device(name)?;
        }
        let home = self.check_usable(&state)?;
        if self.file.group.is_noiommu() && !caller.cap_sys_rawio() {
            return Err(OpenDeviceError::NeedsRawIo { group: self.id() });
        }
        let device = self.find_device(name)?;
        let reach = match home {
            Home::Container(container) => {
                state.open_devices += 1;
                Reach::Container(container, Arc::clone(&self.file))
            }
            Home::Iommufd(context) => self.bind(&context, &device)?,
        };
        Ok(OpenDevice::new(Arc::clone(&self.file.group), reach, device))
    }

    /// Binds a device to the group's iommufd and attaches it, unless it is open already.
    fn bind(&self, context: &Arc<Context>, name: &str) -> Result<Reach, OpenDeviceError> {
        let group = &self.file.group;
        if group.is_noiommu() {
            let refused = Err(OpenDeviceError::CompatIoasSet { group: group.id });
            return if context.has_compat() { refused } else { Ok(Reach::NoIommu) };
        }
        let bound = group.bound.open(name, || {
            let refused = |error| OpenDeviceError::Bind { name: name.to_owned(), error };
            let bound = Bound::new(context, group, name).map_err(refused)?;
            bound.attach_compat().map_err(|error| OpenDeviceError::Attach {
                name: name.to_owned(),
                error: Box::new(error),
            })?;
            Ok(bound)
        });
        bound.map(Reach::Iommufd)
    }

    /// The device that `name` opens.
    fn find_device(&self, name: &str) -> Result<String, OpenDeviceError> {
        let group = &self.file.group;
        let emulated = matches!(group.kind, GroupKind::Emulated);
        let vfio = |device: &&DeviceDescription| device.binding == Binding::Vfio;
        let bound = || group.devices.iter().filter(vfio).map(|device| device.name.as_str());
        // vfio-pci takes options behind the name, which only virtual functions have.
        let has_options = self.kernel().behaviours().device_options && !emulated;
        let options = |device: &str| {
            let rest = name.strip_prefix(device).filter(|_| has_options)?;
            rest.starts_with(' ').then(|| rest.trim_start_matches(' '))
        };
        for device in bound() {
            match options(device) {
                _ if device == name => return Ok(device.to_owned()),
                Some("") => return Ok(device.to_owned()),
                Some(_) => return Err(OpenDeviceError::Options { name: name.to_owned() }),
                None => {}
            }
        }
        Err(OpenDeviceError::NoDevice {
            group: group.id,
            name: name.to_owned(),
            devices: bound().collect::<Vec<_>>().join(", "),
        })
    }

    fn check_usable(&self, state: &State) -> Result<Home, OpenDeviceError> {
        let group = self.id();
        let home = state.home.clone().ok_or(OpenDeviceError::NoContainer { group })?;
        if let Home::Container(container) = &home
            && !container.has_driver()
        {
            return Err(OpenDeviceError::NoDriver { group });
        }
        let viability = self.kernel().behaviours().ownership == Ownership::Viability;
        match self.file.group.kernel_owned() {
            Some((device, driver)) if viability => Err(OpenDeviceError::NotViable {
                group,
                device: device.to_owned(),
                driver: driver.to_owned(),
            }),
            _ => Ok(home),
        }
    }
}
