// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device opened by a node of its own: `/dev/vfio/devices/vfioN`, from 6.6 (`drivers/vfio/device_cdev.c`;
//! spec 9).
//!
//! It refuses everything until it is bound to an iommufd. Then it is attached to an address space, or to
//! another one, or detached, as often as the program likes. While it is bound, nobody opens its group.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::errno::Errno;
use crate::group::FdTarget;
use crate::host::{Binding, Group, GroupId};
use crate::iommufd::{BindError, Bound, IoasAttachError, Iommufd};
use crate::kernel::Kernel;
use crate::sync::{Mutex, MutexGuard};
use crate::vfio::Shared;

/// A device opened by its own node. A clone is what `dup` makes: another descriptor of the same open file.
#[derive(Clone)]
pub struct OpenCdev {
    file: Arc<CdevFile>,
}

/// What its descriptors share.
struct CdevFile {
    shared: Arc<Shared>,
    group: Arc<Group>,
    name: String,
    access: Mutex<Option<Access>>,
}

/// What a device has once it is bound. It is detached before its group may be opened again.
struct Access {
    bound: Arc<Bound>,
    _block: Block,
}

/// Keeps a group from being opened, for as long as a device of it is bound by its own node.
struct Block {
    shared: Arc<Shared>,
    group: GroupId,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.shared.unblock(self.group);
    }
}

/// Why a device cannot be opened by its own node. ENOENT: there is no node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenCdevError {
    /// The kernel has no nodes of devices (before 6.6). ENOENT.
    #[error("kernel {kernel} has no /dev/vfio/devices, which came with 6.6; open the group")]
    NoNodes {
        /// The kernel.
        kernel: Kernel,
    },
    /// The host has no such device. ENOENT.
    #[error("the host has no device \"{name}\"")]
    NoDevice {
        /// The name asked for.
        name: String,
    },
    /// The device is not bound to VFIO, or has no IOMMU. ENOENT.
    #[error("{name} has no node; it must be bound to vfio-pci, and behind an IOMMU")]
    NoNode {
        /// The device.
        name: String,
    },
}

impl OpenCdevError {
    /// What opening it answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoNodes { .. } | Self::NoDevice { .. } | Self::NoNode { .. } => Errno::ENOENT,
        }
    }
}

/// Why BIND_IOMMUFD was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindCdevError {
    /// The descriptor is negative. EINVAL.
    #[error("file descriptor {fd} is negative; pass that of an open iommufd")]
    NegativeFd {
        /// The descriptor given.
        fd: i32,
    },
    /// The device's group is open. EBUSY.
    #[error("group {group} of {device} is open; close it, or open the device through it")]
    GroupOpen {
        /// The device.
        device: String,
        /// Its group.
        group: GroupId,
    },
    /// This open device is bound. EINVAL.
    #[error("{device} is bound already; it stays so until it is closed")]
    AlreadyBound {
        /// The device.
        device: String,
    },
    /// The descriptor is not open. EBADF.
    #[error("file descriptor {fd} is not open; pass that of an open iommufd")]
    BadFd {
        /// The descriptor given.
        fd: i32,
    },
    /// The descriptor is that of another file. EBADFD.
    #[error("file descriptor {fd} is not an iommufd; open /dev/iommu")]
    NotAnIommufd {
        /// The descriptor given.
        fd: i32,
    },
    /// The device is open elsewhere, and bound there. EINVAL.
    #[error("{device} is open elsewhere; close that first")]
    OpenElsewhere {
        /// The device.
        device: String,
    },
    /// The iommufd does not take the device.
    #[error("{device} cannot be bound: {error}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        error: BindError,
    },
}

impl BindCdevError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::GroupOpen { .. } => Errno::EBUSY,
            Self::BadFd { .. } => Errno::EBADF,
            Self::NotAnIommufd { .. } => Errno::EBADFD,
            Self::Refused { error, .. } => error.errno(),
            Self::NegativeFd { .. } | Self::AlreadyBound { .. } | Self::OpenElsewhere { .. } => {
                Errno::EINVAL
            }
        }
    }
}

/// A device that is open but not bound to an iommufd, and so refuses everything else. EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device is not bound to an iommufd; VFIO_DEVICE_BIND_IOMMUFD comes first")]
pub struct NotBound;

impl NotBound {
    /// What the kernel answers.
    pub fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

/// Why ATTACH_IOMMUFD_PT was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachCdevError {
    /// The device is not bound. EINVAL.
    #[error(transparent)]
    NotBound(#[from] NotBound),
    /// The device cannot be attached; it stays where it was.
    #[error("{device} cannot be attached: {error}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        error: Box<IoasAttachError>,
    },
}

impl AttachCdevError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotBound(error) => error.errno(),
            Self::Refused { error, .. } => error.errno(),
        }
    }
}

impl OpenCdev {
    /// Opens the device called `name`, of this group.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        group: Option<&Arc<Group>>,
        name: &str,
    ) -> Result<Self, OpenCdevError> {
        let (kernel, name) = (shared.kernel, name.to_owned());
        if !kernel.behaviours().device_nodes {
            return Err(OpenCdevError::NoNodes { kernel });
        }
        let Some(group) = group else { return Err(OpenCdevError::NoDevice { name }) };
        let mut devices = group.devices.iter();
        let bound = devices.any(|one| one.name == name && one.binding == Binding::Vfio);
        if !bound || group.is_noiommu() {
            return Err(OpenCdevError::NoNode { name });
        }
        let (shared, group) = (Arc::clone(shared), Arc::clone(group));
        let access = Mutex::new(None);
        Ok(Self { file: Arc::new(CdevFile { shared, group, name, access }) })
    }

    /// The device's name, such as `0000:00:03.0`.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.file.group.id
    }

    /// Whether it is bound, and so takes other calls. Before that they are [`NotBound`].
    pub fn check_bound(&self) -> Result<(), NotBound> {
        self.file.bound().map(|_| ())
    }

    /// `VFIO_DEVICE_BIND_IOMMUFD`: returns the device's number as an object of the iommufd.
    pub fn bind(&self, iommufd: &Iommufd) -> Result<u32, BindCdevError> {
        self.bind_fd(0, FdTarget::Iommufd(iommufd.clone()))
    }

    /// `VFIO_DEVICE_BIND_IOMMUFD` with a file descriptor and what it refers to.
    pub fn bind_fd(&self, fd: i32, target: FdTarget) -> Result<u32, BindCdevError> {
        let CdevFile { shared, group, name, .. } = &*self.file;
        let device = || name.clone();
        if fd < 0 {
            return Err(BindCdevError::NegativeFd { fd });
        }
        if !shared.block(group.id) {
            return Err(BindCdevError::GroupOpen { device: device(), group: group.id });
        }
        let block = Block { shared: Arc::clone(shared), group: group.id };
        let mut access = self.file.lock();
        if access.is_some() {
            return Err(BindCdevError::AlreadyBound { device: device() });
        }
        let context = match target {
            FdTarget::Iommufd(iommufd) => iommufd.context,
            FdTarget::Closed => return Err(BindCdevError::BadFd { fd }),
            FdTarget::Container(_) | FdTarget::Other => {
                return Err(BindCdevError::NotAnIommufd { fd });
            }
        };
        let bind = || Bound::new(&context, group, name);
        let bound = group.bound.open_alone(name, bind);
        let bound = bound.ok_or_else(|| BindCdevError::OpenElsewhere { device: device() })?;
        let bound = bound.map_err(|error| BindCdevError::Refused { device: device(), error })?;
        let id = bound.id();
        *access = Some(Access { bound, _block: block });
        Ok(id)
    }

    /// Undoes [`Self::bind`], whose result could not be told.
    pub(crate) fn unbind(&self) {
        let access = self.file.lock().take();
        drop(access);
    }

    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: lets the device translate by an address space, in place of the one
    /// before, if any. `object` is an address space or a domain of one; the answer is the domain, or for
    /// emulated devices the address space.
    pub fn attach(&self, object: u32) -> Result<u32, AttachCdevError> {
        let refused = |error| AttachCdevError::Refused {
            device: self.file.name.clone(),
            error: Box::new(error),
        };
        self.file.bound()?.attach(object).map_err(refused)
    }

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`: when it returns, the device's group accesses nothing by the address
    /// space, unless another device of it is attached. A device that is not attached stays so.
    pub fn detach(&self) -> Result<(), NotBound> {
        self.file.bound()?.detach();
        Ok(())
    }
}

impl CdevFile {
    fn lock(&self) -> MutexGuard<'_, Option<Access>> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self) -> Result<Arc<Bound>, NotBound> {
        self.lock().as_ref().map(|access| Arc::clone(&access.bound)).ok_or(NotBound)
    }
}

impl fmt::Debug for OpenCdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenCdev")
            .field("name", &self.name())
            .field("group", &self.group())
            .finish_non_exhaustive()
    }
}
