// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes on the heap for each live mapping, counted by the allocator: what is there with the mappings,
//! less what was there without. What an allocator adds to a request is not counted, for anyone. What a
//! container remembers of mappings that went away is: no more than 256 of them, so it shows only beside
//! few mappings.

#![allow(missing_docs, reason = "a benchmark")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use vfio_benches::pages::{Chance, FULL, Order, gap, index, page};
use vfio_benches::results::{Footprint, save_footprints};
use vfio_benches::{BTree, Contestant, Emulator, RangeMap};

/// The system's allocator, which counts what is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; this one only counts")]
// SAFETY: every call is handed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How mappings come about.
#[derive(Clone, Copy)]
enum Fill {
    In(Order),
    /// After many MAPs and UNMAPs.
    Churned,
}

impl Fill {
    fn name(self) -> &'static str {
        match self {
            Self::In(Order::Ascending) => "ascending",
            Self::In(Order::Descending) => "descending",
            Self::In(Order::Shuffled) => "shuffled",
            Self::Churned => "churned",
        }
    }
}

const CHURN: usize = 500_000;

/// Moves pages, drawn by chance, to the free place behind them and back again.
fn churn(contestant: &mut impl Contestant, live: u64) {
    let mut chance = Chance::new(6);
    let mut moved = vec![false; index(live)];
    for _ in 0..CHURN {
        let number = chance.below(live);
        let moved = &mut moved[index(number)];
        let (from, to) = (page(number), gap(number));
        let (from, to) = if *moved { (to, from) } else { (from, to) };
        contestant.unmap(from);
        contestant.map(to);
        *moved = !*moved;
    }
}

fn measure<C: Contestant>(live: u64, fill: Fill) -> Footprint {
    let mut contestant = C::empty();
    let before = IN_USE.load(Ordering::Relaxed);
    let order = if let Fill::In(order) = fill { order } else { Order::Shuffled };
    order.pages(live).into_iter().for_each(|iova| contestant.map(iova));
    if matches!(fill, Fill::Churned) {
        churn(&mut contestant, live);
    }
    let bytes = IN_USE.load(Ordering::Relaxed).saturating_sub(before) as u64;
    drop(contestant);
    let figure =
        Footprint { contestant: C::NAME.to_owned(), filled: fill.name().to_owned(), live, bytes };
    println!("{live} mappings {}, {}: {:.1} bytes each", fill.name(), C::NAME, figure.each());
    figure
}

fn main() -> std::io::Result<()> {
    let mut figures = Vec::new();
    let orders = [Order::Ascending, Order::Descending, Order::Shuffled].map(Fill::In);
    for live in [1_000, FULL] {
        for fill in orders.into_iter().chain([Fill::Churned]) {
            figures.push(measure::<Emulator>(live, fill));
            figures.push(measure::<BTree<false>>(live, fill));
            figures.push(measure::<RangeMap>(live, fill));
        }
    }
    save_footprints(&figures)
}
