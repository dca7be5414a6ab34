// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's addresses under both views: the whole 64-bit space in pieces, from the claims on it.

use vfio_type1::{Iova, IovaRange};

use super::claim::Claim;
use super::era::{Allocator, LowFirst};

/// What the DMA API and VFIO leave of the address space, and who takes the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whose code gives out addresses.
    pub allocator: Allocator,
    /// When a device gets an address above 4 GiB.
    pub low_first: LowFirst,
    /// Who takes what, in no order. Claims may overlap.
    pub claims: Vec<Claim>,
}

/// A piece of the address space about which every claim says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The addresses, inclusive.
    pub range: IovaRange,
    /// Whether the DMA API gives them out.
    pub dma_api: bool,
    /// Whether VFIO maps them.
    pub vfio: bool,
    /// Who takes them, from either.
    pub claims: Vec<&'a Claim>,
}

/// The last address of 32 bits.
const LOW: Iova = Iova(u32::MAX as u64);

impl View {
    /// The whole space in pieces, ascending, without gaps.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        let taken = self.claims.iter().flat_map(|claim| [claim.dma_api, claim.vfio]).flatten();
        let edges = taken.flat_map(|range| [Some(range.first()), range.next()]).flatten();
        let mut starts: Vec<Iova> = edges.chain([Iova(0)]).collect();
        starts.sort_unstable();
        starts.dedup();
        let from = |first: &Iova| IovaRange::new(*first, Iova(u64::MAX));
        let ends = starts.iter().skip(1).map(Some).chain([None]);
        let pieces = starts.iter().zip(ends).filter_map(|(first, next)| match next {
            Some(next) => from(first)?.below(*next),
            None => from(first),
        });
        pieces.map(|range| self.entry(range)).collect()
    }

    fn entry(&self, range: IovaRange) -> Entry<'_> {
        let mut entry = Entry { range, dma_api: true, vfio: true, claims: Vec::new() };
        for claim in &self.claims {
            let (from_dma_api, from_vfio) = claim.takes(&range);
            entry.dma_api &= !from_dma_api;
            entry.vfio &= !from_vfio;
            if from_dma_api || from_vfio {
                entry.claims.push(claim);
            }
        }
        entry
    }

    /// What the DMA API may give out, ascending; empty if nothing.
    pub fn usable(&self) -> Vec<IovaRange> {
        self.left(|entry| entry.dma_api)
    }

    /// What VFIO maps for the device's group by itself, ascending; empty if nothing.
    pub fn valid(&self) -> Vec<IovaRange> {
        self.left(|entry| entry.vfio)
    }

    /// The entries that are left, those that touch as one.
    fn left(&self, is_left: impl Fn(&Entry<'_>) -> bool) -> Vec<IovaRange> {
        let mut left: Vec<IovaRange> = Vec::new();
        for Entry { range, .. } in self.entries().into_iter().filter(is_left) {
            let touching = left.pop_if(|last| last.next() == Some(range.first()));
            let first = touching.map_or(range.first(), |before| before.first());
            left.extend(IovaRange::new(first, range.last()));
        }
        left
    }

    /// The highest usable address below 4 GiB: where allocations of a PCI device begin, downwards.
    pub fn first_below_4g(&self) -> Option<Iova> {
        let usable = self.usable();
        usable.iter().rev().find(|range| range.first() <= LOW).map(|range| range.last().min(LOW))
    }

    /// The highest usable address, if it is not below 4 GiB: where they go on.
    pub fn first_above_4g(&self) -> Option<Iova> {
        self.usable().last().map(IovaRange::last).filter(|last| *last > LOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma_api::claim::Claimant;

    /// What a claim takes.
    type Taken = Option<(u64, u64)>;

    fn view(claims: &[(Taken, Taken)]) -> View {
        let range = |(first, last)| IovaRange::new(Iova(first), Iova(last)).unwrap();
        let claim = |(dma_api, vfio): &(Option<_>, Option<_>)| Claim {
            by: Claimant::BridgeWindow,
            dma_api: dma_api.map(range),
            vfio: vfio.map(range),
        };
        View {
            allocator: Allocator::DmaIommu,
            low_first: LowFirst::EveryTime,
            claims: claims.iter().map(claim).collect(),
        }
    }

    fn ends(ranges: &[IovaRange]) -> Vec<(u64, u64)> {
        ranges.iter().map(|range| (range.first().0, range.last().0)).collect()
    }

    #[test]
    fn pieces_cover_the_space_once() {
        let view = view(&[
            (Some((0x1000, 0x3fff)), None),
            (None, Some((0x2000, 0x4fff))),
            (Some((u64::MAX - 0xfff, u64::MAX)), Some((u64::MAX, u64::MAX))),
        ]);
        let entries = view.entries();
        assert_eq!(entries.first().unwrap().range.first(), Iova(0));
        assert_eq!(entries.last().unwrap().range.last(), Iova(u64::MAX));
        for pair in entries.windows(2) {
            assert_eq!(pair[0].range.next(), Some(pair[1].range.first()));
        }
        let both = entries.iter().find(|entry| entry.claims.len() == 2).unwrap();
        assert_eq!(ends(&[both.range]), [(0x2000, 0x3fff)]);
        assert_eq!((both.dma_api, both.vfio), (false, false));
        assert_eq!(ends(&view.usable()), [(0, 0xfff), (0x4000, u64::MAX - 0x1000)]);
        assert_eq!(ends(&view.valid()), [(0, 0x1fff), (0x5000, u64::MAX - 1)]);
    }

    #[test]
    fn allocation_begins_at_the_highest_address_of_32_bits() {
        let none = view(&[]);
        assert_eq!((none.first_below_4g(), none.first_above_4g()), (Some(LOW), Some(Iova(!0))));
        let low = view(&[(Some((0xfee0_0000, u64::MAX)), None)]);
        assert_eq!((low.first_below_4g(), low.first_above_4g()), (Some(Iova(0xfedf_ffff)), None));
        let high = view(&[(Some((0, 0xffff_ffff)), None)]);
        assert_eq!((high.first_below_4g(), high.first_above_4g()), (None, Some(Iova(!0))));
        let nothing = view(&[(Some((0, u64::MAX)), None)]);
        assert_eq!((nothing.first_below_4g(), nothing.first_above_4g()), (None, None));
    }
}
