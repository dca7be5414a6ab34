// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check`: can this layout be mapped on that host, and if not, why and what would do?

use serde::Serialize;
use vfio_type1::{Access, IovaRange, Kernel, MapDma, MapError};

use crate::assign::{Assigned, Selection};
use crate::host::{BootError, Host, HostGroupKind};
use crate::number::{NumberError, parse_range};
use crate::policy;
use crate::report::{Range, Refusal};
use crate::style::Style;

/// A range that a VMM wants to map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRange {
    /// Its name: what was given before `=`, or the range as it was written.
    pub name: String,
    /// The addresses, inclusive.
    pub range: IovaRange,
}

/// A layout that cannot even be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A range is no range.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// A range has 2^64 bytes, which no request can state.
    #[error("range \"{text}\" is the whole 64-bit space, which one mapping cannot be; split it")]
    WholeSpace {
        /// What was given.
        text: String,
    },
    /// A range has an empty name.
    #[error("\"{text}\" has no name before the =; write NAME=RANGE, or RANGE alone")]
    NoName {
        /// What was given.
        text: String,
    },
    /// Two ranges have one name.
    #[error("two ranges have the name \"{name}\"; give each its own")]
    SameName {
        /// The name.
        name: String,
    },
}

/// Parses ranges, each `[NAME=]FIRST-LAST` or `[NAME=]FIRST+SIZE`.
pub fn parse_layout(texts: &[String]) -> Result<Vec<WantedRange>, LayoutError> {
    let mut layout: Vec<WantedRange> = Vec::new();
    for text in texts {
        let (name, range) = text.split_once('=').unwrap_or((text, text));
        if name.is_empty() {
            return Err(LayoutError::NoName { text: text.clone() });
        }
        if text.contains('=') && layout.iter().any(|wanted| wanted.name == name) {
            return Err(LayoutError::SameName { name: name.to_owned() });
        }
        let range = parse_range(range)?;
        if range.size().is_none() {
            return Err(LayoutError::WholeSpace { text: text.clone() });
        }
        layout.push(WantedRange { name: name.to_owned(), range });
    }
    Ok(layout)
}

/// What a kernel says to a layout, for each set of groups asked about.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The host.
    pub host: String,
    /// The kernel.
    pub kernel: String,
    /// Whether DMA masks and apertures are reserved regions, as proposed in 2020.
    pub reserve_dma_masks: bool,
    /// Whether every range fits in every container that could be made, and one could.
    pub fits: bool,
    /// An entry for each container.
    pub containers: Vec<ContainerReport>,
}

/// What one container says to a layout.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerReport {
    /// Its groups.
    pub groups: Vec<String>,
    /// Their devices.
    pub devices: Vec<String>,
    /// Why the groups cannot be assigned, if so; there are no ranges then.
    pub not_assigned: Option<Refusal>,
    /// The ranges, in the order given.
    pub ranges: Vec<RangeReport>,
    #[serde(skip)]
    title: String,
}

/// What a container says to a range.
#[derive(Clone, Debug, Serialize)]
pub struct RangeReport {
    /// Its name.
    pub name: String,
    /// Its addresses.
    #[serde(flatten)]
    pub range: Range,
    /// Whether it can be mapped.
    pub fits: bool,
    /// Why not, if not.
    pub refusal: Option<Refusal>,
    /// The parts of it that can be mapped, if it cannot as a whole.
    pub parts_that_fit: Vec<Range>,
    /// Where the nearest range of its size can be mapped, in hexadecimal.
    pub nearest_start: Option<String>,
}

/// Checks a layout. With `together` those devices share one container; without, each group that
/// can be assigned has its own.
pub fn check(
    host: &Host,
    kernel: Kernel,
    together: Option<&Selection<'_>>,
    layout: &[WantedRange],
) -> Result<Report, BootError> {
    let vfio = host.boot(kernel)?;
    let report = |selection: &Selection<'_>| {
        let assigned = match together.is_none() && !translates(selection) {
            true => Err(Refusal { errno: None, why: "no IOMMU: nothing to map into".to_owned() }),
            false => selection.assign(&vfio),
        };
        ContainerReport {
            groups: selection.ids().iter().map(ToString::to_string).collect(),
            devices: selection.device_names().into_iter().map(str::to_owned).collect(),
            ranges: assigned.as_ref().map_or_else(|_| Vec::new(), |a| try_layout(a, layout)),
            not_assigned: assigned.err(),
            title: selection.title(),
        }
    };
    let containers: Vec<ContainerReport> = match together {
        Some(selection) => vec![report(selection)],
        None => Selection::each(host).iter().map(report).collect(),
    };
    let fits = containers.iter().any(|container| container.not_assigned.is_none())
        && containers.iter().all(|container| container.ranges.iter().all(|range| range.fits));
    Ok(Report {
        host: host.name.clone(),
        kernel: kernel.to_string(),
        reserve_dma_masks: host.reserve_dma_masks,
        fits,
        containers,
    })
}

/// Without an IOMMU there is nothing to map into, so such a group is meant only if it is named.
fn translates(selection: &Selection<'_>) -> bool {
    selection.groups.iter().all(|group| group.kind != HostGroupKind::NoIommu)
}

/// Maps range after range, and leaves them mapped: the ranges of a layout must not overlap either.
fn try_layout(assigned: &Assigned, layout: &[WantedRange]) -> Vec<RangeReport> {
    let mut reports = Vec::new();
    for (index, wanted) in layout.iter().enumerate() {
        let range = wanted.range;
        // The process address plays no part; the same number keeps the alignment.
        let first = range.first().0;
        let size = range.size().unwrap_or(u64::MAX);
        let request = MapDma::new(first, first, size, Access::ReadWrite);
        let error = assigned.container.map(&assigned.process, &request).err();
        let why = error.as_ref().map(|error| explain(error, &layout[..index]));
        reports.push(RangeReport {
            name: wanted.name.clone(),
            range: range.into(),
            fits: error.is_none(),
            parts_that_fit: match &error {
                Some(_) => parts_that_fit(assigned, &range).into_iter().map(Range::from).collect(),
                None => Vec::new(),
            },
            nearest_start: error.as_ref().filter(|error| is_about_the_place(error)).and_then(
                |_| {
                    let nearest = assigned.container.nearest_free(range)?;
                    Some(nearest.first().to_string())
                },
            ),
            refusal: error
                .zip(why)
                .map(|(error, why)| Refusal { errno: Some(error.errno().to_string()), why }),
        });
    }
    reports
}

/// Whether the same range would do elsewhere.
fn is_about_the_place(error: &MapError) -> bool {
    matches!(error, MapError::NotValid(_) | MapError::Exists { .. } | MapError::Iommu { .. })
}

/// Why, a line for each thing in the way. The process address is ours, so it is not spoken of.
fn explain(error: &MapError, before: &[WantedRange]) -> String {
    match error {
        MapError::Misaligned { iova, size, page, .. } => {
            format!("start {iova} and size {size:#x} must be multiples of the page {page}")
        }
        MapError::Exists { existing, .. } => {
            let other = before.iter().find(|wanted| wanted.range == existing.iova);
            let name = other.map_or("", |wanted| wanted.name.as_str());
            format!("overlaps \"{name}\", {}", existing.iova)
        }
        MapError::NotValid(reason) => {
            let mut lines: Vec<String> = reason.obstacles.iter().map(ToString::to_string).collect();
            if reason.nearest.is_none() {
                lines.push("no range of this size is free".to_owned());
            }
            lines.join("\n")
        }
        _ => error.to_string(),
    }
}

/// The whole pages of `range` that can be mapped.
fn parts_that_fit(assigned: &Assigned, range: &IovaRange) -> Vec<IovaRange> {
    let Ok(info) = assigned.container.info() else { return Vec::new() };
    let Some(page) = info.page_sizes.smallest() else { return Vec::new() };
    let mappable = assigned.container.mappable();
    let mut parts: Vec<IovaRange> =
        mappable.iter().filter_map(|valid| valid.intersection(range)).collect();
    for mapping in assigned.container.mappings() {
        let cut = |part: IovaRange| match part.overlaps(&mapping.iova) {
            true => [part.below(mapping.iova.first()), part.above(mapping.iova.last())],
            false => [Some(part), None],
        };
        parts = parts.into_iter().flat_map(cut).flatten().collect();
    }
    parts.into_iter().filter_map(|part| part.whole_pages(page)).collect()
}

/// The report for a person.
pub fn render(report: &Report) -> String {
    let title = Style.title();
    let policy = if report.reserve_dma_masks { policy::HEADING } else { "" };
    let (host, kernel) = (&report.host, &report.kernel);
    let mut text = format!("{title}host {host}{title:#}, kernel {kernel}{policy}\n");
    for container in &report.containers {
        text += &format!("\n{title}{}{title:#}\n", container.title);
        if let Some(refusal) = &container.not_assigned {
            text += &refusal.not_assigned();
        }
        let width = container.ranges.iter().map(|range| range.name.chars().count()).max();
        for range in &container.ranges {
            text += &render_range(range, width.unwrap_or(0));
        }
    }
    let all = report.containers.len();
    let checked = report.containers.iter().filter(|c| c.not_assigned.is_none()).count();
    if checked < all {
        let paint = Style.warning();
        text +=
            &format!("\n{paint}checked {checked} of {all} groups; the others cannot be assigned");
        text += &format!("{paint:#}\n");
    }
    text
}

fn render_range(report: &RangeReport, width: usize) -> String {
    let RangeReport { name, range, .. } = report;
    let Some(refusal) = &report.refusal else {
        let good = Style.good();
        return format!("  {name:width$}  {good}fits{good:#}     {range}\n");
    };
    let (bad, errno) = (Style.bad(), refusal.errno.as_deref().unwrap_or_default());
    let mut text = format!("  {name:width$}  {bad}refused{bad:#}  {range}  {errno}\n");
    let indent = " ".repeat(width + 4);
    for why in refusal.why.lines() {
        text += &format!("{indent}{why}\n");
    }
    if !report.parts_that_fit.is_empty() {
        let parts: Vec<String> = report.parts_that_fit.iter().map(Range::to_string).collect();
        text += &format!("{indent}what fits of it: {}\n", parts.join(", "));
    }
    if let Some(nearest) = &report.nearest_start {
        text += &format!("{indent}nearest free range of this size starts at {nearest}\n");
    }
    text
}
