// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: regions are read, written and mapped as the kernel lets programs do it, and what it refuses is
//! refused with its errno.

use crate::cases;
use crate::said::run;
use crate::tool::{compiled, library};

cases!(
    "mappings",
    "nvme",
    [
        a_part_is_unmapped,
        another_mapping_takes_the_place,
        a_mapping_is_moved,
        protection_is_changed,
        protection_is_changed_with_a_key,
        protection_is_changed_around,
        an_access_behind_a_mapping_is_a_fault,
        what_cannot_be_mapped,
        regions_are_mapped_as_they_say,
        regions_are_read_to_their_ends,
        addresses_without_memory,
        pieces_are_read_and_written_in_order,
        reading_goes_on_where_it_has_ended,
    ]
);

#[test]
fn another_library_may_stand_in_front_of_libc() {
    let (Some(library), Some(program)) = (library("own_calls"), compiled("mappings")) else {
        return;
    };
    let Some(run) = run("nvme") else { return };
    let (library, program) = (library.display(), program.display());
    for order in [format!("{library}:$LD_PRELOAD"), format!("$LD_PRELOAD:{library}")] {
        for case in
            ["a_part_is_unmapped", "protection_is_changed", "regions_are_read_to_their_ends"]
        {
            let script = format!("LD_PRELOAD={order} exec {program} {case}");
            run.clone().program("sh", ["-c", &script]).ok();
        }
    }
}
