// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much of `memcpy`'s speed is left when a device copies through its domain: a read by the device
//! into a buffer of its own, with the watch off and on, and a plain copy between the same two places, in
//! one run.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vfio_benches::Scene;
use vfio_type1::{Access, Iova, MapDma};
use vfio_vmm::OwnMemory;

const IOVA: u64 = 0x1_0000_0000;
const LARGEST: usize = 1 << 20;

#[expect(unsafe_code, reason = "the memory that devices reach is raw memory")]
fn copies(criterion: &mut Criterion) {
    // SAFETY: the guest's memory is only read while it is mapped.
    let scene = Scene::new(unsafe { OwnMemory::direct() }, 1);
    let nic = scene.nic(0);
    let guest = vec![1_u8; LARGEST + 4096];
    let start = guest.as_ptr();
    let aligned = start.wrapping_add(start.align_offset(4096));
    let vaddr = aligned.expose_provenance() as u64;
    let request = MapDma::new(IOVA, vaddr, LARGEST as u64, Access::Read);
    scene.container.map(&scene.process, &request).unwrap();
    // Half a page away from where the memory is in its page: CPUs are slow where a copy reads and writes
    // at nearly the same place of two pages, and chance would decide.
    let mut room = vec![0_u8; LARGEST + 8192];
    let skip = room.as_ptr().align_offset(4096) + 2048;
    let buffer = &mut room[skip..skip + LARGEST];
    let mut group = criterion.benchmark_group("dma");
    for size in [64, 4 << 10, 64 << 10, LARGEST] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
            // SAFETY: `aligned` has `LARGEST` bytes behind it, which live to the end.
            let from = unsafe { std::slice::from_raw_parts(aligned, size) };
            bencher.iter(|| black_box(&mut buffer[..size]).copy_from_slice(black_box(from)));
        });
        for (name, watch) in [("device", false), ("watched", true)] {
            scene.vfio.set_watch(watch);
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let mut read = || nic.read(black_box(Iova(IOVA)), black_box(&mut buffer[..size]));
                bencher.iter(|| read().unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, copies);
criterion_main!(benches);
