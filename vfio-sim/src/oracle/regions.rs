// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 4: a group's reserved regions.
//!
//! A region is `[first, last]` with `last = first + length - 1` modulo 2^64.

use vfio_type1::{GroupDescription, GroupKind, RegionKind, ReservedRegion};

use super::Group;
use super::release::Release;

/// 4.1: a group as this kernel sees it.
pub(super) fn group(group: &GroupDescription, release: Release) -> Group {
    let mut stated = Vec::new();
    let mut devices = Vec::new();
    let mut direct = false;
    for device in &group.devices {
        devices.push((device.name.clone(), device.binding.clone()));
        for mut region in device.regions.iter().copied() {
            direct |= region.kind == RegionKind::Direct;
            // 4.3: relaxable regions exist from 5.3; before, they are direct ones.
            if !release.from(5, 3) && region.kind == RegionKind::DirectRelaxable {
                region.kind = RegionKind::Direct;
            }
            stated.push(region);
        }
    }
    if !matches!(group.kind, GroupKind::Iommu(_)) {
        stated.clear();
    }
    let mut regions = Vec::new();
    for region in &stated {
        insert(&mut regions, *region, release);
    }
    Group { kind: group.kind.clone(), devices, stated, regions, direct }
}

/// 4.2.
pub(super) fn insert(list: &mut Vec<ReservedRegion>, new: ReservedRegion, release: Release) {
    if release.from(5, 4) {
        insert_sorted(list, new);
        absorb(list, new.kind);
    } else {
        insert_before_5_4(list, new);
    }
}

/// 4.2 step 1.
fn insert_sorted(list: &mut Vec<ReservedRegion>, new: ReservedRegion) {
    let goes_behind = |old: &ReservedRegion| {
        old.first > new.first || (old.first == new.first && old.kind >= new.kind)
    };
    let at = list.iter().position(goes_behind).unwrap_or(list.len());
    list.insert(at, new);
}

/// 4.2 step 2.
fn absorb(list: &mut Vec<ReservedRegion>, kind: RegionKind) {
    let mut kept: Vec<ReservedRegion> = Vec::new();
    for region in list.drain(..) {
        let previous = kept.iter_mut().rev().find(|old| old.kind == kind);
        match previous {
            Some(previous)
                if region.kind == kind && region.first.0 <= previous.last.0.wrapping_add(1) =>
            {
                previous.last = previous.last.max(region.last);
            }
            _ => kept.push(region),
        }
    }
    *list = kept;
}

/// 4.2, last paragraph. The walk ends at the first element that starts after the new region's end:
/// what stands behind it is not looked at, though regions of other kinds may have upset the order.
fn insert_before_5_4(list: &mut Vec<ReservedRegion>, mut new: ReservedRegion) {
    loop {
        let behind = list.iter().position(|old| new.last < old.first).unwrap_or(list.len());
        let meets = |old: &ReservedRegion| old.kind == new.kind && new.first <= old.last;
        let Some(at) = list[..behind].iter().position(meets) else {
            list.insert(behind, new);
            return;
        };
        if list[at].first <= new.first && new.last <= list[at].last {
            return;
        }
        let old = list.remove(at);
        new.first = new.first.min(old.first);
        new.last = new.last.max(old.last);
    }
}
