// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: descriptors of VFIO's files are descriptors like any other.

use crate::cases;
use crate::said::run;

cases!(
    "descriptors",
    "dma-engine",
    [
        proc_tells_the_path,
        copies_are_the_same_file,
        the_last_copy_closes,
        another_file_in_its_place_closes,
        a_range_is_closed,
        the_rest_may_be_closed,
        what_the_library_holds_is_out_of_reach,
        the_device_is_closed_on_exec,
        a_low_limit_suffices,
        the_device_outlives_group_and_container,
        system_calls_without_libc,
    ]
);

#[test]
fn a_group_that_has_no_file_is_explained() {
    let Some(run) = run("dma-engine") else { return };
    let said = run.program("sh", ["-c", "cat < /dev/vfio/99 || exit 7"]).ends_with(7);
    said.complains("vfio-sim: /dev/vfio/99: the host has no group 99; it has ");
}
