// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: what HOSTS.md says to copy from a machine is enough to capture it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::Path;
use std::process::Command;

use vfio_sim::capture::capture;
use vfio_sim::{hosts, render};
use vfio_type1::Kernel;

/// The commands of HOSTS.md, for a machine whose root is `root`.
fn commands(root: &Path, copy: &Path) -> String {
    let text = include_str!("../HOSTS.md");
    let (_, rest) = text.split_once("<!-- tests/copied_trees.rs runs").unwrap();
    let block = rest.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    assert!(block.contains("cd /\n") && block.contains("\nsudo dmesg >"), "{block}");
    block
        .replace("cd /\n", &format!("cd {}\n", root.display()))
        .replace("\nsudo dmesg >", "\ncat dmesg >")
        .replace("~/tree", &copy.display().to_string())
}

#[test]
fn a_copied_tree_is_captured_like_the_machine() {
    for host in hosts::known().map(Result::unwrap) {
        let place = tempfile::tempdir().unwrap();
        let (root, copy) = (place.path().join("machine"), place.path().join("copy"));
        render::tree(&host, Kernel::V6_12).unwrap().tree.write(&root).unwrap();
        // It fails where a machine has no such file, as it says.
        Command::new("bash").arg("-c").arg(commands(&root, &copy)).output().unwrap();
        let (from_machine, from_copy) = (capture(Some(&root), None), capture(Some(&copy), None));
        let mut from_machine = from_machine.unwrap();
        // The IVRS table is for root alone.
        from_machine.notes.extend(
            from_copy.as_ref().unwrap().notes.iter().filter(|note| note.contains("IVRS")).cloned(),
        );
        assert_eq!(from_copy.unwrap(), from_machine, "{}", host.name);
    }
}
