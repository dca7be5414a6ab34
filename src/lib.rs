// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Linux VFIO type1 container in user space: which DMA mappings a kernel accepts, and why it
//! refuses the others.
//!
//! A VMM maps guest memory for a device with `VFIO_IOMMU_MAP_DMA`. Whether that works depends on
//! the host: the width of its IOMMU and the reserved regions of the device's group. This crate
//! gives the answers of a chosen kernel on a described host, byte for byte, without the hardware,
//! and explains each refusal.
//!
//! ```
//! use std::sync::Arc;
//! use vfio_type1::*;
//!
//! // A host: one NIC behind a 48-bit VT-d, which reserves the MSI window.
//! let iommu = Arc::new(FixedIommu {
//!     driver: IommuDriver::IntelVtd,
//!     aperture: IovaRange::from_size(Iova(0), 1 << 48)?,
//!     page_sizes: PageSizes(0x4020_1000),
//!     coherent: false,
//!     isolated_msi: true,
//! });
//! let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
//! let nic = DeviceDescription::new("0000:00:03.0", vec![msi]);
//! let vfio = Vfio::new(Kernel::V6_12, [GroupDescription::behind(iommu, 1, [nic])])?;
//!
//! // A process with a gigabyte of memory, and what every VMM does first.
//! let memory = ModelMemory::new();
//! memory.add(VaddrRange::from_size(Vaddr(0x7f00_0000_0000), 1 << 30)?, true)?;
//! let process = Process::new(Arc::new(memory));
//! let container = vfio.open_container();
//! let group = vfio.open_group(GroupId::Numbered(1), &process)?;
//! group.set_container(&container, &process)?;
//! container.set_iommu(&process, extension::TYPE1V2)?;
//!
//! // Guest memory fits, the MSI window does not.
//! let map = |iova| {
//!     let request = MapDma::new(iova, 0x7f00_0000_0000, 0x10000, Access::ReadWrite);
//!     container.map(&process, &request)
//! };
//! map(0)?;
//! let refused = map(0xfee0_0000).unwrap_err();
//! assert_eq!(refused.errno(), Errno::EINVAL);
//! assert_eq!(
//!     refused.to_string(),
//!     "iova 0xfee00000..0xfee0ffff touches the MSI window 0xfee00000..0xfeefffff of group 1 \
//!      (0000:00:03.0); nearest free range of this size starts at 0xfedf0000"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two doors
//!
//! The *typed door* is [`Container`], [`OpenGroup`] and [`OpenDevice`], or [`Iommufd`] and [`OpenCdev`]: a
//! request in, a result or an error out. Each operation has one error type with a variant per rule; `errno`
//! says what a kernel answers. The *byte door*, `ioctl` of each of them in [`abi`], takes ioctl commands and
//! reads and writes the caller's memory as the kernel does.
//!
//! # What is what
//!
//! - [`Vfio`] is the driver on one host: a [`Kernel`] and [`GroupDescription`]s. Nothing is global.
//! - [`Kernel`] is a value that names [`Behaviours`]; no other file asks for a version.
//! - [`Container`]s hold mappings for groups; address spaces of an [`Iommufd`] hold them for devices.
//! - [`Iommu`] and [`Memory`] are the seams to hardware and to the calling [`Process`].
//! - [`IovaList`] and [`RegionList`] are the algorithms at the heart, usable by themselves.
//!
//! Addresses are 64 bits and ranges include both ends. "Spec 3.6" means section 3.6 of
//! `docs/type1.md` in the repository, which describes the kernel's behaviour and says how each fact
//! is known; `SEMANTICS.md` lists every ioctl, flag and rule, and how far it is emulated.
#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("vfio-type1 imitates a 64-bit kernel and needs a 64-bit target");

// Addresses and sizes.
mod addr;
mod errno;
mod latest;
mod page_size;
mod range;

// What threads meet at.
mod arena;
mod sync;
mod version;

// What a host reserves, and which kernel looks at it.
mod kernel;
mod reserved;
pub mod sysfs;

// The seams: IOMMU hardware, the host's groups, the caller's memory.
mod changes;
mod domain;
mod host;
mod memory;
mod process;

// Failures on demand.
mod inject;
mod plan;

// The valid list, and the mappings checked against it.
mod bitmap;
mod hints;
mod iova_list;
mod mapping;
mod mapping_table;
mod obstacle;
mod owners;
mod page_table;
mod pin;
mod translation;
mod type1;

// One operation each.
mod attach;
mod detach;
mod dirty;
mod emulated;
mod info;
mod map;
mod unmap;

// Devices: how they reach memory, and what is said when they cannot or should not.
mod bus;
mod dma;
mod fault;
mod history;
mod iotlb;
mod watch;

// The files a program opens.
mod callback;
mod cdev;
mod claim;
mod container;
mod device;
mod ending;
pub mod extension;
mod group;
mod open_device;
mod state;
mod vfio;

// The other way in: address spaces in place of containers.
mod iommufd;

pub mod abi;

pub use addr::{Address, Iova, Vaddr};
pub use attach::AttachError;
pub use bitmap::{MAX_BITMAP_BYTES, MAX_BITMAP_PAGES, bitmap_bytes};
pub use callback::Unpinner;
pub use cdev::{AttachCdevError, BindCdevError, NotBound, OpenCdev, OpenCdevError};
pub use changes::{MAX_CHANGES, MemoryChange, MemoryChanges};
pub use claim::AddGroupError;
pub use container::{Container, SetIommuError};
pub use device::OpenDevice;
pub use dirty::{BitmapError, DirtyError, DirtyPages, UserBitmap};
pub use dma::BusMaster;
pub use domain::{FixedIommu, Iommu, IommuDriver};
pub use emulated::{DmaRwError, MAX_PIN_PAGES, PinPagesError};
pub use errno::Errno;
pub use fault::{DmaAccess, DmaFault, FaultCause, Faults, MAX_FAULTS, Refusal, Removal, RemovedBy};
pub use group::{
    FdTarget, GroupStatus, OpenGroup, OpenGroupError, SetContainerError, UnsetContainerError,
};
pub use host::{Binding, DeviceDescription, GroupDescription, GroupId, GroupKind};
pub use info::{Info, Migration};
pub use inject::{Allocation, Injected, MAX_INJECTED, OutOfMemory};
pub use iommufd::{
    AccessError, AllowIovasError, BindError, CompatInfo, CompatMapError, CompatSetIommuError,
    CompatUnmapError, DestroyError, HwptAlloc, HwptAllocError, IoasAttachError, IoasMap,
    IoasMapError, IoasRanges, IoasUnmapError, IommuOption, Iommufd, LargePagesError,
    NativeMapError, NativeUnmapError, NoCompatIoas, NoSuchDevice, NoSuchIoas, OptionError,
};
pub use iova_list::{IovaList, is_excluded};
pub use kernel::{
    Behaviours, DeviceInfoSize, DirectRegions, InfoChain, Kernel, Ownership, UnknownKernel,
    UnmapAtTop,
};
pub use map::{MapDma, MapError};
pub use mapping::MappingInfo;
pub use memory::{Access, AreaError, Fault, Memory, ModelMemory, PinFault, PinnedRun};
pub use obstacle::{Culprit, NotValid, Obstacle};
pub use open_device::OpenDeviceError;
pub use page_size::{PageSize, PageSizes};
pub use pin::PinError;
pub use plan::{FaultPlan, FaultPlanError, Point};
pub use process::{OverMemlock, Process};
pub use range::{AddrRange, IovaRange, RangeError, VaddrRange};
pub use reserved::{MergeRule, RegionKind, RegionList, ReservedRegion};
pub use type1::{NoType1, Type1Version};
pub use unmap::{UnmapDma, UnmapError};
pub use vfio::{DEFAULT_DMA_ENTRY_LIMIT, HostError, NoIommufd, Vfio};
pub use watch::{Finding, Findings, LiveMappings, MAX_FINDINGS, Mistake};

/// The code in the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
