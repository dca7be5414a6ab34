// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What we aim at, and whether it was reached.

use vfio_benches::pages;
use vfio_benches::results::{Footprint, Results};

use crate::figure::{count, number, time};
use crate::table::Table;

const OURS: &str = "vfio-type1";
const FULL: &str = "65535";

/// A figure that was measured, and the figure that it should not be above.
struct Reached {
    /// What is aimed at.
    target: String,
    /// What was measured, and the limit; `None` if a figure for either is missing.
    figures: Option<(f64, f64)>,
    show: fn(f64) -> String,
    /// Whether more is better.
    at_least: bool,
}

impl Reached {
    fn at_most(
        target: impl Into<String>,
        measured: Option<f64>,
        limit: Option<f64>,
        show: fn(f64) -> String,
    ) -> Self {
        Self { target: target.into(), figures: measured.zip(limit), show, at_least: false }
    }

    fn line(self) -> Vec<String> {
        let Some((measured, limit)) = self.figures else {
            return vec![self.target, "-".to_owned(), "-".to_owned(), "not measured".to_owned()];
        };
        let met = if self.at_least { measured >= limit } else { measured <= limit };
        let bound = if self.at_least { "at least" } else { "at most" };
        let verdict = if met { "met" } else { "missed" };
        let show = self.show;
        vec![self.target, format!("{bound} {}", show(limit)), show(measured), verdict.to_owned()]
    }
}

/// The table of targets.
pub(crate) fn render(results: &Results) -> String {
    let mut table = Table::new(["target", "that is", "measured", ""]);
    let all = [pair(results), random(results), repeated(results)].into_iter();
    let all = all.chain(["1", FULL].map(|live| byte_door(results, live)));
    let all = all.chain([footprint(results)]);
    let all = all.chain(["random", "hot"].map(|pages| threads(results, pages)));
    let all = all.chain([program_map(results), program_store(results)]);
    all.for_each(|reached| table.add(reached.line()));
    format!("## Targets\n\n{}", table.render())
}

fn pair(results: &Results) -> Reached {
    let rivals = ["BTreeMap", "rangemap"].map(|rival| results.median("pair", rival, FULL));
    let [tree, ranges] = rivals;
    let better = tree.zip(ranges).map(|(tree, ranges)| tree.min(ranges) / 3.0);
    let target = "MAP and UNMAP, all rules checked: a third of what the better of `BTreeMap` and \
                  `rangemap` takes to insert and remove, at 65,535 live mappings";
    Reached::at_most(target, results.median("pair", OURS, FULL), better, time)
}

fn random(results: &Results) -> Reached {
    let group = "translate random";
    let limit = results.median(group, "rangemap", FULL).map(|ranges| ranges / 3.0);
    let target = "A random translation: a third of `rangemap`'s, at 65,535 live mappings";
    Reached::at_most(target, results.median(group, OURS, FULL), limit, time)
}

fn repeated(results: &Results) -> Reached {
    let measured = results.median("translate repeated", OURS, FULL);
    Reached::at_most("A repeated translation: 5 ns", measured, Some(5.0), time)
}

fn byte_door(results: &Results, live: &str) -> Reached {
    let of = |contestant| results.median("byte door", contestant, live);
    let target =
        format!("The ioctls MAP and UNMAP: two empty system calls, at {} live", count(live));
    Reached::at_most(target, of(OURS), of("two empty system calls"), time)
}

/// The worst of all ways to fill the container.
fn footprint(results: &Results) -> Reached {
    let ours = results.footprints.iter().filter(|f| f.contestant == OURS && f.live == pages::FULL);
    let worst = ours.map(Footprint::each).reduce(f64::max);
    let target = "Bytes for each of 65,535 live mappings, however they were made: 64";
    Reached::at_most(target, worst, Some(64.0), number)
}

fn program_map(results: &Results) -> Reached {
    let of = |contestant| results.median("program", contestant, "");
    let limit = of("empty system call").map(|call| 2.0 * call);
    Reached::at_most(
        "MAP by a program under `vfio-sim run`: two empty system calls",
        of("MAP"),
        limit,
        time,
    )
}

fn program_store(results: &Results) -> Reached {
    let target = "A program's store into a mapped register under `vfio-sim run`: 3 µs";
    Reached::at_most(target, results.median("program", "store", ""), Some(3000.0), time)
}

/// How many times one reader's rate all readers reach.
fn threads(results: &Results, pages: &str) -> Reached {
    let group = format!("threads, {pages}");
    let ours = results.timings.iter().filter(|t| t.group == group && t.contestant == OURS);
    let most = ours.max_by(|a, b| a.elements.total_cmp(&b.elements));
    let one = results.median(&group, OURS, "1");
    let gain = most.zip(one).map(|(most, one)| most.elements * one / most.median);
    let readers = most.map_or(2.0, |most| most.elements);
    // Three quarters of the cores where there are four, nine tenths where there are two.
    let limit = if readers > 2.0 { 0.75 * readers } else { 0.9 * readers };
    let target = format!("Translations by {readers} threads ({pages}), in times of one's");
    Reached { target, figures: gain.zip(Some(limit)), show: number, at_least: true }
}
