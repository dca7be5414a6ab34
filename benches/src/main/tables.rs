// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One table for each subject.

use vfio_benches::results::{Results, Timing};

use crate::figure::{count, number, rate, time};
use crate::table::Table;

/// How a subject's figures are put in a table.
struct Subject {
    /// The benchmark's group.
    group: &'static str,
    title: &'static str,
    /// What the lines differ in.
    value: &'static str,
    /// A column each. The first one is held against the best of the others, if there is a ratio.
    contestants: &'static [&'static str],
    ratio: bool,
    show: Show,
}

#[derive(Clone, Copy)]
enum Show {
    Time,
    /// How many in a second, in this unit.
    Rate(&'static str),
}

const OURS: &str = "vfio-type1";
const MAPS: &[&str] = &[OURS, "BTreeMap", "rangemap", "vm-memory Iotlb"];
const PAIR: &[&str] = &[OURS, "BTreeMap", "BTreeMap, checked", "rangemap", "vm-memory Iotlb"];
const LIVE: &str = "live mappings";

const fn race(
    group: &'static str,
    title: &'static str,
    contestants: &'static [&'static str],
) -> Subject {
    Subject { group, title, value: LIVE, contestants, ratio: true, show: Show::Time }
}

const fn alone(
    group: &'static str,
    title: &'static str,
    value: &'static str,
    contestants: &'static [&'static str],
    show: Show,
) -> Subject {
    Subject { group, title, value, contestants, ratio: false, show }
}

const SUBJECTS: [Subject; 16] = [
    race("pair", "MAP and UNMAP of a page between two others", PAIR),
    alone("pair", "The same, with a NIC that does DMA", LIVE, &["vfio-type1, NIC"], Show::Time),
    race("pair, shuffled", "MAP and UNMAP, where mappings were made in random order", PAIR),
    race("overlap, free", "Looking for the mapping at an address: there is none", MAPS),
    race("overlap, mapped", "Looking for the mapping at an address: there is one", MAPS),
    race("translate random", "Translating 64 bytes in a random mapping", MAPS),
    race("translate random, shuffled", "The same, where mappings were made in random order", MAPS),
    race("translate repeated", "Translating 64 bytes in the same mapping again", MAPS),
    race("byte door", "The ioctls MAP and UNMAP", &[OURS, "two empty system calls"]),
    Subject {
        show: Show::Rate(""),
        value: "readers",
        ..race(
            "threads, random",
            "Random translations by all readers, beside a writer",
            &[OURS, "locked BTreeMap"],
        )
    },
    Subject {
        show: Show::Rate(""),
        value: "readers",
        ..race(
            "threads, hot",
            "Translations in eight mappings by all readers, beside a writer",
            &[OURS, "locked BTreeMap"],
        )
    },
    alone(
        "attach",
        "Attaching a group to a list of so many ranges, and detaching it",
        "regions of the group",
        &["1 range", "100 ranges", "1000 ranges", "10000 ranges"],
        Show::Time,
    ),
    alone(
        "dma",
        "A device copies from memory through its domain",
        "bytes",
        &["device", "watched", "memcpy"],
        Show::Rate("B"),
    ),
    alone(
        "program",
        "A program under `vfio-sim run`: an ioctl, accesses to a mapped register",
        "",
        &[
            "empty system call",
            "MAP",
            "a handler that does nothing",
            "store",
            "load",
            "any other instruction",
        ],
        Show::Time,
    ),
    alone(
        "check --all-hosts",
        "`check --all-hosts` of one range",
        "",
        &["newest kernel", "all kernels", "as the tool does it"],
        Show::Time,
    ),
    alone(
        "recordings",
        "Calls of recordings replayed",
        "",
        &["replay", "parse and replay"],
        Show::Rate(""),
    ),
];

/// All subjects, and the bytes for each mapping.
pub(crate) fn render(results: &Results) -> String {
    let tables: Vec<String> = SUBJECTS.iter().map(|subject| subject.render(results)).collect();
    tables.join("\n") + "\n" + &footprints(results)
}

impl Subject {
    fn render(&self, results: &Results) -> String {
        let mut header = vec![self.value];
        header.extend(self.contestants);
        if self.ratio {
            header.push("of the best rival's");
        }
        let mut table = Table::new(header);
        for value in self.values(results) {
            table.add(self.line(results, value));
        }
        format!("## {}\n\n{}", self.title, table.render())
    }

    /// What the lines stand for, ascending.
    fn values<'a>(&self, results: &'a Results) -> Vec<&'a str> {
        let timings = results.timings.iter().filter(|timing| timing.group == self.group);
        let mut values: Vec<&str> = timings.map(|timing| timing.value.as_str()).collect();
        values.sort_by_key(|value| value.parse().unwrap_or(0_u64));
        values.dedup();
        values
    }

    fn line(&self, results: &Results, value: &str) -> Vec<String> {
        let timings = self.contestants.iter().map(|name| results.timing(self.group, name, value));
        let timings: Vec<Option<&Timing>> = timings.collect();
        let cell = |timing: &Option<&Timing>| timing.map_or("-".to_owned(), |t| self.show.cell(t));
        let mut line = vec![count(value)];
        line.extend(timings.iter().map(cell));
        if self.ratio {
            line.push(self.ratio(&timings).map_or("-".to_owned(), number));
        }
        line
    }

    /// Our figure divided by the best of the others.
    fn ratio(&self, timings: &[Option<&Timing>]) -> Option<f64> {
        let (ours, rivals) = timings.split_first()?;
        let best = rivals.iter().flatten().map(|timing| timing.median).reduce(f64::min)?;
        let times = (*ours)?.median / best;
        Some(match self.show {
            Show::Time => times,
            Show::Rate(_) => times.recip(),
        })
    }
}

impl Show {
    fn cell(self, timing: &Timing) -> String {
        match self {
            Self::Time => time(timing.median),
            Self::Rate(unit) => rate(timing.elements * 1e9 / timing.median, unit),
        }
    }
}

fn footprints(results: &Results) -> String {
    let names = [OURS, "BTreeMap", "rangemap"];
    let mut table = Table::new(["live mappings", "made"].iter().chain(&names).copied());
    let ours = results.footprints.iter().filter(|figure| figure.contestant == OURS);
    for line in ours {
        let mut cells = vec![count(&line.live.to_string()), line.filled.clone()];
        cells.extend(names.iter().map(|name| {
            let mut same = results.footprints.iter().filter(|figure| figure.contestant == *name);
            let figure =
                same.find(|figure| figure.live == line.live && figure.filled == line.filled);
            figure.map_or("-".to_owned(), |figure| number(figure.each()))
        }));
        table.add(cells);
    }
    format!("## Bytes on the heap for each live mapping\n\n{}", table.render())
}
