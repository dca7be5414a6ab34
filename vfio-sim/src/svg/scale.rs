// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where addresses lie in a picture: pieces one under the other, each as high as the logarithm of its
//! size tells, and an even scale inside each.

use vfio_type1::IovaRange;

use crate::picture::{Piece, Use};

/// The height of the smallest piece in pixels: room for a line of text. A pixel is added for each
/// factor of 2.
pub(super) const LEAST_HEIGHT: u64 = 24;
/// A border inside a piece keeps so many pixels off the piece's own, so that it is seen to lie
/// inside.
pub(super) const INSET: u64 = 5;

/// A stretch of a picture, in pixels from the top: `top..bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) top: u64,
    pub(super) bottom: u64,
}

impl Extent {
    pub(super) fn height(&self) -> u64 {
        self.bottom - self.top
    }

    pub(super) fn middle(&self) -> u64 {
        self.top.midpoint(self.bottom)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.top < other.bottom && other.top < self.bottom
    }
}

/// The places of a picture's pieces.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    places: Vec<(IovaRange, Extent)>,
}

impl Scale {
    /// The scale of pieces that are ascending and without gaps.
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let mut top = 0;
        let places = pieces.iter().map(|piece| {
            let extent = Extent { top, bottom: top + height(piece) };
            top = extent.bottom;
            (piece.range, extent)
        });
        Self { places: places.collect() }
    }

    /// The height of all pieces.
    pub(super) fn height(&self) -> u64 {
        self.places.last().map_or(0, |(_, extent)| extent.bottom)
    }

    /// Where a range lies. However small, it has a height.
    pub(super) fn extent(&self, range: &IovaRange) -> Extent {
        const LEAST: u64 = INSET - 1;
        let top = self.border(u128::from(range.first().0));
        let bottom = self.border(u128::from(range.last().0) + 1);
        Extent { top, bottom: bottom.max(top + LEAST) }
    }

    /// The line above `address`, which may be 2^64.
    fn border(&self, address: u128) -> u64 {
        let above = |place: &&(IovaRange, Extent)| u128::from(place.0.first().0) <= address;
        let Some((range, extent)) = self.places.iter().take_while(above).last() else { return 0 };
        let offset = address - u128::from(range.first().0);
        let size = u128::from(range.span()) + 1;
        if offset == 0 {
            return extent.top;
        }
        if offset >= size {
            return extent.bottom;
        }
        let inside = offset * u128::from(extent.height()) / size;
        let inside = u64::try_from(inside).unwrap_or(extent.height());
        extent.top + inside.clamp(INSET, extent.height() - INSET)
    }
}

/// What lies beyond the IOMMU's width has no interest but its start.
fn height(piece: &Piece) -> u64 {
    match piece.used {
        Use::Beyond => LEAST_HEIGHT,
        _ => LEAST_HEIGHT + u64::from(piece.bits()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vfio_type1::{Iova, RegionKind};

    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    /// Pieces that begin at 0 and behind each of `cuts`.
    fn pieces(cuts: &[u64]) -> Vec<Piece> {
        let mut starts = cuts.to_vec();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let lasts = starts.iter().skip(1).map(|next| next - 1).chain([u64::MAX]);
        let piece = |(first, last)| Piece { range: range(first, last), used: Use::Valid };
        starts.iter().copied().zip(lasts).map(piece).collect()
    }

    #[test]
    fn a_megabyte_is_visible_in_57_bits() {
        let mut pieces = pieces(&[0xfee0_0000, 0xfef0_0000, 1 << 57]);
        pieces[1].used = Use::Reserved(RegionKind::Msi);
        pieces[3].used = Use::Beyond;
        let scale = Scale::new(&pieces);
        let heights: Vec<u64> =
            pieces.iter().map(|piece| scale.extent(&piece.range).height()).collect();
        assert_eq!(heights, [24 + 31, 24 + 19, 24 + 56, 24]);
        assert_eq!(scale.height(), heights.iter().sum::<u64>());
    }

    #[test]
    fn inside_a_piece_the_scale_is_even() {
        let scale = Scale::new(&pieces(&[1 << 32]));
        let low = scale.extent(&range(0, (1 << 32) - 1));
        let half = scale.extent(&range(0, (1 << 31) - 1));
        assert_eq!(half.height(), low.height() / 2);
        let quarter = scale.extent(&range(1 << 30, (1 << 31) - 1));
        assert_eq!(quarter, Extent { top: low.height() / 4, bottom: low.height() / 2 });
    }

    #[test]
    fn a_border_inside_a_piece_is_off_the_pieces_own() {
        let scale = Scale::new(&pieces(&[1 << 32]));
        let low = scale.extent(&range(0, (1 << 32) - 1));
        let one_page_more = scale.extent(&range(0, (1 << 32) + 0xfff));
        assert_eq!(one_page_more.bottom, low.bottom + INSET);
        assert_eq!(scale.extent(&range(0, u64::MAX)).bottom, scale.height());
    }

    proptest! {
        #[test]
        fn the_scale_is_monotone_and_shows_every_range(
            cuts in prop::collection::vec(1..=u64::MAX, 0..12),
            mut ends in prop::array::uniform3(any::<u64>()),
        ) {
            let scale = Scale::new(&pieces(&cuts));
            ends.sort_unstable();
            let [a, b, c] = ends;
            let (short, long) = (scale.extent(&range(a, b)), scale.extent(&range(a, c)));
            prop_assert_eq!(short.top, long.top);
            prop_assert!(short.bottom <= long.bottom);
            prop_assert!(scale.extent(&range(b, c)).top >= short.top);
            prop_assert!(short.height() >= INSET - 1 && long.bottom <= scale.height());
        }
    }
}
