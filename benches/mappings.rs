// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a mapping costs to make and remove, to look for and to translate by, at 1, 1,000 and 65,535
//! live mappings.
//!
//! `vfio-type1` checks all its rules, takes its locks and charges the pages; with a NIC it also waits for
//! accesses of a device and remembers what was removed. The maps beside it insert and remove;
//! `BTreeMap, checked` looks for an overlap first.

#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use vfio_benches::pages::{FULL, LIVE, Order, Picks, gap, page};
use vfio_benches::{BTree, Contestant, Emulator, RangeMap, VmMemory, filled};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Something to measure of each contestant.
trait Subject {
    /// Whether it maps, so that the map which answers EEXIST takes part too.
    const MAPS: bool = false;

    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, order: Order);
}

/// MAP and UNMAP of a free page between two others. While it is mapped, `live` mappings are.
struct Pair;

impl Subject for Pair {
    const MAPS: bool = true;

    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, order: Order) {
        let mut contestant: C = filled(live - 1, order);
        let mut gaps = Picks::new(gap, live - 1, 2);
        group.bench_function(BenchmarkId::new(C::NAME, live), |bencher| {
            bencher.iter(|| {
                let iova = gaps.draw();
                contestant.map(black_box(iova));
                contestant.unmap(black_box(iova));
            });
        });
    }
}

/// The question of the overlap check: what is mapped here?
struct Lookup(());

impl Lookup {
    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, place: fn(u64) -> u64) {
        let contestant: C = filled(live, Order::Ascending);
        let mut picks = Picks::new(place, live, 3);
        group.bench_function(BenchmarkId::new(C::NAME, live), |bencher| {
            bencher.iter(|| contestant.vaddr_at(black_box(picks.draw())));
        });
    }
}

struct Mapped;

impl Subject for Mapped {
    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, _: Order) {
        Lookup::measure::<C>(group, live, page);
    }
}

struct Free;

impl Subject for Free {
    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, _: Order) {
        Lookup::measure::<C>(group, live, gap);
    }
}

/// An access of 64 bytes anywhere in what is mapped.
struct Random;

impl Subject for Random {
    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, order: Order) {
        let contestant: C = filled(live, order);
        let mut pages = Picks::new(page, live, 4);
        group.bench_function(BenchmarkId::new(C::NAME, live), |bencher| {
            bencher.iter(|| contestant.translate(black_box(pages.draw())));
        });
    }
}

/// An access of 64 bytes to the page of the access before.
struct Repeated;

impl Subject for Repeated {
    fn measure<C: Contestant>(group: &mut Group<'_>, live: u64, order: Order) {
        let contestant: C = filled(live, order);
        let iova = page(live / 2);
        group.bench_function(BenchmarkId::new(C::NAME, live), |bencher| {
            bencher.iter(|| contestant.translate(black_box(iova)));
        });
    }
}

fn compete<S: Subject>(criterion: &mut Criterion, name: &str, live: &[u64], order: Order) {
    let mut group = criterion.benchmark_group(name);
    for &live in live {
        S::measure::<Emulator<false>>(&mut group, live, order);
        S::measure::<BTree<false>>(&mut group, live, order);
        if S::MAPS {
            S::measure::<Emulator<true>>(&mut group, live, order);
            S::measure::<BTree<true>>(&mut group, live, order);
        }
        S::measure::<RangeMap>(&mut group, live, order);
        S::measure::<VmMemory>(&mut group, live, order);
    }
    group.finish();
}

fn benchmark(criterion: &mut Criterion) {
    let ascending = Order::Ascending;
    compete::<Pair>(criterion, "pair", &LIVE, ascending);
    compete::<Free>(criterion, "overlap, free", &LIVE, ascending);
    compete::<Mapped>(criterion, "overlap, mapped", &LIVE, ascending);
    compete::<Random>(criterion, "translate random", &LIVE, ascending);
    compete::<Repeated>(criterion, "translate repeated", &LIVE, ascending);
    // Mapped in any order, neighbours lie anywhere in memory.
    compete::<Pair>(criterion, "pair, shuffled", &[FULL], Order::Shuffled);
    compete::<Random>(criterion, "translate random, shuffled", &[FULL], Order::Shuffled);
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
