// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated hosts and devices around `vfio-type1`.
#![deny(unsafe_code)]

pub mod assign;
mod attempt;
pub mod capture;
pub mod check;
pub mod config_space;
mod describe;
pub mod device;
pub mod dma_api;
mod draw;
pub mod everywhere;
pub mod host;
pub mod host_file;
pub mod hosts;
mod ivrs;
pub mod junit;
pub mod knobs;
pub mod known;
pub mod layout;
pub mod layout_file;
pub mod layouts;
mod machine;
pub mod matrix;
mod names;
pub mod number;
pub mod oracle;
pub mod pci;
mod picture;
pub mod platform;
mod policy;
pub mod record;
pub mod render;
pub mod replay;
pub mod report;
pub mod run;
pub mod show;
mod style;
pub mod suggest;
pub mod svg;
pub mod toml_file;
pub mod trace;
pub mod verdict;
