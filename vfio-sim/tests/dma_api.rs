// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: `show --dma-api` says which addresses the kernel's own DMA API uses and which VFIO maps,
//! who takes the others, and why the two differ.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::PathBuf;
use std::process::Command;

/// A device of 32 bits with relaxable memory, behind a bridge that lets DMA through at two places.
const HOST: &str = r#"
[[iommu]]
[iommu.smmuv3]
input-bits = 48
output-bits = 48
granules = ["4K"]
isolated-msi = true
[[iommu.smmuv3.rmr]]
base = "0x90000000"
length = "1M"
remap-permitted = true
devices = ["0000:01:00.0"]

[[host-bridge]]
windows = ["0xc0000000-0xfebfffff"]
dma-ranges = ["0x100000000+4G", "0x80000000+1G"]

[[group]]
number = 1
[[group.device]]
name = "0000:01:00.0"
dma-mask-bits = 32
"#;

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-sim")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn show(name: &str, host: &str, arguments: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, host).unwrap();
    run(&[&["show", path.to_str().unwrap(), "--dma-api"], arguments].concat())
}

/// The verdicts on a range, and what stands behind them: `no yes page 0: ...`.
#[track_caller]
fn row(text: &str, range: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.split_whitespace().next() != Some(range));
    let words = lines.next().unwrap_or_else(|| panic!("{range} in\n{text}")).split_whitespace();
    let mut row: Vec<&str> = words.skip(1).collect();
    // What does not fit stands in lines without a range.
    row.extend(lines.take_while(|l| l.starts_with("     ")).flat_map(str::split_whitespace));
    row.join(" ")
}

#[test]
fn every_difference_is_shown_with_its_reason() {
    let text = show("bridge.toml", HOST, &[]);
    let rows = [
        (
            "0x0..0xfff",
            "no yes page 0: never given out; VFIO does not care outside dma-ranges: the host",
        ),
        ("0x1000..0x7ffffff", "no yes outside dma-ranges"),
        ("0x8000000..0x80fffff", "no no outside dma-ranges software MSI window: VFIO keeps it"),
        (
            "0x80000000..0x80000fff",
            "no yes edge of dma-ranges: the kernel reserves what lies below",
        ),
        ("0x80001000..0x8fffffff", "yes yes"),
        ("0x90000000..0x900fffff", "no yes relaxable direct region: mapped one to one while"),
        ("0x90100000..0xbfffffff", "yes yes"),
        ("0xc0000000..0xfebfffff", "no yes host bridge window: DMA there may reach a device"),
        ("0x100001000..0x1ffffffff", "no yes DMA mask, 32 bits"),
    ];
    for (range, expected) in rows {
        let row = row(&text, range);
        assert!(row.starts_with(expected), "{range}: {row}\nexpected {expected}\n{text}");
    }
    assert!(text.contains("dma-iommu gives out addresses from 0xbfffffff down\n"), "{text}");
    assert!(text.contains("VFIO owns a device it is not in that domain."), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn inbound_windows_that_overlap_are_the_kernels_einval() {
    let overlapping = HOST.replace("0x100000000+4G", "0xa0000000+1G");
    let text = show("overlap.toml", &overlapping, &[]);
    let expected =
        "EINVAL: the dma-ranges 0x80000000..0xbfffffff and 0xa0000000..0xdfffffff overlap";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn programs_get_the_same_as_json() {
    let text = show("json.toml", HOST, &["--json", "--reserve-dma-masks"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let device = &json["devices"][0];
    assert_eq!((&device["device"], &device["group"]), (&"0000:01:00.0".into(), &"1".into()));
    assert_eq!(device["first_below_4g"], "0xbfffffff");
    assert_eq!(device["usable"][0]["first"], "0x80001000");
    // By the policy of 2020 the mask is VFIO's limit, too.
    assert_eq!(device["valid"][1]["last"], "0xffffffff");
    let entries = device["entries"].as_array().unwrap();
    let relaxable = entries.iter().find(|entry| entry["first"] == "0x90000000").unwrap();
    assert_eq!((&relaxable["dma_api"], &relaxable["vfio"]), (&false.into(), &true.into()));
    assert_eq!(relaxable["reasons"][0]["who"], "relaxable direct region");
}

#[test]
fn the_display_of_igd_keeps_its_firmware_memory_from_the_dma_api_only() {
    let text = run(&["show", "igd", "--dma-api", "--devices", "0000:00:02.0"]);
    assert!(row(&text, "0xbf800000..0xcf9fffff").starts_with("no yes relaxable direct region"));
    assert!(row(&text, "0xfee00000..0xfeefffff").starts_with("no no MSI window"));
    assert!(!text.contains("0000:00:03.0"), "{text}");
    let text = run(&["show", "igd", "--dma-api", "--kernel", "2018-v6"]);
    assert!(row(&text, "0xbf800000..0xcf9fffff").starts_with("no no direct region"), "{text}");
    assert!(text.contains("the IOMMU driver gives out addresses from 0xffffffff down"), "{text}");
    // Devices that look the same share a table.
    let text = run(&["show", "igd", "--dma-api"]);
    assert!(text.contains("\n0000:00:1a.0 (group 4), 0000:00:1d.0 (group 5)\n"), "{text}");
    // The direct region keeps VFIO away altogether.
    assert!(text.contains("VFIO would not get the group: EINVAL"), "{text}");
}

#[test]
fn what_is_not_known_is_said() {
    let text = run(&["show", "qemu-virtio-q35", "--dma-api", "--kernel", "5.10"]);
    let expected = "the DMA API behind virtio-iommu on x86 in kernel 5.10 is not modelled";
    assert!(text.contains(expected), "{text}");
}
