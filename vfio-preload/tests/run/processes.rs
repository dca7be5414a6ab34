// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a process uses the files that it opened itself, and is told when it uses others.

use crate::{case, cases};

cases!(
    "processes",
    "dma-engine",
    [
        a_group_is_opened_by_one_process,
        a_child_may_close_what_it_inherits,
        children_open_files_themselves,
        children_that_libc_does_not_tell_of_are_like_others,
        a_program_is_executed,
        a_child_that_borrows_the_memory_closes_nothing,
        a_group_waits_for_all_who_have_it,
    ]
);

#[test]
fn inherited_files_are_refused() {
    if let Some(said) = case("processes", "inherited_files_are_refused", "dma-engine") {
        said.ok().complains("open the file with open() in the process that uses it");
    }
}

#[test]
fn a_fork_in_the_middle_leaves_the_parent_its_device() {
    let name = "a_fork_in_the_middle_leaves_the_parent_its_device";
    if let Some(said) = case("processes", name, "dma-engine") {
        let said =
            said.ok().complains("a BAR that its parent mapped before the fork; open and map");
        assert_eq!(said.err.lines().count(), 1, "{said:#?}");
    }
}
