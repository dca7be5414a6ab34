// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: what a program did replays without a difference, each process's in a file of its own, also when the
//! program was killed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::said::{Said, run};
use crate::tool::{ADDRESS, compiled, installed, vfio_client, vfio_sim};

/// That recordings replay, and all of `calls` are in the first.
#[track_caller]
fn replay(recordings: &[&Path], calls: &[&str]) {
    let said = Said::of(Command::new(vfio_sim()).arg("replay").args(recordings), "").ok();
    let said = said.prints(" 0 differences");
    let text = fs::read_to_string(recordings[0]).unwrap();
    for call in calls {
        assert!(
            text.lines().any(|line| line.starts_with(call)),
            "no line {call}...: {said:#?}\n{text}"
        );
    }
}

/// The ioctls of type1, as recordings have them.
const MAP: &str = "ioctl f1 3b71 ";
const UNMAP: &str = "ioctl f1 3b72 ";

#[test]
fn a_program_on_vfio_ioctls() {
    let Some(run) = run("dma-engine") else { return };
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    run.options(["--trace".as_ref(), trace.as_os_str()]).program(vfio_client(), [ADDRESS]).ok();
    replay(&[&trace], &["container f1 ", "group f2 ", "setc f2 f1 ", MAP, UNMAP, "close f1 "]);
    assert!(!directory.path().join("trace.2").exists());
}

#[test]
fn qemu_img() {
    let (Some(program), Some(run)) = (installed("qemu-img", "qemu-utils"), run("nvme,size=8M"))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let namespace = format!("nvme://{ADDRESS}/1");
    let copy = directory.path().join("copy");
    let convert = ["convert", "-f", "raw", "-O", "raw", &namespace, copy.to_str().unwrap()];
    run.options(["--trace".as_ref(), trace.as_os_str()]).program(program, convert).ok();
    replay(&[&trace], &["container f1 ", MAP, UNMAP]);
}

#[test]
fn each_process_has_a_file() {
    let Some(run) = run("dma-engine") else { return };
    let directory = tempfile::tempdir().unwrap();
    let files = ["trace", "trace.2", "trace.3"].map(|name| directory.path().join(name));
    let script = "\"$0\" \"$1\" && \"$0\" \"$1\" && \"$0\" \"$1\"";
    let arguments = ["-c".into(), script.into(), vfio_client(), ADDRESS.into()];
    run.options(["--trace".as_ref(), files[0].as_os_str()]).program("sh", arguments).ok();
    replay(&files.each_ref().map(AsRef::as_ref), &[MAP]);
    assert!(!directory.path().join("trace.4").exists());
}

#[test]
fn a_program_that_is_killed() {
    let (Some(program), Some(run)) = (compiled("mistakes"), run("dma-engine")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let said = run
        .options(["--trace".as_ref(), trace.as_os_str()])
        .program(program, ["is_killed", "type1"]);
    said.ends_with(137);
    replay(&[&trace], &["container f1 ", MAP]);
    let text = fs::read_to_string(&trace).unwrap();
    assert!(!text.contains("close"), "nothing was closed: {text}");
}

#[test]
fn a_program_without_vfio_leaves_no_file() {
    let Some(run) = run("dma-engine") else { return };
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let said = run.options(["--trace".as_ref(), trace.as_os_str()]).program("true", [""; 0]).ok();
    said.says_one_line().complains("nothing to record");
    assert!(!trace.exists());
}
