// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many translations devices on several threads get in a second, all together, while another
//! thread maps and unmaps.
//!
//! Each reader is a device in a group of its own. It asks for 64 bytes at a time: anywhere in all that is
//! mapped, or in eight pages, which is what a device with a few rings and buffers does. Beside them one
//! thread maps a page of its own, unmaps it and rests for 100 microseconds: at full speed it would take
//! a core from the readers where there are only two, and that would be measured. The rival is what one
//! would write with the standard library, a `BTreeMap` behind an `RwLock`.
//!
//! An iteration is one translation in every reader, and the time runs from the first reader's start to
//! the last one's end.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use vfio_benches::pages::{FULL, Order, Picks, gap, page};
use vfio_benches::{BTree, Contestant, GuestMemory, Scene, filled};
use vfio_type1::{BusMaster, DmaAccess, Iova};

/// All that the limit allows, but for the writer's page.
const LIVE: u64 = FULL - 1;

const HOT: u64 = 8;

const REST: Duration = Duration::from_micros(100);

/// Something that readers translate by while a writer changes it.
trait Shared: Sync {
    const NAME: &'static str;

    fn new(readers: u32) -> Self;
    fn translate(&self, reader: u32, iova: u64) -> bool;
    fn map_and_unmap(&self, iova: u64);
}

struct Devices {
    scene: Scene,
    nics: Vec<BusMaster>,
}

impl Shared for Devices {
    const NAME: &'static str = "vfio-type1";

    fn new(readers: u32) -> Self {
        let scene = Scene::new(Arc::new(GuestMemory), readers);
        scene.fill(LIVE, Order::Ascending);
        let nics = (0..readers).map(|number| scene.nic(number)).collect();
        Self { scene, nics }
    }

    fn translate(&self, reader: u32, iova: u64) -> bool {
        self.nics[reader as usize].check(Iova(iova), 64, DmaAccess::Read).is_ok()
    }

    fn map_and_unmap(&self, iova: u64) {
        self.scene.map(iova);
        self.scene.unmap(iova);
    }
}

struct LockedMap(RwLock<BTree<true>>);

impl Shared for LockedMap {
    const NAME: &'static str = "locked BTreeMap";

    fn new(_: u32) -> Self {
        Self(RwLock::new(filled(LIVE, Order::Ascending)))
    }

    fn translate(&self, _: u32, iova: u64) -> bool {
        self.0.read().unwrap().translate(iova)
    }

    fn map_and_unmap(&self, iova: u64) {
        self.0.write().unwrap().map(iova);
        self.0.write().unwrap().unmap(iova);
    }
}

/// How long `readers` threads take for `rounds` translations each, in the first `pages` pages.
fn run(shared: &impl Shared, readers: u32, rounds: u64, pages: u64) -> Duration {
    let start = Barrier::new(readers as usize + 1);
    let done = AtomicBool::new(false);
    let read = |reader: u32| {
        let mut picks = Picks::new(page, pages, u64::from(reader));
        start.wait();
        let began = Instant::now();
        for _ in 0..rounds {
            assert!(shared.translate(reader, black_box(picks.draw())));
        }
        (began, Instant::now())
    };
    let write = || {
        start.wait();
        while !done.load(Ordering::Relaxed) {
            shared.map_and_unmap(gap(LIVE / 2));
            thread::sleep(REST);
        }
    };
    thread::scope(|scope| {
        scope.spawn(write);
        let readers: Vec<_> =
            (0..readers).map(|reader| scope.spawn(move || read(reader))).collect();
        let times: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        let began = times.iter().map(|(began, _)| *began).min().unwrap();
        times.iter().map(|(_, ended)| *ended).max().unwrap() - began
    })
}

fn measure<S: Shared>(criterion: &mut Criterion, readers: u32) {
    let shared = S::new(readers);
    for (name, pages) in [("threads, random", LIVE), ("threads, hot", HOT)] {
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(readers.into()));
        group.bench_function(BenchmarkId::new(S::NAME, readers), |bencher| {
            bencher.iter_custom(|rounds| run(&shared, readers, rounds, pages));
        });
        group.finish();
    }
}

fn benchmark(criterion: &mut Criterion) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let most = u32::try_from(cores.clamp(2, 4)).unwrap();
    for readers in [1, most] {
        measure::<Devices>(criterion, readers);
        measure::<LockedMap>(criterion, readers);
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
