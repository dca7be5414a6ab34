// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated hosts around `vfio-type1`.
#![forbid(unsafe_code)]

pub mod assign;
mod attempt;
pub mod check;
mod describe;
pub mod dma_api;
mod draw;
pub mod host;
pub mod host_file;
pub mod hosts;
pub mod junit;
pub mod layout;
pub mod layout_file;
pub mod layouts;
mod machine;
pub mod matrix;
mod names;
pub mod number;
pub mod pci;
mod picture;
pub mod platform;
mod policy;
pub mod replay;
pub mod report;
pub mod show;
mod style;
pub mod suggest;
pub mod svg;
pub mod trace;
pub mod verdict;
