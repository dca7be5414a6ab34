// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: threads may use a device, its mappings and its container at once, and nothing is lost.

use crate::cases;

cases!(
    "threads",
    "dma-engine",
    [
        no_store_is_lost,
        loads_meet_registers,
        loads_of_all_kinds_meet_registers,
        others_map_and_unmap,
        protection_is_changed_meanwhile,
        registers_are_mapped_in_their_own_place,
    ]
);
