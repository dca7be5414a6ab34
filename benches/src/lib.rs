// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the benchmarks share: the scene, where pages are mapped, who takes part, and where the
//! figures are put.
//!
//! `cargo bench -p vfio-benches` measures, `cargo run --release -p vfio-benches` prints what was
//! measured, and `benches/run` does both in one go and writes `BENCHMARKS.md`.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a benchmark whose scene does not stand should stop")]

mod contestants;
pub mod pages;
pub mod results;
mod scene;

pub use contestants::{BTree, Contestant, Emulator, VmMemory, filled};
pub use scene::{GuestMemory, Scene, accept};

/// `rangemap`'s map of inclusive ranges to process addresses.
pub type RangeMap = rangemap::RangeInclusiveMap<u64, u64>;
