// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One instance of the VFIO driver on one host: what `/dev/vfio` is to a program.
//!
//! Nothing is global: a test can have a thousand instances, each with its own kernel and host.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::cdev::{OpenCdev, OpenCdevError};
use crate::container::Container;
use crate::dma::BusMaster;
use crate::errno::Errno;
use crate::fault::{FaultLog, Faults};
use crate::group::{OpenGroup, OpenGroupError};
use crate::host::{Binding, Group, GroupDescription, GroupId};
use crate::inject::{Injected, Injector};
use crate::iommufd::Iommufd;
use crate::kernel::Kernel;
use crate::page_size::PageSize;
use crate::page_table::PageTables;
use crate::plan::FaultPlan;
use crate::process::Process;
use crate::reserved::ReservedRegion;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::sysfs;
use crate::watch::{Findings, Watch};

/// The default of the module parameter `dma_entry_limit`.
pub const DEFAULT_DMA_ENTRY_LIMIT: u32 = 65535;

/// The VFIO driver of one host. A clone is the same driver.
#[derive(Clone)]
pub struct Vfio {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) kernel: Kernel,
    pub(crate) cpu_page: PageSize,
    groups: BTreeMap<GroupId, Arc<Group>>,
    open: Mutex<OpenFiles>,
    allow_unsafe_interrupts: AtomicBool,
    iommufd_unsafe_interrupts: AtomicBool,
    noiommu: AtomicBool,
    dma_entry_limit: AtomicU32,
    pub(crate) faults: FaultLog,
    pub(crate) watch: Watch,
    pub(crate) injector: Arc<Injector>,
    /// The page tables of the containers, by which devices translate.
    pub(crate) page_tables: Arc<PageTables>,
}

/// Which groups are open, and of which a device is bound by its own node: never both.
#[derive(Default)]
struct OpenFiles {
    groups: BTreeSet<GroupId>,
    /// How many devices of a group.
    by_node: BTreeMap<GroupId, u32>,
}

/// A host that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Two groups have one number.
    #[error("two groups have the number {group}")]
    DuplicateGroup {
        /// The number.
        group: GroupId,
    },
    /// Two devices have one name.
    #[error("two devices have the name \"{device}\"; the second is in group {group}")]
    DuplicateDevice {
        /// The name.
        device: String,
        /// The group of the second one.
        group: GroupId,
    },
    /// A group has no device.
    #[error("group {group} has no device")]
    EmptyGroup {
        /// The number.
        group: GroupId,
    },
}

/// The kernel has no `/dev/iommu`. ENOENT.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "kernel {kernel} has no /dev/iommu; iommufd came with 6.2, so try a newer one or a container"
)]
pub struct NoIommufd {
    /// The kernel.
    pub kernel: Kernel,
}

impl NoIommufd {
    /// What opening it answers.
    pub fn errno(&self) -> Errno {
        Errno::ENOENT
    }
}

impl Vfio {
    /// The driver of `kernel` on a host with these groups and pages of 4 KiB.
    pub fn new(
        kernel: Kernel,
        groups: impl IntoIterator<Item = GroupDescription>,
    ) -> Result<Self, HostError> {
        Self::with_page_size(kernel, PageSize::P4K, groups)
    }

    /// The driver of `kernel` on a host whose CPU has pages of `cpu_page`.
    pub fn with_page_size(
        kernel: Kernel,
        cpu_page: PageSize,
        groups: impl IntoIterator<Item = GroupDescription>,
    ) -> Result<Self, HostError> {
        let mut by_id = BTreeMap::new();
        let mut names = HashSet::new();
        for description in groups {
            let group = description.id();
            if description.devices.is_empty() {
                return Err(HostError::EmptyGroup { group });
            }
            for device in &description.devices {
                if !names.insert(device.name.clone()) {
                    let device = device.name.clone();
                    return Err(HostError::DuplicateDevice { device, group });
                }
            }
            let known = Arc::new(Group::new(description, kernel.behaviours()));
            if by_id.insert(group, known).is_some() {
                return Err(HostError::DuplicateGroup { group });
            }
        }
        let shared = Shared {
            kernel,
            cpu_page,
            groups: by_id,
            open: Mutex::default(),
            allow_unsafe_interrupts: AtomicBool::new(false),
            iommufd_unsafe_interrupts: AtomicBool::new(false),
            noiommu: AtomicBool::new(false),
            dma_entry_limit: AtomicU32::new(DEFAULT_DMA_ENTRY_LIMIT),
            faults: FaultLog::default(),
            watch: Watch::default(),
            injector: Arc::default(),
            page_tables: Arc::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The kernel that is imitated.
    pub fn kernel(&self) -> &Kernel {
        &self.shared.kernel
    }

    /// Sets `vfio_iommu_type1.allow_unsafe_interrupts`: groups without isolated MSIs may attach.
    pub fn set_allow_unsafe_interrupts(&self, allow: bool) {
        self.shared.allow_unsafe_interrupts.store(allow, Ordering::Relaxed);
    }

    /// Sets `iommufd.allow_unsafe_interrupts`: devices without isolated MSIs may be bound to an iommufd. It is
    /// another parameter than type1's.
    pub fn set_iommufd_unsafe_interrupts(&self, allow: bool) {
        self.shared.iommufd_unsafe_interrupts.store(allow, Ordering::Relaxed);
    }

    /// Sets `vfio_iommu_type1.dma_entry_limit`, for containers that get their driver afterwards.
    pub fn set_dma_entry_limit(&self, mappings: u32) {
        self.shared.dma_entry_limit.store(mappings, Ordering::Relaxed);
    }

    /// Sets `vfio.enable_unsafe_noiommu_mode`, which noiommu containers need.
    pub fn set_noiommu(&self, enable: bool) {
        self.shared.noiommu.store(enable, Ordering::Relaxed);
    }

    /// Opens `/dev/vfio/vfio`: a fresh, empty container.
    pub fn open_container(&self) -> Container {
        Container::new(Arc::clone(&self.shared))
    }

    /// Opens `/dev/iommu` (from 6.2).
    pub fn open_iommu(&self) -> Result<Iommufd, NoIommufd> {
        let kernel = self.shared.kernel;
        match kernel.behaviours().last_iommufd_command {
            Some(_) => Ok(Iommufd::new(Arc::clone(&self.shared))),
            None => Err(NoIommufd { kernel }),
        }
    }

    /// Opens `/dev/vfio/<group>`.
    pub fn open_group(
        &self,
        group: GroupId,
        caller: &Process,
    ) -> Result<OpenGroup, OpenGroupError> {
        let known = self
            .shared
            .groups
            .get(&group)
            .ok_or_else(|| OpenGroupError::NoGroup { group, known: self.groups().collect() })?;
        if !known.devices.iter().any(|device| device.binding == Binding::Vfio) {
            return Err(OpenGroupError::NoNode { group });
        }
        if known.is_noiommu() && !caller.cap_sys_rawio() {
            return Err(OpenGroupError::NeedsRawIo { group });
        }
        let mut open = self.shared.open_files();
        if open.by_node.contains_key(&group) {
            return Err(OpenGroupError::OpenByNode { group });
        }
        if !open.groups.insert(group) {
            return Err(OpenGroupError::AlreadyOpen { group });
        }
        drop(open);
        Ok(OpenGroup::new(Arc::clone(&self.shared), Arc::clone(known)))
    }

    /// Opens a device by its own node, `/dev/vfio/devices/vfioN` (from 6.6).
    pub fn open_cdev(&self, device: &str) -> Result<OpenCdev, OpenCdevError> {
        let group = self.shared.groups.values().find(|group| group.has_device(device));
        OpenCdev::open(&self.shared, group, device)
    }

    /// A device's end of the bus, by which a simulated device does DMA; `None` for an unknown device.
    pub fn bus_master(&self, device: &str) -> Option<BusMaster> {
        let group = self.shared.groups.values().find(|group| group.has_device(device))?;
        let (shared, group) = (Arc::clone(&self.shared), Arc::clone(group));
        Some(BusMaster::new(shared, group, device.to_owned()))
    }

    /// Takes the faults of all devices out of the log.
    pub fn take_faults(&self) -> Faults {
        self.shared.faults.take()
    }

    /// Sets whether to watch for mistakes that no errno tells of: devices that use memory which has
    /// gone or addresses whose MAP was refused, and mappings that go with the last group. Off at
    /// first. It changes no answer and no access.
    ///
    /// Memory that has gone is found if the process's [`crate::Memory`] can tell, also what went
    /// before the watch was on.
    pub fn set_watch(&self, on: bool) {
        self.shared.watch.set(on);
    }

    /// Takes what the watch has found.
    pub fn take_findings(&self) -> Findings {
        self.shared.watch.take()
    }

    /// Lets calls fail as `plan` says, in all containers, from now on. It takes the place of an earlier
    /// plan, and counting begins anew; an empty plan lets nothing fail.
    pub fn inject(&self, plan: FaultPlan) {
        self.shared.injector.set(plan);
    }

    /// The failures injected since [`Self::inject`], oldest first: the newest
    /// [`MAX_INJECTED`](crate::MAX_INJECTED).
    pub fn injected(&self) -> Vec<Injected> {
        self.shared.injector.injected()
    }

    /// The groups of the host, ascending.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.shared.groups.keys().copied()
    }

    /// The group that `device` is in.
    pub fn group_of(&self, device: &str) -> Option<GroupId> {
        self.shared.groups.values().find(|group| group.has_device(device)).map(|group| group.id)
    }

    /// A group's reserved regions, merged as the kernel does; none for an unknown group.
    pub fn merged_regions(&self, group: GroupId) -> Vec<ReservedRegion> {
        let group = self.shared.groups.get(&group);
        group.map(|group| group.regions.as_slice().to_vec()).unwrap_or_default()
    }

    /// The text of a group's `reserved_regions` in sysfs; `None` for an unknown group.
    pub fn reserved_regions(&self, group: GroupId) -> Option<String> {
        let one_page = self.kernel().behaviours().sysfs_one_page;
        self.shared.groups.get(&group).map(|group| sysfs::render(&group.regions, one_page))
    }
}

impl Shared {
    pub(crate) fn allow_unsafe_interrupts(&self) -> bool {
        self.allow_unsafe_interrupts.load(Ordering::Relaxed)
    }

    pub(crate) fn iommufd_unsafe_interrupts(&self) -> bool {
        self.iommufd_unsafe_interrupts.load(Ordering::Relaxed)
    }

    pub(crate) fn noiommu_enabled(&self) -> bool {
        self.noiommu.load(Ordering::Relaxed)
    }

    pub(crate) fn dma_entry_limit(&self) -> u32 {
        self.dma_entry_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_closed(&self, group: GroupId) {
        self.open_files().groups.remove(&group);
    }

    /// Keeps a group from being opened, once more. Whether that can be: it is not open.
    pub(crate) fn block(&self, group: GroupId) -> bool {
        let mut open = self.open_files();
        let free = !open.groups.contains(&group);
        if free {
            *open.by_node.entry(group).or_default() += 1;
        }
        free
    }

    /// Undoes [`Self::block`].
    pub(crate) fn unblock(&self, group: GroupId) {
        let by_node = &mut self.open_files().by_node;
        if let Some(count) = by_node.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                by_node.remove(&group);
            }
        }
    }

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Vfio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vfio")
            .field("kernel", &self.shared.kernel)
            .field("groups", &self.shared.groups.len())
            .finish_non_exhaustive()
    }
}
