// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sections 3.5 and 3.6: the valid list, and how it shrinks.

use vfio_type1::{RegionKind, ReservedRegion};

use super::span::Span;

/// 3.5.
pub(super) fn resize(list: &mut Vec<Span>, aperture: Span) {
    let (s, e) = (aperture.first, aperture.last);
    if list.is_empty() {
        list.push(aperture);
        return;
    }
    // Pass 1.
    while let Some(range) = list.first_mut() {
        if s < range.first {
            break;
        }
        if s < range.last {
            range.first = s;
            break;
        }
        list.remove(0);
    }
    // Pass 2.
    list.retain_mut(|range| {
        if e > range.last {
            return true;
        }
        if range.first < e {
            range.last = e;
            return true;
        }
        false
    });
}

/// 3.6.
pub(super) fn exclude(list: &mut Vec<Span>, regions: &[ReservedRegion]) {
    for region in regions.iter().filter(|region| region.kind != RegionKind::DirectRelaxable) {
        let (r0, r1) = (region.first.0, region.last.0);
        let mut cut = Vec::new();
        for range in list.drain(..) {
            let (a, b) = (range.first, range.last);
            if r0 > b || r1 < a {
                cut.push(range);
                continue;
            }
            if r0 > a {
                cut.push(Span { first: a, last: r0 - 1 });
            }
            if r1 < b {
                cut.push(Span { first: r1 + 1, last: b });
            }
        }
        *list = cut;
    }
}

/// 5.1 step 10.
pub(super) fn allows(list: &[Span], request: Span) -> bool {
    let inside = |range: &Span| range.first <= request.first && request.last <= range.last;
    list.is_empty() || list.iter().any(inside)
}
