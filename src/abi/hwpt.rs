// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands about the IOMMU itself, in bytes: `struct iommu_hw_info` and `struct iommu_hwpt_alloc` of
//! `include/uapi/linux/iommufd.h`. Offsets are in bytes.

use super::argument::{ArgumentError, Bytes, behind};
use super::iommufd::{Argument, CHUNK, IommufdIoctlError};
use super::native::{Done, unknown_unless_zero};
use crate::iommufd::{HwptAlloc, Iommufd};

impl Iommufd {
    /// `struct iommu_hw_info`: flags at 4, device at 8, length of the buffer at 12, where it is at 16, type of
    /// the data at 24, PASIDs at 28, reserved at 29, capabilities at 32.
    ///
    /// Nothing is told of the IOMMU: there is no data, and no capability.
    pub(super) fn ioctl_get_hw_info(&self, argument: &Argument<'_>) -> Done {
        const BY_TYPE: u32 = 1;
        const TYPE_NONE: u32 = 0;
        let mut request: Bytes<40> = argument.read(32)?;
        let by_type = self.kernel().behaviours().hw_info_by_type;
        let known = if by_type { BY_TYPE } else { 0 };
        unknown_unless_zero("flags", (request.u32_at(4) & !known).into())?;
        // The first byte is an answer only where there are PASIDs.
        let reserved = request.u32_at(28) & if by_type { !0xff } else { !0 };
        unknown_unless_zero("the reserved field", reserved.into())?;
        self.check_device(request.u32_at(8))?;
        clear(argument, request.u64_at(16), request.u32_at(12) as usize)?;
        request.set_u32(12, 0);
        request.set_u32(24, TYPE_NONE);
        request.set_u32(28, 0);
        request.set_u64(32, 0);
        Ok(argument.write(&request)?)
    }

    /// `struct iommu_hwpt_alloc`: flags at 4, device at 8, address space at 12, the new number at 16, reserved
    /// at 20, type of the driver's data at 24, its length at 28, where it is at 32, queue of faults at 40,
    /// padding at 44, which the kernel does not look at.
    pub(super) fn ioctl_hwpt_alloc(&self, argument: &Argument<'_>) -> Done {
        let mut bytes: Bytes<48> = argument.read(24)?;
        unknown_unless_zero("the reserved field", bytes.u32_at(20).into())?;
        let hwpt = self.hwpt_alloc(&HwptAlloc {
            device: bytes.u32_at(8),
            ioas: bytes.u32_at(12),
            flags: bytes.u32_at(4),
            data_type: bytes.u32_at(24),
            data_len: bytes.u32_at(28),
        })?;
        bytes.set_u32(16, hwpt);
        Ok(argument.write(&bytes).inspect_err(|_| {
            // Nobody knows its number yet.
            let _ = self.destroy(hwpt);
        })?)
    }
}

/// Writes zeroes.
fn clear(argument: &Argument<'_>, at: u64, size: usize) -> Result<(), IommufdIoctlError> {
    for from in (0..size).step_by(CHUNK) {
        let zeroes = &[0; CHUNK][..CHUNK.min(size - from)];
        argument.memory.write(behind(at, from), zeroes).map_err(ArgumentError::Fault)?;
    }
    Ok(())
}
