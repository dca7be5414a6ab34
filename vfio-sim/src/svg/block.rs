// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parts of a picture that know their size, and how they are put together.

use super::text::Font;
use super::xml::Element;

/// A part of a picture, with its top left corner at (0, 0).
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub(super) parts: Vec<Element>,
    pub(super) width: u64,
    pub(super) height: u64,
}

impl Block {
    pub(super) fn at(self, x: u64, y: u64) -> Element {
        let place = format!("translate({x} {y})");
        Element::new("g").with("transform", place).children(self.parts)
    }

    /// Puts a block below, left ends together.
    pub(super) fn below(mut self, other: Self, gap: u64) -> Self {
        if other.parts.is_empty() {
            return self;
        }
        let y = if self.parts.is_empty() { 0 } else { self.height + gap };
        self.height = y + other.height;
        self.width = self.width.max(other.width);
        self.parts.push(other.at(0, y));
        self
    }

    /// Puts a block to the right, tops together.
    pub(super) fn beside(mut self, other: Self, gap: u64) -> Self {
        if other.parts.is_empty() {
            return self;
        }
        let x = if self.parts.is_empty() { 0 } else { self.width + gap };
        self.width = x + other.width;
        self.height = self.height.max(other.height);
        self.parts.push(other.at(x, 0));
        self
    }

    /// Lines of text, one below the other.
    pub(super) fn lines(font: Font, lines: &[String]) -> Self {
        let mut block = Self::default();
        for line in lines {
            block.parts.push(font.put(0, block.height + font.size, line));
            block.width = block.width.max(font.width(line));
            block.height += font.line();
        }
        block
    }
}

/// Blocks from left to right, as many in a row as `width` allows.
pub(super) fn in_rows(
    blocks: impl Iterator<Item = Block>,
    width: u64,
    across: u64,
    down: u64,
) -> Block {
    let (mut rows, mut row) = (Block::default(), Block::default());
    for block in blocks {
        if row.width > 0 && row.width + across + block.width > width {
            rows = rows.below(std::mem::take(&mut row), down);
        }
        row = row.beside(block, across);
    }
    rows.below(row, down)
}
