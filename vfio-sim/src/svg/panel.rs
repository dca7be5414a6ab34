// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A panel: an address space, whose it is, and what came of a layout in it.

use super::MOST_LINES;
use super::bars::bars;
use super::block::Block;
use super::scale::Scale;
use super::strip::{Columns, strip};
use super::text::{SMALL, STRONG};
use crate::check::{RangeReport, Report};
use crate::picture::{Picture, Piece};
use crate::show::{ContainerShow, DeviceShow, groups_in_words};

/// Between the strip and the bars.
const GAP: u64 = 8;

/// An address space to draw.
#[derive(Debug)]
pub(super) struct Panel<'a> {
    pub(super) pieces: Vec<Piece>,
    groups: String,
    devices: String,
    /// The layout; empty without one.
    pub(super) ranges: &'a [RangeReport],
}

impl<'a> Panel<'a> {
    /// The panel of containers that look alike. They also give the same answers.
    pub(super) fn new(
        picture: &Picture,
        containers: &[&ContainerShow],
        report: Option<&'a Report>,
    ) -> Self {
        let groups = || containers.iter().flat_map(|container| &container.groups);
        let first = containers.first().map_or(&[][..], |container| &container.groups);
        let same = |names: &[String]| names.iter().eq(first.iter().map(|group| &group.group));
        let checked = report
            .and_then(|report| report.containers.iter().find(|container| same(&container.groups)));
        let devices = groups().flat_map(|group| &group.devices).map(device_in_words);
        Self {
            pieces: picture.pieces(),
            groups: groups_in_words(containers),
            devices: devices.collect::<Vec<_>>().join(", "),
            ranges: checked.map_or(&[], |container| &container.ranges),
        }
    }

    pub(super) fn block(&self, columns: Columns) -> Block {
        let scale = Scale::new(&self.pieces);
        let parts = strip(&self.pieces, &scale, columns);
        let space = Block { parts, width: columns.width(), height: scale.height() };
        let drawing = space.beside(bars(self.ranges, &self.pieces, &scale), GAP);
        let width = drawing.width;
        Block::lines(STRONG, &STRONG.wrap(&self.groups, width, MOST_LINES))
            .below(Block::lines(SMALL, &SMALL.wrap(&self.devices, width, MOST_LINES)), 0)
            // Room for the upper half of the first address.
            .below(drawing, SMALL.size)
    }

    /// The panel in words.
    pub(super) fn describe(&self) -> String {
        let piece = |piece: &Piece| format!("{} {}", piece.range, piece.used);
        let pieces: Vec<String> = self.pieces.iter().map(piece).collect();
        let range = |range: &RangeReport| {
            let verdict = if range.fits { "fits" } else { "is refused" };
            format!(" {}, {}, {verdict}.", range.name, range.range)
        };
        let ranges: String = self.ranges.iter().map(range).collect();
        format!("Address space of {}: {}.{ranges}", self.groups, pieces.join("; "))
    }
}

/// `0000:00:02.0 display`.
fn device_in_words(device: &DeviceShow) -> String {
    format!("{} {}", device.name, device.description).trim_end().to_owned()
}
