// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Text in a picture: how wide it may get, and how it breaks into lines.
//!
//! Which fonts a reader has is not known, so widths are upper bounds: those of DejaVu, the widest of
//! the usual ones.

use super::xml::Element;

/// A font: a class in `style.css`, and what its letters measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    class: &'static str,
    /// The height of a letter in pixels.
    pub(super) size: u64,
    monospace: bool,
    bold: bool,
}

/// Titles.
pub(super) const TITLE: Font = Font { class: "title", size: 15, monospace: false, bold: true };
/// Names that stand out.
pub(super) const STRONG: Font = Font { class: "strong", size: 12, monospace: false, bold: true };
/// What boxes are.
pub(super) const LABEL: Font = Font { class: "label", size: 12, monospace: false, bold: false };
/// What explains.
pub(super) const SMALL: Font = Font { class: "small", size: 11, monospace: false, bold: false };
/// Addresses and sizes.
pub(super) const MONO: Font = Font { class: "mono", size: 11, monospace: true, bold: false };

/// All of them, for tests that measure what was written.
#[cfg(test)]
pub(super) const FONTS: [Font; 5] = [TITLE, STRONG, LABEL, SMALL, MONO];

impl Font {
    #[cfg(test)]
    pub(super) fn class(&self) -> &'static str {
        self.class
    }

    /// From one line to the next, in pixels.
    pub(super) fn line(&self) -> u64 {
        self.size + 4
    }

    /// An upper bound of the width of a text, in pixels.
    pub(super) fn width(&self, text: &str) -> u64 {
        let thousandths: u64 = text.chars().map(|c| self.advance(c)).sum();
        (thousandths * self.size).div_ceil(1000)
    }

    /// How far a letter takes the pen, in thousandths of the font's size.
    fn advance(&self, c: char) -> u64 {
        let regular = match c {
            _ if !c.is_ascii() => 1050,
            _ if self.monospace => 610,
            ' ' | 'i' | 'j' | 'l' | 'f' | 'I' | '.' | ',' | ':' | ';' | '\'' | '!' | '|' => 360,
            't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' | '\\' => 420,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 1010,
            'a'..='z' | '0'..='9' => 640,
            _ => 840,
        };
        if self.bold { regular * 115 / 100 } else { regular }
    }

    /// The text with its left end at `x`, on the base line `y`.
    pub(super) fn put(&self, x: u64, y: u64, text: &str) -> Element {
        Element::new("text").with("class", self.class).with("x", x).with("y", y).text(text)
    }

    /// The text with its right end at `x`.
    pub(super) fn put_left_of(&self, x: u64, y: u64, text: &str) -> Element {
        let class = format!("{} end", self.class);
        Element::new("text").with("class", class).with("x", x).with("y", y).text(text)
    }

    /// The text in a colour of `style.css`.
    pub(super) fn put_painted(&self, paint: &str, x: u64, y: u64, text: &str) -> Element {
        let class = format!("{} {paint}", self.class);
        Element::new("text").with("class", class).with("x", x).with("y", y).text(text)
    }

    /// Breaks a text into lines no wider than `width`, at spaces where it can. What is too long for
    /// `most` lines is left out, and says so.
    pub(super) fn wrap(&self, text: &str, width: u64, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let joined = lines.last().map(|line| format!("{line} {word}"));
            match (joined, lines.last_mut()) {
                (Some(joined), Some(line)) if self.width(&joined) <= width => *line = joined,
                _ => lines.extend(self.chop(word, width)),
            }
        }
        if lines.len() > most {
            lines.truncate(most);
            if let Some(last) = lines.last_mut() {
                while self.width(&format!("{last} …")) > width && last.pop().is_some() {}
                last.push_str(" …");
            }
        }
        lines
    }

    /// A word in parts no wider than `width`, of a letter at least.
    fn chop(&self, word: &str, width: u64) -> Vec<String> {
        let mut parts = vec![String::new()];
        for c in word.chars() {
            match parts.last_mut() {
                Some(part) if part.is_empty() || self.width(&format!("{part}{c}")) <= width => {
                    part.push(c);
                }
                _ => parts.push(c.to_string()),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_breaks_at_spaces_and_says_what_it_leaves_out() {
        assert_eq!(MONO.wrap("one two  three", MONO.width("one two"), 9), ["one two", "three"]);
        assert_eq!(MONO.wrap("abcdef", MONO.width("abcd"), 9), ["abcd", "ef"]);
        assert_eq!(MONO.wrap("", 100, 9), [""; 0]);
        assert_eq!(MONO.wrap("one two three", MONO.width("one …"), 1), ["one …"]);
        assert_eq!(MONO.wrap("one two three", MONO.width("on …"), 1), ["on …"]);
    }

    proptest! {
        #[test]
        fn lines_are_no_wider_than_asked(text in any::<String>(), width in 40u64..400) {
            for line in LABEL.wrap(&text, width, 5) {
                prop_assert!(LABEL.width(&line) <= width, "{line}");
            }
        }

        #[test]
        fn wrapping_loses_no_letters(text in any::<String>(), width in 40u64..400) {
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            let lines = SMALL.wrap(&text, width, usize::MAX);
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }
}
