// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated hosts around `vfio-type1`.
#![forbid(unsafe_code)]

pub mod host;
pub mod number;
pub mod replay;
pub mod trace;
