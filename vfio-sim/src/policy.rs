// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A policy that no released kernel has: reserving what a device cannot reach.
//!
//! *iommu: Reserved regions for IOVAs beyond dma_mask and iommu aperture* was proposed in September
//! 2020 on the iommu list and not merged. VFIO looks at the IOMMU's aperture but not at the device's
//! DMA mask, so a 42-bit device behind a 48-bit IOMMU has a valid list up to 2^48. The series listed
//! both limits as regions of kind `reserved`: those of the aperture before the driver's, that of the
//! mask behind them.
//!
//! Its first patch taught the kernel to merge regions that end at 2^64 - 1, which released kernels
//! keep apart (spec 4.2). So the two upper limits of a device are one region here.

use vfio_type1::{Iova, IovaRange, RegionKind, ReservedRegion};

use crate::pci::PciFunction;

/// What a heading says when the policy is on.
pub(crate) const HEADING: &str =
    ", reserving what DMA masks and apertures leave out (2020 proposal)";

/// What the policy reserves for a device behind an IOMMU that translates `aperture`.
pub(crate) fn out_of_reach(pci: &PciFunction, aperture: IovaRange) -> Vec<ReservedRegion> {
    let last = pci.dma_mask().unwrap_or(Iova(u64::MAX)).min(aperture.last());
    let full = IovaRange::full();
    [full.above(last), full.below(aperture.first())]
        .into_iter()
        .flatten()
        .map(|range| ReservedRegion::from_range(range, RegionKind::Reserved))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(mask_bits: Option<u32>, first: u64, last: u64) -> Vec<(u64, u64)> {
        let pci = PciFunction { dma_mask_bits: mask_bits, ..PciFunction::default() };
        let aperture = IovaRange::new(Iova(first), Iova(last)).unwrap();
        let regions = out_of_reach(&pci, aperture);
        assert!(regions.iter().all(|region| region.kind == RegionKind::Reserved));
        regions.iter().map(|region| (region.first.0, region.last.0)).collect()
    }

    #[test]
    fn the_narrower_of_mask_and_aperture_counts() {
        let wide = (1 << 48) - 1;
        // The example of the proposal.
        assert_eq!(reserved(Some(42), 0, wide), [(1 << 42, u64::MAX)]);
        assert_eq!(reserved(Some(64), 0, wide), [(1 << 48, u64::MAX)]);
        assert_eq!(reserved(None, 0, wide), [(1 << 48, u64::MAX)]);
        assert_eq!(reserved(Some(1), 0, u64::MAX), [(2, u64::MAX)]);
    }

    #[test]
    fn below_the_aperture_is_out_of_reach_too() {
        assert_eq!(reserved(None, 0x1000, u64::MAX), [(0, 0xfff)]);
        assert_eq!(reserved(Some(32), 1 << 32, u64::MAX), [(1 << 32, u64::MAX), (0, 0xffff_ffff)]);
        assert_eq!(reserved(Some(64), 0, u64::MAX), []);
        assert_eq!(reserved(None, 0, u64::MAX), []);
    }
}
