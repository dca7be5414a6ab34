// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a range cannot be mapped, in terms a person can act on.
//!
//! Linux answers EINVAL to every range outside the valid list. This file finds out what is in the
//! way, who put it there, and where a range of the same size would fit. It decides nothing.

use std::collections::HashSet;
use std::fmt;

use crate::addr::Iova;
use crate::domain::IommuDriver;
use crate::host::{Group, GroupId};
use crate::iova_list::is_excluded;
use crate::mapping_table::MappingTable;
use crate::page_size::PageSize;
use crate::range::IovaRange;
use crate::reserved::ReservedRegion;
use crate::type1::{Domain, Type1};

/// A device of a group that reserves a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The region, as the group's merged list has it.
    pub region: ReservedRegion,
    /// The group.
    pub group: GroupId,
    /// The group's device that reserves the region.
    pub device: String,
}

impl Culprit {
    /// Names the device behind `region`, which touches `range`.
    pub(crate) fn of(group: &Group, region: ReservedRegion, range: &IovaRange) -> Self {
        let part = region.range().and_then(|whole| whole.intersection(range)).unwrap_or(*range);
        let device = group.device_reserving(region.kind, &part).unwrap_or_default();
        Self { region, group: group.id, device: device.to_owned() }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, group, device } = self;
        write!(f, "the {region} of group {group} ({device})")
    }
}

/// What keeps a range out of the valid IOVA list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It touches a reserved region.
    Reserved(Culprit),
    /// It lies outside what a domain can translate, at least in part.
    Aperture {
        /// What the domain can translate, inclusive.
        aperture: IovaRange,
        /// The IOMMU driver.
        driver: IommuDriver,
        /// A group of the domain.
        group: GroupId,
    },
    /// No attached group reserves it and every aperture holds it, yet the list has lost it: the
    /// kernel drops single addresses at an aperture's edge, keeps edges trimmed after the group
    /// responsible has left, and splits ranges at regions of zero length (spec 3.5 to 3.7).
    Dropped,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(culprit) => write!(f, "touches {culprit}"),
            Self::Aperture { aperture, driver, group } => {
                write!(f, "reaches outside {aperture}, the aperture of group {group}'s {driver}")
            }
            Self::Dropped => f.write_str(
                "was dropped from the valid list when a group came or went; \
                 a container that starts anew may have it",
            ),
        }
    }
}

/// A range that is not in the valid list: why, and what would do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotValid {
    /// The range asked for, inclusive.
    pub iova: IovaRange,
    /// What is in the way, ascending; at least one.
    pub obstacles: Vec<Obstacle>,
    /// The nearest range of the same size that is valid and free.
    pub nearest: Option<IovaRange>,
}

impl fmt::Display for NotValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iova, obstacles, nearest } = self;
        let obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        write!(f, "iova {iova} {}", obstacles.join(" and "))?;
        match nearest {
            Some(range) => {
                write!(f, "; nearest free range of this size starts at {}", range.first())
            }
            None => f.write_str("; no range of this size is free"),
        }
    }
}

impl Type1 {
    /// Explains why `iova` is not in the valid list.
    pub(crate) fn explain(&self, iova: IovaRange) -> NotValid {
        NotValid { iova, obstacles: self.obstacles(&iova), nearest: self.nearest_free(&iova) }
    }

    fn obstacles(&self, iova: &IovaRange) -> Vec<Obstacle> {
        let mut culprits: Vec<Culprit> = Vec::new();
        let mut known: HashSet<ReservedRegion> = HashSet::new();
        for group in self.iommu_groups() {
            for region in &group.regions {
                let cut = is_excluded(region.kind) && region.touches(iova);
                // Groups often reserve the same regions; one name is enough.
                if cut && known.insert(*region) {
                    culprits.push(Culprit::of(group, *region, iova));
                }
            }
        }
        culprits.sort_by_key(|culprit| culprit.region.first);
        let reserved = culprits.into_iter().map(Obstacle::Reserved);
        let mut obstacles: Vec<Obstacle> = reserved.chain(self.narrow_aperture(iova)).collect();
        if obstacles.is_empty() {
            obstacles.push(Obstacle::Dropped);
        }
        obstacles
    }

    /// The first domain that cannot translate all of `iova`.
    fn narrow_aperture(&self, iova: &IovaRange) -> Option<Obstacle> {
        let narrow = |domain: &&Domain| !domain.iommu.aperture().contains_range(iova);
        let domain = self.domains.iter().find(narrow)?;
        Some(Obstacle::Aperture {
            aperture: domain.iommu.aperture(),
            driver: domain.iommu.driver(),
            group: domain.groups.first()?.id,
        })
    }

    /// What can be mapped at all: the valid list; without one, what every domain translates.
    pub(crate) fn mappable(&self) -> Vec<IovaRange> {
        if !self.iova_list.is_empty() {
            return self.iova_list.ranges().to_vec();
        }
        let mut apertures = self.domains.iter().map(|domain| domain.iommu.aperture());
        let shared = apertures.try_fold(IovaRange::full(), |all, one| all.intersection(&one));
        shared.into_iter().collect()
    }

    /// The valid, free, aligned range of the size of `wanted` that starts nearest to it.
    pub(crate) fn nearest_free(&self, wanted: &IovaRange) -> Option<IovaRange> {
        nearest_free(&self.mappings, &self.mappable(), wanted, self.page())
    }
}

/// The free, aligned range in `valid`, which ascends, of the size of `wanted` that starts nearest to it.
pub(crate) fn nearest_free(
    mappings: &MappingTable,
    valid: &[IovaRange],
    wanted: &IovaRange,
    page: PageSize,
) -> Option<IovaRange> {
    let split = valid.partition_point(|range| range.last() < wanted.first());
    let above = valid[split..].iter().find_map(|range| lowest_fit(mappings, range, wanted, page));
    // A valid range may lie on both sides of the wanted start.
    let below = valid[..(split + 1).min(valid.len())]
        .iter()
        .rev()
        .find_map(|range| highest_fit(mappings, range, wanted, page));
    let distance = |fit: &IovaRange| fit.first().0.abs_diff(wanted.first().0);
    [below, above].into_iter().flatten().min_by_key(distance)
}

/// The lowest place in `valid` at or above the wanted start.
fn lowest_fit(
    mappings: &MappingTable,
    valid: &IovaRange,
    wanted: &IovaRange,
    page: PageSize,
) -> Option<IovaRange> {
    let from = valid.first().max(wanted.first());
    mappings.gaps_up(from, valid.last()).find_map(|gap| {
        let first = gap.first().0.checked_next_multiple_of(page.bytes())?;
        let last = first.checked_add(wanted.span())?;
        let fit = IovaRange::new(Iova(first), Iova(last))?;
        gap.contains_range(&fit).then_some(fit)
    })
}

/// The highest place in `valid` that ends below the wanted end.
fn highest_fit(
    mappings: &MappingTable,
    valid: &IovaRange,
    wanted: &IovaRange,
    page: PageSize,
) -> Option<IovaRange> {
    let from = valid.last().min(wanted.last());
    mappings.gaps_down(from, valid.first()).find_map(|gap| {
        let first = gap.last().0.checked_sub(wanted.span())?;
        let first = first & !(page.bytes() - 1);
        let fit = IovaRange::new(Iova(first), Iova(first + wanted.span()))?;
        gap.contains_range(&fit).then_some(fit)
    })
}
