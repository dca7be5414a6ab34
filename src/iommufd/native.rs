// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls of iommufd's own (`drivers/iommu/iommufd/ioas.c`, `main.c` and `include/uapi/linux/iommufd.h`):
//! address spaces by number, and what is mapped in them.

use std::sync::Arc;

use super::Iommufd;
use super::allow::{AllowIovasError, AllowedRanges};
use super::context::State;
use super::ioas::Ioas;
use super::map::{IoasMapError, Request};
use super::objects::ObjectId;
use super::unmap::{IoasUnmapError, range_of};
use crate::addr::{Iova, Vaddr};
use crate::errno::Errno;
use crate::memory::Access;
use crate::page_size::PageSize;
use crate::process::Process;
use crate::range::IovaRange;

/// The iommufd has no address space with this number. ENOENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the iommufd has no address space {id}; allocate one with IOMMU_IOAS_ALLOC")]
pub struct NoSuchIoas {
    /// The number given.
    pub id: u32,
}

impl NoSuchIoas {
    /// What the kernel answers.
    pub fn errno(self) -> Errno {
        Errno::ENOENT
    }
}

/// What can be mapped in an address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoasRanges {
    /// What is valid, ascending.
    pub ranges: Vec<IovaRange>,
    /// What addresses and sizes must be multiples of; one byte without a device.
    pub alignment: PageSize,
}

/// A request to map, as the caller states it; it may break any rule (`struct iommu_ioas_map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoasMap {
    /// The address space.
    pub ioas: u32,
    /// [`IoasMap::FIXED_IOVA`], [`IoasMap::WRITEABLE`], [`IoasMap::READABLE`].
    pub flags: u32,
    /// The process address to be mapped.
    pub vaddr: Vaddr,
    /// Size in bytes.
    pub size: u64,
    /// Where, with [`IoasMap::FIXED_IOVA`].
    pub iova: Iova,
}

impl IoasMap {
    /// The address is stated (`IOMMU_IOAS_MAP_FIXED_IOVA`); otherwise one is found.
    pub const FIXED_IOVA: u32 = 1;
    /// Devices may write (`IOMMU_IOAS_MAP_WRITEABLE`).
    pub const WRITEABLE: u32 = 2;
    /// Devices may read (`IOMMU_IOAS_MAP_READABLE`).
    pub const READABLE: u32 = 4;

    /// Maps `size` bytes of the caller's memory at `vaddr`, wherever there is room.
    pub fn anywhere(ioas: u32, vaddr: impl Into<Vaddr>, size: u64, access: Access) -> Self {
        let flags = match access {
            Access::Read => Self::READABLE,
            Access::Write => Self::WRITEABLE,
            Access::ReadWrite => Self::READABLE | Self::WRITEABLE,
        };
        Self { ioas, flags, vaddr: vaddr.into(), size, iova: Iova(0) }
    }

    /// The same at a stated address.
    #[must_use]
    pub fn at(self, iova: impl Into<Iova>) -> Self {
        Self { flags: self.flags | Self::FIXED_IOVA, iova: iova.into(), ..self }
    }

    fn access(&self) -> Option<Access> {
        match (self.flags & Self::READABLE != 0, self.flags & Self::WRITEABLE != 0) {
            (true, true) => Some(Access::ReadWrite),
            (true, false) => Some(Access::Read),
            (false, true) => Some(Access::Write),
            (false, false) => None,
        }
    }
}

/// Why IOAS_MAP was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NativeMapError {
    /// A flag that iommufd does not know. EOPNOTSUPP.
    #[error("flags {flags:#x} has bits that iommufd does not know; it knows {known:#x}")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
        /// The flags known.
        known: u32,
    },
    /// The address or the size is 2^64 - 1. EOVERFLOW.
    #[error("iova {iova} or size {size:#x} is 2^64 - 1, which iommufd takes for a mistake")]
    TooHigh {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
    },
    /// Neither READABLE nor WRITEABLE. EINVAL.
    #[error("no flag allows an access; set READABLE, WRITEABLE or both")]
    NoAccess,
    /// There is no such address space. ENOENT.
    #[error(transparent)]
    NoSuchIoas(#[from] NoSuchIoas),
    /// The address space does not take the mapping.
    #[error(transparent)]
    Refused(#[from] IoasMapError),
}

impl NativeMapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownFlags { .. } => Errno::EOPNOTSUPP,
            Self::TooHigh { .. } => Errno::EOVERFLOW,
            Self::NoAccess => Errno::EINVAL,
            Self::NoSuchIoas(error) => error.errno(),
            Self::Refused(error) => error.errno(),
        }
    }
}

/// Why IOAS_UNMAP was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NativeUnmapError {
    /// There is no such address space. ENOENT.
    #[error(transparent)]
    NoSuchIoas(#[from] NoSuchIoas),
    /// The address or the size is 2^64 - 1, and it is not the request for everything. EOVERFLOW.
    #[error(
        "iova {iova} or size {size:#x} is 2^64 - 1; for everything, state iova 0 and that size"
    )]
    TooHigh {
        /// The address given.
        iova: Iova,
        /// The size given, in bytes.
        size: u64,
    },
    /// The address space does not remove the mappings.
    #[error(transparent)]
    Refused(#[from] IoasUnmapError),
}

impl NativeUnmapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoSuchIoas(error) => error.errno(),
            Self::TooHigh { .. } => Errno::EOVERFLOW,
            Self::Refused(error) => error.errno(),
        }
    }
}

impl Iommufd {
    /// `IOMMU_IOAS_ALLOC`: a new, empty address space; returns its number.
    pub fn ioas_alloc(&self) -> u32 {
        self.context.lock().new_ioas(&self.context.shared)
    }

    /// `IOMMU_IOAS_IOVA_RANGES`: what can be mapped.
    pub fn ioas_ranges(&self, ioas: u32) -> Result<IoasRanges, NoSuchIoas> {
        let mut state = self.context.lock();
        let ioas = state.ioas(ioas)?;
        Ok(IoasRanges { ranges: ioas.valid_ranges(), alignment: ioas.alignment })
    }

    /// `IOMMU_IOAS_MAP`: maps the caller's memory; returns where.
    pub fn ioas_map(
        &self,
        caller: &Arc<Process>,
        request: &IoasMap,
    ) -> Result<Iova, NativeMapError> {
        let IoasMap { ioas, flags, vaddr, size, iova } = *request;
        let known = IoasMap::FIXED_IOVA | IoasMap::WRITEABLE | IoasMap::READABLE;
        if flags & !known != 0 {
            return Err(NativeMapError::UnknownFlags { flags, known });
        }
        if iova.0 == u64::MAX || size == u64::MAX {
            return Err(NativeMapError::TooHigh { iova, size });
        }
        let access = request.access().ok_or(NativeMapError::NoAccess)?;
        let iova = (flags & IoasMap::FIXED_IOVA != 0).then_some(iova);
        let request = Request { iova, vaddr, size, access: Some(access) };
        let mut state = self.context.lock();
        let mapped = state.ioas(ioas)?.map(caller, &request);
        self.context.settle(state, false);
        Ok(mapped?.first())
    }

    /// `IOMMU_IOAS_UNMAP`: returns the bytes of the mappings removed. Address 0 and size 2^64 - 1 mean
    /// everything. On an error, the mappings below the one that was in the way are gone.
    ///
    /// When it returns, no device accesses what was removed, and none will.
    pub fn ioas_unmap(
        &self,
        ioas: u32,
        iova: impl Into<Iova>,
        size: u64,
    ) -> Result<u64, NativeUnmapError> {
        let iova = iova.into();
        let mut state = self.context.lock();
        state.ioas(ioas)?;
        let range = match (iova.0, size) {
            (0, u64::MAX) => IovaRange::full(),
            (u64::MAX, _) | (_, u64::MAX) => return Err(NativeUnmapError::TooHigh { iova, size }),
            _ => range_of(iova, size)?,
        };
        Ok(self.context.unmap(state, ioas, range)?)
    }

    /// `IOMMU_IOAS_ALLOW_IOVAS`: devices that reserve addresses in these ranges cannot be attached from now
    /// on, and [`Self::ioas_map`] looks for room in them alone. Takes the place of earlier ranges.
    pub fn allow_iovas(&self, ioas: u32, ranges: &[(Iova, Iova)]) -> Result<(), AllowIovasError> {
        self.check_ioas(ioas)?;
        let mut allowed = AllowedRanges::default();
        ranges.iter().try_for_each(|(first, last)| allowed.add(*first, *last))?;
        self.allow_ranges(ioas, allowed)
    }

    pub(crate) fn allow_ranges(
        &self,
        ioas: u32,
        allowed: AllowedRanges,
    ) -> Result<(), AllowIovasError> {
        self.context.lock().ioas(ioas)?.allow(allowed)
    }

    /// Whether there is an address space with this number.
    pub(crate) fn check_ioas(&self, ioas: u32) -> Result<(), NoSuchIoas> {
        self.context.lock().ioas(ioas).map(|_| ())
    }

    /// `IOMMU_VFIO_IOAS` with GET: the address space that type1's calls mean.
    pub fn compat_ioas(&self) -> Option<u32> {
        let state = self.context.lock();
        state.compat
    }

    /// `IOMMU_VFIO_IOAS` with SET.
    pub fn set_compat_ioas(&self, ioas: u32) -> Result<(), NoSuchIoas> {
        let mut state = self.context.lock();
        state.ioas(ioas)?;
        state.compat = Some(ioas);
        Ok(())
    }

    /// `IOMMU_VFIO_IOAS` with CLEAR: there is none, until a group is put into the iommufd.
    pub fn clear_compat_ioas(&self) {
        self.context.lock().compat = None;
    }
}

impl State {
    pub(super) fn ioas(&mut self, id: ObjectId) -> Result<&mut Ioas, NoSuchIoas> {
        self.objects.ioas_mut(id).ok_or(NoSuchIoas { id })
    }
}
