// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a PCI host bridge takes from the DMA API: its memory windows, and what its inbound windows
//! leave out (`iova_reserve_pci_windows` in `drivers/iommu/dma-iommu.c`; spec 10). VFIO looks at
//! neither.

use vfio_type1::{Iova, IovaRange};

use super::NoView;
use super::claim::{Claim, Claimant, Pages};
use super::era::DmaRanges;
use crate::pci::HostBridge;

/// What `bridge` takes. Both ends of a window count with their whole pages.
pub(super) fn claims(
    bridge: &HostBridge,
    pages: Pages,
    dma_ranges: DmaRanges,
) -> Result<Vec<Claim>, NoView> {
    let window = |window: &IovaRange| claim(Claimant::BridgeWindow, pages.holding(*window));
    let mut claims: Vec<Claim> = bridge.windows.iter().map(window).collect();
    let mut inbound = bridge.dma_ranges.clone();
    inbound.sort_by_key(IovaRange::first);
    claims.extend(match dma_ranges {
        DmaRanges::Span => outside(&inbound, pages),
        DmaRanges::Gaps => between(&inbound, pages)?,
    });
    Ok(claims)
}

/// From the lowest to the highest address of the inbound windows.
pub(super) fn span(bridge: &HostBridge) -> Option<IovaRange> {
    let first = bridge.dma_ranges.iter().map(IovaRange::first).min()?;
    IovaRange::new(first, bridge.dma_ranges.iter().map(IovaRange::last).max()?)
}

fn claim(by: Claimant, taken: IovaRange) -> Claim {
    Claim { by, dma_api: Some(taken), vfio: None }
}

fn outside(inbound: &[IovaRange], pages: Pages) -> Vec<Claim> {
    let first = inbound.iter().map(IovaRange::first).min();
    let last = inbound.iter().map(IovaRange::last).max();
    let below = first.and_then(|first| pages.below(first));
    let above = last.and_then(|last| pages.above(last));
    let outside = |range| claim(Claimant::OutsideDmaRanges, range);
    below.into_iter().chain(above).map(outside).collect()
}

/// The gaps below the windows and the tail above the last. A gap takes the page in which the window
/// behind it begins, too: the kernel reserves up to the window's first byte, included.
fn between(inbound: &[IovaRange], pages: Pages) -> Result<Vec<Claim>, NoView> {
    let mut claims = Vec::new();
    let mut before: Option<IovaRange> = None;
    for window in inbound {
        // The first address that no window has passed.
        let next = before.map_or(Some(Iova(0)), |before| before.next());
        match (next, before) {
            (Some(next), _) if next == window.first() => {}
            (Some(next), _) if next < window.first() => claims.extend(gap(next, *window, pages)),
            (_, before) => {
                let first = before.unwrap_or(*window);
                return Err(NoView::OverlappingDmaRanges { first, second: *window });
            }
        }
        before = Some(*window);
    }
    let tail = before.and_then(|last| IovaRange::full().above(last.last()));
    claims.extend(tail.map(|tail| claim(Claimant::OutsideDmaRanges, pages.holding(tail))));
    Ok(claims)
}

/// The gap from `next` up to `window`, and the page that the kernel takes of the window.
fn gap(next: Iova, window: IovaRange, pages: Pages) -> impl Iterator<Item = Claim> {
    let below = pages.below(window.first()).and_then(|below| IovaRange::new(next, below.last()));
    let gap = below.map(|gap| claim(Claimant::OutsideDmaRanges, pages.holding(gap)));
    let first_byte = IovaRange::new(window.first(), window.first());
    let edge = first_byte.map(|byte| claim(Claimant::DmaRangeEdge(window), pages.holding(byte)));
    gap.into_iter().chain(edge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::PageSize;

    fn bridge(windows: &[(u64, u64)], dma_ranges: &[(u64, u64)]) -> HostBridge {
        let ranges = |ends: &[(u64, u64)]| -> Vec<IovaRange> {
            let range = |(first, last): &(u64, u64)| IovaRange::new(Iova(*first), Iova(*last));
            ends.iter().filter_map(range).collect()
        };
        HostBridge {
            segment: 0,
            buses: (0, 255),
            windows: ranges(windows),
            dma_ranges: ranges(dma_ranges),
        }
    }

    fn taken(bridge: &HostBridge, rule: DmaRanges) -> Vec<(u64, u64)> {
        let claims = claims(bridge, Pages(PageSize::P4K), rule).unwrap();
        assert!(claims.iter().all(|claim| claim.vfio.is_none()));
        let taken = claims.iter().filter_map(|claim| claim.dma_api);
        taken.map(|range| (range.first().0, range.last().0)).collect()
    }

    #[test]
    fn windows_take_the_pages_of_both_ends() {
        let bridge = bridge(&[(0xc000_0800, 0xc000_1000)], &[]);
        assert_eq!(taken(&bridge, DmaRanges::Gaps), [(0xc000_0000, 0xc000_1fff)]);
    }

    #[test]
    fn a_gap_takes_the_first_page_of_the_window_behind_it() {
        // In the order of addresses, not of the file; windows that touch have no gap.
        let ranges = [(0x9000, 0x9fff), (0x4000, 0x5fff), (0x6000, 0x6fff)];
        let expected =
            [(0, 0x3fff), (0x4000, 0x4fff), (0x7000, 0x8fff), (0x9000, 0x9fff), (0xa000, u64::MAX)];
        assert_eq!(taken(&bridge(&[], &ranges), DmaRanges::Gaps), expected);
        // A window from 0 has no gap below it, one up to the top no tail.
        assert_eq!(taken(&bridge(&[], &[(0, u64::MAX)]), DmaRanges::Gaps), []);
        // A gap within one page is the edge alone.
        let within = [(0, 0x4000), (0x4100, u64::MAX)];
        assert_eq!(taken(&bridge(&[], &within), DmaRanges::Gaps), [(0x4000, 0x4fff)]);
    }

    #[test]
    fn old_kernels_know_only_the_span() {
        let bridge = bridge(&[], &[(0x9000, 0x9fff), (0x4000, 0x5fff)]);
        assert_eq!(taken(&bridge, DmaRanges::Span), [(0, 0x3fff), (0xa000, u64::MAX)]);
        assert_eq!(span(&bridge), IovaRange::new(Iova(0x4000), Iova(0x9fff)));
    }

    #[test]
    fn windows_that_overlap_are_an_error() {
        for second in [(0x5fff, 0x9fff), (0x4000, 0x4fff), (0x4000, 0x5fff)] {
            let bridge = bridge(&[], &[second, (0x4000, 0x5fff)]);
            let result = claims(&bridge, Pages(PageSize::P4K), DmaRanges::Gaps);
            assert!(matches!(result, Err(NoView::OverlappingDmaRanges { .. })), "{second:x?}");
            assert!(claims(&bridge, Pages(PageSize::P4K), DmaRanges::Span).is_ok());
        }
        let top = bridge(&[], &[(0x4000, u64::MAX), (0x8000, 0x8fff)]);
        assert!(claims(&top, Pages(PageSize::P4K), DmaRanges::Gaps).is_err());
    }
}
