// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Both views for a person: a table for each set of devices that look the same, in 100 columns.

use super::report::{DeviceReport, DmaApiReport, EntryReport, Reason, ViewReport};
use crate::policy;
use crate::style::Style;

/// The widest line.
const WIDTH: usize = 100;

/// The report for a person.
pub fn render(report: &DmaApiReport) -> String {
    let title = Style.title();
    let mut text = format!("{title}host {}{title:#}", report.host);
    if !report.description.is_empty() {
        text += &format!(": {}", report.description);
    }
    let policy = if report.reserve_dma_masks { policy::HEADING } else { "" };
    text += &format!("\nkernel {}{policy}\n", report.kernel);
    text += &wrap(
        "The DMA API column is what a driver of the kernel would have, in the group's default \
         domain. While VFIO owns a device it is not in that domain.",
        "",
    );
    let mut tables: Vec<(&ViewReport, Vec<&DeviceReport>)> = Vec::new();
    for device in &report.devices {
        match tables.iter_mut().find(|(view, _)| **view == device.view) {
            Some((_, devices)) => devices.push(device),
            None => tables.push((&device.view, vec![device])),
        }
    }
    for (view, devices) in tables {
        text += "\n";
        text += &heading(&devices);
        text += &render_view(view);
    }
    text
}

/// `0000:00:1a.0 (group 4), 0000:00:1d.0 (group 5)`.
fn heading(devices: &[&DeviceReport]) -> String {
    let name = |device: &&DeviceReport| format!("{} (group {})", device.device, device.group);
    let names = devices.iter().map(name).collect::<Vec<_>>().join(", ");
    let title = Style.title();
    wrap(&names, "").lines().map(|line| format!("{title}{line}{title:#}\n")).collect()
}

fn render_view(view: &ViewReport) -> String {
    if let Some(refusal) = &view.unavailable {
        let paint = Style.warning();
        let lines = wrap(&refusal.text(), "  ");
        return lines.lines().map(|line| format!("{paint}{line}{paint:#}\n")).collect();
    }
    let mut text = wrap(&allocation(view), "  ");
    if let Some(first) = &view.set_up_by {
        let note = format!("{first} sets the group's domain up; its reservations hold for all");
        text += &wrap(&note, "  ");
    }
    if view.dma_mask_bits.is_none() {
        text += "  no DMA mask is known, so no limit is assumed\n";
    }
    if let Some(refusal) = &view.vfio_refuses {
        let paint = Style.warning();
        let note = format!("VFIO would not get the group: {}", refusal.text());
        let lines = wrap(&note, "  ");
        text += &lines.lines().map(|line| format!("{paint}{line}{paint:#}\n")).collect::<String>();
    }
    text + &table(&view.entries)
}

/// Where addresses come from.
fn allocation(view: &ViewReport) -> String {
    let who = view.allocator.unwrap_or_default();
    let when = match view.above_4g {
        Some("every-time") => "each time that is full",
        _ => "after the first time that is full",
    };
    match (&view.first_below_4g, &view.first_above_4g) {
        (None, None) => format!("{who} has no address to give out"),
        (Some(only), None) | (None, Some(only)) => {
            format!("{who} gives out addresses from {only} down")
        }
        (Some(low), Some(high)) => {
            format!("{who} gives out addresses from {low} down; {when}, from {high} down")
        }
    }
}

fn table(entries: &[EntryReport]) -> String {
    let width = entries.iter().map(|entry| entry.range.to_string().len()).max().unwrap_or(0);
    let title = Style.title();
    let mut text = format!("  {title}{:width$}  DMA API  VFIO  who and why{title:#}\n", "range");
    let mut explained: Vec<&Reason> = Vec::new();
    for entry in entries {
        let mut reasons = String::new();
        for reason in &entry.reasons {
            reasons += &wrap(&in_words(reason, &explained), &" ".repeat(width + 19));
            explained.push(reason);
        }
        let range = entry.range.to_string();
        let line = format!(
            "  {range:width$}  {}  {}  ",
            verdict(entry.dma_api, 7),
            verdict(entry.vfio, 4)
        );
        text += format!("{line}{}", reasons.trim_start()).trim_end();
        text += "\n";
    }
    text
}

/// A reason is given in full once, where the table first needs it.
fn in_words(reason: &Reason, explained: &[&Reason]) -> String {
    let Reason { who, why } = reason;
    if explained.contains(&reason) { who.clone() } else { format!("{who}: {why}") }
}

fn verdict(yes: bool, width: usize) -> String {
    let (paint, word) = if yes { (Style.good(), "yes") } else { (Style.bad(), "no") };
    format!("{paint}{word}{paint:#}{}", " ".repeat(width - word.len()))
}

/// Lines of words, each behind `indent`, none wider than the output if words allow.
fn wrap(words: &str, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= WIDTH) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(format!("{indent}{word}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = wrap(&"word ".repeat(50), "    ");
        assert_eq!(text.split_whitespace().count(), 50);
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")));
        assert_eq!(text.lines().count(), 3);
        assert_eq!(wrap("a b", ""), "a b\n");
    }
}
