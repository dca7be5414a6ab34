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
        a_range_that_is_refused_stays_open,
        the_rest_may_be_closed,
        what_the_library_holds_is_out_of_reach,
        files_in_the_place_of_stderr_are_the_program_s,
        eventfds_are_known_in_another_root,
        the_device_is_closed_on_exec,
        a_low_limit_suffices,
        the_device_outlives_group_and_container,
        they_are_character_devices,
        a_device_s_node_has_the_number_in_sysfs,
        system_calls_without_libc,
    ]
);

#[test]
fn looking_at_files_is_not_using_them() {
    let Some(run) = run("dma-engine") else { return };
    let said = run
        .options(["--report"])
        .program("sh", ["-c", "test -c /dev/vfio/vfio && ls -lR /dev/vfio"]);
    let said =
        said.ok().prints("crw-rw-rw-").prints("10, 196").complains("opened no file of VFIO's");
    assert!(!said.out.contains("\n-"), "{said:#?}");
}

#[test]
fn a_group_that_has_no_file_is_explained() {
    let Some(run) = run("dma-engine") else { return };
    let said = run.program("sh", ["-c", "cat < /dev/vfio/99 || exit 7"]).ends_with(7);
    said.complains("vfio-sim: /dev/vfio/99: the host has no group 99; it has ");
}
