// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the cost of attaching a group grows with its reserved regions, and with the ranges that the
//! container's valid list has already: SET_CONTAINER and UNSET_CONTAINER of a second group.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use vfio_benches::pages::{PAGE, gap, page};
use vfio_benches::{GuestMemory, Scene};
use vfio_type1::{RegionKind, ReservedRegion};

const REGIONS: [u64; 5] = [1, 10, 100, 1_000, 10_000];
const RANGES: [u64; 4] = [1, 100, 1_000, 10_000];

/// Regions of a page each, spread over as much space whatever their number.
fn regions(count: u64, place: fn(u64) -> u64) -> Vec<ReservedRegion> {
    let spread = |number| place(number * (10_000 / count));
    let region = |first| ReservedRegion::new(first, first + (PAGE - 1), RegionKind::Reserved);
    (0..count).map(spread).map(region).collect()
}

/// A container whose valid list has `ranges` ranges, and the group that comes and goes. Its regions lie
/// in the ranges, beside those of the first group.
fn scene(ranges: u64, regions_that_come: u64) -> Scene {
    let there = regions(ranges - 1, page);
    let come = regions(regions_that_come, gap);
    let scene = Scene::with_regions(Arc::new(GuestMemory), &[there, come]);
    scene.groups[1].unset_container().unwrap();
    assert_eq!(scene.container.mappable().len() as u64, ranges);
    scene
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attach");
    // The largest take long, and differ little from one to the next.
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    for ranges in RANGES {
        for regions in REGIONS {
            let scene = scene(ranges, regions);
            let second = &scene.groups[1];
            let name = if ranges == 1 { "1 range".to_owned() } else { format!("{ranges} ranges") };
            group.bench_function(BenchmarkId::new(name, regions), |bencher| {
                bencher.iter(|| {
                    second.set_container(&scene.container, &scene.process).unwrap();
                    second.unset_container().unwrap();
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
