// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The type1 calls on an iommufd, in bytes (`iommufd_vfio_ioctl` in
//! `drivers/iommu/iommufd/vfio_compat.c`; spec 9).
//!
//! The structures are type1's. What is written back is not: GET_INFO writes what fits of its capabilities,
//! and UNMAP its size also when it fails.

use std::sync::Arc;

use super::argument::{ArgumentError, Bytes, behind};
use super::layout::{capability, command, dma_map, dma_unmap, info};
use super::native::{RANGE, range_bytes};
use crate::addr::{Iova, Vaddr};
use crate::dirty::UserBitmap;
use crate::errno::Errno;
use crate::iommufd::{
    CompatInfo, CompatMapError, CompatSetIommuError, CompatUnmapError, Iommufd, NoCompatIoas,
};
use crate::map::MapDma;
use crate::memory::Memory;
use crate::process::Process;
use crate::unmap::UnmapDma;

/// Why a type1 call on an iommufd failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatIoctlError {
    /// The command is none of those that an iommufd takes from type1. ENOTTY.
    #[error("an iommufd knows no command {command:#x}{}", command::in_brackets(*.command))]
    UnknownCommand {
        /// The command given.
        command: u32,
    },
    /// The argument cannot be read or is too short.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// There is no compatibility address space. ENODEV.
    #[error(transparent)]
    NoIoas(#[from] NoCompatIoas),
    /// SET_IOMMU was refused.
    #[error(transparent)]
    SetIommu(#[from] CompatSetIommuError),
    /// MAP_DMA was refused.
    #[error(transparent)]
    Map(#[from] CompatMapError),
    /// UNMAP_DMA was refused.
    #[error(transparent)]
    Unmap(#[from] CompatUnmapError),
    /// UNMAP_DMA removed mappings, but its result could not be written. EFAULT.
    #[error("{unmapped:#x} bytes were unmapped, but the result could not be written: {error}")]
    UnmapResult {
        /// Bytes of mappings removed.
        unmapped: u64,
        /// What went wrong.
        error: ArgumentError,
    },
}

impl CompatIoctlError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownCommand { .. } => Errno::ENOTTY,
            Self::Argument(error) | Self::UnmapResult { error, .. } => error.errno(),
            Self::NoIoas(error) => error.errno(),
            Self::SetIommu(error) => error.errno(),
            Self::Map(error) => error.errno(),
            Self::Unmap(error) => error.errno(),
        }
    }
}

impl Iommufd {
    /// One of type1's commands.
    pub(super) fn ioctl_compat(
        &self,
        caller: &Arc<Process>,
        command: u32,
        arg: u64,
    ) -> Result<i32, CompatIoctlError> {
        match command {
            command::GET_API_VERSION => {}
            command::CHECK_EXTENSION => return Ok(i32::from(self.check_extension(arg)?)),
            command::SET_IOMMU => self.set_iommu(caller, arg)?,
            command::IOMMU_GET_INFO => self.ioctl_info(caller.memory(), arg)?,
            command::IOMMU_MAP_DMA => self.ioctl_map(caller, arg)?,
            command::IOMMU_UNMAP_DMA => self.ioctl_unmap(caller.memory(), arg)?,
            _ => return Err(CompatIoctlError::UnknownCommand { command }),
        }
        Ok(0)
    }

    fn ioctl_map(&self, caller: &Arc<Process>, arg: u64) -> Result<(), CompatIoctlError> {
        let request = Bytes::<{ dma_map::SIZE }>::read_sized(caller.memory(), arg)?;
        let request = MapDma {
            iova: Iova(request.u64_at(dma_map::IOVA)),
            vaddr: Vaddr(request.u64_at(dma_map::VADDR)),
            size: request.u64_at(dma_map::LENGTH),
            flags: request.u32_at(dma_map::FLAGS),
        };
        Ok(self.map(caller, &request)?)
    }

    fn ioctl_unmap(&self, memory: &dyn Memory, arg: u64) -> Result<(), CompatIoctlError> {
        let mut bytes = Bytes::<{ dma_unmap::SIZE }>::read_sized(memory, arg)?;
        let request = UnmapDma {
            iova: Iova(bytes.u64_at(dma_unmap::IOVA)),
            size: bytes.u64_at(dma_unmap::LENGTH),
            flags: bytes.u32_at(dma_unmap::FLAGS),
            bitmap: UserBitmap::default(),
        };
        let result = self.unmap(&request);
        let size = match &result {
            Ok(unmapped) => Some(*unmapped),
            Err(error) => error.written_size(),
        };
        if let Some(unmapped) = size {
            bytes.set_u64(dma_unmap::LENGTH, unmapped);
            let result = |error| CompatIoctlError::UnmapResult { unmapped, error };
            bytes.write(memory, arg).map_err(result)?;
        }
        Ok(result.map(|_| ())?)
    }

    fn ioctl_info(&self, memory: &dyn Memory, arg: u64) -> Result<(), CompatIoctlError> {
        let request = Bytes::<{ info::MINIMUM }>::read_sized(memory, arg)?;
        let answer = self.info()?;
        Ok(write_info(&answer, request.argsz(), memory, arg)?)
    }
}

/// Where the capabilities lie: entries available first, then the ranges.
const AVAILABLE: usize = info::SIZE;
const RANGES: usize = AVAILABLE + 16;
/// Where the first range lies.
const FIRST_RANGE: usize = RANGES + capability::HEADER + 8;

/// Answers GET_INFO. `argsz` bytes are the caller's; each part is written if it fits.
fn write_info(
    answer: &CompatInfo,
    argsz: u32,
    memory: &dyn Memory,
    arg: u64,
) -> Result<(), ArgumentError> {
    let given = argsz as usize;
    let needed = FIRST_RANGE + RANGE * answer.iova_ranges.len();
    let write = |at: usize, bytes: &[u8]| {
        let fits = at + bytes.len() <= given;
        let written = if fits { memory.write(behind(arg, at), bytes) } else { Ok(()) };
        written.map_err(ArgumentError::Fault)
    };
    write(AVAILABLE, &[&header(capability::DMA_AVAIL)[..], &u32::MAX.to_le_bytes()].concat())?;
    for (at, range) in answer.iova_ranges.iter().enumerate() {
        write(FIRST_RANGE + RANGE * at, &range_bytes(range))?;
    }
    // All of the ranges, or not even how many there are.
    if needed <= given {
        let count = u32::try_from(answer.iova_ranges.len()).unwrap_or(u32::MAX).to_le_bytes();
        write(RANGES, &[&header(capability::IOVA_RANGE)[..], &count, &[0; 4]].concat())?;
    }
    if RANGES <= given {
        let next = u32::try_from(RANGES).unwrap_or(u32::MAX).to_le_bytes();
        write(AVAILABLE + capability::NEXT, &next)?;
    }
    let mut bytes = [0; info::SIZE];
    let size = u32::try_from(needed).unwrap_or(u32::MAX);
    bytes[0..4].copy_from_slice(&size.to_le_bytes());
    bytes[4..8].copy_from_slice(&(info::FLAG_PGSIZES | info::FLAG_CAPS).to_le_bytes());
    bytes[8..16].copy_from_slice(&answer.page_sizes.0.to_le_bytes());
    let cap_offset = if needed <= given { info::CAP_OFFSET } else { 0 };
    bytes[16..20].copy_from_slice(&cap_offset.to_le_bytes());
    let written = given.min(info::SIZE);
    memory.write(Vaddr(arg), &bytes[..written]).map_err(ArgumentError::Fault)
}

/// A capability's header, the last of the chain.
fn header(id: u16) -> [u8; capability::HEADER] {
    let mut bytes = [0; capability::HEADER];
    bytes[0..2].copy_from_slice(&id.to_le_bytes());
    bytes[2..4].copy_from_slice(&capability::VERSION.to_le_bytes());
    bytes
}
