// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tables in Markdown.

/// A table; the first column is text, the others are figures.
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { lines: vec![header.into_iter().map(Into::into).collect()] }
    }

    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.lines.first().map_or(0, Vec::len);
        let rule = format!("|---|{}\n", "---:|".repeat(columns.saturating_sub(1)));
        let mut lines = self.lines.iter().map(|cells| format!("| {} |\n", cells.join(" | ")));
        let header = lines.next().unwrap_or_default();
        header + &rule + &lines.collect::<String>()
    }
}
