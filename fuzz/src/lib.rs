// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fuzz targets: functions that take any bytes and panic if something is wrong.
//!
//! `targets/` hands them to libFuzzer; `tests/seeds.rs` runs them on the seeds with any compiler.
#![forbid(unsafe_code)]

mod chain;
mod info_chain;
mod input;
mod ioctl_bytes;
mod machine;
mod operations;
#[allow(dead_code, reason = "there is more side by side than is used here")]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is what is looked for")]
#[path = "../../vfio-sim/tests/side_by_side/mod.rs"]
mod side_by_side;
mod texts;

pub use info_chain::info_chain;
pub use ioctl_bytes::ioctl_bytes;
pub use operations::operations;
pub use texts::{device_spec, fault_plan, host_file, layout_file, sysfs_text, trace};

/// A fuzz target: panics if something is wrong.
pub type Target = fn(&[u8]);

/// The targets by name, each with the directory of its seeds, from the repository's root.
pub const TARGETS: [(&str, Target, &str); 9] = [
    ("ioctl_bytes", ioctl_bytes, "fuzz/seeds/ioctl_bytes"),
    ("operations", operations, "fuzz/seeds/operations"),
    ("info_chain", info_chain, "fuzz/seeds/info_chain"),
    ("host_file", host_file, "vfio-sim/hosts"),
    ("layout_file", layout_file, "vfio-sim/layouts"),
    ("trace", trace, "fuzz/seeds/trace"),
    ("sysfs_text", sysfs_text, "fuzz/seeds/sysfs_text"),
    ("device_spec", device_spec, "fuzz/seeds/device_spec"),
    ("fault_plan", fault_plan, "fuzz/seeds/fault_plan"),
];
