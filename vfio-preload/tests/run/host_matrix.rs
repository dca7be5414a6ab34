// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program is tried on all known hosts, and each has a row that says whether it works there, and if not,
//! what was refused first or what the program said last.

use crate::said::{options, placed};
use crate::tool::{ADDRESS, vfio_client};

#[test]
fn each_host_has_a_row() {
    let Some(run) = options(["--host-matrix"]) else { return };
    let said = run.options(placed("dma-engine")).program(vfio_client(), [ADDRESS]).ends_with(1);
    let hosts = vfio_sim::hosts::names();
    let rows: Vec<&str> = said.out.lines().collect();
    let (sum, rows) = rows.split_last().unwrap();
    let named: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(named, hosts);
    let row = |host: &str| rows.iter().find(|row| row.starts_with(host)).copied().unwrap();
    assert!(row("vtd48").ends_with("works"), "{said:#?}");
    // Below 4 GiB nothing can be mapped there.
    let refused = row("s390-zpci");
    assert!(
        refused.contains("exit 1") && refused.contains("touches the reserved region"),
        "{refused}"
    );
    let failed = rows.iter().filter(|row| !row.contains(" works")).count();
    assert_eq!(*sum, format!("fails on {failed} of {} hosts", hosts.len()));
    // What the program prints is not shown.
    assert_eq!(said.err, "");
}

#[test]
fn a_program_that_never_fails_ends_with_0() {
    let Some(run) = options(["--host-matrix"]) else { return };
    run.program("sh", ["-c", ": < /dev/vfio/vfio"]).ok().prints("fails on 0 of ");
}

#[test]
fn a_program_that_fails_without_a_refusal_is_quoted() {
    let Some(run) = options(["--host-matrix"]) else { return };
    let fails =
        "echo first >&2; : < /dev/vfio/vfio; echo ' too little room ' >&2; echo >&2; exit 3";
    let said = run.program("sh", ["-c", fails]).ends_with(1).prints("exit 3     too little room\n");
    assert!(!said.out.contains("first"), "{said:#?}");
}

#[test]
fn a_program_that_uses_no_vfio_has_not_worked() {
    let Some(run) = options(["--host-matrix"]) else { return };
    let said = run.program("true", [""; 0]).ends_with(1);
    said.prints("not tried  the program opened no file of VFIO's").prints("fails on 0 of 0 hosts");
}

#[test]
fn a_program_that_is_not_there_is_not_tried() {
    let Some(run) = options(["--host-matrix"]) else { return };
    run.program("no-such-program", [""; 0]).ends_with(127).says_one_line();
}
