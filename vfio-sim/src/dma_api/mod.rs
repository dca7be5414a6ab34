// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The DMA API's own idea of which addresses a device may use, beside VFIO's.
//!
//! A driver of the kernel gets its addresses from an allocator in the group's default domain
//! (`iommu_dma_init_domain` and `iommu_dma_alloc_iova` in `drivers/iommu/dma-iommu.c`; spec 10). The
//! allocator keeps away from page 0, from the windows of the PCI host bridge and from relaxable
//! regions, and minds the DMA mask; VFIO does none of that, but keeps a window for software MSIs.
//! The allocator asks the device that it first sees in a group, VFIO asks all of them.
//!
//! `claim` says what a claim on addresses is, `scene` gathers those on a device's, `bridge` those of
//! its host bridge, `era` knows what differs between kernels, `view` makes one list of them, `report`
//! and `render` print it. Not modelled: regions of no bytes.

mod bridge;
mod claim;
mod era;
mod render;
mod report;
mod scene;
#[cfg(test)]
mod tests;
mod view;

use vfio_type1::{Errno, IommuDriver, IovaRange, Kernel, PageSize, ReservedRegion};

pub use claim::{Claim, Claimant};
pub use era::{Allocator, LowFirst};
pub use render::render;
pub use report::{DeviceReport, DmaApiReport, EntryReport, Reason, ViewReport, report};
pub use view::{Entry, View};

use crate::host::{Host, HostGroup};
use crate::platform::x86_msi_window;
use claim::Pages;
use scene::Scene;

/// Why a device has no view.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoView {
    /// There is no IOMMU, so there are no addresses to give out.
    #[error("no IOMMU: the DMA API hands out memory addresses as they are")]
    NoIommu,
    /// What this kernel's DMA API does behind this IOMMU is not known.
    #[error("the DMA API behind {iommu}{} in kernel {kernel} is not modelled", on_x86(*x86))]
    NotModelled {
        /// The IOMMU driver.
        iommu: IommuDriver,
        /// Whether the device has the x86 MSI window.
        x86: bool,
        /// The kernel.
        kernel: Kernel,
    },
    /// Inbound windows overlap.
    #[error(
        "the dma-ranges {first} and {second} overlap, so the kernel sets up no DMA domain; correct \
         them in the device tree"
    )]
    OverlappingDmaRanges {
        /// The lower one.
        first: IovaRange,
        /// The one that begins in it.
        second: IovaRange,
    },
    /// The inbound windows and the aperture share no address.
    #[error(
        "the dma-ranges span {span}, of which the IOMMU translates nothing ({aperture}), so the \
         kernel sets up no DMA domain; correct them in the device tree"
    )]
    OutsideCapability {
        /// From the lowest to the highest inbound address.
        span: IovaRange,
        /// What the IOMMU translates.
        aperture: IovaRange,
    },
}

impl NoView {
    /// What the kernel answers to itself; `None` if it does not fail.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NoIommu | Self::NotModelled { .. } => None,
            Self::OverlappingDmaRanges { .. } => Some(Errno::EINVAL),
            Self::OutsideCapability { .. } => Some(Errno::EFAULT),
        }
    }
}

fn on_x86(x86: bool) -> &'static str {
    if x86 { " on x86" } else { "" }
}

/// The addresses of each device of `group`, in its order, as a driver of `kernel` would have them and
/// as VFIO has them for the group by itself.
pub fn views(host: &Host, kernel: &Kernel, group: &HostGroup) -> Vec<Result<View, NoView>> {
    let regions: Vec<Vec<ReservedRegion>> = host.driver_regions(group, kernel);
    (0..group.devices.len()).map(|at| view(host, kernel, group, &regions, at)).collect()
}

fn view(
    host: &Host,
    kernel: &Kernel,
    group: &HostGroup,
    regions: &[Vec<ReservedRegion>],
    at: usize,
) -> Result<View, NoView> {
    let iommu = host.iommu(group, kernel).ok_or(NoView::NoIommu)?;
    let x86 = regions[at].contains(&x86_msi_window());
    let era = era::of(kernel);
    let allocator = era.allocator(iommu.driver, x86).ok_or(NoView::NotModelled {
        iommu: iommu.driver,
        x86,
        kernel: *kernel,
    })?;
    let pages = Pages(iommu.page_sizes.smallest().unwrap_or(PageSize::P4K));
    let scene = Scene { host, kernel, group, regions, at, aperture: iommu.aperture, pages };
    let mut claims = scene.limits();
    claims.extend(match allocator {
        Allocator::DmaIommu => scene.bridge(era)?,
        Allocator::Driver => scene.bars(),
    });
    claims.extend(scene.region_claims());
    Ok(View { allocator, low_first: era.low_first, claims })
}
