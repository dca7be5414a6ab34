// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the emulator does what `docs/type1.md` says.
//!
//! `vfio_sim::oracle` is a naive driver written from the document by someone who had not read the
//! emulator. Both get the same operations on generated hosts, under every kernel, through the typed
//! door and the byte door; after each step results, rules, bytes and state must agree.
//! `PROPTEST_CASES` says how many runs there are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod hosts;
mod operations;
mod pair;
mod rules;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use pair::Pair;

/// Runs of about 30 steps; `PROPTEST_CASES` overrides it.
const RUNS: u32 = 3000;

#[test]
fn emulator_and_oracle_agree_after_every_step() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = RUNS;
    }
    let mut runner = TestRunner::new(config);
    let run = runner.run(&(hosts::scene(), operations::operations()), |(scene, operations)| {
        let mut pair = Pair::new(&scene);
        match pair.merged_alike() {
            // Before 5.4 the emulator merges regions that the kernel's walk does not reach.
            Err(_) if !scene.kernel.behaviours().relaxable_regions => return Ok(()),
            alike => alike.map_err(TestCaseError::fail)?,
        }
        for operation in &operations {
            pair.step(operation).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    pair::print_tally();
    match run {
        Ok(()) => {}
        Err(TestError::Fail(difference, (scene, operations))) => {
            let steps: Vec<String> = operations.iter().map(|step| format!("  {step:x?}")).collect();
            panic!("{scene:x?}\n{}\n{difference}", steps.join("\n"));
        }
        Err(failure) => panic!("{failure}"),
    }
}
