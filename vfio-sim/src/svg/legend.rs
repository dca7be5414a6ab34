// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the boxes and bars of a picture mean: those that are in it.

use super::block::{Block, in_rows};
use super::paint::{Area, BAND};
use super::scale::Extent;
use super::text::SMALL;
use super::xml::Element;
use crate::check::RangeReport;
use crate::picture::Use;

/// The size of a sample.
const SAMPLE: u64 = 30;
const BAR: u64 = 14;
const HEIGHT: u64 = 14;
/// From one entry to the next, across and down.
const GAP: u64 = 18;
const LINE: u64 = 22;

const HOW_TO_READ: &str = "Shaded boxes cannot be mapped. A box grows with the logarithm of its \
                           size; inside a box the scale is even.";

/// The legend, if there is something to explain, with as many entries in a row as `width` allows.
pub(super) fn legend(uses: &[Use], ranges: &[&RangeReport], width: u64) -> Block {
    if uses.is_empty() {
        return Block::default();
    }
    in_rows(of_uses(uses).into_iter(), width, GAP, LINE - HEIGHT)
        .below(in_rows(of_bars(ranges).into_iter(), width, GAP, LINE - HEIGHT), LINE - HEIGHT)
        .below(Block::lines(SMALL, &SMALL.wrap(HOW_TO_READ, width, 2)), LINE - HEIGHT)
}

fn of_uses(uses: &[Use]) -> Vec<Block> {
    let mut known: Vec<Use> = Vec::new();
    for used in uses {
        if !known.contains(used) {
            known.push(*used);
        }
    }
    let area = sample(SAMPLE);
    known.into_iter().map(|used| entry(area.boxed(used), SAMPLE, &used.to_string())).collect()
}

fn of_bars(ranges: &[&RangeReport]) -> Vec<Block> {
    let area = sample(BAR);
    let mut entries = Vec::new();
    if ranges.iter().any(|range| range.fits) {
        entries.push(entry(vec![area.rect("fits")], BAR, "fits"));
    }
    if ranges.iter().any(|range| !range.fits) {
        entries.push(entry(vec![area.rect("refused pale")], BAR, "refused"));
        entries.push(entry(area.filled("refused").into(), BAR, "its part in the way"));
    }
    entries
}

fn sample(width: u64) -> Area {
    Area { x: 0, width, extent: Extent { top: 0, bottom: HEIGHT } }
}

fn entry(mut parts: Vec<Element>, sample: u64, meaning: &str) -> Block {
    let x = sample + BAND / 2;
    parts.push(SMALL.put(x, HEIGHT - 3, meaning));
    Block { parts, width: x + SMALL.width(meaning), height: HEIGHT }
}
