// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the tool answers: `check` of a layout on every known host, and recordings replayed.
//!
//! Of the recordings read `thrpt`: calls a second on one core. `replay` is the emulator with the
//! comparison of every answer; `parse and replay` adds reading the text, unpacked.

#![allow(missing_docs, reason = "a benchmark")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot find its data should stop")]

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vfio_sim::host::Host;
use vfio_sim::hosts;
use vfio_sim::knobs::Knobs;
use vfio_sim::layout::{Layout, parse_ranges};
use vfio_sim::matrix::check_all;
use vfio_sim::replay::replay;
use vfio_sim::trace::Trace;
use vfio_type1::Kernel;

fn known_hosts() -> Vec<Host> {
    hosts::known().collect::<Result<_, _>>().expect("the known hosts are well-formed")
}

fn check(hosts: &[Host], kernels: &[Kernel]) -> String {
    // A guest with 4 GiB: most hosts refuse the part that their MSI window lies in.
    let layout = Layout::plain(parse_ranges(&["ram=0+4G".to_owned()]).expect("it is a range"));
    let matrix = check_all(hosts, kernels, &Knobs::default(), &layout);
    matrix.expect("the known hosts boot").render()
}

/// `newest kernel` and `all kernels` are the work alone; `as the tool does it` reads the host files too.
fn check_all_hosts(criterion: &mut Criterion) {
    let hosts = known_hosts();
    let mut group = criterion.benchmark_group("check --all-hosts");
    group.bench_function("newest kernel", |bencher| {
        bencher.iter(|| check(&hosts, &[Kernel::NEWEST]));
    });
    group.bench_function("all kernels", |bencher| bencher.iter(|| check(&hosts, &Kernel::ALL)));
    group.bench_function("as the tool does it", |bencher| {
        bencher.iter(|| check(&known_hosts(), &[Kernel::NEWEST]));
    });
    group.finish();
}

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

fn recordings(criterion: &mut Criterion) {
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

criterion_group!(benches, check_all_hosts, recordings);
criterion_main!(benches);
