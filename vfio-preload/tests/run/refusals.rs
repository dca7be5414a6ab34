// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a program that the library does not get into is not run; the exit status is 126, or 127 if there is no
//! such program, and one line says what is wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::said::{Said, run};

/// A file with this mode.
fn file(directory: &Path, name: &str, contents: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// The headers of an ELF program of one loaded segment, for a machine.
fn elf(class: u8, machine: u8) -> Vec<u8> {
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    // e_type, e_machine, e_version, e_phoff, e_ehsize, e_phentsize, e_phnum; and p_type.
    for (at, byte) in
        [(16, 2), (18, machine), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1), (64, 1)]
    {
        bytes[at] = byte;
    }
    bytes
}

#[track_caller]
fn refused(program: impl AsRef<Path>, status: i32, reason: &str) {
    let Some(run) = run("dma-engine") else { return };
    let said: Said = run.program(program.as_ref(), [""; 0]).ends_with(status);
    said.says_one_line().complains(reason);
}

#[test]
fn programs_that_are_not_there() {
    refused("no-such-program", 127, "no-such-program: there is no such program in PATH");
    refused("./no-such-program", 127, "./no-such-program: there is no such program\n");
}

#[test]
fn programs_that_load_no_library() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    refused(file(place, "static", &elf(2, 62), 0o755), 126, "is linked statically");
    refused(file(place, "short", &elf(1, 3), 0o755), 126, "is linked for 32 bits");
    refused(file(place, "arm", &elf(2, 183), 0o755), 126, "is linked for another processor");
    let shell = fs::read("/bin/sh").unwrap();
    refused(file(place, "set-user", &shell, 0o4755), 126, "is set-user-ID or set-group-ID");
    refused(file(place, "set-group", &shell, 0o2755), 126, "is set-user-ID or set-group-ID");
}

#[test]
fn files_that_are_no_programs() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    refused(place, 126, "cannot be executed: is a directory");
    refused(file(place, "data", b"text\n", 0o755), 126, "is neither an ELF program nor a script");
    refused(file(place, "closed", b"#!/bin/sh\n", 0o644), 126, "Permission denied");
    refused(file(place, "lost", b"#!/nowhere/sh\n", 0o755), 126, "/nowhere/sh: cannot be executed");
    refused(
        file(
            place,
            "shell",
            &[b"#!", file(place, "s", &elf(2, 62), 0o755).as_os_str().as_encoded_bytes()].concat(),
            0o755,
        ),
        126,
        "is linked statically",
    );
}

#[test]
fn scripts_run() {
    let directory = tempfile::tempdir().unwrap();
    let script = file(directory.path(), "script", b"#!/bin/sh\nexit $1\n", 0o755);
    let Some(run) = run("dma-engine") else { return };
    run.program(script, ["7"]).ends_with(7);
}
