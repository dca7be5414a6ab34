// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Extensions and IOMMU types: the arguments of CHECK_EXTENSION and SET_IOMMU (spec 1.3, 1.4).

use crate::kernel::Kernel;
use crate::type1::Type1;

/// Type1, version 1 (`VFIO_TYPE1_IOMMU`).
pub const TYPE1: u64 = 1;
/// Type1, version 2 (`VFIO_TYPE1v2_IOMMU`).
pub const TYPE1V2: u64 = 3;
/// All domains enforce cache coherency (`VFIO_DMA_CC_IOMMU`).
pub const DMA_CC: u64 = 4;
/// Type1 with nested domains (`VFIO_TYPE1_NESTING_IOMMU`), up to 6.12.
pub const NESTING: u64 = 6;
/// No IOMMU (`VFIO_NOIOMMU_IOMMU`).
pub const NOIOMMU: u64 = 8;
/// UNMAP knows flag ALL (`VFIO_UNMAP_ALL`), from 5.12.
pub const UNMAP_ALL: u64 = 9;
/// MAP and UNMAP know flag VADDR (`VFIO_UPDATE_VADDR`), from 5.12.
pub const UPDATE_VADDR: u64 = 10;

/// What type1 answers to CHECK_EXTENSION before it is anyone's driver (spec 1.3).
pub(crate) fn advertises(kernel: &Kernel, extension: u64) -> bool {
    match extension {
        TYPE1 | TYPE1V2 => true,
        NESTING => kernel.behaviours().nesting,
        UNMAP_ALL => kernel.behaviours().unmap_all,
        _ => false,
    }
}

impl Type1 {
    /// What an instance answers, which knows its groups.
    pub(crate) fn extension(&self, extension: u64) -> bool {
        match extension {
            DMA_CC => self.is_coherent(),
            UPDATE_VADDR => self.behaviours().update_vaddr && self.emulated.is_empty(),
            _ => advertises(self.kernel(), extension),
        }
    }
}
