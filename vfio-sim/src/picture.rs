// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a drawing of an address space shows: the space in pieces of one use each.
//!
//! `draw` renders it as text, `svg` as a picture.

use std::fmt;

use vfio_type1::{Iova, IovaRange, PageSizes, RegionKind, ReservedRegion, is_excluded};

/// What there is to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// What can be mapped, ascending.
    pub(crate) mappable: Vec<IovaRange>,
    pub(crate) regions: Vec<ReservedRegion>,
    /// What the domains translate.
    pub(crate) apertures: Vec<IovaRange>,
    /// Whether the kernel keeps a valid list. Without, regions are no obstacle to it.
    pub(crate) has_list: bool,
    /// What mappings are aligned to; not drawn, but pictures differ by it.
    pub(crate) page_sizes: PageSizes,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Valid,
    /// Valid, though the firmware may have used it.
    ValidRelaxable,
    Reserved(RegionKind),
    /// Reserved, but the kernel keeps no list and lets it be mapped.
    Unguarded(RegionKind),
    /// Beyond what a domain translates.
    Beyond,
    /// In every aperture and in no region, yet not in the list.
    Dropped,
}

impl Picture {
    fn use_of(&self, address: Iova) -> Use {
        let holds = |region: &&ReservedRegion| region.range().is_some_and(|r| r.contains(address));
        let mut regions = self.regions.iter().filter(holds);
        if self.mappable.iter().any(|range| range.contains(address)) {
            return match regions.next() {
                Some(region) if !self.has_list => Use::Unguarded(region.kind),
                Some(_) => Use::ValidRelaxable,
                None => Use::Valid,
            };
        }
        if let Some(region) = regions.find(|region| is_excluded(region.kind)) {
            return Use::Reserved(region.kind);
        }
        let translated = self.apertures.iter().all(|aperture| aperture.contains(address));
        if translated { Use::Dropped } else { Use::Beyond }
    }

    /// The space in pieces, ascending and without gaps.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let regions = self.regions.iter().filter_map(ReservedRegion::range);
        let ranges = self.mappable.iter().chain(&self.apertures).copied().chain(regions);
        let mut starts: Vec<Iova> =
            ranges.flat_map(|range| [Some(range.first()), range.next()]).flatten().collect();
        starts.push(Iova(0));
        starts.sort_unstable();
        starts.dedup();
        let mut pieces: Vec<Piece> = Vec::new();
        for (index, first) in starts.iter().enumerate() {
            let last = starts.get(index + 1).map_or(u64::MAX, |next| next.0 - 1);
            let Some(range) = IovaRange::new(*first, Iova(last)) else {
                continue;
            };
            let used = self.use_of(*first);
            match pieces.last_mut() {
                // A seam between valid ranges is one that no mapping may cross: keep it.
                Some(before) if before.used == used && !self.is_seam(*first) => {
                    let whole = IovaRange::new(before.range.first(), range.last());
                    before.range = whole.unwrap_or(before.range);
                }
                _ => pieces.push(Piece { range, used }),
            }
        }
        pieces
    }

    fn is_seam(&self, address: Iova) -> bool {
        self.mappable.windows(2).any(|pair| pair[1].first() == address)
    }
}

impl Use {
    /// Whether a mapping may lie there.
    pub(crate) fn is_mappable(self) -> bool {
        matches!(self, Self::Valid | Self::ValidRelaxable | Self::Unguarded(_))
    }

    /// What it is in a few words, for where there is little room.
    pub(crate) fn name(self) -> String {
        match self {
            Self::ValidRelaxable => RegionKind::DirectRelaxable.to_string(),
            Self::Unguarded(kind) => format!("{kind}, unguarded"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::ValidRelaxable => f.write_str("valid, though a relaxable direct region"),
            Self::Reserved(kind) => write!(f, "{kind}"),
            Self::Unguarded(kind) => write!(f, "{kind}, which this kernel does not guard"),
            Self::Beyond => f.write_str("beyond the IOMMU's width"),
            Self::Dropped => f.write_str("dropped by the kernel"),
        }
    }
}

/// A piece of the space that has one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The addresses, inclusive.
    pub(crate) range: IovaRange,
    pub(crate) used: Use,
}

impl Piece {
    /// The logarithm of the piece's span, base 2: 0 to 63. Drawings grow with it, so that a window of
    /// a megabyte stays visible beside terabytes.
    pub(crate) fn bits(&self) -> u32 {
        self.range.span().checked_ilog2().unwrap_or(0)
    }

    /// Its size in the largest unit that keeps it at 1 or above, rounded to two digits behind the
    /// point.
    pub(crate) fn size(&self) -> String {
        let bytes = u128::from(self.range.span()) + 1;
        if bytes == 1 {
            return "1 byte".to_owned();
        }
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let hundredths = |unit: usize| (bytes * 100 + (1 << (10 * unit)) / 2) >> (10 * unit);
        // Rounding may reach the next unit: 1023.999 KiB is 1 MiB.
        let unit = (0..units.len()).rev().find(|unit| hundredths(*unit) >= 100).unwrap_or(0);
        let (whole, rest) = (hundredths(unit) / 100, hundredths(unit) % 100);
        let number = match (rest / 10, rest % 10) {
            (0, 0) => format!("{whole}"),
            (tenths, 0) => format!("{whole}.{tenths}"),
            _ => format!("{whole}.{rest:02}"),
        };
        format!("{number} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    #[test]
    fn pieces_cover_the_space_and_tell_each_use() {
        let window = range(0xfee0_0000, 0xfeef_ffff);
        let picture = Picture {
            mappable: vec![range(0x1000, 0xfedf_ffff), range(0xfef0_0000, 0xffff_ffff)],
            regions: vec![ReservedRegion::from_range(window, RegionKind::Msi)],
            apertures: vec![range(0, 0xffff_ffff)],
            has_list: true,
            page_sizes: PageSizes(0x1000),
        };
        let pieces = picture.pieces();
        let uses: Vec<Use> = pieces.iter().map(|piece| piece.used).collect();
        let msi = Use::Reserved(RegionKind::Msi);
        assert_eq!(uses, [Use::Dropped, Use::Valid, msi, Use::Valid, Use::Beyond]);
        assert!(pieces.windows(2).all(|p| p[0].range.next() == Some(p[1].range.first())));
        assert_eq!(pieces[0].range.first(), Iova(0));
        assert_eq!(pieces[4].range.last(), Iova(u64::MAX));
    }

    #[test]
    fn sizes_are_readable() {
        let size = |range| Piece { range, used: Use::Valid }.size();
        assert_eq!(size(range(0, 0)), "1 byte");
        assert_eq!(size(range(0, 0xfff)), "4 KiB");
        assert_eq!(size(range(0, 0x17ff)), "6 KiB");
        assert_eq!(size(IovaRange::full()), "16 EiB");
        assert_eq!(size(range(0, (3 << 39) - 1)), "1.5 TiB");
    }
}
