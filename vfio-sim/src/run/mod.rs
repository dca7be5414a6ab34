// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running a program that uses VFIO on a host that is not there.
//!
//! The program sees the host's `/sys` and `/dev/vfio` ([`stage`]), and a library that is loaded
//! into it answers its calls (the package `vfio-preload`), as [`Settings`] tell it. [`program`] says
//! whether that library gets into a program at all.

pub mod line;
mod mapping_call;
pub mod program;
pub mod recording;
pub mod report;
mod settings;
pub mod stage;

pub use settings::{SETTINGS_FILE, Settings, SettingsError, check_devices};
