// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the exit status is the program's own. Where it does not run, it is that of other programs that run
//! programs, and one line says why.

use crate::said::{Said, options, run};

/// What a shell that runs `script` ends with, as the program.
fn shell(option: Option<&str>, script: &str) -> Option<Said> {
    Some(run("dma-engine")?.options(option).program("sh", ["-c", script]))
}

#[test]
fn the_program_s_status_is_handed_on() {
    for option in [None, Some("--report")] {
        for status in [0, 1, 7, 125, 255] {
            let Some(said) = shell(option, &format!("exit {status}")) else { return };
            said.ends_with(status);
        }
    }
}

#[test]
fn a_signal_is_the_program_s_own() {
    let Some(said) = shell(None, "kill -9 $$") else { return };
    assert_eq!(said.signal(), Some(9), "{said:#?}");
    // As a shell tells of it, where the tool stays to report.
    let Some(said) = shell(Some("--report"), "kill -9 $$") else { return };
    said.ends_with(137);
}

#[test]
fn streams_and_directory_are_the_program_s() {
    let Some(run) = run("dma-engine") else { return };
    let said = run.input("text").program("sh", ["-c", "cat; pwd >&2"]).ok();
    let here = std::env::current_dir().unwrap();
    assert_eq!((said.out.as_str(), said.err.trim_end()), ("text", here.to_str().unwrap()));
}

#[test]
fn bad_hosts_and_devices_are_2() {
    let bad = |arguments: &[&str]| {
        options(arguments).map(|run| run.program("true", [""; 0]).ends_with(2))
    };
    let Some(said) = bad(&["no-such-host"]) else { return };
    said.says_one_line().complains("\"no-such-host\" is no host file and no known host");
    let Some(said) = bad(&["vtd48", "--device", "toaster"]) else { return };
    said.says_one_line().complains("there is no device model \"toaster\"");
    let Some(said) = bad(&["vtd48", "--kernel", "2.4"]) else { return };
    said.says_one_line().complains("2.4");
    let Some(said) = bad(&["vtd48", "--host-matrix"]) else { return };
    said.complains("cannot be used with");
}
