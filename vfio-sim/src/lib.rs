// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated hosts around `vfio-type1`.
#![forbid(unsafe_code)]

pub mod assign;
pub mod check;
mod draw;
pub mod host;
pub mod host_file;
pub mod hosts;
pub mod number;
pub mod replay;
pub mod show;
mod style;
pub mod trace;
