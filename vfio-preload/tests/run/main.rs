// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promises of `vfio-sim run`: programs run on simulated hosts as they are, and learn of them what a kernel would
//! tell. One promise a file.
//!
//! `tests/programs` has programs that were written to be run here; `vfio-sim/tests/programs` brings others. A
//! test whose program cannot be had says so on stderr, and passes.

#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod said;
mod tool;

mod accesses;
mod client;
mod descriptors;
mod dma;
mod dpdk;
mod host_matrix;
mod lspci;
mod mappings;
mod privileges;
mod processes;
mod qemu;
mod recordings;
mod refusals;
mod reports;
mod selftests;
mod signals;
mod statuses;
mod supervised;
mod threads;
mod vmm;

/// Tests that each run a case of a program of `tests/programs`, which ends well.
macro_rules! cases {
    ($program:literal, $device:expr, [$($case:ident),* $(,)?]) => {$(
        #[test]
        fn $case() {
            if let Some(said) = crate::case($program, stringify!($case), $device) {
                said.ok();
            }
        }
    )*};
}
use cases;

/// Runs a case of a program of `tests/programs`.
fn case(program: &str, case: &str, device: &str) -> Option<said::Said> {
    let (program, run) = (tool::compiled(program)?, said::run(device)?);
    Some(run.program(program, [case]))
}
