// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the tool's exit statuses, its one-line errors, and its JSON.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-sim")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Exit status 2, nothing on standard output, and one line that contains `expected`.
#[track_caller]
fn bad_input(arguments: &[&str], expected: &str) {
    let output = run(arguments);
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(stdout(&output), "");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(expected), "{message}\nlacks {expected}");
}

/// A file with this text, in a directory that is the test's own.
fn file(test: &str, name: &str, contents: &[u8]) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, contents).unwrap();
    path
}

#[test]
fn hosts_are_listed_a_line_each() {
    let output = run(&["hosts"]);
    assert_eq!(output.status.code(), Some(0));
    for name in ["vtd48", "vtd39", "igd", "amd", "amd-ivmd", "smmu"] {
        assert!(stdout(&output).lines().any(|line| line.starts_with(name)), "{name}");
    }
}

#[test]
fn show_is_plain_in_a_pipe() {
    let output = run(&["show", "igd", "--kernel", "2018-v6", "--devices", "0000:00:02.0"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(!text.contains('\x1b'), "{text}");
    for part in ["0x0..0xbf7fffff", "0xcfa00000..0xfedfffff", "MSI window, 1 MiB"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn show_speaks_json() {
    let output = run(&["show", "amd", "--json", "--devices", "0000:00:03.0,0000:00:04.0"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["kernel"], "7.3");
    assert_eq!(json["containers"][0]["groups"][1]["devices"][0]["name"], "0000:00:04.0");
    assert_eq!(json["containers"][0]["valid"][1]["last"], "0xfcffffffff");
}

#[test]
fn check_exits_by_its_verdict() {
    assert_eq!(run(&["check", "vtd48", "ram=0+2G"]).status.code(), Some(0));
    assert_eq!(run(&["check", "vtd48", "ram=0+4G"]).status.code(), Some(1));
    // AMD's hole, by name.
    let output = run(&["check", "amd", "low=0+2G", "high=4G+1T", "--devices", "0000:00:03.0"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("low   fits     0x0..0x7fffffff"), "{text}");
    assert!(text.contains("0xfd00000000..0xffffffffff of group 1 (0000:00:03.0)"), "{text}");
}

#[test]
fn check_speaks_json() {
    let output = run(&["check", "igd", "ram=0x100000-0xc00fffff", "--kernel", "2018-v6", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let display = &json["containers"][1];
    assert_eq!(display["devices"][0], "0000:00:02.0");
    let ram = &display["ranges"][0];
    assert_eq!((&ram["fits"], &ram["refusal"]["errno"]), (&false.into(), &"EINVAL".into()));
    assert_eq!(ram["parts_that_fit"][0]["last"], "0xbf7fffff");
    assert_eq!(json["containers"][2]["ranges"][0]["fits"], true);
}

#[test]
fn a_layout_meets_every_host_and_kernel() {
    let output = run(&["check", "--all-hosts", "--all-kernels", "ram=0+1T"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let row = |host: &str| {
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(host));
        row.unwrap_or_else(|| panic!("{host} in\n{text}")).split_whitespace().skip(1)
    };
    assert!(row("amd").eq("refused fits refused refused refused refused refused".split(' ')));
    let part = |host: &str| {
        let section = text.split("\n\n").find(|section| section.starts_with(&format!("{host}\n")));
        section.unwrap_or_else(|| panic!("{host} in\n{text}"))
    };
    // AMD names its hole, a client machine its width, and each the kernels that look.
    assert!(part("amd").contains("0xfd00000000..0xffffffffff of group 1 (0000:00:03.0)  ["));
    assert!(part("vtd39").contains("reaches outside 0x0..0x7fffffffff"));
    assert!(part("vtd39").contains("[2018-v6, 5.10 to 7.3]"), "{text}");
    assert!(part("amd-ivmd").contains("no device: EINVAL"), "{text}");

    // Hosts with nothing to assign do not count: an empty place on the widest of all others.
    let fits = run(&["check", "--all-hosts", "--kernel", "6.1", "0x100000000+8K"]);
    assert_eq!(fits.status.code(), Some(1), "the page of 64K");
    let fits = run(&["check", "amd-ivmd", "--all-kernels", "0x50000000+1M"]);
    assert_eq!(fits.status.code(), Some(0), "{}", stdout(&fits));
    let json = run(&["check", "igd", "--all-kernels", "--json", "0+1M"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[6]["kernel"], "7.3");
    bad_input(&["check", "vtd48"], "nothing to check");
}

#[test]
fn devices_asked_for_must_be_assignable() {
    let output = run(&["check", "igd", "0+4K", "--devices", "0000:00:04.0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("the firmware does DMA to the direct region"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn bad_usage_and_input_get_one_line() {
    bad_input(&["show", "vtd47"], "known are vtd48, vtd39");
    bad_input(&["show", "vtd48", "--kernel", "6.6"], "unknown kernel \"6.6\"; known are 2018-v6");
    bad_input(&["check", "vtd48", "5-4"], "ends below its start");
    bad_input(&["check", "vtd48", "ram=0+0"], "its size is 0");
    bad_input(&["check", "vtd48", "x=0-0xffffffffffffffff"], "whole 64-bit space");
    bad_input(&["check", "vtd48", "ram=0+1Q"], "\"1Q\" is not a number");
    bad_input(&["check", "vtd48", "0+1", "--devices", "0000:00:99.0"], "it has 0000:00:00.0");
    bad_input(&["show", "vtd48", "--device", "gpu"], "known are dma-engine, edu, ioat, nvme, peer");
    bad_input(&["show", "vtd48", "--device", "edu,bdf=00:00.0"], "0000:00:00.0 is a bridge");
    bad_input(&["show", "no/such/host.toml"], "no/such/host.toml: cannot read");
    bad_input(&["show", "/"], "cannot read");
    bad_input(&["replay", "no-such.trace"], "no-such.trace: cannot read");
}

#[test]
fn devices_are_placed_by_the_command_line() {
    let placed = ["--device", "edu,bdf=07:00.0", "--device", "peer", "--devices", "07:00.0"];
    let output = run(&[&["show", "vtd48"][..], &placed].concat());
    let text = stdout(&output);
    assert!(text.contains("group 5\n  device    0000:07:00.0  QEMU's educational"), "{text}");
    let output = run(&[&["check", "vtd48", "ram=0+2G"][..], &placed].concat());
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&run(&["check", "--all-hosts", "0+4K", "--device", "edu"]));
    assert!(text.contains("vtd48"), "{text}");
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [&[][..], &["check", "vtd48"], &["frobnicate"], &["replay"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn host_files_are_read_and_their_mistakes_placed() {
    let good = file("host_files", "mine.toml", include_bytes!("../hosts/vtd39.toml"));
    let output = run(&["show", good.to_str().unwrap()]);
    assert!(stdout(&output).starts_with("host mine"), "{}", stdout(&output));
    let bad = file("host_files", "bad.toml", b"[[iommu]]\ndriver = \"vtx\"\n");
    bad_input(&["show", bad.to_str().unwrap()], "bad.toml:2:10: unknown IOMMU \"vtx\"");
    let binary = file("host_files", "binary.toml", &[0xff, 0xfe, 0x00]);
    bad_input(&["show", binary.to_str().unwrap()], "cannot read");
}

#[test]
fn recordings_that_cannot_be_read_are_placed() {
    let header = "# kernel 6.12.1\n# iommu none\n# group 0: 0000:00:03.0\n";
    let trace = |name: &str, text: &[u8]| file("recordings", name, text);
    let cut = trace("cut.trace", format!("{header}container c => 0 0\n").as_bytes());
    bad_input(&["replay", cut.to_str().unwrap()], "line 4: cut off");
    let half = trace("half.trace", format!("{header}ioctl c 3b70 10").as_bytes());
    bad_input(&["replay", half.to_str().unwrap()], "line 4: cut off");
    let xz = include_bytes!("../../tests/traces/7.2-vtd48-edges.trace.xz");
    let cut = trace("cut.trace.xz", &xz[..xz.len() / 2]);
    bad_input(
        &["replay", cut.to_str().unwrap()],
        "line 1: the compressed data are cut off or damaged",
    );
    let fake = trace("fake.trace.xz", b"container c => 0 0\n");
    bad_input(
        &["replay", fake.to_str().unwrap()],
        "fake.trace.xz: line 1: a call stands before the header",
    );
}

#[test]
fn replay_exits_by_its_differences() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/traces/6.12-vtd48-edges.trace.xz");
    let same = run(&["replay", trace, trace]);
    assert_eq!(same.status.code(), Some(0));
    assert_eq!(stdout(&same), "2 traces, 102 calls, 0 differences\n");
    let other = run(&["replay", "--kernel", "7.2", "--differences", "1", trace]);
    assert_eq!(other.status.code(), Some(1));
    let text = stdout(&other);
    for part in
        ["VFIO_IOMMU_MAP_DMA", "kernel:   -1 EINVAL", "emulator: -1 EOVERFLOW", "rule:     "]
    {
        assert_eq!(text.matches(part).count(), 1, "{part} in\n{text}");
    }
}

#[test]
fn a_rendered_host_is_captured_into_a_file_that_show_takes() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("render");
    let _ = std::fs::remove_dir_all(&directory);
    let tree = directory.join("tree").display().to_string();
    let rendered = run(&["render", "lx2160a", &tree, "--kernel", "6.12"]);
    assert_eq!(rendered.status.code(), Some(0));
    assert_eq!(stdout(&rendered), "");
    bad_input(&["render", "lx2160a", &tree], "is not empty");
    let host = directory.join("mine.toml").display().to_string();
    let captured = run(&["capture", "--root", &tree, "-o", &host]);
    assert_eq!(captured.status.code(), Some(0));
    assert_eq!(stdout(&captured), "");
    let shown = run(&["show", &host, "--kernel", "6.12"]);
    assert!(stdout(&shown).contains("0x1000000..0x10ffffff"), "{}", stdout(&shown));
}

#[test]
fn what_cannot_be_captured_says_what_to_do() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("capture");
    std::fs::create_dir_all(directory.join("sys/kernel")).unwrap();
    let root = directory.display().to_string();
    bad_input(&["capture", "--root", &root], "sys/kernel");
    let log = ["capture", "--root", &root, "--log", "no-such-log"];
    bad_input(&log, "no-such-log: cannot read the log: there is no such file");
}

#[test]
fn check_tries_a_host_with_other_settings() {
    let check = |inject: &str| {
        let (ram, high) = ("ram=0+2G", "high=4G+3G");
        let output = run(&["check", "vtd48", ram, high, "--inject", inject]);
        (output.status.code(), stdout(&output))
    };
    let (status, text) = check("map:2");
    assert_eq!(status, Some(1));
    assert!(text.starts_with("host vtd48, kernel 7.3, with map:2\n"), "{text}");
    // Counted anew in each group's container; nothing is wrong with the layout.
    let refused = "high  refused  0x100000000..0x1bfffffff  ENOMEM\n        \
                   iova 0x100000000..0x1bfffffff is refused: ENOMEM, injected as map:2\n";
    assert_eq!(text.matches(refused).count(), 3, "{text}");
    assert!(!text.contains("fits of it") && !text.contains("a layout that fits"), "{text}");
    let (_, text) = check("entries:1");
    assert!(
        text.contains("ENOSPC\n        all 1 mappings that the limit allows are in use"),
        "{text}"
    );
    let (_, text) = check("allocation:1");
    let line = "  cannot be assigned: ENOMEM: no memory for the state of the driver; injected as";
    assert_eq!(text.matches(line).count(), 3, "{text}");
    assert_eq!(check("pages:0x200000").0, Some(0));
    assert_eq!(check("pages:0x100000000").0, Some(1));

    let table =
        run(&["check", "--host", "vtd48", "--host", "amd", "ram=0+2G", "--inject", "pin:1"]);
    let text = stdout(&table);
    assert!(text.contains("\neverywhere with pin:1\n"), "{text}");
    assert_eq!(text.matches("EFAULT, injected as pin:1").count(), 2, "{text}");
    let json = run(&["check", "vtd48", "ram=0+2G", "--inject", "map:1=ENOSPC", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["inject"], "map:1=ENOSPC");
    let range = &json["containers"][1]["ranges"][0];
    assert_eq!((&range["fits"], &range["refusal"]["errno"]), (&false.into(), &"ENOSPC".into()));
    bad_input(&["check", "vtd48", "0+1G", "--inject", "mop:1"], "\"mop:1\" is no setting; write");
    bad_input(&["check", "vtd48", "0+1G", "--inject", "map:0"], "is 0; count from 1");
}

#[test]
fn a_host_file_states_the_limit_of_mappings() {
    let host = "dma-entry-limit = 2\n[[iommu]]\ndriver = \"vtd\"\naperture = \"0-0xffffffffff\"\n\
                page-sizes = \"4K\"\ncoherent = false\nisolated-msi = true\n[[group]]\n\
                number = 1\n[[group.device]]\nname = \"0000:00:03.0\"\n";
    let path = file("limit", "small.toml", host.as_bytes());
    let path = path.to_str().unwrap();
    let output = run(&["check", path, "0+1M", "1M+1M", "2M+1M"]);
    assert!(stdout(&output).contains("all 2 mappings"), "{}", stdout(&output));
    assert_eq!(
        run(&["check", path, "0+1M", "1M+1M", "2M+1M", "--inject", "entries:3"]).status.code(),
        Some(0)
    );
    let bad = file("limit", "bad.toml", host.replace("= 2\n", "= -1\n").as_bytes());
    bad_input(&["check", bad.to_str().unwrap(), "0+1M"], "bad.toml:1:19: ");
}
