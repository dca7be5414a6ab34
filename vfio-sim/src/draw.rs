// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A drawing of an address space in text: a strip of boxes, lowest address on top.
//!
//! The scale is not even: a box grows by a line for each factor of 2^16, so that a window of a
//! megabyte stays visible beside terabytes.

use vfio_type1::{Iova, IovaRange, RegionKind, ReservedRegion, is_excluded};

use crate::style::Style;

/// What there is to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The valid IOVA list; empty if every address is valid.
    pub(crate) valid: Vec<IovaRange>,
    pub(crate) regions: Vec<ReservedRegion>,
    /// What the domains translate.
    pub(crate) apertures: Vec<IovaRange>,
}

/// What an address is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Valid,
    /// Valid, though the firmware may have used it.
    ValidRelaxable,
    Reserved(RegionKind),
    /// Beyond what a domain translates.
    Beyond,
    /// In every aperture and in no region, yet not in the list.
    Dropped,
}

impl Picture {
    fn use_of(&self, address: Iova) -> Use {
        let holds = |region: &&ReservedRegion| region.range().is_some_and(|r| r.contains(address));
        let mut regions = self.regions.iter().filter(holds);
        let valid = self.valid.is_empty() || self.valid.iter().any(|r| r.contains(address));
        if valid {
            let relaxable = regions.any(|region| region.kind == RegionKind::DirectRelaxable);
            return if relaxable { Use::ValidRelaxable } else { Use::Valid };
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
        let ranges = self.valid.iter().chain(&self.apertures).copied().chain(regions);
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
        self.valid.windows(2).any(|pair| pair[1].first() == address)
    }
}

const WIDTH: usize = 14;

/// Draws a picture.
pub(crate) fn draw(picture: &Picture) -> String {
    let mut text = String::new();
    let mut corner = ('┌', '┐');
    for (range, used) in picture.pieces() {
        if used == Use::Beyond {
            text += &border(range.first(), corner, &format!("{}{}", label(used), size(&range)));
            return text;
        }
        text += &border(range.first(), corner, "");
        corner = ('├', '┤');
        let (paint, fill) = look(used);
        let lines = 1 + range.span().checked_ilog2().unwrap_or(0) as usize / 16;
        for line in 0..lines {
            let fill = fill.to_string().repeat(WIDTH);
            let note =
                if line == (lines - 1) / 2 { label(used) + &size(&range) } else { String::new() };
            let note = if note.is_empty() { note } else { format!(" {note}") };
            text += &format!("{:20}│{paint}{fill}{paint:#}│{paint}{note}{paint:#}\n", "");
        }
    }
    text + &border(Iova(u64::MAX), ('└', '┘'), "the last address")
}

/// The line between two boxes, with the address that starts the lower one.
fn border(address: Iova, (left, right): (char, char), note: &str) -> String {
    let (left, right) = if note.is_empty() { (left, right) } else { ('└', '┘') };
    let note = if note.is_empty() { String::new() } else { format!(" {note}") };
    format!("{:>19} {left}{}{right}{note}\n", address.to_string(), "─".repeat(WIDTH))
}

fn look(used: Use) -> (anstyle::Style, char) {
    match used {
        Use::Valid => (Style.good(), ' '),
        Use::ValidRelaxable => (Style.region(RegionKind::DirectRelaxable), '░'),
        Use::Reserved(kind) => (Style.region(kind), '▓'),
        Use::Beyond | Use::Dropped => (Style.dim(), '╱'),
    }
}

fn label(used: Use) -> String {
    match used {
        Use::Valid => "valid, ".to_owned(),
        Use::ValidRelaxable => "valid, though a relaxable direct region, ".to_owned(),
        Use::Reserved(kind) => format!("{kind}, "),
        Use::Beyond => "beyond the IOMMU's width, ".to_owned(),
        Use::Dropped => "dropped by the kernel, ".to_owned(),
    }
}

/// A size in the largest unit that keeps it above 1, with one digit behind the point.
fn size(range: &IovaRange) -> String {
    let bytes = u128::from(range.span()) + 1;
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.ilog2() / 10).min(6) as usize;
    let whole = bytes >> (10 * unit);
    let tenths = ((bytes - (whole << (10 * unit))) * 10) >> (10 * unit);
    match tenths {
        0 => format!("{whole} {}", units[unit]),
        _ => format!("{whole}.{tenths} {}", units[unit]),
    }
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
            valid: vec![range(0, 0xfedf_ffff), range(0xfef0_0000, 0x7f_ffff_ffff)],
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
    fn sizes_are_readable() {
        assert_eq!(size(&range(0, 0)), "1 bytes");
        assert_eq!(size(&range(0, 0xfff)), "4 KiB");
        assert_eq!(size(&range(0, 0x17ff)), "6 KiB");
        assert_eq!(size(&IovaRange::full()), "16 EiB");
        assert_eq!(size(&range(0, (3 << 39) - 1)), "1.5 TiB");
    }
}
