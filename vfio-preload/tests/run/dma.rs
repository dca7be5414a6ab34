// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a device reaches the program's memory as it is when it does, and memory that is not there is a
//! fault of the device, not the end of the program.

use std::fs;

use crate::said::run;
use crate::{cases, tool};

cases!(
    "dma",
    "dma-engine",
    [
        memory_is_pinned_as_it_is_protected,
        memory_that_ends_half_way_is_refused,
        a_file_behind_its_end_is_refused,
        memory_that_went_is_a_fault_of_the_device,
        copies_of_any_length_arrive,
        registers_take_no_dma,
        interrupts_are_eventfds,
    ]
);

#[test]
fn a_peer_s_memory_takes_dma() {
    let (Some(program), Some(run)) = (tool::compiled("dma"), run("dma-engine")) else { return };
    let peer = run.options(["--device", "peer,size=1M,bdf=0000:02:00.0"]);
    let arguments = ["PEER=0000:02:00.0".into(), program, "a_peer_s_memory_takes_dma".into()];
    peer.program("env", arguments).ok();
}

#[test]
fn a_limit_holds_once_it_is_set() {
    let (Some(program), Some(run)) = (tool::compiled("dma"), run("dma-engine")) else { return };
    let place = tool::open_directory();
    let there = place.path().join("dma");
    fs::copy(program, &there).unwrap();
    // Who runs it must not have the privilege that frees from the limit.
    run.by_an_ordinary_user().program(there, ["a_limit_holds_once_it_is_set"]).ok();
}
