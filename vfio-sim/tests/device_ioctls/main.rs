// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a device's ioctls answer as vfio-pci does under each kernel, byte for byte and errno for
//! errno.
//!
//! What is expected is written from the kernel's `include/uapi/linux/vfio.h` and from what
//! `SEMANTICS.md` says of devices, not asked of the code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod info;
mod irq_rules;
mod irqs_model;
mod rules;
mod scene;
mod sweep;
