// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: every target holds on its seeds, and on seeds that are a little wrong. For machines
//! without a fuzzer.

use std::path::{Path, PathBuf};

use vfio_fuzz::TARGETS;

fn seeds(directory: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let entries = std::fs::read_dir(&root).expect("the seeds are there");
    entries.map(|entry| entry.expect("the seeds can be listed").path()).collect()
}

/// The seed with something in it changed: cut short, a bit turned over, a piece said twice.
fn variants(seed: &[u8]) -> Vec<Vec<u8>> {
    let step = (seed.len() / 16).max(1);
    let places = (0..seed.len()).step_by(step);
    let changed = |at: usize| {
        let mut turned = seed.to_vec();
        turned[at] ^= 1 << (at % 8);
        let twice = [&seed[..at], &seed[at / 2..]].concat();
        [seed[..at].to_vec(), turned, twice]
    };
    places.flat_map(changed).chain([seed.to_vec(), Vec::new()]).collect()
}

#[test]
fn targets_hold_on_their_seeds() {
    for (name, target, directory) in TARGETS {
        let seeds = seeds(directory);
        assert!(!seeds.is_empty(), "{name} has no seeds in {directory}");
        for seed in seeds {
            let bytes = std::fs::read(&seed).expect("the seed can be read");
            variants(&bytes).iter().for_each(|bytes| target(bytes));
        }
    }
}
