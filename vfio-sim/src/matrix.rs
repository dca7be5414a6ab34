// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check --all-hosts --all-kernels`: one layout on many hosts and kernels, as a table.
//!
//! A cell is the report that `check` makes of one host under one kernel. Below the table stands why
//! a host refuses, once, with the kernels it holds for.

use vfio_type1::Kernel;

use crate::check::{Report, check};
use crate::host::{BootError, Host};
use crate::knobs::Knobs;
use crate::layout::Layout;
use crate::style::Style;
use crate::verdict::Verdict;

/// Reports of every host under every kernel: by host, then by kernel.
#[derive(Clone, Debug)]
pub struct Matrix {
    kernels: Vec<Kernel>,
    reports: Vec<Vec<Report>>,
}

/// Checks a layout on each host under each kernel, each group that can be assigned by itself.
pub fn check_all(
    hosts: &[Host],
    kernels: &[Kernel],
    knobs: &Knobs,
    layout: &Layout,
) -> Result<Matrix, BootError> {
    let on_host = |host: &Host| -> Result<Vec<Report>, BootError> {
        kernels.iter().map(|kernel| check(host, *kernel, knobs, None, layout)).collect()
    };
    let reports = hosts.iter().map(on_host).collect::<Result<_, _>>()?;
    Ok(Matrix { kernels: kernels.to_vec(), reports })
}

impl Matrix {
    /// Whether every verdict is what one hoped for: as the layout expects, or that it fits. A host
    /// with nothing to assign says nothing, but if all are so, that is not good.
    pub fn is_good(&self) -> bool {
        let silent = |r: &&Report| r.expected.is_none() && r.verdict == Verdict::NotAssigned;
        let mut telling = self.reports().filter(|report| !silent(report)).peekable();
        telling.peek().is_some() && telling.all(Report::is_good)
    }

    /// All reports, by host, then by kernel.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter().flatten()
    }

    /// The matrix for a person.
    pub fn render(&self) -> String {
        let hosts = self.reports.iter().filter_map(|row| row.first());
        let width = hosts.map(|report| report.host.chars().count()).max().unwrap_or(0);
        let mut text = format!("{:width$}", "");
        for kernel in &self.kernels {
            text += &format!("  {kernel:CELL$}");
        }
        text = text.trim_end().to_owned() + "\n";
        for row in &self.reports {
            text += &render_row(row, width);
        }
        text += &self.footnotes();
        for row in &self.reports {
            text += &render_reasons(row);
        }
        text + &self.summary()
    }

    /// What a reader of the columns must know.
    fn footnotes(&self) -> String {
        let notes = self.kernels.iter().filter_map(|kernel| {
            let note = match kernel {
                kernel if *kernel == Kernel::SERIES_2018_V6 => {
                    "a series of patches that was withdrawn, since it broke guests with Intel displays"
                }
                kernel if !kernel.behaviours().valid_iova_list => {
                    "checks nothing but the IOMMU's width: what it maps over a reserved region, devices \
                     do not reach"
                }
                _ => return None,
            };
            Some(format!("{kernel}: {note}\n"))
        });
        let mut notes: String = notes.collect();
        if let Some(knobs) = self.reports().find_map(|report| report.inject.as_ref()) {
            notes += &format!("everywhere with {knobs}\n");
        }
        if notes.is_empty() { notes } else { format!("\n{notes}") }
    }

    /// On how many hosts the layout fits.
    fn summary(&self) -> String {
        if self.reports.len() < 2 {
            return String::new();
        }
        let fit = |row: &&Vec<Report>| {
            row.iter().any(|report| report.fits) && {
                let neutral = |r: &Report| r.fits || r.verdict == Verdict::NotAssigned;
                row.iter().all(neutral)
            }
        };
        let (fit, all) = (self.reports.iter().filter(fit).count(), self.reports.len());
        format!("\nfits on {fit} of {all} hosts, wherever a device can be assigned\n")
    }
}

/// The width of a cell: that of the longest verdict and its mark.
const CELL: usize = 8;

fn render_row(row: &[Report], width: usize) -> String {
    let host = row.first().map_or("", |report| report.host.as_str());
    let mut text = format!("{host:width$}");
    for (column, report) in row.iter().enumerate() {
        let paint = match (report.expected.as_ref().map(|expected| expected.met), report.verdict) {
            (Some(true), _) | (None, Verdict::Fits) => Style.good(),
            (Some(false), _) | (None, Verdict::Refused | Verdict::Lost) => Style.bad(),
            (None, Verdict::NotAssigned) => Style.warning(),
        };
        let unexpected = report.expected.as_ref().is_some_and(|expected| !expected.met);
        let verdict = format!("{}{}", report.verdict.name(), if unexpected { "!" } else { "" });
        let padding = if column + 1 < row.len() { CELL - verdict.len() } else { 0 };
        text += &format!("  {paint}{verdict}{paint:#}{}", " ".repeat(padding));
    }
    text + "\n"
}

/// Why a host refuses the layout, each reason with the kernels that give it.
fn render_reasons(row: &[Report]) -> String {
    let mut reasons: Vec<(String, Vec<usize>)> = Vec::new();
    for (column, report) in row.iter().enumerate() {
        for reason in report.reasons() {
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, columns)) => columns.push(column),
                None => reasons.push((reason, vec![column])),
            }
        }
    }
    let Some(report) = row.first().filter(|_| !reasons.is_empty()) else { return String::new() };
    let title = Style.title();
    let mut text = format!("\n{title}{}{title:#}\n", report.host);
    for (reason, columns) in reasons {
        text += &format!("  {reason}");
        if columns.len() != row.len() {
            text += &format!("  [{}]", kernel_names(row, &columns));
        }
        text += "\n";
    }
    text + &render_suggestion(row)
}

/// The layout that fits under the newest of the kernels that refuse this one.
fn render_suggestion(row: &[Report]) -> String {
    let containers = row.iter().rev().flat_map(|report| &report.containers);
    let mut suggestions = containers.map(|container| &container.would_fit);
    match suggestions.find(|ranges| !ranges.is_empty()) {
        Some(ranges) => format!("  a layout that fits: {}\n", ranges.join(" ")),
        None => String::new(),
    }
}

/// The kernels of some columns: `4.19, 6.1 to 7.3`.
fn kernel_names(row: &[Report], columns: &[usize]) -> String {
    let runs = columns.chunk_by(|a, b| a + 1 == *b);
    let name = |column: &usize| row[*column].kernel.as_str();
    let names: Vec<String> = runs
        .map(|run| match run {
            [first, _, .., last] => format!("{} to {}", name(first), name(last)),
            few => few.iter().map(name).collect::<Vec<_>>().join(", "),
        })
        .collect();
    names.join(", ")
}
