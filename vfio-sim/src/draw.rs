// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A drawing of an address space in text: a strip of boxes, lowest address on top.
//!
//! The scale is not even: a box grows by a line for each factor of 2^16, so that a window of a
//! megabyte stays visible beside terabytes.

use vfio_type1::{Iova, IovaRange, PageSizes, RegionKind, ReservedRegion, is_excluded};

use crate::style::Style;

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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
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

    /// The space in pieces of one use each, ascending.
    fn pieces(&self) -> Vec<(IovaRange, Use)> {
        let regions = self.regions.iter().filter_map(ReservedRegion::range);
        let ranges = self.mappable.iter().chain(&self.apertures).copied().chain(regions);
        let mut starts: Vec<Iova> =
            ranges.flat_map(|range| [Some(range.first()), range.next()]).flatten().collect();
        starts.push(Iova(0));
        starts.sort_unstable();
        starts.dedup();
        let mut pieces: Vec<(IovaRange, Use)> = Vec::new();
        for (index, first) in starts.iter().enumerate() {
            let last = starts.get(index + 1).map_or(u64::MAX, |next| next.0 - 1);
            let Some(piece) = IovaRange::new(*first, Iova(last)) else {
                continue;
            };
            let used = self.use_of(*first);
            match pieces.last_mut() {
                // A seam between valid ranges is one that no mapping may cross: keep it.
                Some((before, same)) if *same == used && !self.is_seam(*first) => {
                    *before = IovaRange::new(before.first(), piece.last()).unwrap_or(*before);
                }
                _ => pieces.push((piece, used)),
            }
        }
        pieces
    }

    fn is_seam(&self, address: Iova) -> bool {
        self.mappable.windows(2).any(|pair| pair[1].first() == address)
    }
}

const WIDTH: usize = 14;

/// Draws a picture.
pub(crate) fn draw(picture: &Picture) -> String {
    let mut text = String::new();
    let mut pieces = picture.pieces();
    // What lies above the IOMMU's width has no interest but its start.
    let beyond = pieces.pop_if(|(_, used)| *used == Use::Beyond);
    for (index, (range, used)) in pieces.iter().enumerate() {
        let (left, right) = if index == 0 { ('┌', '┐') } else { ('├', '┤') };
        text += &format!("{}\n", border(range.first(), left, right));
        text += &boxed(range, *used);
    }
    let (end, note) = match beyond {
        Some((range, used)) => (range.first(), format!("{}{}", label(used), size(&range))),
        None => (Iova(u64::MAX), "the last address".to_owned()),
    };
    text + &format!("{} {note}\n", border(end, '└', '┘'))
}

/// The lines of a box, with what it is beside the middle one.
fn boxed(range: &IovaRange, used: Use) -> String {
    let (paint, fill) = look(used);
    let fill = fill.to_string().repeat(WIDTH);
    let lines = 1 + range.span().checked_ilog2().unwrap_or(0) / 16;
    let mut text = String::new();
    for line in 0..lines {
        text += &format!("{:20}│{paint}{fill}{paint:#}│", "");
        if line == (lines - 1) / 2 {
            text += &format!(" {paint}{}{}{paint:#}", label(used), size(range));
        }
        text += "\n";
    }
    text
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

fn label(used: Use) -> String {
    match used {
        Use::Valid => "valid, ".to_owned(),
        Use::ValidRelaxable => "valid, though a relaxable direct region, ".to_owned(),
        Use::Reserved(kind) => format!("{kind}, "),
        Use::Unguarded(kind) => format!("{kind}, which this kernel does not guard, "),
        Use::Beyond => "beyond the IOMMU's width, ".to_owned(),
        Use::Dropped => "dropped by the kernel, ".to_owned(),
    }
}

/// A size in the largest unit that keeps it at 1 or above, rounded to two digits behind the point.
fn size(range: &IovaRange) -> String {
    let bytes = u128::from(range.span()) + 1;
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

#[cfg(test)]
mod tests {
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

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(&range(0, 0)), "1 byte");
        assert_eq!(size(&range(0, 0xfff)), "4 KiB");
        assert_eq!(size(&range(0, 0x17ff)), "6 KiB");
        assert_eq!(size(&IovaRange::full()), "16 EiB");
        assert_eq!(size(&range(0, (3 << 39) - 1)), "1.5 TiB");
    }
}
