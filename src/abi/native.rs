// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of iommufd's own, in bytes: `struct iommu_ioas_alloc` and the others of
//! `include/uapi/linux/iommufd.h`. Offsets are in bytes; each structure begins with its size.

use std::sync::Arc;

use super::argument::{ArgumentError, Bytes, behind};
use super::iommufd::{Argument, IommufdIoctlError};
use super::layout::command;
use crate::addr::{Iova, Vaddr};
use crate::iommufd::{AllowedRanges, IoasMap, IommuOption, Iommufd, NoCompatIoas};
use crate::process::Process;
use crate::range::IovaRange;

pub(super) type Done = Result<(), IommufdIoctlError>;

impl Iommufd {
    /// One of the commands from `IOMMU_DESTROY` on.
    pub(super) fn ioctl_native(
        &self,
        caller: &Arc<Process>,
        command: u32,
        argument: &Argument<'_>,
    ) -> Done {
        match command {
            command::IOMMU_DESTROY => {
                let request: Bytes<8> = argument.read(8)?;
                Ok(self.destroy(request.u32_at(4))?)
            }
            command::IOAS_ALLOC => self.ioctl_ioas_alloc(argument),
            command::IOAS_ALLOW_IOVAS => self.ioctl_allow_iovas(argument),
            command::IOAS_IOVA_RANGES => self.ioctl_iova_ranges(argument),
            command::IOAS_MAP => self.ioctl_ioas_map(caller, argument),
            command::IOAS_UNMAP => self.ioctl_ioas_unmap(argument),
            command::IOMMU_OPTION => self.ioctl_option(argument),
            command::IOMMU_VFIO_IOAS => self.ioctl_vfio_ioas(argument),
            command::HWPT_ALLOC => self.ioctl_hwpt_alloc(argument),
            command::GET_HW_INFO => self.ioctl_get_hw_info(argument),
            _ => Err(IommufdIoctlError::NotModelled { command }),
        }
    }

    /// `struct iommu_ioas_alloc`: flags at 4, the new number at 8.
    fn ioctl_ioas_alloc(&self, argument: &Argument<'_>) -> Done {
        let mut request: Bytes<12> = argument.read(12)?;
        unknown_unless_zero("flags", request.u32_at(4).into())?;
        let ioas = self.ioas_alloc();
        request.set_u32(8, ioas);
        Ok(argument.write(&request).inspect_err(|_| {
            // Nobody knows its number yet.
            let _ = self.destroy(ioas);
        })?)
    }

    /// `struct iommu_ioas_allow_iovas`: address space at 4, how many at 8, reserved at 12, where they are
    /// at 16.
    fn ioctl_allow_iovas(&self, argument: &Argument<'_>) -> Done {
        let request: Bytes<24> = argument.read(24)?;
        unknown_unless_zero("the reserved field", request.u32_at(12).into())?;
        let ioas = request.u32_at(4);
        self.check_ioas(ioas)?;
        let (count, array) = (request.u32_at(8), request.u64_at(16));
        let mut allowed = AllowedRanges::default();
        for at in 0..count {
            let range: Bytes<16> = Bytes::read(argument.memory, array, at as usize * RANGE)?;
            allowed.add(Iova(range.u64_at(0)), Iova(range.u64_at(8)))?;
        }
        Ok(self.allow_ranges(ioas, allowed)?)
    }

    /// `struct iommu_ioas_iova_ranges`: address space at 4, how many at 8, reserved at 12, where they go at
    /// 16, the alignment at 24.
    fn ioctl_iova_ranges(&self, argument: &Argument<'_>) -> Done {
        let mut request: Bytes<32> = argument.read(32)?;
        unknown_unless_zero("the reserved field", request.u32_at(12).into())?;
        let answer = self.ioas_ranges(request.u32_at(4))?;
        let (room, array) = (request.u32_at(8), request.u64_at(16));
        for (at, range) in answer.ranges.iter().enumerate().take(room as usize) {
            let written = argument.memory.write(behind(array, at * RANGE), &range_bytes(range));
            written.map_err(ArgumentError::Fault)?;
        }
        let ranges = u32::try_from(answer.ranges.len()).unwrap_or(u32::MAX);
        request.set_u32(8, ranges);
        request.set_u64(24, answer.alignment.bytes());
        argument.write(&request)?;
        match ranges > room {
            true => Err(IommufdIoctlError::MoreRanges { ranges, room }),
            false => Ok(()),
        }
    }

    /// `struct iommu_ioas_map`: flags at 4, address space at 8, reserved at 12, process address at 16, size
    /// at 24, address at 32.
    fn ioctl_ioas_map(&self, caller: &Arc<Process>, argument: &Argument<'_>) -> Done {
        let mut bytes: Bytes<40> = argument.read(40)?;
        // Unknown flags are EOPNOTSUPP too, so which of them is told first does not show.
        unknown_unless_zero("the reserved field", bytes.u32_at(12).into())?;
        let request = IoasMap {
            ioas: bytes.u32_at(8),
            flags: bytes.u32_at(4),
            vaddr: Vaddr(bytes.u64_at(16)),
            size: bytes.u64_at(24),
            iova: Iova(bytes.u64_at(32)),
        };
        let iova = self.ioas_map(caller, &request)?;
        bytes.set_u64(32, iova.0);
        let result = |error| IommufdIoctlError::MapResult { iova, error };
        argument.write(&bytes).map_err(result)
    }

    /// `struct iommu_ioas_unmap`: address space at 4, address at 8, size at 16.
    fn ioctl_ioas_unmap(&self, argument: &Argument<'_>) -> Done {
        let mut bytes: Bytes<24> = argument.read(24)?;
        let (ioas, iova, size) = (bytes.u32_at(4), bytes.u64_at(8), bytes.u64_at(16));
        let unmapped = self.ioas_unmap(ioas, iova, size)?;
        bytes.set_u64(16, unmapped);
        let result = |error| IommufdIoctlError::UnmapResult { unmapped, error };
        argument.write(&bytes).map_err(result)
    }

    /// `struct iommu_option`: option at 4, operation at 8, reserved at 10, object at 12, value at 16.
    fn ioctl_option(&self, argument: &Argument<'_>) -> Done {
        const RLIMIT_MODE: u32 = 0;
        const HUGE_PAGES: u32 = 1;
        const SET: u16 = 0;
        const GET: u16 = 1;
        let mut request: Bytes<24> = argument.read(24)?;
        unknown_unless_zero("the reserved field", request.u16_at(10).into())?;
        let (option, object) = (request.u32_at(4), request.u32_at(12));
        let option = match option {
            RLIMIT_MODE => {
                unknown_unless_zero("the object of RLIMIT_MODE", object.into())?;
                IommuOption::RlimitMode
            }
            HUGE_PAGES => {
                self.check_ioas(object)?;
                IommuOption::HugePages(object)
            }
            _ => return Err(unknown("the option", option.into())),
        };
        match request.u16_at(8) {
            SET => self.set_option(option, request.u64_at(16))?,
            GET => request.set_u64(16, self.option(option)?),
            operation => return Err(unknown("the operation", operation.into())),
        }
        // The kernel writes the value alone, also after SET.
        let value = request.u64_at(16).to_le_bytes();
        let written = argument.memory.write(behind(argument.at, 16), &value);
        Ok(written.map_err(ArgumentError::Fault)?)
    }

    /// `struct iommu_vfio_ioas`: address space at 4, operation at 8, reserved at 10.
    fn ioctl_vfio_ioas(&self, argument: &Argument<'_>) -> Done {
        const GET: u16 = 0;
        const SET: u16 = 1;
        const CLEAR: u16 = 2;
        let mut request: Bytes<12> = argument.read(12)?;
        unknown_unless_zero("the reserved field", request.u16_at(10).into())?;
        match request.u16_at(8) {
            GET => {
                request.set_u32(4, self.compat_ioas().ok_or(NoCompatIoas)?);
                argument.write(&request)?;
            }
            SET => self.set_compat_ioas(request.u32_at(4))?,
            CLEAR => self.clear_compat_ioas(),
            operation => return Err(unknown("the operation", operation.into())),
        }
        Ok(())
    }
}

/// How long `struct iommu_iova_range` is, as `struct vfio_iova_range`: its first address, its last one.
pub(super) const RANGE: usize = 16;

pub(super) fn range_bytes(range: &IovaRange) -> [u8; RANGE] {
    let mut bytes = [0; RANGE];
    bytes[..8].copy_from_slice(&range.first().0.to_le_bytes());
    bytes[8..].copy_from_slice(&range.last().0.to_le_bytes());
    bytes
}

fn unknown(field: &'static str, value: u64) -> IommufdIoctlError {
    IommufdIoctlError::UnknownValue { field, value }
}

pub(super) fn unknown_unless_zero(field: &'static str, value: u64) -> Done {
    if value == 0 { Ok(()) } else { Err(unknown(field, value)) }
}
