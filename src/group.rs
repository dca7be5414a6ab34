// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The group: `/dev/vfio/<number>`, once opened (`drivers/vfio/group.c`; spec 2).
//!
//! A group can be open once. It is put into a container, its devices are opened, and it leaves the
//! container when it is told to or when its last descriptor closes; open devices count as
//! descriptors of it.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::claim::AddGroupError;
use crate::container::Container;
use crate::device::OpenDevice;
use crate::errno::Errno;
use crate::host::{Binding, DeviceDescription, Group, GroupId, GroupKind};
use crate::kernel::{Kernel, Ownership};
use crate::process::Process;
use crate::state::Core;
use crate::sync::{Mutex, MutexGuard};
use crate::sysfs;
use crate::vfio::Shared;

/// An open group. A clone is what `dup` makes: another descriptor of the same open file.
#[derive(Clone)]
pub struct OpenGroup {
    pub(crate) file: Arc<GroupFile>,
}

/// What descriptors of the group and of its devices share.
pub(crate) struct GroupFile {
    shared: Arc<Shared>,
    pub(crate) group: Arc<Group>,
    state: Mutex<State>,
}

struct State {
    container: Option<Arc<Core>>,
    open_devices: u32,
}

/// What `VFIO_GROUP_GET_STATUS` says (spec 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group can be used: no device of it does DMA for the kernel.
    pub viable: bool,
    /// The group is in a container.
    pub container_set: bool,
}

/// Why a group cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenGroupError {
    /// The host has no such group. ENOENT.
    #[error("the host has no group {group}; it has {}", list(known))]
    NoGroup {
        /// The group asked for.
        group: GroupId,
        /// The groups there are.
        known: Vec<GroupId>,
    },
    /// No device of the group is bound to VFIO, so it has no node. ENOENT.
    #[error("there is no /dev/vfio/{group}; bind a device of the group to vfio-pci")]
    NoNode {
        /// The group asked for.
        group: GroupId,
    },
    /// A noiommu group needs CAP_SYS_RAWIO. EPERM.
    #[error("group {group} has no IOMMU; the process needs CAP_SYS_RAWIO to open it")]
    NeedsRawIo {
        /// The group.
        group: GroupId,
    },
    /// The group is open already, or a device of it is. EBUSY.
    #[error("group {group} is open already; it can be opened only once, so share the descriptor")]
    AlreadyOpen {
        /// The group.
        group: GroupId,
    },
}

fn list(groups: &[GroupId]) -> String {
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl OpenGroupError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoGroup { .. } | Self::NoNode { .. } => Errno::ENOENT,
            Self::NeedsRawIo { .. } => Errno::EPERM,
            Self::AlreadyOpen { .. } => Errno::EBUSY,
        }
    }
}

/// What a file descriptor given to SET_CONTAINER refers to.
#[derive(Clone, Debug)]
pub enum FdTarget {
    /// A container.
    Container(Container),
    /// No open file.
    Closed,
    /// Some other file.
    Other,
}

/// Why SET_CONTAINER was refused: one variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetContainerError {
    /// The descriptor is negative. EINVAL up to 5.18, EBADF later.
    #[error("file descriptor {fd} is negative; pass that of an open container")]
    NegativeFd {
        /// The descriptor given.
        fd: i32,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The descriptor is not open. EBADF.
    #[error("file descriptor {fd} is not open; pass that of an open container")]
    BadFd {
        /// The descriptor given.
        fd: i32,
    },
    /// The group is in a container. EINVAL.
    #[error("group {group} is in a container already; unset that first")]
    AlreadySet {
        /// The group.
        group: GroupId,
    },
    /// A noiommu group needs CAP_SYS_RAWIO. EPERM.
    #[error("group {group} has no IOMMU; the process needs CAP_SYS_RAWIO to use it")]
    NeedsRawIo {
        /// The group.
        group: GroupId,
    },
    /// The descriptor is that of another file. EBADFD from 6.2, EINVAL before.
    #[error("file descriptor {fd} is not a container; open /dev/vfio/vfio")]
    NotAContainer {
        /// The descriptor given.
        fd: i32,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The container does not take the group.
    #[error(transparent)]
    Refused(#[from] AddGroupError),
}

impl SetContainerError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NegativeFd { errno, .. } | Self::NotAContainer { errno, .. } => *errno,
            Self::BadFd { .. } => Errno::EBADF,
            Self::AlreadySet { .. } => Errno::EINVAL,
            Self::NeedsRawIo { .. } => Errno::EPERM,
            Self::Refused(error) => error.errno(),
        }
    }
}

/// Why UNSET_CONTAINER was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsetContainerError {
    /// The group is in no container. EINVAL.
    #[error("group {group} is in no container")]
    NotSet {
        /// The group.
        group: GroupId,
    },
    /// A device of the group is open. EBUSY.
    #[error("devices of group {group} are open ({count}); close them first")]
    DevicesOpen {
        /// The group.
        group: GroupId,
        /// How many.
        count: u32,
    },
}

impl UnsetContainerError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotSet { .. } => Errno::EINVAL,
            Self::DevicesOpen { .. } => Errno::EBUSY,
        }
    }
}

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
}

impl OpenDeviceError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoDevice { .. } => Errno::ENODEV,
            Self::NeedsRawIo { .. } => Errno::EPERM,
            Self::Options { .. }
            | Self::NoContainer { .. }
            | Self::NoDriver { .. }
            | Self::NotViable { .. } => Errno::EINVAL,
        }
    }
}

impl OpenGroup {
    /// Opens a group that the caller has marked open in `shared`.
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>) -> Self {
        let state = Mutex::new(State { container: None, open_devices: 0 });
        Self { file: Arc::new(GroupFile { shared, group, state }) }
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.file.group.id
    }

    /// The longest device name, with its NUL, in bytes: a page.
    pub(crate) fn longest_name(&self) -> u64 {
        self.file.shared.cpu_page.bytes()
    }

    /// The kernel that is imitated.
    pub fn kernel(&self) -> &Kernel {
        &self.file.shared.kernel
    }

    /// The text of the group's `reserved_regions` in sysfs.
    pub fn reserved_regions(&self) -> String {
        sysfs::render(&self.file.group.regions, self.kernel().behaviours().sysfs_one_page)
    }

    /// `VFIO_GROUP_GET_STATUS`.
    pub fn status(&self) -> GroupStatus {
        let container_set = self.file.lock().container.is_some();
        let usable = self.file.group.kernel_owned().is_none();
        let viable = match self.kernel().behaviours().ownership {
            Ownership::Viability => usable,
            Ownership::Claimed => container_set || usable,
        };
        GroupStatus { viable, container_set }
    }

    /// `VFIO_GROUP_SET_CONTAINER`: puts the group into a container, and attaches it if that has a
    /// driver. `caller` is the process whose memory is pinned then.
    pub fn set_container(
        &self,
        container: &Container,
        caller: &Process,
    ) -> Result<(), SetContainerError> {
        self.set_container_fd(0, FdTarget::Container(container.clone()), caller)
    }

    /// `VFIO_GROUP_SET_CONTAINER` with a file descriptor and what it refers to.
    pub fn set_container_fd(
        &self,
        fd: i32,
        target: FdTarget,
        caller: &Process,
    ) -> Result<(), SetContainerError> {
        let group = &self.file.group;
        let late = self.kernel().behaviours().fd_checked_late;
        let mut state = self.file.lock();
        if !late || fd < 0 {
            check_open(fd, &target, late)?;
        }
        if state.container.is_some() {
            return Err(SetContainerError::AlreadySet { group: group.id });
        }
        let needs_rawio = group.is_noiommu() && !caller.cap_sys_rawio();
        if late && needs_rawio {
            return Err(SetContainerError::NeedsRawIo { group: group.id });
        }
        check_open(fd, &target, late)?;
        let FdTarget::Container(container) = target else {
            let ebadfd = self.kernel().behaviours().foreign_fd_is_ebadfd;
            let errno = if ebadfd { Errno::EBADFD } else { Errno::EINVAL };
            return Err(SetContainerError::NotAContainer { fd, errno });
        };
        if needs_rawio {
            return Err(SetContainerError::NeedsRawIo { group: group.id });
        }
        container.core.add(group, caller)?;
        group.bus.enter(&container.core);
        state.container = Some(container.core);
        Ok(())
    }

    /// `VFIO_GROUP_UNSET_CONTAINER`: takes the group out of its container. With the last group go
    /// the container's mappings and its driver.
    pub fn unset_container(&self) -> Result<(), UnsetContainerError> {
        let group = self.id();
        let mut state = self.file.lock();
        let container = state.container.clone().ok_or(UnsetContainerError::NotSet { group })?;
        if state.open_devices != 0 {
            return Err(UnsetContainerError::DevicesOpen { group, count: state.open_devices });
        }
        container.remove(&self.file.group);
        state.container = None;
        Ok(())
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`: opens a device by name. It may be opened more than once.
    pub fn open_device(&self, name: &str, caller: &Process) -> Result<OpenDevice, OpenDeviceError> {
        let name_first = self.kernel().behaviours().device_name_first;
        let mut state = self.file.lock();
        if name_first {
            self.find_device(name)?;
        }
        let container = self.check_usable(&state)?;
        if self.file.group.is_noiommu() && !caller.cap_sys_rawio() {
            return Err(OpenDeviceError::NeedsRawIo { group: self.id() });
        }
        let device = self.find_device(name)?;
        state.open_devices += 1;
        Ok(OpenDevice::new(Arc::clone(&self.file), container, device))
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

    fn check_usable(&self, state: &State) -> Result<Arc<Core>, OpenDeviceError> {
        let group = self.id();
        let container = state.container.clone().ok_or(OpenDeviceError::NoContainer { group })?;
        if !container.has_driver() {
            return Err(OpenDeviceError::NoDriver { group });
        }
        let viability = self.kernel().behaviours().ownership == Ownership::Viability;
        match self.file.group.kernel_owned() {
            Some((device, driver)) if viability => Err(OpenDeviceError::NotViable {
                group,
                device: device.to_owned(),
                driver: driver.to_owned(),
            }),
            _ => Ok(container),
        }
    }
}

fn check_open(fd: i32, target: &FdTarget, late: bool) -> Result<(), SetContainerError> {
    match target {
        _ if fd < 0 => {
            let errno = if late { Errno::EINVAL } else { Errno::EBADF };
            Err(SetContainerError::NegativeFd { fd, errno })
        }
        FdTarget::Closed => Err(SetContainerError::BadFd { fd }),
        FdTarget::Container(_) | FdTarget::Other => Ok(()),
    }
}

impl GroupFile {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn device_closed(&self) {
        let mut state = self.lock();
        state.open_devices = state.open_devices.saturating_sub(1);
    }
}

impl Drop for GroupFile {
    /// The last descriptor, of the group or of a device, is closed: like UNSET_CONTAINER.
    fn drop(&mut self) {
        if let Some(container) = self.lock().container.take() {
            container.remove(&self.group);
        }
        self.shared.mark_closed(self.group.id);
    }
}

impl fmt::Debug for OpenGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenGroup")
            .field("id", &self.id())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
