// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check --all-hosts --all-kernels`: one layout on many hosts and kernels, as a table.
//!
//! A cell is the report that `check` makes of one host under one kernel. Below the table stands why
//! a host refuses, once, with the kernels it holds for.

use vfio_type1::Kernel;

use crate::check::{ContainerReport, Report, WantedRange, check};
use crate::host::{BootError, Host};
use crate::style::Style;

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
    layout: &[WantedRange],
) -> Result<Matrix, BootError> {
    let on_host = |host: &Host| -> Result<Vec<Report>, BootError> {
        kernels.iter().map(|kernel| check(host, *kernel, None, layout)).collect()
    };
    let reports = hosts.iter().map(on_host).collect::<Result<_, _>>()?;
    Ok(Matrix { kernels: kernels.to_vec(), reports })
}

impl Matrix {
    /// Whether the layout fits on every host under every kernel.
    pub fn fits(&self) -> bool {
        self.reports().all(|report| report.fits)
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
        for row in &self.reports {
            text += &render_reasons(row);
        }
        text
    }
}

/// The width of a cell: that of the longest verdict.
const CELL: usize = 7;

fn render_row(row: &[Report], width: usize) -> String {
    let host = row.first().map_or("", |report| report.host.as_str());
    let mut text = format!("{host:width$}");
    for (column, report) in row.iter().enumerate() {
        let (paint, verdict) = match Verdict::of(report) {
            Verdict::Fits => (Style.good(), "fits"),
            Verdict::Refused => (Style.bad(), "refused"),
            Verdict::NothingToCheck => (Style.warning(), "no dev"),
        };
        let padding = if column + 1 < row.len() { CELL - verdict.len() } else { 0 };
        text += &format!("  {paint}{verdict}{paint:#}{}", " ".repeat(padding));
    }
    text + "\n"
}

enum Verdict {
    Fits,
    Refused,
    NothingToCheck,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        let mut assigned = report.containers.iter().filter(|c| c.not_assigned.is_none());
        match (report.fits, assigned.next()) {
            (true, _) => Self::Fits,
            (false, Some(_)) => Self::Refused,
            (false, None) => Self::NothingToCheck,
        }
    }
}

/// Why a host refuses the layout, each reason with the kernels that give it.
fn render_reasons(row: &[Report]) -> String {
    let mut reasons: Vec<(String, Vec<usize>)> = Vec::new();
    for (column, report) in row.iter().enumerate() {
        for reason in reasons_of(report) {
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
    text
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

/// What the first group says that refuses something: groups of one host mostly agree. If none can
/// be assigned, why.
fn reasons_of(report: &Report) -> Vec<String> {
    let refuses = |container: &&ContainerReport| container.ranges.iter().any(|range| !range.fits);
    if let Some(container) = report.containers.iter().find(refuses) {
        let refused = container.ranges.iter().filter_map(|range| {
            let refusal = range.refusal.as_ref()?;
            let lines = refusal.why.lines().map(|line| format!("{}: {line}", range.name));
            Some(lines.collect::<Vec<_>>())
        });
        return refused.flatten().collect();
    }
    if report.fits {
        return Vec::new();
    }
    // A kernel's refusal says more than a device that was never meant to be assigned.
    let refusals = || report.containers.iter().filter_map(|c| c.not_assigned.as_ref());
    let refusal = refusals().find(|refusal| refusal.errno.is_some()).or(refusals().next());
    refusal.map(|refusal| format!("no device: {}", refusal.text())).into_iter().collect()
}
