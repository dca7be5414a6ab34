// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: with the policy of 2020 on, what a device's DMA mask or its IOMMU leaves out is reserved,
//! shown, cut from the valid list, and blamed on that device. Without it nothing changes.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use vfio_sim::host_file;
use vfio_type1::{GroupId, Kernel};

/// Two devices in one group behind 48 bits: one with 42, one that states no mask.
const HOST: &str = r#"
[[iommu]]
driver = "vtd"
aperture = "0x1000-0xffffffffffff"
page-sizes = "0x40201000"
coherent = false
isolated-msi = true

[[group]]
number = 1
[[group.device]]
name = "0000:00:03.0"
dma-mask-bits = 42
regions = ["0xfee00000-0xfeefffff msi"]
[[group.device]]
name = "0000:00:04.0"
regions = ["0xfee00000-0xfeefffff msi"]
"#;

const LOW: &str = "0x0000000000000000 0x0000000000000fff reserved\n\
                   0x00000000fee00000 0x00000000feefffff msi\n";
const MASK: &str = "0x0000040000000000 0xffffffffffffffff reserved\n";
const APERTURE: &str = "0x0001000000000000 0xffffffffffffffff reserved\n";

fn sysfs(text: &str) -> String {
    let host = host_file::parse("masks", "masks.toml", text).unwrap();
    host.boot(Kernel::V6_12).unwrap().reserved_regions(GroupId::Numbered(1)).unwrap()
}

#[test]
fn sysfs_lists_what_is_out_of_reach() {
    let on = sysfs(&format!("reserve-dma-masks = true\n{HOST}"));
    assert_eq!(on, format!("{LOW}{MASK}{APERTURE}"));
    assert_eq!(sysfs(HOST), "0x00000000fee00000 0x00000000feefffff msi\n");
}

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("masks.toml");
    std::fs::write(&path, HOST).unwrap();
    path
});

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-sim"));
    command.arg(arguments[0]).arg(&*FILE).args(&arguments[1..]);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_tool_takes_the_switch() {
    let (_, off) = run(&["show"]);
    assert!(off.contains("valid     0xfef00000..0xffffffffffff\n"), "{off}");
    let (_, on) = run(&["show", "--reserve-dma-masks"]);
    assert!(on.contains("valid     0xfef00000..0x3ffffffffff\n"), "{on}");
    assert!(on.contains("kernel 7.3, reserving what DMA masks and apertures leave out"), "{on}");
}

#[test]
fn a_refusal_says_whose_mask_it_is() {
    assert_eq!(run(&["check", "high=4T+1G"]).0, Some(0));
    let (code, text) = run(&["check", "high=4T+1G", "--reserve-dma-masks"]);
    assert_eq!(code, Some(1));
    let blame =
        "touches the reserved region 0x40000000000..0xffffffffffffffff of group 1 (0000:00:03.0)";
    assert!(text.contains(blame), "{text}");
    let json = run(&["check", "high=4T+1G", "--reserve-dma-masks", "--json"]).1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["reserve_dma_masks"], &json["fits"]), (&true.into(), &false.into()));
}
