// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The group: `/dev/vfio/<number>`, once opened (`drivers/vfio/group.c`; spec 2).
//!
//! A group can be open once. It is put into a container, its devices are opened, and it leaves the
//! container when it is told to or when its last descriptor closes; open devices count as
//! descriptors of it.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use crate::claim::AddGroupError;
use crate::container::Container;
use crate::errno::Errno;
use crate::host::{Group, GroupId};
use crate::iommufd::{Context, Iommufd, OtherKind};
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
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: Arc<Group>,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) home: Option<Home>,
    /// Those in a container: they keep the group open.
    pub(crate) open_devices: u32,
}

/// What a group was put into.
#[derive(Clone)]
pub(crate) enum Home {
    Container(Arc<Core>),
    Iommufd(Arc<Context>),
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
    /// A device of the group is bound to an iommufd by its own node (from 6.6). EBUSY.
    #[error("a device of group {group} is open by its own node; close that, or use it")]
    OpenByNode {
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
            Self::OpenByNode { .. } | Self::AlreadyOpen { .. } => Errno::EBUSY,
        }
    }
}

/// What a file descriptor given to SET_CONTAINER refers to.
#[derive(Clone, Debug)]
pub enum FdTarget {
    /// A container.
    Container(Container),
    /// An iommufd (from 6.2).
    Iommufd(Iommufd),
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
    /// The iommufd holds groups of the other kind. EINVAL.
    #[error(
        "group {group} cannot share the iommufd with groups {}; use another one",
        if *.noiommu { "behind an IOMMU" } else { "without an IOMMU" }
    )]
    OtherKind {
        /// The group.
        group: GroupId,
        /// Whether it is one without an IOMMU.
        noiommu: bool,
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
            Self::AlreadySet { .. } | Self::OtherKind { .. } => Errno::EINVAL,
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

impl OpenGroup {
    /// Opens a group that the caller has marked open in `shared`.
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>) -> Self {
        let state = Mutex::new(State { home: None, open_devices: 0 });
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
        let container_set = self.file.lock().home.is_some();
        let group = &self.file.group;
        let usable = group.kernel_owned().is_none() && !group.claims.is_claimed();
        let viable = match self.kernel().behaviours().ownership {
            Ownership::Viability => group.kernel_owned().is_none(),
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

    /// `VFIO_GROUP_SET_CONTAINER`: puts the group into an iommufd, and gives that a compatibility address
    /// space if it has none.
    pub fn set_iommufd(
        &self,
        iommufd: &Iommufd,
        caller: &Process,
    ) -> Result<(), SetContainerError> {
        self.set_container_fd(0, FdTarget::Iommufd(iommufd.clone()), caller)
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
        if state.home.is_some() {
            return Err(SetContainerError::AlreadySet { group: group.id });
        }
        let needs_rawio = group.is_noiommu() && !caller.cap_sys_rawio();
        if late && needs_rawio {
            return Err(SetContainerError::NeedsRawIo { group: group.id });
        }
        check_open(fd, &target, late)?;
        state.home = Some(match target {
            FdTarget::Container(_) if needs_rawio => {
                return Err(SetContainerError::NeedsRawIo { group: group.id });
            }
            FdTarget::Container(container) => self.enter_container(container.core, caller)?,
            FdTarget::Iommufd(iommufd) => self.enter_iommufd(iommufd.context)?,
            FdTarget::Closed | FdTarget::Other => {
                let ebadfd = self.kernel().behaviours().foreign_fd_is_ebadfd;
                let errno = if ebadfd { Errno::EBADFD } else { Errno::EINVAL };
                return Err(SetContainerError::NotAContainer { fd, errno });
            }
        });
        Ok(())
    }

    fn enter_container(
        &self,
        core: Arc<Core>,
        caller: &Process,
    ) -> Result<Home, SetContainerError> {
        let group = &self.file.group;
        core.add(group, caller)?;
        let translator: Weak<Core> = Arc::downgrade(&core);
        group.bus.enter(translator);
        Ok(Home::Container(core))
    }

    /// Its devices are attached one by one, when they are opened.
    fn enter_iommufd(&self, context: Arc<Context>) -> Result<Home, SetContainerError> {
        let (group, noiommu) = (self.id(), self.file.group.is_noiommu());
        let other_kind = |OtherKind| SetContainerError::OtherKind { group, noiommu };
        context.take_group(noiommu).map_err(other_kind)?;
        Ok(Home::Iommufd(context))
    }

    /// `VFIO_GROUP_UNSET_CONTAINER`: takes the group out of its container. With the last group go
    /// the container's mappings and its driver; those of an iommufd stay.
    pub fn unset_container(&self) -> Result<(), UnsetContainerError> {
        let group = self.id();
        let mut state = self.file.lock();
        match state.home.as_ref().ok_or(UnsetContainerError::NotSet { group })? {
            Home::Container(_) if state.open_devices != 0 => {
                return Err(UnsetContainerError::DevicesOpen { group, count: state.open_devices });
            }
            Home::Container(container) => container.remove(&self.file.group),
            // Open devices stay attached, and keep the iommufd open.
            Home::Iommufd(_) => {}
        }
        state.home = None;
        Ok(())
    }
}

fn check_open(fd: i32, target: &FdTarget, late: bool) -> Result<(), SetContainerError> {
    match target {
        _ if fd < 0 => {
            let errno = if late { Errno::EINVAL } else { Errno::EBADF };
            Err(SetContainerError::NegativeFd { fd, errno })
        }
        FdTarget::Closed => Err(SetContainerError::BadFd { fd }),
        FdTarget::Container(_) | FdTarget::Iommufd(_) | FdTarget::Other => Ok(()),
    }
}

impl GroupFile {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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
        let home = self.lock().home.take();
        if let Some(Home::Container(container)) = home {
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
