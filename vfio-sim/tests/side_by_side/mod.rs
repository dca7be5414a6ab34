// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator and the oracle side by side on one host. `hosts` says what the host is, `operations` what
//! can be done on it, `aim` which addresses that hits; `files`, `calls` and `devices` do it on both;
//! `rules` puts the emulator's errors in the oracle's terms, and `pair` compares.
//!
//! Generated programs run here (`tests/oracle`), those that once differed
//! (`tests/oracle_regressions.rs`), and those of a fuzzer (`fuzz/`).

mod aim;
mod calls;
mod devices;
mod files;
pub(crate) mod hosts;
pub(crate) mod operations;
pub(crate) mod pair;
mod rules;
