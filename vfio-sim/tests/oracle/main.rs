// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the emulator does what `docs/type1.md` says.
//!
//! `vfio_sim::oracle` is a naive driver, first written from the document by someone who had not read the
//! emulator. Both get the same operations on generated hosts, under every kernel, through the typed
//! door and the byte door; after each step results, rules, bytes and state must agree.
//! `PROPTEST_CASES` says how many runs there are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod composite;
mod generate;
mod hosts;
mod reached;
#[path = "../side_by_side/mod.rs"]
mod side_by_side;

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use side_by_side::pair::{self, Pair};

/// Runs of about 30 steps, the same ones each time. With `PROPTEST_CASES` as many, and others.
const RUNS: u32 = 2500;

#[test]
fn emulator_and_oracle_agree_after_every_step() {
    let mut runner = runner();
    let programs = (hosts::scene(), generate::operations());
    let run = runner.run(&programs, |(scene, operations)| {
        Pair::run(&scene, &operations).map_err(TestCaseError::fail)
    });
    pair::print_tally();
    match run {
        // Fewer runs reach less.
        Ok(()) if std::env::var_os("PROPTEST_CASES").is_none() => reached::check(),
        Ok(()) => {}
        Err(TestError::Fail(difference, (scene, operations))) => {
            let steps: Vec<String> = operations.iter().map(|step| format!("  {step:x?}")).collect();
            panic!("{scene:x?}\n{}\n{difference}", steps.join("\n"));
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn runner() -> TestRunner {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    // Far cheaper than the default generator, where nothing is optimised.
    let algorithm = RngAlgorithm::XorShift;
    if std::env::var_os("PROPTEST_CASES").is_some() {
        let seed = [0_u64, 1].map(|half| RandomState::new().hash_one(half).to_le_bytes());
        return TestRunner::new_with_rng(config, TestRng::from_seed(algorithm, &seed.concat()));
    }
    config.cases = RUNS;
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(algorithm))
}
