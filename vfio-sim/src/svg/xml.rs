// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! XML elements, written so that no text can break out of its place.

use std::fmt;

/// An element, with its attributes in the order in which they were given.
#[derive(Clone, Debug)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Element(Element),
    Text(String),
}

impl Element {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), children: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.children.push(Child::Text(text.to_owned()));
        self
    }

    pub(super) fn child(mut self, child: Self) -> Self {
        self.children.push(Child::Element(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(Child::Element));
        self
    }

    /// Writes each element on a line of its own, so that changes are easy to compare.
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:1$}<{2}", "", 2 * depth, self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"{}\"", Escaped(value))?;
        }
        if self.children.is_empty() {
            return f.write_str("/>\n");
        }
        f.write_str(">")?;
        // White space next to text would show.
        let holds_text = self.children.iter().any(|child| matches!(child, Child::Text(_)));
        if !holds_text {
            f.write_str("\n")?;
        }
        for child in &self.children {
            match child {
                Child::Element(element) => element.write(f, depth + 1)?,
                Child::Text(text) => write!(f, "{}", Escaped(text))?,
            }
        }
        let indent = if holds_text { 0 } else { 2 * depth };
        writeln!(f, "{:indent$}</{}>", "", self.name)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// Text as it may stand in an element or an attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                '\n' | '\t' => write!(f, "{c}")?,
                // XML 1.0 has no way to write these, not even escaped.
                '\u{fffe}' | '\u{ffff}' => f.write_str("\u{fffd}")?,
                c if c.is_control() => f.write_str("\u{fffd}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_nest_and_text_is_escaped() {
        let text = Element::new("text").with("x", 3).with("id", "\"<&'>").text("a<b & \"c\" 'd'");
        let group = Element::new("g").child(text).child(Element::new("rect"));
        assert_eq!(
            group.to_string(),
            "<g>\n  <text x=\"3\" id=\"&quot;&lt;&amp;&apos;&gt;\">\
             a&lt;b &amp; &quot;c&quot; &apos;d&apos;</text>\n  <rect/>\n</g>\n"
        );
    }

    proptest! {
        #[test]
        fn a_parser_reads_back_what_was_written(text in any::<String>()) {
            let xml = Element::new("text").with("id", &text).text(&text).to_string();
            let document = roxmltree::Document::parse(&xml).unwrap();
            let legible = |c: char| match c {
                '\n' | '\t' => c,
                '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
                c if c.is_control() => '\u{fffd}',
                c => c,
            };
            let expected: String = text.chars().map(legible).collect();
            let root = document.root_element();
            prop_assert_eq!(root.text().unwrap_or_default(), expected.as_str());
            // White space in attributes is read as spaces.
            let flat = expected.replace(['\n', '\t'], " ");
            prop_assert_eq!(root.attribute("id"), Some(flat.as_str()));
        }
    }
}
