// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The container: `/dev/vfio/vfio`, once opened (`drivers/vfio/container.c`; spec 1).
//!
//! A container starts empty. Groups are put into it (`group`), SET_IOMMU gives it a driver, and the
//! driver goes when the last group leaves. This file is what a program asks of it; what there is to ask
//! is in `state`, what the type1 driver does in files of its own.

use std::fmt;
use std::sync::Arc;

use crate::addr::Iova;
use crate::attach::AttachError;
use crate::callback::Unpinner;
use crate::dirty::{DirtyError, DirtyPages};
use crate::errno::Errno;
use crate::extension::{self, advertises};
use crate::fault::RemovedBy;
use crate::host::{Group, GroupId};
use crate::info::Info;
use crate::inject::{Allocation, OutOfMemory};
use crate::kernel::Kernel;
use crate::map::{MapDma, MapError};
use crate::mapping::MappingInfo;
use crate::process::Process;
use crate::range::IovaRange;
use crate::state::{Core, Driver, Kind};
use crate::type1::{NoType1, Type1, Type1Version};
use crate::unmap::{UnmapDma, UnmapError, Unmapped};
use crate::vfio::Shared;

/// How often an emulated device may be told again to unpin one mapping (spec 6.2).
const MAX_RETRIES: u32 = 10;

/// An open container. A clone is what `dup` makes: another descriptor of the same container.
///
/// Closing it while groups are attached leaves the container, its mappings and its groups as they
/// are, merely unreachable (spec 2.7).
#[derive(Clone)]
pub struct Container {
    pub(crate) core: Arc<Core>,
    _open: Arc<OpenFile>,
}

/// What the descriptors of a container share: it goes with the last one.
struct OpenFile {
    core: Arc<Core>,
}

/// Why SET_IOMMU was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetIommuError {
    /// No group is in the container. EINVAL, whatever the type.
    #[error("the container has no group; set a group's container first")]
    NoGroup,
    /// A driver is set already. EINVAL.
    #[error(
        "the container has an IOMMU driver already; the driver stays until the last group leaves"
    )]
    AlreadySet,
    /// No driver of this kernel knows the type, for groups of this kind. ENODEV.
    #[error("no IOMMU driver of this kernel has type {kind:#x} for {groups} groups")]
    UnknownType {
        /// The type given.
        kind: u64,
        /// The kind of the container's groups.
        groups: &'static str,
    },
    /// There is no memory for the driver. ENOMEM, on demand only.
    #[error(transparent)]
    NoMemory(OutOfMemory),
    /// The type is an extension that type1 advertises but not a type it can be. EINVAL.
    #[error("type {kind:#x} is an extension of type1, not an IOMMU type; use type1v2 (3)")]
    NotAType {
        /// The type given.
        kind: u64,
    },
    /// noiommu needs CAP_SYS_RAWIO. EPERM.
    #[error("noiommu gives a device all memory; the process needs CAP_SYS_RAWIO for it")]
    NeedsRawIo,
    /// A group of the container cannot be attached.
    #[error("group {group} cannot be attached: {error}")]
    Attach {
        /// The group.
        group: GroupId,
        /// Why.
        error: AttachError,
    },
}

impl SetIommuError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoGroup | Self::AlreadySet | Self::NotAType { .. } => Errno::EINVAL,
            Self::UnknownType { .. } => Errno::ENODEV,
            Self::NeedsRawIo => Errno::EPERM,
            Self::NoMemory(_) => Errno::ENOMEM,
            Self::Attach { error, .. } => error.errno(),
        }
    }
}

impl Container {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let core = Arc::new(Core::new(shared));
        Self { _open: Arc::new(OpenFile { core: Arc::clone(&core) }), core }
    }

    /// The kernel that is imitated.
    pub fn kernel(&self) -> &Kernel {
        &self.core.shared.kernel
    }

    /// `VFIO_CHECK_EXTENSION`: whether `extension` is there, for this container as it is now.
    pub fn check_extension(&self, extension: u64) -> bool {
        let state = self.core.lock();
        let shared = &self.core.shared;
        let noiommu = extension == extension::NOIOMMU && shared.noiommu_enabled();
        match &state.driver {
            Driver::Type1(type1) => type1.extension(extension),
            Driver::NoIommu => noiommu,
            Driver::None => match state.kind() {
                None => noiommu || advertises(&shared.kernel, extension),
                Some(Kind::Iommu) => advertises(&shared.kernel, extension),
                Some(Kind::NoIommu) => noiommu,
            },
        }
    }

    /// `VFIO_SET_IOMMU`: gives the container a driver and attaches its groups, the most recently
    /// added one first. A refusal leaves no group attached.
    pub fn set_iommu(&self, caller: &Process, kind: u64) -> Result<(), SetIommuError> {
        let mut state = self.core.lock();
        let groups = state.kind().ok_or(SetIommuError::NoGroup)?;
        if !matches!(state.driver, Driver::None) {
            return Err(SetIommuError::AlreadySet);
        }
        state.driver = match groups {
            Kind::NoIommu => self.new_noiommu(caller, kind)?,
            Kind::Iommu => Driver::Type1(self.new_type1(&state.groups, caller, kind)?),
        };
        state.groups.iter().for_each(|group| state.connect(group));
        state.note_refusals();
        Ok(())
    }

    fn new_noiommu(&self, caller: &Process, kind: u64) -> Result<Driver, SetIommuError> {
        if kind != extension::NOIOMMU || !self.core.shared.noiommu_enabled() {
            return Err(SetIommuError::UnknownType { kind, groups: "noiommu" });
        }
        if !caller.cap_sys_rawio() {
            return Err(SetIommuError::NeedsRawIo);
        }
        Ok(Driver::NoIommu)
    }

    fn new_type1(
        &self,
        groups: &[Arc<Group>],
        caller: &Process,
        kind: u64,
    ) -> Result<Box<Type1>, SetIommuError> {
        let shared = &self.core.shared;
        if !advertises(&shared.kernel, kind) {
            return Err(SetIommuError::UnknownType { kind, groups: "IOMMU" });
        }
        shared.injector.allocate(Allocation::Driver).map_err(SetIommuError::NoMemory)?;
        let version = match kind {
            extension::TYPE1 => Type1Version::V1,
            extension::TYPE1V2 => Type1Version::V2,
            extension::NESTING => Type1Version::Nesting,
            _ => return Err(SetIommuError::NotAType { kind }),
        };
        let limit = shared.dma_entry_limit();
        let injector = Arc::clone(&shared.injector);
        let type1 = Type1::new(
            shared.kernel,
            shared.cpu_page,
            version,
            limit,
            &shared.page_tables,
            injector,
        );
        let mut type1 = Box::new(type1);
        for group in groups.iter().rev() {
            type1
                .attach(group, caller, shared.allow_unsafe_interrupts())
                .map_err(|error| SetIommuError::Attach { group: group.id, error })?;
        }
        Ok(type1)
    }

    /// `VFIO_IOMMU_GET_INFO`.
    pub fn info(&self) -> Result<Info, NoType1> {
        Ok(self.core.lock().type1()?.info())
    }

    /// `VFIO_IOMMU_MAP_DMA`: maps the caller's memory, or gives a mapping a new process address.
    pub fn map(&self, caller: &Arc<Process>, request: &MapDma) -> Result<(), MapError> {
        let mut state = self.core.lock();
        state.history.count_call();
        let type1 = state.type1().map_err(MapError::from);
        let result = type1.and_then(|type1| type1.map(caller, request));
        let Ok(range) = IovaRange::from_size(request.iova, request.size) else { return result };
        match &result {
            Ok(()) => state.history.mapped(&range, request),
            Err(error) if self.core.remembers(&state) => {
                state.history.refuse(range, request.vaddr, error.clone());
            }
            Err(_) => {}
        }
        state.note_refusals();
        // Accesses with the process address of before must have ended, and those through what a call removed
        // that did not come to its end: memory may panic.
        let moved = result.is_ok() && request.flags & MapDma::VADDR != 0;
        let changed = state.note_removed(RemovedBy::Unmap) || moved;
        self.core.settle(state, changed);
        result
    }

    /// `VFIO_IOMMU_UNMAP_DMA`: returns the bytes of the mappings removed, or with flag VADDR of
    /// those that lost their process address.
    ///
    /// Calls the unmap callbacks of emulated devices that have pages of a mapping pinned, without
    /// holding a lock.
    ///
    /// When it returns, no device accesses what was removed, and none will.
    pub fn unmap(&self, caller: &Arc<Process>, request: &UnmapDma) -> Result<u64, UnmapError> {
        let mut total: u64 = 0;
        let mut told: Option<(IovaRange, u32)> = None;
        loop {
            let mut state = self.core.lock();
            if told.is_none() {
                state.history.count_call();
            }
            let step = state.type1()?.unmap(caller, request);
            let callbacks = match &step {
                Ok(Unmapped::Notify { .. }) => state.callbacks.all(),
                Ok(Unmapped::Done(_)) | Err(_) => Vec::new(),
            };
            if matches!(step, Ok(Unmapped::Done(_))) {
                state.history.unmapped(request);
                state.note_refusals();
            }
            // Devices go on with pages whose address is taken, whatever happens at the old address.
            let changed =
                state.note_removed(RemovedBy::Unmap) || request.flags & UnmapDma::VADDR != 0;
            self.core.settle(state, changed);
            let mapping = match step.map_err(|error| error.after(total))? {
                Unmapped::Done(removed) => return Ok(total.wrapping_add(removed)),
                Unmapped::Notify { mapping, removed } => {
                    total = total.wrapping_add(removed);
                    mapping
                }
            };
            let rounds = told.filter(|(last, _)| *last == mapping).map_or(0, |(_, rounds)| rounds);
            if rounds > MAX_RETRIES {
                return Err(UnmapError::StillPinned { mapping, rounds, removed: total });
            }
            told = Some((mapping, rounds + 1));
            let unpinner = Unpinner::new(&*self.core);
            callbacks.iter().for_each(|callback| callback(&unpinner, mapping));
        }
    }

    /// `VFIO_IOMMU_DIRTY_PAGES`.
    pub fn dirty_pages(&self, caller: &Process, request: &DirtyPages) -> Result<(), DirtyError> {
        self.core.lock().type1()?.dirty_pages(caller, request)
    }

    /// Whether [`Self::dirty_pages`] could be asked: the container's driver and its version.
    pub(crate) fn check_can_track(&self) -> Result<(), DirtyError> {
        self.core.lock().type1()?.check_can_track()
    }

    /// Whether there is memory for an answer of GET_INFO in bytes.
    pub(crate) fn allocate_info_chain(&self) -> Result<(), OutOfMemory> {
        self.core.shared.injector.allocate(Allocation::InfoChain)
    }

    /// The groups in the container, in the order in which they were added.
    pub fn groups(&self) -> Vec<GroupId> {
        self.core.lock().groups.iter().map(|group| group.id).collect()
    }

    /// The live mappings, ascending. Empty without a driver.
    pub fn mappings(&self) -> Vec<MappingInfo> {
        let mut state = self.core.lock();
        let type1 = state.type1();
        type1.map(|t| t.mappings.iter().map(|m| m.info()).collect()).unwrap_or_default()
    }

    /// How many mappings are live.
    pub fn mapping_count(&self) -> usize {
        self.core.lock().type1().map_or(0, |type1| type1.mappings.len())
    }

    /// The mapping that holds `iova`.
    pub fn mapping_at(&self, iova: Iova) -> Option<MappingInfo> {
        let mut state = self.core.lock();
        state.type1().ok()?.mappings.containing(iova).map(|mapping| mapping.info())
    }

    /// What can be mapped at all, ascending: the valid list; without one (4.19), what the IOMMUs
    /// translate; with emulated groups alone, everything. Empty without a driver.
    pub fn mappable(&self) -> Vec<IovaRange> {
        self.core.lock().type1().map(|type1| type1.mappable()).unwrap_or_default()
    }

    /// The valid, free range of the size of `wanted` that starts nearest to it, aligned to the
    /// container's page.
    pub fn nearest_free(&self, wanted: IovaRange) -> Option<IovaRange> {
        self.core.lock().type1().ok()?.nearest_free(&wanted)
    }

    /// Checks what must always hold between the parts of the container's state, for tests and
    /// fuzzers. The error names what does not.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let mut state = self.core.lock();
        match state.type1() {
            Ok(type1) => type1.broken_invariant().map_or(Ok(()), Err),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let state = &mut *self.core.lock();
        state.ending.close(state.history.calls(), &self.core.shared.watch);
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.core, f)
    }
}
