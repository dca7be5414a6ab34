// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Prints `BENCHMARKS.md` from the figures of the last run.
#![forbid(unsafe_code)]

#[path = "main/figure.rs"]
mod figure;
#[path = "main/machine.rs"]
mod machine;
#[path = "main/table.rs"]
mod table;
#[path = "main/tables.rs"]
mod tables;
#[path = "main/targets.rs"]
mod targets;

use std::process::ExitCode;

use vfio_benches::results::{Results, home};

/// What is compared, and how to run it.
const INTRODUCTION: &str = include_str!("main/introduction.md");

fn main() -> ExitCode {
    match Results::load() {
        Ok(results) => {
            println!("{INTRODUCTION}\n{}", machine::describe());
            println!("{}\n{}", targets::render(&results), tables::render(&results));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let home = home();
            eprintln!("{}: {error}; run cargo bench -p vfio-benches first", home.display());
            ExitCode::FAILURE
        }
    }
}
