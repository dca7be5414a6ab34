// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A drawing of an address space in text: a strip of boxes, lowest address on top.
//!
//! The scale is not even: a box grows by a line for each factor of 2^16, so that a window of a
//! megabyte stays visible beside terabytes.

use vfio_type1::{Iova, RegionKind};

use crate::picture::{Picture, Piece, Use};
use crate::style::Style;

const WIDTH: usize = 14;

/// Draws a picture.
pub(crate) fn draw(picture: &Picture) -> String {
    let mut text = String::new();
    let mut pieces = picture.pieces();
    // What lies above the IOMMU's width has no interest but its start.
    let beyond = pieces.pop_if(|piece| piece.used == Use::Beyond);
    for (index, piece) in pieces.iter().enumerate() {
        let (left, right) = if index == 0 { ('┌', '┐') } else { ('├', '┤') };
        text += &format!("{}\n", border(piece.range.first(), left, right));
        text += &boxed(piece);
    }
    let (end, note) = match beyond {
        Some(piece) => (piece.range.first(), label(&piece)),
        None => (Iova(u64::MAX), "the last address".to_owned()),
    };
    text + &format!("{} {note}\n", border(end, '└', '┘'))
}

/// The lines of a box, with what it is beside the middle one.
fn boxed(piece: &Piece) -> String {
    let (paint, fill) = look(piece.used);
    let fill = fill.to_string().repeat(WIDTH);
    let lines = 1 + piece.bits() / 16;
    let mut text = String::new();
    for line in 0..lines {
        text += &format!("{:20}│{paint}{fill}{paint:#}│", "");
        if line == (lines - 1) / 2 {
            text += &format!(" {paint}{}{paint:#}", label(piece));
        }
        text += "\n";
    }
    text
}

fn label(piece: &Piece) -> String {
    format!("{}, {}", piece.used, piece.size())
}

/// The line above a box, with the address that starts it.
fn border(address: Iova, left: char, right: char) -> String {
    format!("{:>19} {left}{}{right}", address.to_string(), "─".repeat(WIDTH))
}

fn look(used: Use) -> (anstyle::Style, char) {
    match used {
        Use::Valid => (Style.good(), ' '),
        Use::ValidRelaxable => (Style.region(RegionKind::DirectRelaxable), '░'),
        Use::Reserved(kind) => (Style.region(kind), '▓'),
        Use::Unguarded(kind) => (Style.region(kind), '░'),
        Use::Beyond | Use::Dropped => (Style.dim(), '╱'),
    }
}

#[cfg(test)]
mod tests {
    use vfio_type1::{IovaRange, PageSizes, ReservedRegion};

    use super::*;

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova(first), Iova(last)).unwrap()
    }

    #[test]
    fn a_picture_shows_each_use_once() {
        let picture = Picture {
            has_list: true,
            page_sizes: PageSizes(0x1000),
            mappable: vec![range(0, 0xfedf_ffff), range(0xfef0_0000, 0x7f_ffff_ffff)],
            regions: vec![
                ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi),
                ReservedRegion::new(0xbf80_0000, 0xcf9f_ffff, RegionKind::DirectRelaxable),
            ],
            apertures: vec![range(0, 0x7f_ffff_ffff)],
        };
        let text = draw(&picture);
        for part in ["0xbf800000", "MSI window, 1 MiB", "beyond the IOMMU's width", "relaxable"] {
            assert_eq!(text.matches(part).count(), 1, "{part} in\n{text}");
        }
    }

    #[test]
    fn an_aperture_that_starts_above_0_is_drawn_whole() {
        let aperture = range(0x10_0000, 0xffff_ffff);
        let picture = Picture {
            has_list: true,
            page_sizes: PageSizes(0x1000),
            mappable: vec![aperture],
            regions: Vec::new(),
            apertures: vec![aperture],
        };
        let text = draw(&picture);
        assert_eq!(text.matches("beyond the IOMMU's width").count(), 2, "{text}");
        assert!(text.contains("0x100000 ├") && text.contains("0x100000000 └"), "{text}");
    }
}
