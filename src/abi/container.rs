// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The container's ioctls (`vfio_fops_unl_ioctl` and `vfio_iommu_type1_ioctl` in the kernel;
//! spec 1.2, 5 to 7).

use std::sync::Arc;

use super::argument::{ArgumentError, Bytes};
use super::chain::write_info;
use super::layout::{bitmap, command, dirty_bitmap, dirty_bitmap_get, dma_map, dma_unmap, info};
use crate::addr::{Iova, Vaddr};
use crate::container::{Container, SetIommuError};
use crate::dirty::{DirtyError, DirtyPages, UserBitmap};
use crate::errno::Errno;
use crate::inject::OutOfMemory;
use crate::kernel::InfoChain;
use crate::map::{MapDma, MapError};
use crate::memory::Memory;
use crate::process::Process;
use crate::type1::NoType1;
use crate::unmap::{UnmapDma, UnmapError};

/// Why a container's ioctl failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerIoctlError {
    /// The container has no type1 driver to ask. EINVAL, or ENOTTY for noiommu.
    #[error(transparent)]
    NoType1(#[from] NoType1),
    /// The command is none of type1's. ENOTTY.
    #[error("this kernel's type1 knows no command {command:#x}{}", command::in_brackets(*.command))]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// The argument cannot be read or is too short.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// GET_INFO: there is no memory for the capability chain. ENOMEM, on demand only.
    #[error(transparent)]
    NoMemory(#[from] OutOfMemory),
    /// SET_IOMMU was refused.
    #[error(transparent)]
    SetIommu(#[from] SetIommuError),
    /// MAP_DMA was refused.
    #[error(transparent)]
    Map(#[from] MapError),
    /// UNMAP_DMA was refused.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
    /// UNMAP_DMA was done, but its result could not be written. EFAULT.
    #[error("{unmapped:#x} bytes were unmapped, but the result could not be written: {error}")]
    UnmapResult {
        /// Bytes of mappings removed.
        unmapped: u64,
        /// What went wrong.
        error: ArgumentError,
    },
    /// DIRTY_PAGES was refused.
    #[error(transparent)]
    Dirty(#[from] DirtyError),
}

impl ContainerIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoType1(error) => error.errno(),
            Self::UnknownCommand { .. } => Errno::ENOTTY,
            Self::Argument(error) | Self::UnmapResult { error, .. } => error.errno(),
            Self::NoMemory(_) => Errno::ENOMEM,
            Self::SetIommu(error) => error.errno(),
            Self::Map(error) => error.errno(),
            Self::Unmap(error) => error.errno(),
            Self::Dirty(error) => error.errno(),
        }
    }
}

impl Container {
    /// An ioctl on the container's file descriptor: `command` as the kernel gets it, and the
    /// argument, a number or an address in the caller's memory. Returns what the ioctl returns.
    pub fn ioctl(
        &self,
        caller: &Arc<Process>,
        command: u32,
        arg: u64,
    ) -> Result<i32, ContainerIoctlError> {
        match command {
            command::GET_API_VERSION => {}
            command::CHECK_EXTENSION => return Ok(i32::from(self.check_extension(arg))),
            command::SET_IOMMU => self.set_iommu(caller, arg)?,
            command::IOMMU_GET_INFO => self.ioctl_info(caller, arg)?,
            command::IOMMU_MAP_DMA => self.ioctl_map(caller, arg)?,
            command::IOMMU_UNMAP_DMA => self.ioctl_unmap(caller, arg)?,
            command::IOMMU_DIRTY_PAGES if self.kernel().behaviours().dirty_tracking => {
                self.ioctl_dirty(caller, arg)?;
            }
            _ => {
                self.require_type1()?;
                return Err(ContainerIoctlError::UnknownCommand { command });
            }
        }
        Ok(0)
    }

    /// A container without a type1 driver does not even look at the argument. To lock it once for a
    /// good request, that is found out when the request is handed on, or here.
    fn bad_argument(&self, error: ArgumentError) -> ContainerIoctlError {
        match self.require_type1() {
            Ok(()) => error.into(),
            Err(no_type1) => no_type1.into(),
        }
    }

    fn ioctl_info(&self, caller: &Process, arg: u64) -> Result<(), ContainerIoctlError> {
        let memory = caller.memory();
        let request = Bytes::<{ info::MINIMUM }>::read_sized(memory, arg)
            .map_err(|error| self.bad_argument(error))?;
        let answer = self.info()?;
        if self.kernel().behaviours().info_chain != InfoChain::None {
            self.allocate_info_chain()?;
        }
        Ok(write_info(&answer, &request, self.kernel().behaviours(), memory, arg)?)
    }

    fn ioctl_map(&self, caller: &Arc<Process>, arg: u64) -> Result<(), ContainerIoctlError> {
        let request = Bytes::<{ dma_map::SIZE }>::read_sized(caller.memory(), arg)
            .map_err(|error| self.bad_argument(error))?;
        let request = MapDma {
            iova: Iova(request.u64_at(dma_map::IOVA)),
            vaddr: Vaddr(request.u64_at(dma_map::VADDR)),
            size: request.u64_at(dma_map::LENGTH),
            flags: request.u32_at(dma_map::FLAGS),
        };
        Ok(self.map(caller, &request)?)
    }

    fn ioctl_unmap(&self, caller: &Arc<Process>, arg: u64) -> Result<(), ContainerIoctlError> {
        let memory = caller.memory();
        let mut bytes = Bytes::<{ dma_unmap::SIZE }>::read_sized(memory, arg)
            .map_err(|error| self.bad_argument(error))?;
        let flags = bytes.u32_at(dma_unmap::FLAGS);
        // Other flags beside this one are refused before the kernel looks for a bitmap.
        let reports = flags == UnmapDma::DIRTY_BITMAP && self.kernel().behaviours().dirty_tracking;
        let bitmap = match reports {
            true => read_bitmap(&bytes, memory, arg).map_err(|error| self.bad_argument(error))?,
            false => UserBitmap::default(),
        };
        let request = UnmapDma {
            iova: Iova(bytes.u64_at(dma_unmap::IOVA)),
            size: bytes.u64_at(dma_unmap::LENGTH),
            flags,
            bitmap,
        };
        let unmapped = self.unmap(caller, &request)?;
        bytes.set_u64(dma_unmap::LENGTH, unmapped);
        bytes
            .write(memory, arg)
            .map_err(|error| ContainerIoctlError::UnmapResult { unmapped, error })
    }

    fn ioctl_dirty(&self, caller: &Process, arg: u64) -> Result<(), ContainerIoctlError> {
        self.check_can_track()?;
        let memory = caller.memory();
        let request = Bytes::<{ dirty_bitmap::SIZE }>::read_sized(memory, arg)?;
        let request = match request.u32_at(dirty_bitmap::FLAGS) {
            DirtyPages::START => DirtyPages::Start,
            DirtyPages::STOP => DirtyPages::Stop,
            DirtyPages::GET_BITMAP => {
                request.require(dirty_bitmap::SIZE + dirty_bitmap_get::SIZE)?;
                let get: Bytes<{ dirty_bitmap_get::SIZE }> =
                    Bytes::read(memory, arg, dirty_bitmap::SIZE)?;
                DirtyPages::GetBitmap {
                    iova: Iova(get.u64_at(dirty_bitmap_get::IOVA)),
                    size: get.u64_at(dirty_bitmap_get::LENGTH),
                    bitmap: user_bitmap(&get, dirty_bitmap_get::BITMAP),
                }
            }
            flags => return Err(DirtyError::NotOneFlag { flags }.into()),
        };
        Ok(self.dirty_pages(caller, &request)?)
    }

    fn require_type1(&self) -> Result<(), NoType1> {
        self.core.with_type1(|_| ())
    }
}

/// The bitmap behind an UNMAP request, which `argsz` must cover.
fn read_bitmap(
    request: &Bytes<{ dma_unmap::SIZE }>,
    memory: &dyn Memory,
    arg: u64,
) -> Result<UserBitmap, ArgumentError> {
    request.require(dma_unmap::SIZE + bitmap::SIZE)?;
    Ok(user_bitmap(&Bytes::<{ bitmap::SIZE }>::read(memory, arg, dma_unmap::SIZE)?, 0))
}

fn user_bitmap<const N: usize>(bytes: &Bytes<N>, offset: usize) -> UserBitmap {
    UserBitmap {
        page_size: bytes.u64_at(offset + bitmap::PAGE_SIZE),
        bytes: bytes.u64_at(offset + bitmap::BYTES),
        data: Vaddr(bytes.u64_at(offset + bitmap::DATA)),
    }
}
