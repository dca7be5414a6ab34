// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The locks and atomics that threads meet at: std's, or under `cfg(loom)` those of loom, which tries
//! the orders in which threads can run (`tests/loom.rs`).
//!
//! A lock that is held while another one is taken must be one of these.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(loom)]
pub(crate) use loom::thread::yield_now as pause;
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now as pause;
