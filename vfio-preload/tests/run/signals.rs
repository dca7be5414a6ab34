// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program's faults are its own, and reach it as they would without registers that trap.

use crate::{case, cases};

cases!(
    "signals",
    "dma-engine",
    [
        a_handler_gets_the_program_s_own_faults,
        a_handler_set_before_the_device_is_opened,
        a_handler_without_information,
        a_handler_as_of_system_v,
        handlers_of_other_names,
        signals_are_held,
        blocked_without_libc,
        a_store_of_its_own_mistake_is_told_of,
        a_thread_may_block_all_signals,
        blocked_from_the_beginning,
        a_handler_that_blocks_all_may_use_registers,
        signals_in_the_middle_of_accesses,
        a_handler_that_asks_for_a_stack_is_called,
        a_handler_has_the_mask_that_it_asked_for,
        a_handler_stores_in_the_middle_of_malloc,
        a_signal_that_is_sent_is_no_fault,
        a_handler_may_ask_for_its_own_faults,
    ]
);

const SIGSEGV: i32 = 11;

#[track_caller]
fn ends_by_the_fault(name: &str) {
    if let Some(said) = case("signals", name, "dma-engine") {
        assert_eq!(said.signal(), Some(SIGSEGV), "{said:#?}");
        // Nothing was amiss before.
        assert_eq!(said.err, "");
    }
}

#[test]
fn the_default_ends_the_program() {
    ends_by_the_fault("the_default_ends_the_program");
}

#[test]
fn ignoring_a_fault_ends_the_program() {
    ends_by_the_fault("ignoring_a_fault_ends_the_program");
}

#[test]
fn a_handler_for_once_lets_the_next_fault_end_the_program() {
    ends_by_the_fault("a_handler_for_once_lets_the_next_fault_end_the_program");
}

#[test]
fn a_handler_that_faults_ends_the_program() {
    if let Some(said) = case("signals", "a_handler_that_faults_ends_the_program", "dma-engine") {
        assert_eq!(said.signal(), Some(SIGSEGV), "{said:#?}");
        assert_eq!(said.out, "once\n");
    }
}

#[test]
fn a_handler_that_stores_in_the_middle_of_a_call_is_told_so() {
    if let Some(said) = case("signals", "a_handler_stores_in_the_middle_of_a_call", "dma-engine") {
        assert_eq!(said.signal(), Some(SIGSEGV), "{said:#?}");
        said.complains(
            "0000:01:00.0: a signal handler accesses a mapped BAR in the middle of another call",
        );
    }
}
