// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The figures of a run: criterion's medians, and the bytes that `memory.rs` counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where criterion puts its figures, and `memory.rs` the others: `CRITERION_HOME`, or `criterion` in
/// cargo's target directory.
pub fn home() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let target = || {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        variable("CARGO_TARGET_DIR").unwrap_or(default).join("criterion")
    };
    variable("CRITERION_HOME").unwrap_or_else(target)
}

const MEMORY: &str = "memory.json";

/// Bytes on the heap for each live mapping.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Footprint {
    /// Whose.
    pub contestant: String,
    /// How the mappings came about.
    pub filled: String,
    /// How many there are.
    pub live: u64,
    /// The bytes that came with them, in all.
    pub bytes: u64,
}

impl Footprint {
    /// Bytes for one mapping.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a heap are below 2^53")]
    pub fn each(&self) -> f64 {
        self.bytes as f64 / self.live as f64
    }
}

/// Keeps the figures of `memory.rs`.
pub fn save_footprints(figures: &[Footprint]) -> io::Result<()> {
    fs::create_dir_all(home())?;
    fs::write(home().join(MEMORY), serde_json::to_string_pretty(figures)?)
}

/// What criterion measured of one benchmark.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The benchmark's group: what is measured.
    pub group: String,
    /// Whose figure it is.
    pub contestant: String,
    /// Under which condition, or nothing.
    pub value: String,
    /// The median of an iteration, in nanoseconds.
    pub median: f64,
    /// How many elements an iteration handles; 1 if it does not say.
    pub elements: f64,
}

/// All figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Criterion's.
    pub timings: Vec<Timing>,
    /// Those of `memory.rs`.
    pub footprints: Vec<Footprint>,
}

impl Results {
    /// Reads what lies in [`home`]. What was not measured is not there.
    pub fn load() -> io::Result<Self> {
        let mut results = Self::default();
        results.add_timings(&home())?;
        if let Ok(text) = fs::read_to_string(home().join(MEMORY)) {
            results.footprints = serde_json::from_str(&text)?;
        }
        Ok(results)
    }

    /// Each benchmark has a directory `new` with the figures of the last run.
    fn add_timings(&mut self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.ends_with("new") {
                self.timings.push(read_timing(&path)?);
            } else if path.is_dir() {
                self.add_timings(&path)?;
            }
        }
        Ok(())
    }

    /// The figure of one benchmark.
    pub fn timing(&self, group: &str, contestant: &str, value: &str) -> Option<&Timing> {
        let mut timings = self.timings.iter();
        timings.find(|t| t.group == group && t.contestant == contestant && t.value == value)
    }

    /// The median of one benchmark, in nanoseconds.
    pub fn median(&self, group: &str, contestant: &str, value: &str) -> Option<f64> {
        self.timing(group, contestant, value).map(|timing| timing.median)
    }
}

/// The parts of criterion's `benchmark.json` that are needed.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
enum Throughput {
    Bytes(u64),
    Elements(u64),
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

fn read_timing(directory: &Path) -> io::Result<Timing> {
    let read = |name| fs::read_to_string(directory.join(name));
    let benchmark: Benchmark = serde_json::from_str(&read("benchmark.json")?)?;
    let estimates: Estimates = serde_json::from_str(&read("estimates.json")?)?;
    let elements = match benchmark.throughput {
        Some(Throughput::Bytes(count) | Throughput::Elements(count)) => count,
        None => 1,
    };
    #[expect(clippy::cast_precision_loss, reason = "elements of an iteration are below 2^53")]
    let elements = elements as f64;
    Ok(Timing {
        group: benchmark.group_id,
        contestant: benchmark.function_id.unwrap_or_default(),
        value: benchmark.value_str.unwrap_or_default(),
        median: estimates.median.point_estimate,
        elements,
    })
}
