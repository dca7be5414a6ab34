// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a rendered host, captured again, is the same to VFIO under that kernel, and renders the
//! same tree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::time::UNIX_EPOCH;

use vfio_sim::assign::Selection;
use vfio_sim::capture::{Captured, capture};
use vfio_sim::host::{Host, HostGroup, HostGroupKind};
use vfio_sim::render::{self, Node, Tree};
use vfio_sim::{host_file, hosts};
use vfio_type1::{Info, Kernel};

/// Bridges, BARs, ROMs, masks, emulated and noiommu groups, which few of the known hosts have.
const VARIETY: &str = r#"
    allow-unsafe-interrupts = true
    dma-entry-limit = 512
    [[iommu]]
    name = "dmar0"
    [iommu.vtd]
    capability = "0xd2008c222f0686"
    snoop-control = true
    interrupt-remapping = false
    [[iommu.vtd.rmrr]]
    range = "0x1000-0x1fff"
    devices = ["0000:00:1c.0"]
    [[host-bridge]]
    buses = "00-7f"
    windows = ["0xc0000000-0xfebfffff", "0x4000000000-0x7fffffffff"]
    [[host-bridge]]
    buses = "80-ff"
    [[group]]
    number = 2
    [[group.device]]
    name = "0000:00:1c.0"
    driver = "pcieport"
    class = "0x060400"
    buses = "01-02"
    [[group.device]]
    name = "0000:01:00.0"
    driver = "none"
    class = "0x060400"
    buses = "02-02"
    [[group.device]]
    name = "0000:02:00.0"
    vendor = "0x10de"
    device = "0x2684"
    class = "0x030000"
    bars = { 0 = "0xc0000000+16M", 1 = "0x4000000000+32G 64-bit prefetchable", 3 = "0xd0000000+32M prefetchable", 5 = "0x5000+128 io", rom = "0xc1000000+512K" }
    [[group]]
    number = 10
    [[group.device]]
    name = "0000:80:00.0"
    vendor = "0x8086"
    device = "0x10c9"
    class = "0x020000"
    driver = "igb"
    dma-mask-bits = 64
    bars = { 4 = "0xfebc0000+16K 64-bit" }
    [[group]]
    number = 11
    kind = "emulated"
    [[group.device]]
    name = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    [[group]]
    number = 12
    kind = "noiommu"
    [[group.device]]
    name = "0000:03:00.0"
    class = "0x010802"
"#;

/// Hosts of which the files do not tell everything, by the beginnings of their names.
const UNTOLD: [&str; 2] = ["s390-", "riscv-"];

/// What AMD-Vi has beside its registers.
const NARROW_AMD: &str = r#"
    page-size = "16K"
    [[iommu]]
    [iommu.amd]
    table-levels = 6
    virtual-address-bits = 48
    interrupt-remapping = false
    [[iommu.amd.ivmd]]
    start = "0x40000000"
    length = "1M"
    [[group]]
    number = 0
    [[group.device]]
    name = "0000:01:00.0"
    [[group.device]]
    name = "0000:01:00.1"
    driver = "snd_hda_intel"
"#;

fn all_hosts() -> impl Iterator<Item = Host> {
    let parse = |name, text| host_file::parse(name, "text.toml", text).unwrap();
    let ours = [parse("variety", VARIETY), parse("narrow-amd", NARROW_AMD)];
    hosts::known().map(Result::unwrap).chain(ours)
}

/// What GET_INFO says for one group alone, or why it cannot be assigned.
fn info(host: &Host, group: &HostGroup, kernel: Kernel) -> Result<Info, String> {
    let vfio = host.boot(kernel).unwrap();
    let selection = Selection::of_devices(host, &[group.devices[0].name.clone()]).unwrap();
    let assigned = selection.assign(&vfio).map_err(|refusal| format!("{refusal:?}"))?;
    assigned.container.info().map_err(|error| error.to_string())
}

/// What a program can tell of a group.
fn facts(host: &Host, group: &HostGroup, kernel: Kernel) -> String {
    // A mask that nobody has set is the kernel's default.
    let mut devices = group.devices.clone();
    for device in &mut devices {
        device.pci.dma_mask_bits.get_or_insert(32);
    }
    let devices: Vec<_> =
        devices.iter().map(|device| (&device.name, &device.driver, &device.pci)).collect();
    let kind = match group.kind {
        HostGroupKind::Iommu(_) => "iommu",
        HostGroupKind::Emulated => "emulated",
        HostGroupKind::NoIommu => "noiommu",
    };
    let vfio = host.boot(kernel).unwrap();
    let regions = vfio.reserved_regions(group.id()).unwrap();
    let aperture = host.aperture(group, &kernel);
    let info = info(host, group, kernel);
    format!("{kind} {}\n{devices:#?}\n{regions}{aperture:?}\n{info:#?}", group.number)
}

fn round_trips(kernel: Kernel) {
    for host in all_hosts() {
        let case = format!("{} under {kernel}", host.name);
        let place = tempfile::tempdir().unwrap();
        let rendered = render::tree(&host, kernel).unwrap();
        // s390 and RISC-V show their widths nowhere; of others everything can be told.
        if UNTOLD.iter().any(|untold| host.name.starts_with(untold)) {
            assert!(!rendered.notes.is_empty(), "{case}");
            continue;
        }
        assert_eq!(rendered.notes, Vec::<String>::new(), "{case}");
        assert_eq!(rendered.tree.write(place.path()).unwrap(), Vec::<String>::new(), "{case}");
        let captured = capture(Some(place.path()), None).unwrap();
        assert_eq!(captured.host.groups.len(), host.groups.len(), "{case}");
        for group in &host.groups {
            let same = |other: &&HostGroup| other.id() == group.id();
            let other = captured.host.groups.iter().find(same).unwrap();
            assert_eq!(facts(&captured.host, other, kernel), facts(&host, group, kernel), "{case}");
        }
        let again = render::tree(&captured.host, kernel).unwrap().tree;
        assert_same(&again, &rendered.tree, &case);
        reads_back(&captured);
    }
}

// Kernels of each way to show things: feature registers, domain types, lists cut at a page.

#[test]
fn captured_hosts_are_the_rendered_ones_under_the_series_of_2018() {
    round_trips(Kernel::SERIES_2018_V6);
}

#[test]
fn captured_hosts_are_the_rendered_ones_under_5_10() {
    round_trips(Kernel::V5_10);
}

#[test]
fn captured_hosts_are_the_rendered_ones_under_6_1() {
    round_trips(Kernel::V6_1);
}

#[test]
fn captured_hosts_are_the_rendered_ones_under_6_12() {
    round_trips(Kernel::V6_12);
}

#[test]
fn captured_hosts_are_the_rendered_ones_under_7_3() {
    round_trips(Kernel::V7_3);
}

/// Compares node by node: a difference between whole trees cannot be read.
fn assert_same(one: &Tree, other: &Tree, case: &str) {
    let show = |(path, node): (&str, &Node)| match node {
        Node::File(content) => format!("{path}: {}", String::from_utf8_lossy(content)),
        other => format!("{path}: {other:?}"),
    };
    for (one, other) in one.nodes().zip(other.nodes()) {
        assert_eq!(show(one), show(other), "{case}");
    }
    assert!(one == other, "{case}: one tree has more files");
}

/// The host file that a user gets is the host that was captured.
fn reads_back(captured: &Captured) {
    let text = captured.text(UNIX_EPOCH).unwrap();
    let host = host_file::parse(&captured.host.name, "captured.toml", &text).unwrap();
    assert_eq!(host, captured.host);
}
