// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated PCI devices that do DMA.
//!
//! A [`PciDevice`] is what VFIO hands out for one: configuration space, regions, interrupts by eventfd,
//! reset, and the ioctls of its file ([`PciDevice::ioctl`]). Behind it a [`Model`] keeps the registers and
//! does the work; it reaches memory only by its [`Link`], through the container that its group is in. These
//! are the models:
//!
//! - [`engine`]: a DMA test engine, which copies, fills, dirties chosen pages and goes astray as told;
//! - [`edu`]: the register interface of QEMU's educational device;
//! - [`ioat`]: a channel of Intel's IOAT DMA engine;
//! - [`nvme`]: an NVMe controller with a file, a block device or memory behind it;
//! - [`peer`]: a BAR full of memory, for peer-to-peer DMA.
//!
//! `vfio-sim/DEVICES.md` has their registers. A host file or a command line places them
//! ([`DeviceSpec`]).
//!
//! ```
//! use vfio_sim::device::engine::{Driver, Job};
//! use vfio_sim::device::{DeviceSpec, Pace};
//! use vfio_sim::hosts;
//! use vfio_type1::*;
//!
//! // A host as it is on the shelf, with a DMA engine in a free slot.
//! let mut host = hosts::find("vtd39")?;
//! let name = host.add_device(&"dma-engine".parse::<DeviceSpec>()?)?;
//! let vfio = host.boot(Kernel::NEWEST)?;
//! let engine = host.power_on(&vfio, &name, Pace::Immediate)?;
//!
//! // Two pages of memory, mapped for it.
//! let memory = std::sync::Arc::new(ModelMemory::new());
//! memory.add(VaddrRange::from_size(Vaddr(0x7000_0000), 0x2000)?, true)?;
//! let process = Process::new(memory.clone());
//! let container = vfio.open_container();
//! let group = vfio.open_group(vfio.group_of(&name).unwrap(), &process)?;
//! group.set_container(&container, &process)?;
//! container.set_iommu(&process, extension::TYPE1V2)?;
//! container.map(&process, &MapDma::new(0x10000_u64, 0x7000_0000_u64, 0x2000, Access::ReadWrite))?;
//!
//! // Its driver: turn bus mastering on, start a job, look at what came of it.
//! memory.write(Vaddr(0x7000_0000), b"by DMA")?;
//! let driver = Driver::new(&engine)?;
//! driver.run(&Job::copy(0x10000, 0x11000, 6))??;
//! let mut bytes = [0; 6];
//! memory.read(Vaddr(0x7000_1000), &mut bytes)?;
//! assert_eq!(&bytes, b"by DMA");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bar;
mod capability;
mod config;
mod descriptor;
pub mod edu;
pub mod engine;
mod idle;
mod interrupts;
pub mod ioat;
pub mod ioctl;
mod irq_doors;
mod irq_error;
mod link;
mod listener;
mod model;
pub mod nvme;
mod own_config;
mod pci_device;
pub mod peer;
mod place;
mod region;
mod set_irqs;
mod spec;
mod unmasker;
mod window;

pub use bar::BarMemory;
pub(crate) use config::ConfigSpace;
pub use descriptor::FIRST_DESCRIPTOR;
pub use interrupts::IrqIndex;
pub use irq_error::IrqError;
pub use link::Link;
pub use listener::Listener;
pub use model::{BadFunction, BarContent, BarLayout, Function, Model, Register};
pub use pci_device::{Pace, PciDevice};
pub(crate) use place::check_places;
pub use place::{AddDevicesError, PlaceError, PowerOnError};
pub use region::{CONFIG_REGION, RegionError};
pub use set_irqs::NotEventFd;
pub use spec::{DeviceSpec, ModelSpec, SpecError};
pub use window::{MappedBars, NotMemory};
