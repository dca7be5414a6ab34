// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check`: can this layout be mapped on that host, and if not, why and what would do?

use serde::Serialize;
use vfio_type1::{Access, Iova, IovaRange, Kernel, MapDma, MapError};

use crate::assign::{Assigned, Selection};
use crate::host::Host;
use crate::number::{NumberError, parse_range};

/// A range that a VMM wants to map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRange {
    /// Its name: what was given before `=`, or the range as it was written.
    pub name: String,
    /// The addresses, inclusive.
    pub range: IovaRange,
}

/// A range that cannot even be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedRangeError {
    /// It is no range.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// It has 2^64 bytes, which no request can state.
    #[error("range \"{text}\" is the whole 64-bit space, which one mapping cannot be; split it")]
    WholeSpace {
        /// What was given.
        text: String,
    },
}

impl WantedRange {
    /// Parses `[NAME=]FIRST-LAST` or `[NAME=]FIRST+SIZE`.
    pub fn parse(text: &str) -> Result<Self, WantedRangeError> {
        let (name, range) = text.split_once('=').unwrap_or((text, text));
        let range = parse_range(range)?;
        if range.size().is_none() {
            return Err(WantedRangeError::WholeSpace { text: text.to_owned() });
        }
        Ok(Self { name: name.to_owned(), range })
    }
}

/// What a kernel says to a layout, for each set of groups asked about.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The host.
    pub host: String,
    /// The kernel.
    pub kernel: String,
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

/// A refusal.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The errno's name; none if no kernel was asked.
    pub errno: Option<String>,
    /// Why.
    pub why: String,
}

/// What a container says to a range.
#[derive(Clone, Debug, Serialize)]
pub struct RangeReport {
    /// Its name.
    pub name: String,
    /// Its first address, in hexadecimal.
    pub first: String,
    /// Its last address, inclusive, in hexadecimal.
    pub last: String,
    /// Whether it can be mapped.
    pub fits: bool,
    /// Why not, if not.
    pub refusal: Option<Refusal>,
    /// The parts of it that can be mapped, if it cannot as a whole.
    pub parts_that_fit: Vec<Part>,
    /// Where the nearest range of its size can be mapped, in hexadecimal.
    pub nearest_start: Option<String>,
}

/// A part of a range.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its first address, in hexadecimal.
    pub first: String,
    /// Its last address, inclusive, in hexadecimal.
    pub last: String,
}

impl From<IovaRange> for Part {
    fn from(range: IovaRange) -> Self {
        Self { first: range.first().to_string(), last: range.last().to_string() }
    }
}

impl Report {
    /// Whether a range was refused, or the groups asked for could not be assigned.
    pub fn refused(&self) -> bool {
        let refused = |container: &ContainerReport| {
            container.not_assigned.as_ref().is_some_and(|refusal| refusal.errno.is_some())
                || container.ranges.iter().any(|range| !range.fits)
        };
        self.containers.iter().any(refused)
    }
}

/// Checks a layout. With `together` those devices share one container; without, each group that
/// can be assigned has its own.
pub fn check(
    host: &Host,
    kernel: Kernel,
    together: Option<&Selection<'_>>,
    layout: &[WantedRange],
) -> Result<Report, vfio_type1::HostError> {
    let vfio = host.boot(kernel)?;
    let report = |selection: &Selection<'_>, asked_for: bool| {
        let assigned = match selection.obvious_obstacle() {
            Some(why) if !asked_for => Err(Refusal { errno: None, why }),
            _ => Assigned::new(&vfio, &selection.ids()).map_err(|refused| Refusal {
                // Groups that were not asked for are merely passed over.
                errno: asked_for.then(|| refused.errno.to_string()),
                why: refused.why,
            }),
        };
        let ranges = match &assigned {
            Ok(assigned) => layout.iter().map(|wanted| try_range(assigned, wanted)).collect(),
            Err(_) => Vec::new(),
        };
        ContainerReport {
            groups: selection.ids().iter().map(ToString::to_string).collect(),
            devices: selection.device_names().into_iter().map(str::to_owned).collect(),
            not_assigned: assigned.err(),
            ranges,
            title: selection.title(),
        }
    };
    let containers = match together {
        Some(selection) => vec![report(selection, true)],
        None => Selection::each(host).iter().map(|each| report(each, false)).collect(),
    };
    Ok(Report { host: host.name.clone(), kernel: kernel.to_string(), containers })
}

/// Maps the range, and leaves it mapped: the ranges of a layout must not overlap either.
fn try_range(assigned: &Assigned, wanted: &WantedRange) -> RangeReport {
    let kernel = assigned.container.kernel();
    let range = wanted.range;
    // The process address plays no part; the same number keeps the alignment.
    let first = range.first().0;
    let size = range.size().unwrap_or(u64::MAX);
    let request = MapDma::new(first, first, size, Access::ReadWrite);
    let error = assigned.container.map(&assigned.process, &request).err();
    let mut report = RangeReport {
        name: wanted.name.clone(),
        first: range.first().to_string(),
        last: range.last().to_string(),
        fits: error.is_none(),
        refusal: None,
        parts_that_fit: Vec::new(),
        nearest_start: None,
    };
    if let Some(error) = error {
        report.parts_that_fit =
            parts_that_fit(assigned, &range).into_iter().map(Part::from).collect();
        let nearest = match &error {
            MapError::NotValid(reason) => reason.nearest,
            _ => assigned.container.nearest_free(range),
        };
        report.nearest_start = nearest.map(|range| range.first().to_string());
        let errno = Some(error.errno(kernel).to_string());
        report.refusal = Some(Refusal { errno, why: explain(&error) });
    }
    report
}

/// The process address is ours, so messages do not speak of it.
fn explain(error: &MapError) -> String {
    match error {
        MapError::Misaligned { iova, size, page, .. } => {
            format!("iova {iova} and size {size:#x} must be multiples of the page {page}")
        }
        MapError::Exists { iova, existing } => {
            format!("iova {iova} overlaps {} of the same layout", existing.iova)
        }
        _ => error.to_string(),
    }
}

/// The whole pages of `range` that are valid and free.
fn parts_that_fit(assigned: &Assigned, range: &IovaRange) -> Vec<IovaRange> {
    let Ok(info) = assigned.info() else {
        return Vec::new();
    };
    let Some(page) = info.page_sizes.smallest() else {
        return Vec::new();
    };
    let valid =
        if info.iova_ranges.is_empty() { vec![IovaRange::full()] } else { info.iova_ranges };
    let mut parts: Vec<IovaRange> = valid.iter().filter_map(|v| v.intersection(range)).collect();
    for mapping in assigned.container.mappings() {
        let cut = |part: IovaRange| match part.overlaps(&mapping.iova) {
            true => [part.below(mapping.iova.first()), part.above(mapping.iova.last())],
            false => [Some(part), None],
        };
        parts = parts.into_iter().flat_map(cut).flatten().collect();
    }
    let whole_pages = |part: IovaRange| {
        let first = part.first().0.checked_next_multiple_of(page.bytes())?;
        let end = part.last().0.wrapping_add(1) & !(page.bytes() - 1);
        IovaRange::new(Iova(first), Iova(end.wrapping_sub(1)))
    };
    parts.into_iter().filter_map(whole_pages).collect()
}

/// The report for a person.
pub fn render(report: &Report) -> String {
    let style = crate::style::Style;
    let mut text = format!("host {}, kernel {}\n", report.host, report.kernel);
    for container in &report.containers {
        text += &format!("\n{}\n", container.title);
        if let Some(refusal) = &container.not_assigned {
            let errno = refusal.errno.as_ref().map(|e| format!("{e}: ")).unwrap_or_default();
            let paint = if refusal.errno.is_some() { style.bad() } else { style.dim() };
            text += &format!("  {paint}cannot be assigned: {errno}{}{paint:#}\n", refusal.why);
        }
        let width = container.ranges.iter().map(|range| range.name.chars().count()).max();
        for range in &container.ranges {
            text += &render_range(range, width.unwrap_or(0));
        }
    }
    text
}

fn render_range(range: &RangeReport, width: usize) -> String {
    let style = crate::style::Style;
    let RangeReport { name, first, last, .. } = range;
    let Some(refusal) = &range.refusal else {
        let good = style.good();
        return format!("  {name:width$}  {good}fits{good:#}     {first}..{last}\n");
    };
    let (bad, errno) = (style.bad(), refusal.errno.as_deref().unwrap_or_default());
    let mut text = format!("  {name:width$}  {bad}refused{bad:#}  {first}..{last}  {errno}\n");
    let indent = " ".repeat(width + 4);
    text += &format!("{indent}{}\n", refusal.why);
    if !range.parts_that_fit.is_empty() {
        let parts: Vec<String> = range
            .parts_that_fit
            .iter()
            .map(|part| format!("{}..{}", part.first, part.last))
            .collect();
        text += &format!("{indent}what fits of it: {}\n", parts.join(", "));
    }
    text
}
