// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio_fuzz::operations` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vfio_fuzz::operations(data));
