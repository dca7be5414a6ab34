// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The address space as a strip of labelled boxes, with the address at each border to its left.

use vfio_type1::Iova;

use super::paint::{Area, BAND, TILE};
use super::scale::Scale;
use super::text::{LABEL, MONO};
use super::xml::Element;
use crate::picture::{Piece, Use};

/// Between text and what is beside it.
const GAP: u64 = 8;
/// From the middle of a line to its base line.
const DROP: u64 = 4;

/// The widths of a strip's two columns: wide enough for every address and label.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Columns {
    addresses: u64,
    boxes: u64,
}

impl Columns {
    pub(super) fn of<'a>(pieces: impl Iterator<Item = &'a Piece> + Clone) -> Self {
        let address = |piece: &Piece| MONO.width(&piece.range.first().to_string());
        let ends = pieces.clone().filter_map(last_address).map(|end| MONO.width(&end.to_string()));
        let addresses = pieces.clone().map(address).chain(ends).max();
        let label = |piece: &Piece| {
            BAND + 3 * GAP + LABEL.width(&piece.used.name()) + MONO.width(&piece.size())
        };
        Self {
            addresses: (addresses.unwrap_or(0) + GAP).next_multiple_of(TILE),
            boxes: pieces.map(label).max().unwrap_or(0).max(LEAST_BOX),
        }
    }

    pub(super) fn width(&self) -> u64 {
        self.addresses + self.boxes
    }
}

/// Narrower boxes would not look like a space.
const LEAST_BOX: u64 = 220;

/// The address at the lower end of a piece, if it is the last of the space. A space that ends with the
/// IOMMU's width is left open there.
fn last_address(piece: &Piece) -> Option<Iova> {
    let ends_space = piece.range.last() == Iova(u64::MAX) && piece.used != Use::Beyond;
    ends_space.then(|| piece.range.last())
}

/// The strip, its top at 0.
pub(super) fn strip(pieces: &[Piece], scale: &Scale, columns: Columns) -> Vec<Element> {
    let address = |address: Iova, y: u64| {
        MONO.put_left_of(columns.addresses - GAP, y + DROP, &address.to_string())
    };
    let mut parts = Vec::new();
    for piece in pieces {
        let extent = scale.extent(&piece.range);
        parts.extend(Area { x: columns.addresses, width: columns.boxes, extent }.boxed(piece.used));
        parts.push(address(piece.range.first(), extent.top));
        let y = extent.middle() + DROP;
        parts.push(LABEL.put(columns.addresses + BAND + GAP, y, &piece.used.name()));
        parts.push(MONO.put_left_of(columns.width() - GAP, y, &piece.size()));
        if let Some(last) = last_address(piece) {
            parts.push(address(last, extent.bottom));
        }
    }
    parts
}
