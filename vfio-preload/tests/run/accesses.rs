// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: whatever instruction touches mapped registers, it does what it does on hardware.

use crate::cases;

cases!(
    "accesses",
    "ioat",
    [
        moves_of_every_width,
        vectors,
        wide_vectors,
        reads_and_writes_in_one,
        strings_of_bytes,
        functions_of_libc,
        accesses_across_registers,
        accesses_across_pages,
    ]
);
