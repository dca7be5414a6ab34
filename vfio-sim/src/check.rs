// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim check`: can this layout be mapped on that host, and if not, why and what would do?

use serde::Serialize;
use vfio_type1::{FaultPlan, IovaRange, Kernel, Vfio};

use crate::assign::Selection;
use crate::attempt::{self, Attempt};
use crate::host::{BootError, Host, HostGroupKind};
use crate::knobs::Knobs;
use crate::layout::{Layout, WantedRange};
use crate::policy;
use crate::report::{Range, Refusal};
use crate::style::Style;
use crate::suggest::nearest_layout;
use crate::verdict::Verdict;

/// What a kernel says to a layout, for each set of groups asked about.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The host.
    pub host: String,
    /// The kernel.
    pub kernel: String,
    /// Whether DMA masks and apertures are reserved regions, as proposed in 2020.
    pub reserve_dma_masks: bool,
    /// The settings that the host was tried with, if they are not its own.
    pub inject: Option<String>,
    /// Whether every range fits in every container that could be made, and one could.
    pub fits: bool,
    /// What came of it, over all containers.
    pub verdict: Verdict,
    /// What the layout expects, if it expects something.
    pub expected: Option<Expected>,
    /// An entry for each container.
    pub containers: Vec<ContainerReport>,
}

/// What a layout expects of a host under a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The verdict.
    pub verdict: Verdict,
    /// A part of the reason, if one is expected.
    pub why: Option<String>,
    /// Whether it came so.
    pub met: bool,
}

/// What one container says to a layout.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerReport {
    /// Its groups.
    pub groups: Vec<String>,
    /// Their devices.
    pub devices: Vec<String>,
    /// What came of it.
    pub verdict: Verdict,
    /// Why the groups cannot be assigned, if so; what follows is then empty, or ends there.
    pub not_assigned: Option<Refusal>,
    /// The ranges, in the order in which they were mapped.
    pub ranges: Vec<RangeReport>,
    /// The steps, if the layout states its own.
    pub steps: Vec<StepReport>,
    /// The ranges that should be mapped at the end and are not, if the layout states its own steps.
    pub not_mapped: Vec<RangeReport>,
    /// The nearest layout that fits, if something was refused and there is one: its ranges, as
    /// arguments.
    pub would_fit: Vec<String>,
    #[serde(skip)]
    title: String,
}

/// What came of a step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The step, as layout files write it.
    pub step: String,
    /// Why the kernel refused it, if so.
    pub refusal: Option<Refusal>,
    /// What is odd about it though it succeeded, if so.
    pub note: Option<String>,
}

impl StepReport {
    pub(crate) fn new(step: String) -> Self {
        Self { step, refusal: None, note: None }
    }
}

/// What a container says to a range.
#[derive(Clone, Debug, Serialize)]
pub struct RangeReport {
    /// Its name.
    pub name: String,
    /// Its addresses.
    #[serde(flatten)]
    pub range: Range,
    #[serde(skip)]
    pub(crate) iova: IovaRange,
    /// Whether it can be mapped.
    pub fits: bool,
    /// Why not, if not.
    pub refusal: Option<Refusal>,
    /// The parts of it that can be mapped, if it cannot as a whole.
    pub parts_that_fit: Vec<Range>,
    /// Where the nearest range of its size can be mapped, in hexadecimal.
    pub nearest_start: Option<String>,
}

impl RangeReport {
    /// A range that can be mapped.
    pub(crate) fn new(wanted: &WantedRange) -> Self {
        Self {
            name: wanted.name.clone(),
            range: wanted.range.into(),
            iova: wanted.range,
            fits: true,
            refusal: None,
            parts_that_fit: Vec::new(),
            nearest_start: None,
        }
    }

    /// Why the range is refused and what would do, a line each.
    pub(crate) fn advice(&self) -> Vec<String> {
        let Some(refusal) = &self.refusal else { return Vec::new() };
        let mut lines: Vec<String> = refusal.why.lines().map(str::to_owned).collect();
        if !self.parts_that_fit.is_empty() {
            let parts: Vec<String> = self.parts_that_fit.iter().map(Range::to_string).collect();
            lines.push(format!("what fits of it: {}", parts.join(", ")));
        }
        if let Some(nearest) = &self.nearest_start {
            lines.push(format!("nearest free range of this size starts at {nearest}"));
        }
        lines
    }
}

/// Checks a layout. With `together` those devices share one container; without, each group that
/// can be assigned has its own. What `knobs` lets fail is counted anew in each.
pub fn check(
    host: &Host,
    kernel: Kernel,
    knobs: &Knobs,
    together: Option<&Selection<'_>>,
    layout: &Layout,
) -> Result<Report, BootError> {
    let vfio = host.boot_with(kernel, knobs)?;
    let attempt = |selection: &Selection<'_>| {
        vfio.inject(knobs.plan.clone());
        report(selection, Attempt::of(layout, selection, &vfio), layout, &vfio)
    };
    let containers: Vec<ContainerReport> = match together {
        Some(selection) => vec![attempt(selection)],
        None => Selection::each(host)
            .iter()
            .map(|selection| match translates(selection) {
                true => attempt(selection),
                false => report(selection, attempt::no_iommu(), layout, &vfio),
            })
            .collect(),
    };
    let verdict = Verdict::of_all(containers.iter().map(|container| container.verdict));
    let mut report = Report {
        host: host.name.clone(),
        kernel: kernel.to_string(),
        reserve_dma_masks: host.reserve_dma_masks,
        inject: (!knobs.is_default()).then(|| knobs.to_string()),
        fits: verdict == Verdict::Fits,
        verdict,
        expected: None,
        containers,
    };
    report.expected = layout.expected(&host.name, &kernel).map(|(verdict, why)| Expected {
        verdict,
        why: why.map(str::to_owned),
        met: report.meets(verdict, why),
    });
    Ok(report)
}

/// Without an IOMMU there is nothing to map into, so such a group is meant only if it is named.
fn translates(selection: &Selection<'_>) -> bool {
    selection.groups.iter().all(|group| group.kind != HostGroupKind::NoIommu)
}

fn report(
    selection: &Selection<'_>,
    attempt: Attempt,
    layout: &Layout,
    vfio: &Vfio,
) -> ContainerReport {
    let verdict = attempt.verdict();
    // What failed on demand says nothing about the layout.
    let on_demand = !vfio.injected().is_empty();
    let refused = verdict == Verdict::Refused && !layout.states_steps && !on_demand;
    let would_fit = match refused {
        true => would_fit(selection, layout, vfio).unwrap_or_default(),
        false => Vec::new(),
    };
    let (steps, not_mapped) = match layout.states_steps {
        true => (attempt.steps, attempt.not_mapped),
        false => (Vec::new(), Vec::new()),
    };
    ContainerReport {
        groups: selection.ids().iter().map(ToString::to_string).collect(),
        devices: selection.device_names().into_iter().map(str::to_owned).collect(),
        verdict,
        not_assigned: attempt.not_assigned,
        ranges: attempt.ranges,
        steps,
        not_mapped,
        would_fit: would_fit.iter().map(ToString::to_string).collect(),
        title: selection.title(),
    }
}

/// The nearest layout that fits into a container of these groups. There may be none, as for too
/// many mappings.
fn would_fit(selection: &Selection<'_>, layout: &Layout, vfio: &Vfio) -> Option<Vec<WantedRange>> {
    vfio.inject(FaultPlan::default());
    let assigned = selection.assign(vfio).ok()?;
    let page = assigned.container.info().ok()?.page_sizes.smallest()?;
    let nearest = nearest_layout(&assigned.container.mappable(), page, &layout.ranges)?;
    // A group can be in one container only.
    drop(assigned);
    let plain = Layout::plain(nearest.clone());
    let fits = Attempt::of(&plain, selection, vfio).verdict() == Verdict::Fits;
    fits.then_some(nearest)
}

impl Report {
    /// Whether it came as expected. Where nothing can be assigned nothing is tried, which is no
    /// surprise unless the layout is about just that.
    fn meets(&self, verdict: Verdict, why: Option<&str>) -> bool {
        let reason = |why: &str| self.reasons().iter().any(|reason| reason.contains(why));
        match self.verdict {
            Verdict::NotAssigned if verdict != Verdict::NotAssigned => true,
            given => given == verdict && why.is_none_or(reason),
        }
    }

    /// Whether the report is what one hoped for: as the layout expects, or that it fits.
    pub fn is_good(&self) -> bool {
        self.expected.as_ref().map_or(self.fits, |expected| expected.met)
    }

    /// Why the layout does not fit: what the first group says that refuses something, since groups
    /// of one host mostly agree. If none can be assigned, why.
    pub fn reasons(&self) -> Vec<String> {
        if self.fits {
            return Vec::new();
        }
        let worst = self.containers.iter().find(|container| container.verdict == self.verdict);
        if self.verdict != Verdict::NotAssigned {
            return worst.map(ContainerReport::reasons).unwrap_or_default();
        }
        // A kernel's refusal says more than a device that was never meant to be assigned.
        let refusals = || self.containers.iter().filter_map(|c| c.not_assigned.as_ref());
        let refusal = refusals().find(|refusal| refusal.errno.is_some()).or(refusals().next());
        refusal.map(|refusal| format!("no device: {}", refusal.text())).into_iter().collect()
    }
}

impl ContainerReport {
    fn reasons(&self) -> Vec<String> {
        let lines = |name: &str, refusal: &Refusal| -> Vec<String> {
            refusal.why.lines().map(|line| format!("{name}: {line}")).collect()
        };
        let refused_steps = self.steps.iter().filter_map(|s| Some((&s.step, s.refusal.as_ref()?)));
        let refused = self.ranges.iter().filter_map(|r| Some((&r.name, r.refusal.as_ref()?)));
        let mut reasons: Vec<String> = match self.steps.is_empty() {
            true => refused.flat_map(|(name, refusal)| lines(name, refusal)).collect(),
            false => refused_steps.flat_map(|(step, refusal)| lines(step, refusal)).collect(),
        };
        let notes = self.steps.iter().filter_map(|s| Some((&s.step, s.note.as_ref()?)));
        reasons.extend(notes.map(|(step, note)| format!("{step}: {note}")));
        reasons
            .extend(self.not_mapped.iter().map(|r| format!("not mapped at the end: {}", r.name)));
        reasons
    }
}

/// The report for a person.
pub fn render(report: &Report) -> String {
    let title = Style.title();
    let policy = if report.reserve_dma_masks { policy::HEADING } else { "" };
    let (host, kernel) = (&report.host, &report.kernel);
    let inject = report.inject.as_ref().map(|knobs| format!(", with {knobs}")).unwrap_or_default();
    let mut text = format!("{title}host {host}{title:#}, kernel {kernel}{policy}{inject}\n");
    for container in &report.containers {
        text += &format!("\n{title}{}{title:#}\n", container.title);
        text += &match container.steps.is_empty() {
            true => render_ranges(container),
            false => render_steps(container),
        };
        if let Some(refusal) = &container.not_assigned {
            text += &refusal.not_assigned();
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
    text + &render_expected(report)
}

fn render_expected(report: &Report) -> String {
    let Some(Expected { verdict, why, met }) = &report.expected else { return String::new() };
    let because = why.as_ref().map_or(String::new(), |why| format!(", because \"{why}\""));
    let (paint, word) = if *met { (Style.good(), "as") } else { (Style.bad(), "NOT as") };
    format!("\n{paint}{word} expected: {}{because}{paint:#}\n", verdict.name())
}

fn render_ranges(container: &ContainerReport) -> String {
    let width = container.ranges.iter().map(|range| range.name.chars().count()).max();
    let ranges = container.ranges.iter().map(|range| render_range(range, width.unwrap_or(0)));
    let mut text: String = ranges.collect();
    if !container.would_fit.is_empty() {
        text += &format!("  a layout that fits: {}\n", container.would_fit.join(" "));
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
    for line in report.advice() {
        text += &format!("{indent}{line}\n");
    }
    text
}

fn render_steps(container: &ContainerReport) -> String {
    let width = container.steps.iter().map(|step| step.step.chars().count()).max().unwrap_or(0);
    let steps = container.steps.iter().map(|step| render_step(step, width));
    let mut text: String = steps.collect();
    for range in &container.not_mapped {
        let bad = Style.bad();
        text += &format!("  {bad}not mapped at the end{bad:#}: {}, {}\n", range.name, range.range);
    }
    text
}

fn render_step(report: &StepReport, width: usize) -> String {
    let StepReport { step, refusal, note } = report;
    let indent = " ".repeat(width + 4);
    match (refusal, note) {
        (Some(refusal), _) => {
            let (bad, errno) = (Style.bad(), refusal.errno.as_deref().unwrap_or_default());
            let why = refusal.why.lines().map(|line| format!("{indent}{line}\n"));
            format!("  {step:width$}  {bad}refused{bad:#}  {errno}\n") + &why.collect::<String>()
        }
        (None, Some(note)) => {
            let warning = Style.warning();
            format!("  {step:width$}  {warning}{note}{warning:#}\n")
        }
        (None, None) => format!("  {step:width$}  {good}done{good:#}\n", good = Style.good()),
    }
}
