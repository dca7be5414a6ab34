// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator and the oracle side by side on one host. `hosts` says what the host is, `operations` what
//! can be done on it, `aim` which addresses that hits; `files`, `calls` and `devices` do it on both;
//! `rules` puts the emulator's errors in the oracle's terms, and `pair` compares.
//!
//! Generated programs run here (`tests/oracle`), those that once differed
//! (`tests/oracle_regressions.rs`), and those of a fuzzer (`fuzz/`).
//!
//! Compared after each step: the answer with its rule, errno and plain numbers; mappings, groups, extensions
//! and GET_INFO of the containers that a slot holds; locked pages of living processes; status of open groups; the
//! argument's page and the bitmap's. Not compared: why a range is not valid, the bounds in errors about
//! wrapping, who owns a mapping and what is pinned or dirty until something tells, memory elsewhere, containers that
//! live on after their descriptor. Devices pin whole pages, and their copies end before the top of the space.

mod aim;
mod calls;
mod devices;
mod files;
pub(crate) mod hosts;
pub(crate) mod operations;
pub(crate) mod pair;
mod rules;
