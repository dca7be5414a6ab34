// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: capture reads any tree: what is wrong with a file is told with its path, and does no
//! harm to the rest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use vfio_sim::capture::{CaptureError, Captured, capture};
use vfio_sim::hosts;
use vfio_sim::render::{self, Node};
use vfio_type1::Kernel;

const DEVICE: &str = "sys/devices/pci0000:00/0000:00:02.0";
const GROUP: &str = "sys/kernel/iommu_groups/1";
const REGIONS: &str = "sys/kernel/iommu_groups/1/reserved_regions";

/// The tree of a host, changed by `change`, captured.
fn changed(host: &str, change: impl Fn(&Path)) -> Result<Captured, CaptureError> {
    let place = tempfile::tempdir().unwrap();
    let host = hosts::find(host).unwrap();
    render::tree(&host, Kernel::V6_12).unwrap().tree.write(place.path()).unwrap();
    change(place.path());
    let captured = capture(Some(place.path()), None);
    if let Ok(captured) = &captured {
        // The file parses, whatever the tree has put into it.
        captured.text(UNIX_EPOCH).unwrap();
    }
    captured
}

fn notes(host: &str, change: impl Fn(&Path)) -> String {
    changed(host, change).unwrap().notes.join("\n")
}

fn assert_note(notes: &str, expected: &str) {
    assert!(notes.contains(expected), "{notes}\nexpected {expected}");
}

#[test]
fn wrong_files_are_told_with_their_paths() {
    let put = |path: &'static str, content: &'static [u8]| {
        notes("igd", move |root| fs::write(root.join(path), content).unwrap())
    };
    let regions = put(REGIONS, b"0x0000000000000000 0x0000000000000fff direct\nnonsense\n");
    assert_note(&regions, &format!("{REGIONS}: line 2 and what follows left out"));
    let class = put("sys/devices/pci0000:00/0000:00:02.0/class", b"display\n");
    assert_note(&class, "0000:00:02.0/class: \"display\" is not a hexadecimal number");
    let vendor = put("sys/devices/pci0000:00/0000:00:02.0/vendor", b"0x80\xff86\n");
    assert_note(&vendor, "0000:00:02.0/vendor: not a text");
    let resource = put("sys/devices/pci0000:00/0000:00:02.0/resource", b"0x1 0x2 0x200\n1 2\n");
    assert_note(&resource, "0000:00:02.0/resource: BAR 0 left out");
    assert_note(&resource, "0000:00:02.0/resource: BAR 1 left out: \"1 2\" is not three numbers");
    let cap = put("sys/devices/virtual/iommu/dmar0/intel-iommu/cap", b"0\n");
    assert_note(&cap, "dmar0: no capability register with a page walk; assumed 39 bits");
    let release = put("proc/sys/kernel/osrelease", b"6.6.1\n");
    assert_note(&release, "kernel 6.6.1 is not known: taken for 6.1");
}

#[test]
fn a_file_too_large_or_no_file_is_not_read() {
    let large = notes("igd", |root| {
        fs::File::create(root.join(REGIONS)).unwrap().set_len(1 << 40).unwrap();
    });
    assert_note(&large, &format!("{REGIONS}: more than 1048576 bytes"));
    let directory = notes("igd", |root| {
        fs::remove_file(root.join(REGIONS)).unwrap();
        fs::create_dir(root.join(REGIONS)).unwrap();
    });
    assert_note(&directory, &format!("{REGIONS}: not a file"));
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    let circle = |root: &Path, path: &str| {
        let path = root.join(path);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
    };
    let notes = notes("igd", |root| {
        circle(root, &format!("{DEVICE}/vendor"));
        circle(root, &format!("{GROUP}/devices/0000:00:02.0"));
    });
    assert_note(&notes, "0000:00:02.0/vendor: cannot read: ");
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_passed_over() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let notes = notes("igd", |root| {
        let name = OsStr::from_bytes(b"0000:00:02.\xff");
        fs::create_dir(root.join(GROUP).join("devices").join(name)).unwrap();
        fs::create_dir(root.join("sys/kernel/iommu_groups/one")).unwrap();
    });
    assert_note(&notes, &format!("{GROUP}/devices/0000:00:02.\u{fffd}: not a name"));
    assert_note(&notes, "sys/kernel/iommu_groups/one: not a number");
}

#[test]
fn a_tree_without_groups_says_what_to_do() {
    let none = changed("igd", |root| {
        fs::remove_dir_all(root.join("sys/kernel/iommu_groups")).unwrap();
    });
    assert!(none.unwrap_err().to_string().contains("turn on VT-d"));
    let unknown = changed("igd", |root| {
        fs::remove_dir_all(root.join("sys/class/iommu")).unwrap();
    });
    assert!(unknown.unwrap_err().to_string().contains("none of the 7 groups can be described"));
    let empty = tempfile::tempdir().unwrap();
    let error = capture(Some(empty.path()), None).unwrap_err().to_string();
    assert!(error.contains("--root names the directory"), "{error}");
}

#[test]
fn any_file_may_be_anything() {
    let host = hosts::find("lx2160a").unwrap();
    let tree = render::tree(&host, Kernel::V6_12).unwrap().tree;
    let is_file =
        |(path, node): (&str, &Node)| matches!(node, Node::File(_)).then(|| path.to_owned());
    let mut files: Vec<String> = tree.nodes().filter_map(is_file).collect();
    files.retain(|path| !path.starts_with("dev/"));
    let place = tempfile::tempdir().unwrap();
    tree.write(place.path()).unwrap();
    for path in files {
        let file = place.path().join(&path);
        let good = fs::read(&file).unwrap();
        let half = good[..good.len() / 2].to_vec();
        for wrong in
            [&b""[..], b"\0\0", b"-1\n", b"\xf0\x28\x8c\x28", b"0xffffffffffffffffff", &half]
        {
            fs::write(&file, wrong).unwrap();
            let captured = capture(Some(place.path()), None);
            captured.unwrap_or_else(|error| panic!("{path}: {error}")).text(UNIX_EPOCH).unwrap();
        }
        fs::remove_file(&file).unwrap();
        capture(Some(place.path()), None).unwrap().text(UNIX_EPOCH).unwrap();
        fs::write(&file, good).unwrap();
    }
}
