// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A layout tried out: its steps, one after the other, in a container of its own.
//!
//! A program that ignores errors goes on after a refusal, and so does this; only groups that cannot
//! be assigned end it.

use vfio_type1::{
    DirtyPages, Iova, IovaRange, MapDma, MapError, SetIommuError, UnmapDma, UserBitmap, Vaddr,
    Vfio, extension,
};

use crate::assign::{Assigned, Selection};
use crate::check::{RangeReport, StepReport};
use crate::layout::{Layout, Step, Type1, WantedRange};
use crate::report::{Range, Refusal};
use crate::verdict::Verdict;

/// What came of a layout in one container.
#[derive(Default)]
pub(crate) struct Attempt {
    pub(crate) steps: Vec<StepReport>,
    pub(crate) ranges: Vec<RangeReport>,
    pub(crate) not_assigned: Option<Refusal>,
    /// The ranges that should be mapped at the end, and are not.
    pub(crate) not_mapped: Vec<RangeReport>,
}

impl Attempt {
    /// Tries a layout with the groups of a selection.
    pub(crate) fn of(layout: &Layout, selection: &Selection<'_>, vfio: &Vfio) -> Self {
        let not_assigned = selection.check_drivers(vfio.kernel()).err();
        let mut attempt = Self { not_assigned, ..Self::default() };
        let mut assigned = Assigned::empty(vfio);
        for step in &layout.steps {
            if attempt.not_assigned.is_some() {
                return attempt;
            }
            let mut report = StepReport::new(layout.describe(step));
            match step {
                Step::Attach => {
                    report.refusal = assigned.attach(vfio, &selection.ids()).err();
                    attempt.not_assigned.clone_from(&report.refusal);
                }
                Step::SetIommu(version) => {
                    let error = set_iommu(&assigned, *version).err();
                    report.refusal = error.as_ref().map(|e| Refusal::new(e.errno(), e));
                    // A program that asks too early or twice is refused; a group that cannot be
                    // attached is none that could have been assigned.
                    if matches!(
                        error,
                        Some(SetIommuError::Attach { .. } | SetIommuError::NoMemory(_))
                    ) {
                        attempt.not_assigned.clone_from(&report.refusal);
                    }
                }
                Step::Map(at) => attempt.map(&assigned, layout, *at, &mut report),
                Step::Unmap { range, with_bitmap } => {
                    unmap(&assigned, *range, *with_bitmap, &mut report);
                }
                Step::StartDirty => report.refusal = dirty(&assigned, DirtyPages::Start),
                Step::StopDirty => report.refusal = dirty(&assigned, DirtyPages::Stop),
                Step::Detach => assigned.detach(),
            }
            attempt.steps.push(report);
        }
        attempt.not_mapped = not_mapped(&assigned, layout);
        attempt
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.not_assigned.is_some() {
            return Verdict::NotAssigned;
        }
        let refused = self.steps.iter().any(|step| step.refusal.is_some());
        let odd = !self.not_mapped.is_empty() || self.steps.iter().any(|step| step.note.is_some());
        match (refused, odd) {
            (true, _) => Verdict::Refused,
            (false, true) => Verdict::Lost,
            (false, false) => Verdict::Fits,
        }
    }

    fn map(&mut self, assigned: &Assigned, layout: &Layout, at: usize, report: &mut StepReport) {
        let Some(wanted) = layout.ranges.get(at) else { return };
        let range = map(assigned, wanted, &layout.ranges);
        report.refusal.clone_from(&range.refusal);
        self.ranges.push(range);
    }
}

fn set_iommu(assigned: &Assigned, version: Type1) -> Result<(), SetIommuError> {
    assigned.set_iommu(match version {
        Type1::V1 => extension::TYPE1,
        Type1::V2 => extension::TYPE1V2,
    })
}

fn dirty(assigned: &Assigned, request: DirtyPages) -> Option<Refusal> {
    let error = assigned.container.dirty_pages(&assigned.process, &request).err()?;
    Some(Refusal::new(error.errno(), &error))
}

/// Maps a range, whole or in its pieces, up to the first refusal.
fn map(assigned: &Assigned, wanted: &WantedRange, all: &[WantedRange]) -> RangeReport {
    let error = pieces(wanted).find_map(|piece| {
        // The process address plays no part; the same number keeps the alignment.
        let (first, size) = (piece.first().0, piece.size().unwrap_or(u64::MAX));
        let request = MapDma::new(first, first, size, wanted.kind.access());
        assigned.container.map(&assigned.process, &request).err().map(|error| (piece, error))
    });
    let mut report = RangeReport::new(wanted);
    let Some((piece, error)) = error else { return report };
    let why = explain(&error, wanted, all);
    let done = piece.first().0 - wanted.range.first().0;
    let why = match wanted.piece {
        Some(size) => format!("after {} pieces of {size:#x}: {why}", done / size),
        None => why,
    };
    report.fits = false;
    report.refusal = Some(Refusal { errno: Some(error.errno().to_string()), why });
    if is_about_the_range(&error) {
        report.parts_that_fit =
            parts_that_fit(assigned, &wanted.range).into_iter().map(Range::from).collect();
    }
    if is_about_the_place(&error) {
        let nearest = assigned.container.nearest_free(wanted.range);
        report.nearest_start = nearest.map(|nearest| nearest.first().to_string());
    }
    report
}

fn pieces(wanted: &WantedRange) -> impl Iterator<Item = IovaRange> + use<> {
    let (range, size) = (wanted.range, wanted.piece.unwrap_or(u64::MAX));
    let mut next = Some(range.first());
    std::iter::from_fn(move || {
        let first = next?;
        let last = Iova(first.0.saturating_add(size - 1)).min(range.last());
        next = IovaRange::new(first, last)?.next().filter(|next| *next <= range.last());
        IovaRange::new(first, last)
    })
}

/// Whether something is wrong with the range, rather than with how many there are or on demand.
fn is_about_the_range(error: &MapError) -> bool {
    use MapError::{Injected, NoMemory, Pin, TableFull};
    !matches!(error, TableFull { .. } | Injected { .. } | NoMemory { .. } | Pin { .. })
}

/// Whether the same range would do elsewhere.
fn is_about_the_place(error: &MapError) -> bool {
    matches!(error, MapError::NotValid(_) | MapError::Exists { .. } | MapError::Iommu { .. })
}

/// Why, a line for each thing in the way. The process address is ours, so it is not spoken of.
fn explain(error: &MapError, wanted: &WantedRange, all: &[WantedRange]) -> String {
    match error {
        MapError::Misaligned { iova, size, page, .. } => {
            format!("start {iova} and size {size:#x} must be multiples of the page {page}")
        }
        MapError::Exists { existing, .. } => {
            let holds = |other: &&WantedRange| other.range.contains_range(&existing.iova);
            let mut others = all.iter().filter(holds);
            let other = others.clone().find(|other| other.name != wanted.name).or(others.next());
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

fn unmap(assigned: &Assigned, range: IovaRange, with_bitmap: bool, report: &mut StepReport) {
    let asked = range.size().unwrap_or(u64::MAX);
    let mut request = UnmapDma::new(range.first(), asked);
    if with_bitmap {
        request = request.with_bitmap(bitmap_for(assigned, range));
    }
    match assigned.container.unmap(&assigned.process, &request) {
        Err(error) => report.refusal = Some(Refusal::new(error.errno(), &error)),
        Ok(removed) => {
            let left = assigned.container.mappings().iter().any(|m| m.iova.overlaps(&range));
            if left || removed > asked {
                let note = format!("succeeds, but removes {removed:#x} of {asked:#x} bytes");
                report.note = Some(note);
            }
        }
    }
}

/// Where the dirty bits go plays no part either.
fn bitmap_for(assigned: &Assigned, range: IovaRange) -> UserBitmap {
    let page = assigned.container.info().ok().and_then(|info| info.page_sizes.smallest());
    let pages = page.map_or(0, |page| range.pages(page));
    UserBitmap::new(page.map_or(0, |page| page.bytes()), pages, Vaddr(0x1000))
}

/// The ranges that were to be mapped and not unmapped later, but are not mapped.
fn not_mapped(assigned: &Assigned, layout: &Layout) -> Vec<RangeReport> {
    let is_wanted = |(index, wanted): &(usize, &WantedRange)| {
        let mapped = layout.steps.iter().rposition(|step| *step == Step::Map(*index));
        let covers = |step: &Step| match step {
            Step::Unmap { range, .. } => range.contains_range(&wanted.range),
            _ => false,
        };
        mapped.is_some_and(|at| !layout.steps[at..].iter().any(covers))
    };
    let mappings = assigned.container.mappings();
    let is_mapped = |range: &IovaRange| {
        let parts = mappings.iter().filter_map(|mapping| mapping.iova.intersection(range));
        parts.map(|part| u128::from(part.span()) + 1).sum::<u128>() == u128::from(range.span()) + 1
    };
    let wanted = layout.ranges.iter().enumerate().filter(is_wanted).map(|(_, wanted)| wanted);
    wanted.filter(|wanted| !is_mapped(&wanted.range)).map(RangeReport::new).collect()
}

/// Why a group that is not asked for by name is passed over: there is nothing to map into.
pub(crate) fn no_iommu() -> Attempt {
    let why = "no IOMMU: nothing to map into".to_owned();
    Attempt { not_assigned: Some(Refusal { errno: None, why }), ..Attempt::default() }
}
