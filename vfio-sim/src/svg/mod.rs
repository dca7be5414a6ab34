// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A drawing of address spaces as SVG: what `draw` shows in text, to a finer scale, and with a layout
//! beside it.
//!
//! There is a panel for each address space that looks different, a legend, and a line for each
//! container that has no address space. Sizes are in pixels.

mod bars;
mod block;
mod legend;
mod paint;
mod panel;
mod scale;
mod strip;
mod text;
mod xml;

use std::fmt::Write as _;

use crate::check::{RangeReport, Report};
use crate::picture::Use;
use crate::show::{Show, groups_in_words};
use block::{Block, in_rows};
use legend::legend;
use panel::Panel;
use strip::Columns;
use text::{SMALL, TITLE};
use xml::Element;

/// Around everything.
const MARGIN: u64 = 20;
/// Between panels, and between the parts of a picture.
const GAP: u64 = 28;
/// The width that panels side by side should keep to: that of a README.
const WIDTH: u64 = 840;
/// The lines that a text from a host file may take.
const MOST_LINES: usize = 3;

/// The host as an SVG document. With `report`, which must be about the same containers, each panel
/// shows what came of the layout.
pub fn render(show: &Show, report: Option<&Report>) -> String {
    let panels: Vec<Panel<'_>> = panels(show, report);
    let columns = Columns::of(panels.iter().flat_map(|panel| &panel.pieces));
    let blocks = panels.iter().map(|panel| panel.block(columns));
    let spaces = in_rows(blocks, WIDTH - 2 * MARGIN, GAP, GAP);
    let width = spaces.width.max(WIDTH - 2 * MARGIN);
    let uses: Vec<Use> =
        panels.iter().flat_map(|panel| &panel.pieces).map(|piece| piece.used).collect();
    let ranges: Vec<&RangeReport> = panels.iter().flat_map(|panel| panel.ranges).collect();
    let sheet = heading(show, width)
        .below(spaces, GAP)
        .below(without_picture(show, width), GAP)
        .below(legend(&uses, &ranges, width), GAP);
    document(show, &panels, sheet, width)
}

fn panels<'a>(show: &'a Show, report: Option<&'a Report>) -> Vec<Panel<'a>> {
    let pictures = show.pictures().into_iter();
    pictures.map(|(picture, containers)| Panel::new(picture, &containers, report)).collect()
}

/// `host amd, kernel 7.3`, and what the host is.
fn heading(show: &Show, width: u64) -> Block {
    let names = Block::lines(TITLE, &TITLE.wrap(&name(show), width, MOST_LINES));
    names.below(Block::lines(SMALL, &SMALL.wrap(&show.description, width, MOST_LINES)), 2)
}

fn name(show: &Show) -> String {
    format!("host {}, kernel {}", show.host, show.kernel)
}

/// Why the other groups have no address space.
fn without_picture(show: &Show, width: u64) -> Block {
    let mut block = Block::default();
    for container in show.containers.iter().filter(|container| !container.has_picture()) {
        let why = match &container.not_assigned {
            Some(refusal) => format!("cannot be assigned: {}", refusal.text()),
            None => "no IOMMU: nothing is mapped, devices reach all memory".to_owned(),
        };
        let line = format!("{}: {why}", groups_in_words(&[container]));
        block = block.below(Block::lines(SMALL, &SMALL.wrap(&line, width, MOST_LINES)), 0);
    }
    block
}

fn document(show: &Show, panels: &[Panel<'_>], sheet: Block, width: u64) -> String {
    let (width, height) = (width + 2 * MARGIN, sheet.height + 2 * MARGIN);
    let card = Element::new("rect").with("class", "card").with("x", 0.5).with("y", 0.5);
    let card = card.with("width", width - 1).with("height", height - 1).with("rx", 6);
    let title = Element::new("title").with("id", "vfio-title");
    let description = Element::new("desc").with("id", "vfio-desc");
    let mut document = "<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->\n".to_owned();
    let root = Element::new("svg")
        .with("xmlns", "http://www.w3.org/2000/svg")
        .with("width", width)
        .with("height", height)
        .with("viewBox", format!("0 0 {width} {height}"))
        .with("role", "img")
        .with("aria-labelledby", "vfio-title vfio-desc")
        .child(title.text(&format!("I/O address space: {}", name(show))))
        .child(description.text(&describe(panels)))
        .children(paint::definitions())
        .child(card)
        .child(sheet.at(MARGIN, MARGIN));
    let _ = write!(document, "{root}");
    document
}

/// The panels in words, for those who do not see them.
fn describe(panels: &[Panel<'_>]) -> String {
    panels.iter().map(Panel::describe).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
