// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Linux VFIO type1 container in user space.
#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("vfio-type1 imitates a 64-bit kernel and needs a 64-bit target");

pub mod abi;
mod addr;
mod attach;
mod bitmap;
mod container;
mod detach;
mod device;
mod dirty;
mod domain;
mod emulated;
mod errno;
mod group;
mod host;
mod info;
mod iova_list;
mod kernel;
mod map;
mod mapping;
mod mapping_table;
mod memory;
mod obstacle;
mod page_size;
mod pin;
mod process;
mod range;
mod reserved;
pub mod sysfs;
mod type1;
mod unmap;
mod vfio;

pub use addr::{Address, Iova, Vaddr};
pub use attach::AttachError;
pub use bitmap::{MAX_BITMAP_BYTES, MAX_BITMAP_PAGES, bitmap_bytes};
pub use container::{AddGroupError, Container, Extension, SetIommuError};
pub use device::OpenDevice;
pub use dirty::{BitmapError, DirtyError, DirtyPages, UserBitmap};
pub use domain::{FixedIommu, Iommu, IommuDriver};
pub use emulated::{DmaRwError, MAX_PIN_PAGES, PinPagesError};
pub use errno::Errno;
pub use group::{
    FdTarget, GroupStatus, OpenDeviceError, OpenGroup, OpenGroupError, SetContainerError,
    UnsetContainerError,
};
pub use host::{Binding, DeviceDescription, GroupDescription, GroupId, GroupKind};
pub use info::{Info, Migration};
pub use iova_list::{IovaList, is_excluded};
pub use kernel::{
    Behaviours, DirectRegions, InfoChain, Kernel, Ownership, UnknownKernel, UnmapAtTop,
};
pub use map::{MapDma, MapError};
pub use mapping::MappingInfo;
pub use memory::{Access, AreaOverlap, Fault, Memory, ModelMemory, PinFault, PinnedRun};
pub use obstacle::{Culprit, NotValid, Obstacle};
pub use page_size::{PageSize, PageSizes};
pub use pin::PinError;
pub use process::{OverMemlock, Process};
pub use range::{AddrRange, IovaRange, RangeError, VaddrRange};
pub use reserved::{MergeRule, RegionKind, RegionList, ReservedRegion};
pub use type1::{NoType1, Type1Version};
pub use unmap::{UnmapDma, UnmapError};
pub use vfio::{DEFAULT_DMA_ENTRY_LIMIT, HostError, Vfio};
