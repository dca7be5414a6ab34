// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A layout beside the strip: a bar for each wanted range, and to its right what came of it.

use super::block::Block;
use super::paint::Area;
use super::scale::{Extent, Scale};
use super::text::{MONO, SMALL, STRONG};
use super::xml::Element;
use crate::check::RangeReport;
use crate::picture::Piece;

/// From one bar to the next beside it, and how wide a bar is.
const LANE: u64 = 20;
const BAR: u64 = 14;
/// The gap between lanes and notes, which lines bridge, and the width of the notes.
const LEAD: u64 = 24;
const NOTE: u64 = 330;
/// Between notes.
const GAP: u64 = 10;
/// A note says so much and no more.
const MOST_LINES: usize = 12;

/// The bars and notes of a layout. There is nothing to show without ranges.
pub(super) fn bars(ranges: &[RangeReport], pieces: &[Piece], scale: &Scale) -> Block {
    let extents: Vec<Extent> = ranges.iter().map(|range| scale.extent(&range.iova)).collect();
    let lanes = lanes(&extents);
    let Some(last_lane) = lanes.iter().max() else { return Block::default() };
    let notes_at = (last_lane + 1) * LANE + LEAD;
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|index| aim(extents[*index]));
    let (mut leads, mut parts, mut below) = (Vec::new(), Vec::new(), 0);
    for index in order {
        let (extent, x) = (extents[index], lanes[index] * LANE);
        let top = aim(extent).saturating_sub(STRONG.size / 2).max(below);
        leads.push(lead(x + BAR, aim(extent), notes_at, top + STRONG.size / 2));
        parts.extend(bar(x, &ranges[index], extent, pieces, scale));
        let (note, height) = note(&ranges[index], notes_at, top);
        parts.extend(note);
        below = top + height + GAP;
    }
    // Lines go behind bars.
    leads.extend(parts);
    Block { parts: leads, width: notes_at + NOTE, height: below - GAP }
}

/// A lane for each bar, so that none covers another.
fn lanes(extents: &[Extent]) -> Vec<u64> {
    let mut lanes: Vec<Vec<Extent>> = Vec::new();
    let mut chosen = Vec::new();
    for extent in extents {
        let free = |lane: &Vec<Extent>| !lane.iter().any(|other| other.overlaps(extent));
        let lane = lanes.iter().position(free).unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[lane].push(*extent);
        chosen.push(lane as u64);
    }
    chosen
}

/// A bar; of a refused one, what lies where nothing can be mapped stands out.
fn bar(
    x: u64,
    report: &RangeReport,
    extent: Extent,
    pieces: &[Piece],
    scale: &Scale,
) -> Vec<Element> {
    let area = Area { x, width: BAR, extent };
    if report.fits {
        return vec![area.rect("bar fits")];
    }
    let mut parts = vec![area.rect("bar refused pale")];
    let blocked = pieces.iter().filter(|piece| !piece.used.is_mappable());
    for part in blocked.filter_map(|piece| piece.range.intersection(&report.iova)) {
        parts.extend(Area { extent: scale.extent(&part), ..area }.filled("refused"));
    }
    parts
}

/// Where the line to a bar's note begins.
fn aim(bar: Extent) -> u64 {
    bar.top + bar.height().min(STRONG.size) / 2
}

/// A line from a bar's right side, past the other lanes, to its note.
fn lead(from: u64, aim: u64, to: u64, note: u64) -> Element {
    let path = format!("M{from} {aim} H{} L{} {note} H{}", to - LEAD, to - 8, to - 4);
    Element::new("path").with("class", "lead").with("d", path)
}

/// What came of a range, its top at `top`; and how high that is.
fn note(report: &RangeReport, x: u64, top: u64) -> (Vec<Element>, u64) {
    let mut y = top + STRONG.size - 2;
    let (paint, verdict) = match &report.refusal {
        None => ("fits", "fits".to_owned()),
        Some(refusal) => {
            ("refused", format!("refused {}", refusal.errno.as_deref().unwrap_or_default()))
        }
    };
    let verdict_width = STRONG.width(&verdict) + GAP;
    let name = STRONG.wrap(&report.name, NOTE - verdict_width, 1).concat();
    let mut parts = vec![
        STRONG.put(x, y, &name),
        STRONG.put_painted(paint, x + STRONG.width(&name) + GAP, y, verdict.trim_end()),
    ];
    let mut lines = vec![(MONO, report.range.to_string())];
    lines.extend(advice(report).into_iter().map(|line| (SMALL, line)));
    for (font, line) in lines {
        y += font.line();
        parts.push(font.put(x, y, &line));
    }
    (parts, y + DESCENT - top)
}

/// What letters such as g need below the base line.
const DESCENT: u64 = 4;

/// Why a range is refused and what would do, in lines of a note. What is too long says so.
fn advice(report: &RangeReport) -> Vec<String> {
    let sentences = report.advice();
    let mut lines: Vec<String> =
        sentences.iter().flat_map(|line| SMALL.wrap(line, NOTE, MOST_LINES)).collect();
    if lines.len() > MOST_LINES {
        lines.truncate(MOST_LINES - 1);
        lines.push("…".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(top: u64, bottom: u64) -> Extent {
        Extent { top, bottom }
    }

    #[test]
    fn bars_that_would_cover_each_other_stand_side_by_side() {
        let bars = [extent(0, 50), extent(50, 80), extent(40, 60), extent(70, 90)];
        assert_eq!(lanes(&bars), [0, 0, 1, 1]);
    }
}
