// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast recordings replay: `cargo bench -p vfio-sim --bench replay`.
//!
//! Read `thrpt`: calls a second on one core. `replay` is the emulator with the comparison of every
//! answer; `parse and replay` adds reading the text, unpacked.

#![expect(clippy::expect_used, reason = "a benchmark that cannot find its data should stop")]

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vfio_sim::replay::replay;
use vfio_sim::trace::Trace;

/// A recording of each kind of call, as text.
fn texts() -> Vec<String> {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
    let names = ["6.12-vtd48-v3-1", "7.2-amd-v3-1", "6.1-igd-v3-1", "6.12-arm64-viommu-v3-12"];
    names.iter().map(|name| unpack(&traces.join(format!("{name}.trace.xz")))).collect()
}

fn unpack(path: &Path) -> String {
    let file = std::fs::File::open(path).expect("the recordings are in the repository");
    std::io::read_to_string(lzma_rust2::XzReader::new(file, true)).expect("recordings are text")
}

fn parse(text: &str) -> Trace {
    Trace::parse("bench", text).expect("recordings are well-formed")
}

fn calls(traces: &[Trace]) -> u64 {
    traces.iter().map(|trace| trace.calls.len() as u64).sum()
}

fn replay_all(traces: &[Trace]) -> usize {
    let outcomes = traces.iter().map(|trace| replay(trace, trace.kernel));
    outcomes.map(|outcome| outcome.expect("the host is sound").differences.len()).sum()
}

fn benchmark(criterion: &mut Criterion) {
    let texts = texts();
    let traces: Vec<Trace> = texts.iter().map(|text| parse(text)).collect();
    let mut group = criterion.benchmark_group("recordings");
    group.throughput(Throughput::Elements(calls(&traces)));
    group.bench_function("replay", |bencher| bencher.iter(|| replay_all(&traces)));
    group.bench_function("parse and replay", |bencher| {
        bencher.iter(|| {
            let traces: Vec<Trace> = texts.iter().map(|text| parse(text)).collect();
            replay_all(&traces)
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
