// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls of a type1 container, on an iommufd (`drivers/iommu/iommufd/vfio_compat.c`; spec 9).
//!
//! They mean one address space, the compatibility one, which the first group makes that is put into the
//! iommufd. Where the rules are those of the address space, they are in `map` and `unmap`.

use std::sync::Arc;

use super::Iommufd;
use super::context::{Context, NoCompatIoas};
use super::large_pages::LargePagesError;
use super::map::{IoasMapError, Request};
use super::unmap::{IoasUnmapError, range_of};
use crate::errno::Errno;
use crate::extension;
use crate::map::MapDma;
use crate::memory::Access;
use crate::page_size::PageSizes;
use crate::process::Process;
use crate::range::IovaRange;
use crate::unmap::UnmapDma;

/// Why SET_IOMMU on an iommufd was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatSetIommuError {
    /// noiommu needs CAP_SYS_RAWIO. EPERM.
    #[error("noiommu gives a device all memory; the process needs CAP_SYS_RAWIO for it")]
    NeedsRawIo,
    /// The type is none of an iommufd's. EINVAL.
    #[error("an iommufd has no IOMMU type {kind:#x} for {groups} groups; use type1v2 (3)")]
    UnknownType {
        /// The type given.
        kind: u64,
        /// The kind of the iommufd's groups.
        groups: &'static str,
    },
    /// There is no compatibility address space. ENODEV.
    #[error(transparent)]
    NoIoas(#[from] NoCompatIoas),
    /// Type 1 cuts mappings at any page, and those that there are do not allow it.
    #[error("{0}; set type 1 before mapping, or use type1v2 (3)")]
    LargePages(#[from] LargePagesError),
}

impl CompatSetIommuError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NeedsRawIo => Errno::EPERM,
            Self::UnknownType { .. } => Errno::EINVAL,
            Self::NoIoas(error) => error.errno(),
            Self::LargePages(error) => error.errno(),
        }
    }
}

/// Why MAP_DMA on an iommufd was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatMapError {
    /// A flag that an iommufd does not know; it has no VADDR. EINVAL.
    #[error("flags {flags:#x} has bits that an iommufd does not know; it knows {known:#x}")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
        /// The flags known.
        known: u32,
    },
    /// There is no compatibility address space. ENODEV.
    #[error(transparent)]
    NoIoas(#[from] NoCompatIoas),
    /// The address space does not take the mapping.
    #[error(transparent)]
    Refused(#[from] IoasMapError),
}

impl CompatMapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownFlags { .. } => Errno::EINVAL,
            Self::NoIoas(error) => error.errno(),
            Self::Refused(error) => error.errno(),
        }
    }
}

/// Why UNMAP_DMA on an iommufd was refused: one variant per rule, in the order of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatUnmapError {
    /// A flag that an iommufd does not know; it has neither GET_DIRTY_BITMAP nor VADDR. EINVAL.
    #[error("flags {flags:#x} has bits that an iommufd does not know; it knows {known:#x}")]
    UnknownFlags {
        /// The flags given.
        flags: u32,
        /// The flags known.
        known: u32,
    },
    /// There is no compatibility address space. ENODEV.
    #[error(transparent)]
    NoIoas(#[from] NoCompatIoas),
    /// ALL with an address or a size. EINVAL.
    #[error("flag ALL takes iova 0 and size 0, not {} and {:#x}", request.iova, request.size)]
    AllWithRange {
        /// What was asked for.
        request: UnmapDma,
    },
    /// The address space does not remove the mappings.
    #[error(transparent)]
    Refused(#[from] IoasUnmapError),
}

impl CompatUnmapError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownFlags { .. } | Self::AllWithRange { .. } => Errno::EINVAL,
            Self::NoIoas(error) => error.errno(),
            Self::Refused(error) => error.errno(),
        }
    }

    /// The size that the kernel writes into the request all the same, in bytes.
    pub fn written_size(&self) -> Option<u64> {
        match self {
            Self::Refused(IoasUnmapError::MisalignedCut { .. })
            | Self::Refused(IoasUnmapError::PinnedCut { .. }) => None,
            Self::Refused(error) => Some(error.unmapped()),
            _ => None,
        }
    }
}

/// What `VFIO_IOMMU_GET_INFO` on an iommufd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompatInfo {
    /// Page sizes that every domain can map.
    pub page_sizes: PageSizes,
    /// What is valid, ascending.
    pub iova_ranges: Vec<IovaRange>,
}

impl Iommufd {
    /// `VFIO_CHECK_EXTENSION`. [`extension::DMA_CC`] alone asks the address space.
    pub fn check_extension(&self, extension: u64) -> Result<bool, NoCompatIoas> {
        let mut state = self.context.lock();
        Ok(match extension {
            extension::TYPE1 | extension::TYPE1V2 | extension::UNMAP_ALL => !state.noiommu,
            // A matter of how the kernel was built: the one that was recorded had it.
            extension::NOIOMMU => true,
            extension::DMA_CC => state.compat()?.is_coherent(),
            _ => false,
        })
    }

    /// `VFIO_SET_IOMMU`. Type 1 lets UNMAP cut mappings; it may be set at any time before something is
    /// mapped. MAP does not wait for it.
    pub fn set_iommu(&self, caller: &Process, kind: u64) -> Result<(), CompatSetIommuError> {
        let mut state = self.context.lock();
        if kind == extension::NOIOMMU && state.noiommu {
            let allowed = caller.cap_sys_rawio();
            return allowed.then_some(()).ok_or(CompatSetIommuError::NeedsRawIo);
        }
        if state.noiommu || !matches!(kind, extension::TYPE1 | extension::TYPE1V2) {
            let groups = if state.noiommu { "noiommu" } else { "IOMMU" };
            return Err(CompatSetIommuError::UnknownType { kind, groups });
        }
        let ioas = state.compat()?;
        if kind == extension::TYPE1 {
            ioas.set_large_pages(false)?;
        }
        Ok(())
    }

    /// `VFIO_IOMMU_GET_INFO`.
    pub fn info(&self) -> Result<CompatInfo, NoCompatIoas> {
        let mut state = self.context.lock();
        let ioas = state.compat()?;
        Ok(CompatInfo { page_sizes: ioas.page_sizes(), iova_ranges: ioas.valid_ranges() })
    }

    /// `VFIO_IOMMU_MAP_DMA`: maps the caller's memory. Neither READ nor WRITE is a mapping too, which no
    /// domain takes.
    pub fn map(&self, caller: &Arc<Process>, request: &MapDma) -> Result<(), CompatMapError> {
        let MapDma { iova, vaddr, size, flags } = *request;
        let known = MapDma::READ | MapDma::WRITE;
        if flags & !known != 0 {
            return Err(CompatMapError::UnknownFlags { flags, known });
        }
        let access = match (flags & MapDma::READ != 0, flags & MapDma::WRITE != 0) {
            (true, false) => Some(Access::Read),
            (false, true) => Some(Access::Write),
            (true, true) => Some(Access::ReadWrite),
            (false, false) => None,
        };
        let mut state = self.context.lock();
        let request = Request { iova: Some(iova), vaddr, size, access };
        let result = state.compat()?.map(caller, &request);
        self.context.settle(state, false);
        result.map(|_| ()).map_err(CompatMapError::from)
    }

    /// `VFIO_IOMMU_UNMAP_DMA`: returns the bytes of the mappings removed. On an error, those below the
    /// mapping that was in the way are gone.
    ///
    /// When it returns, no device accesses what was removed, and none will.
    pub fn unmap(&self, request: &UnmapDma) -> Result<u64, CompatUnmapError> {
        let (flags, known) = (request.flags, UnmapDma::ALL);
        if flags & !known != 0 {
            return Err(CompatUnmapError::UnknownFlags { flags, known });
        }
        let mut state = self.context.lock();
        let ioas = state.compat()?;
        let range = match flags & UnmapDma::ALL != 0 {
            true if request.iova.0 != 0 || request.size != 0 => {
                return Err(CompatUnmapError::AllWithRange { request: *request });
            }
            true => IovaRange::full(),
            false => {
                if !ioas.large_pages {
                    ioas.cut(request.iova, request.size)?;
                }
                range_of(request.iova, request.size)?
            }
        };
        let id = state.compat.ok_or(NoCompatIoas)?;
        Ok(self.context.unmap(state, id, range)?)
    }

    /// What can be mapped at all by [`Self::map`], ascending.
    pub fn mappable(&self) -> Vec<IovaRange> {
        self.context.lock().compat().map(|ioas| ioas.valid_ranges()).unwrap_or_default()
    }
}

/// Why an iommufd does not take a group: it holds groups of the other kind. EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("groups with and without an IOMMU cannot share an iommufd; use another one")]
pub(crate) struct OtherKind;

impl Context {
    /// Takes a group in (`VFIO_GROUP_SET_CONTAINER`): makes the compatibility address space, unless there
    /// is one.
    pub(crate) fn take_group(&self, noiommu: bool) -> Result<(), OtherKind> {
        let mut state = self.lock();
        match (noiommu, state.noiommu, state.compat) {
            (true, _, Some(_)) | (false, true, _) => Err(OtherKind),
            (true, _, None) => {
                state.noiommu = true;
                Ok(())
            }
            (false, false, Some(_)) => Ok(()),
            (false, false, None) => {
                let id = state.new_ioas(&self.shared);
                state.compat = Some(id);
                Ok(())
            }
        }
    }

    /// Whether there is a compatibility address space.
    pub(crate) fn has_compat(&self) -> bool {
        self.lock().compat().is_ok()
    }
}
