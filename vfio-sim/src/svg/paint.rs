// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How uses look. What cannot be mapped is shaded; a band at the left tells the kind, by a colour and
//! by a pattern, since not everybody sees the colours.

use vfio_type1::RegionKind;

use super::scale::Extent;
use super::xml::Element;
use crate::picture::Use;

/// The width of the band: two tiles of a pattern.
pub(super) const BAND: u64 = 2 * TILE;
/// The sides of a pattern's tile. Boxes start at multiples of it, so that bands look the same.
pub(super) const TILE: u64 = 6;

/// The colours of classes, for light and dark.
const STYLE: &str = include_str!("style.css");

/// The pattern of each class, in a tile.
const PATTERNS: [(&str, &str); 8] = [
    ("direct", "M-1 1 1 -1 M0 6 6 0 M5 7 7 5"),
    ("relaxable", "M2 3 h2"),
    ("reserved", "M0 0 6 6 M0 6 6 0"),
    ("msi", "M0 3 h6"),
    ("software-msi", "M3 0 v6"),
    ("beyond", "M-1 5 1 7 M0 0 6 6 M5 -1 7 1"),
    ("dropped", "M3 1 v4 M1 3 h4"),
    ("refused", "M-1 1 1 -1 M0 6 6 0 M5 7 7 5"),
];

/// A stretch of a picture with its left end and its width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) x: u64,
    pub(super) width: u64,
    pub(super) extent: Extent,
}

impl Area {
    pub(super) fn rect(&self, class: &str) -> Element {
        Element::new("rect")
            .with("class", class)
            .with("x", self.x)
            .with("y", self.extent.top)
            .with("width", self.width)
            .with("height", self.extent.height())
    }

    /// Filled in the colour and the pattern of a class.
    pub(super) fn filled(&self, class: &str) -> [Element; 2] {
        // An attribute would give way to the rule for the class.
        let pattern = self.rect("").with("style", format!("fill: url(#vfio-{class})"));
        [self.rect(class), pattern]
    }

    /// A box for what has this use.
    pub(super) fn boxed(&self, used: Use) -> Vec<Element> {
        let mut parts = vec![self.rect("valid")];
        if let Some(class) = class(used) {
            if !used.is_mappable() {
                parts.push(self.rect(&format!("{class} shade")));
            }
            parts.extend(Area { width: BAND, ..*self }.filled(class));
        }
        let outline = if used == Use::Beyond { "box open" } else { "box" };
        parts.push(self.rect(outline));
        parts
    }
}

/// The class of a use; what is simply valid has none.
fn class(used: Use) -> Option<&'static str> {
    Some(match used {
        Use::Valid => return None,
        Use::ValidRelaxable => class_of_kind(RegionKind::DirectRelaxable),
        Use::Reserved(kind) | Use::Unguarded(kind) => class_of_kind(kind),
        Use::Beyond => "beyond",
        Use::Dropped => "dropped",
    })
}

fn class_of_kind(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Direct => "direct",
        RegionKind::DirectRelaxable => "relaxable",
        RegionKind::Reserved => "reserved",
        RegionKind::Msi => "msi",
        RegionKind::SoftwareMsi => "software-msi",
    }
}

/// What a picture needs before its parts: colours and patterns.
pub(super) fn definitions() -> [Element; 2] {
    let patterns = PATTERNS.map(|(class, path)| {
        Element::new("pattern")
            .with("id", format!("vfio-{class}"))
            .with("width", TILE)
            .with("height", TILE)
            .with("patternUnits", "userSpaceOnUse")
            .child(Element::new("path").with("class", "ink").with("d", path))
    });
    [Element::new("style").text(STYLE), Element::new("defs").children(patterns)]
}
