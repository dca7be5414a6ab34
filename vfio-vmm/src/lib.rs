// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-type1` inside a VMM: devices that do DMA into memory that is really there.
//!
//! - [`OwnMemory`] is the memory of this very process: what a VMM maps by its own addresses.
//! - With the feature `vm-memory`, [`GuestRam`] is the memory behind any `GuestMemoryBackend`, and
//!   [`DeviceIommu`] makes `vm_memory::IommuMemory` translate as a device's domain does.
//! - With the feature `vfio-ioctls`, [`Ops`] is its `VfioOps`, so code that maps through
//!   `Arc<dyn VfioOps>` runs on the emulator.
#![deny(unsafe_code)]

#[cfg(feature = "vm-memory")]
mod device_iommu;
#[cfg(feature = "vm-memory")]
mod guest_ram;
#[cfg(feature = "vfio-ioctls")]
mod ops;
mod own_memory;

#[cfg(feature = "vm-memory")]
pub use device_iommu::DeviceIommu;
#[cfg(feature = "vm-memory")]
pub use guest_ram::GuestRam;
#[cfg(feature = "vfio-ioctls")]
pub use ops::Ops;
pub use own_memory::OwnMemory;
