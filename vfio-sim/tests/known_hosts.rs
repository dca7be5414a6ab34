// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the known hosts, described by firmware facts, are the recorded ones: each group's
//! `reserved_regions`, aperture and page sizes, on each kernel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::Path;

use vfio_sim::assign::Selection;
use vfio_sim::host::{Host, HostGroupKind};
use vfio_sim::hosts;
use vfio_sim::trace::Trace;
use vfio_type1::{Info, Kernel};

/// The known host that a recording was made on, by the recording's name.
fn recorded_host(recording: &str) -> Option<Host> {
    let name = recording.split_once('-')?.1;
    let known = [
        ("vtd48-", "vtd48"),
        ("vtd39-", "vtd39"),
        ("igd-", "igd"),
        ("amd-ivmd-", "amd-ivmd"),
        ("amd-", "amd"),
        ("arm64-smmu-", "smmu"),
    ];
    let (_, host) = known.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
    Some(hosts::find(host).unwrap())
}

/// What GET_INFO says for one group alone, if it can be assigned.
fn info(host: &Host, kernel: Kernel, device: &str) -> Option<Info> {
    let vfio = host.boot(kernel).unwrap();
    let selection = Selection::of_devices(host, &[device.to_owned()]).unwrap();
    selection.assign(&vfio).ok()?.container.info().ok()
}

#[test]
fn facts_give_what_was_recorded_on_each_kernel() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
    let (mut compared, mut kernels) = (0, Vec::new());
    for entry in std::fs::read_dir(traces).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(ours) = recorded_host(&name) else { continue };
        let trace = Trace::load(&path).unwrap();
        let (kernel, theirs) = (trace.kernel, &trace.host);
        let (our_vfio, their_vfio) = (ours.boot(kernel).unwrap(), theirs.boot(kernel).unwrap());
        let groups = theirs.groups.iter().filter(|g| matches!(g.kind, HostGroupKind::Iommu(_)));
        for group in groups {
            let device = &group.devices[0].name;
            // Some hosts were recorded with fewer devices; numbers follow the devices.
            let Some((our_group, _)) = ours.device(device) else { panic!("{name}: {device}") };
            let regions = our_vfio.reserved_regions(our_group.id());
            assert_eq!(regions, their_vfio.reserved_regions(group.id()), "{name}: {device}");
            let nic = ours.device(device).unwrap().1.description == "NIC";
            if nic && group.devices.len() == 1 {
                assert_eq!(info(&ours, kernel, device), info(theirs, kernel, device), "{name}");
            }
            compared += 1;
        }
        kernels.push(kernel.name());
    }
    kernels.sort_unstable();
    kernels.dedup();
    assert_eq!(kernels, ["5.10", "6.1", "6.12", "7.2", "7.3"]);
    assert!(compared > 300, "{compared}");
}

/// What VFIO makes of each known host, worked out from its facts: a device, and its valid list from a
/// kernel on (the next line of the host takes over from there). The device has a container of its own.
const EXPECTED: &[(&str, &str, &str, &str)] = &[
    ("vtd48", "0000:00:03.0", "2018-v6", X86_48),
    ("vtd39", "0000:00:03.0", "2018-v6", X86_39),
    (
        "igd",
        "0000:00:02.0",
        "2018-v6",
        "0x0..0xbf7fffff 0xcfa00000..0xfedfffff 0xfef00000..0xffffffffffff",
    ),
    ("igd", "0000:00:02.0", "5.10", X86_48),
    ("igd", "0000:00:04.0", "2018-v6", NO_DEVICE),
    ("amd", "0000:00:03.0", "2018-v6", AMD_64),
    ("amd", "0000:00:03.0", "7.2", AMD_48),
    ("amd-ivmd", "0000:00:03.0", "2018-v6", AMD_IVMD),
    ("amd-ivmd", "0000:00:03.0", "6.12", NO_DEVICE),
    ("smmu", "0000:00:03.0", "2018-v6", ARM_48),
    (
        "igd-57",
        "0000:00:02.0",
        "2018-v6",
        "0x0..0xbf7fffff 0xcfa00000..0xfedfffff 0xfef00000..0x1ffffffffffffff",
    ),
    ("igd-57", "0000:00:02.0", "5.10", X86_57),
    (
        "intel-client-39-igd",
        "0000:00:02.0",
        "2018-v6",
        "0x0..0x63ffffff 0x68800000..0xfedfffff 0xfef00000..0x7fffffffff",
    ),
    ("intel-client-39-igd", "0000:00:02.0", "5.10", X86_39),
    ("intel-client-39-igd", "0000:01:00.0", "2018-v6", X86_39),
    ("intel-haswell-39", "0000:00:02.0", "5.10", X86_39),
    (
        "intel-client-39-cml",
        "0000:00:14.0",
        "2018-v6",
        "0x0..0xae74efff 0xae76f000..0xfedfffff 0xfef00000..0x7fffffffff",
    ),
    ("intel-client-39-cml", "0000:00:14.0", "5.10", X86_39),
    ("intel-client-39-cml", "0000:00:02.0", "5.10", X86_39),
    ("intel-client-39-glk", "0000:00:02.0", "5.10", X86_39),
    ("intel-client-39-glk", "0000:00:15.0", "5.10", X86_39),
    ("intel-sandybridge", "0000:00:02.0", "5.10", X86_39),
    ("intel-isa-bridge", "0000:00:1f.3", "2018-v6", X86_39),
    ("intel-client-42", "0000:01:00.0", "2018-v6", "0x0..0xfedfffff 0xfef00000..0x3ffffffffff"),
    ("intel-xeon-48", "0000:00:14.0", "5.10", X86_48),
    ("intel-xeon-48", "0000:01:00.0", "2018-v6", X86_48),
    ("intel-xeon-57", "0000:01:00.0", "2018-v6", X86_57),
    ("intel-fs-47", "0000:01:00.0", "2018-v6", X86_48),
    ("intel-fs-47", "0000:01:00.0", "5.10", "0x0..0xfedfffff 0xfef00000..0x7fffffffffff"),
    ("intel-fs-47", "0000:01:00.0", "6.1", X86_48),
    ("intel-fs-47", "0000:01:00.0", "7.2", "0x0..0xfedfffff 0xfef00000..0x7fffffffffff"),
    ("intel-fs-56", "0000:01:00.0", "2018-v6", X86_57),
    ("intel-fs-56", "0000:01:00.0", "5.10", "0x0..0xfedfffff 0xfef00000..0xffffffffffffff"),
    ("hp-proliant-rmrr", "0000:03:00.0", "2018-v6", NO_DEVICE),
    ("amd-57", "0000:01:00.0", "2018-v6", AMD_64),
    ("amd-57", "0000:01:00.0", "7.2", AMD_57),
    ("amd-64", "0000:01:00.0", "2018-v6", AMD_64),
    ("amd-no-hole", "0000:01:00.0", "2018-v6", AMD_64),
    ("amd-no-hole", "0000:01:00.0", "7.2", X86_48),
    ("amd-v2-47", "0000:01:00.0", "2018-v6", AMD_64),
    ("amd-v2-47", "0000:01:00.0", "6.1", AMD_48),
    (
        "amd-v2-47",
        "0000:01:00.0",
        "6.12",
        "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000..0x7fffffffffff",
    ),
    ("amd-v2-56", "0000:01:00.0", "2018-v6", AMD_64),
    ("amd-v2-56", "0000:01:00.0", "6.1", AMD_48),
    (
        "amd-v2-56",
        "0000:01:00.0",
        "6.12",
        "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000..0xffffffffffffff",
    ),
    ("smmu-64k", "0000:01:00.0", "2018-v6", ARM_48),
    ("smmuv3-52", "0000:01:00.0", "2018-v6", "0x0..0x7ffffff 0x8100000..0xfffffffffffff"),
    ("nvidia-grace", "0009:01:00.0", "2018-v6", ARM_48),
    (
        "hisi-d05",
        "0000:01:00.0",
        "2018-v6",
        "0x0..0x7ffffff 0x8100000..0xc600ffff 0xc6020000..0xffffffffffff",
    ),
    ("lx2160a", "0000:01:00.0", "2018-v6", ARM_48),
    ("tegra-smmuv2-39", "0000:01:00.0", "2018-v6", "0x0..0x7ffffff 0x8100000..0x7fffffffff"),
    ("qemu-virt-smmuv3", "0000:00:02.0", "2018-v6", "0x0..0x7ffffff 0x8100000..0xfffffffffff"),
    ("qemu-virtio-q35", "0000:01:00.0", "2018-v6", X86_39),
    ("qemu-virtio-arm", "0000:01:00.0", "2018-v6", "0x0..0x808ffff 0x80a0000..0xffffffffffff"),
    (
        "cloud-hypervisor-viommu",
        "0000:00:05.0",
        "2018-v6",
        "0x0..0xfedfffff 0xfef00000..0x3ffffffffff",
    ),
    ("apple-dart-t8103", "0000:01:00.0", "2018-v6", NO_DEVICE),
    ("apple-dart-t8103", "0000:01:00.0", "6.1", "0x0..0xffffbfff"),
    ("apple-dart-t8110", "0000:01:00.0", "2018-v6", NO_DEVICE),
    ("apple-dart-t8110", "0000:01:00.0", "6.1", "0x0..0xffffbfff 0x100000000..0x3ffffffffff"),
    ("s390-zpci", "0000:00:00.0", "2018-v6", "0x100000000..0x4ffffffff"),
    ("riscv-sv39", "0000:01:00.0", "2018-v6", NO_DEVICE),
    ("riscv-sv39", "0000:01:00.0", "7.2", "0x0..0x3fffffffff"),
    ("riscv-sv48", "0000:01:00.0", "7.2", "0x0..0x7fffffffffff"),
    ("riscv-sv57", "0000:01:00.0", "7.2", "0x0..0xffffffffffffff"),
    ("noiommu", "0000:00:04.0", "2018-v6", NO_DEVICE),
];

const X86_39: &str = "0x0..0xfedfffff 0xfef00000..0x7fffffffff";
const X86_48: &str = "0x0..0xfedfffff 0xfef00000..0xffffffffffff";
const X86_57: &str = "0x0..0xfedfffff 0xfef00000..0x1ffffffffffffff";
const AMD_48: &str = "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000..0xffffffffffff";
const AMD_57: &str = "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000..0x1ffffffffffffff";
const AMD_64: &str = "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000..0xffffffffffffffff";
const AMD_IVMD: &str = "0x0..0x3fffffff 0x40100000..0xfedfffff 0xfef00000..0xfcffffffff \
                        0x10000000000..0xffffffffffffffff";
const ARM_48: &str = "0x0..0x7ffffff 0x8100000..0xffffffffffff";
const NO_DEVICE: &str = "no device";

/// The kernels that keep a valid list, oldest first.
fn kernels_with_list() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.behaviours().valid_iova_list)
}

/// The valid ranges that a host's device has by itself.
fn valid(host: &Host, kernel: Kernel, device: &str) -> String {
    let Some(info) = info(host, kernel, device) else { return NO_DEVICE.to_owned() };
    info.iova_ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_host_has_the_valid_list_its_facts_mean() {
    for host in hosts::known().map(Result::unwrap) {
        assert!(!host.source.is_empty(), "{} does not say where it is from", host.name);
        let lines = || EXPECTED.iter().filter(|line| line.0 == host.name);
        assert!(lines().next().is_some(), "{} has no expectation", host.name);
        let mut devices: Vec<&str> = lines().map(|line| line.1).collect();
        devices.dedup();
        for device in devices {
            let mut expected = None;
            for kernel in kernels_with_list() {
                let mut starts = lines().filter(|line| line.1 == device);
                let start = starts.find(|line| line.2 == kernel.name());
                expected = start.map(|line| line.3).or(expected);
                let Some(expected) = expected else { continue };
                assert_eq!(valid(&host, kernel, device), expected, "{}, {kernel}", host.name);
            }
            assert!(expected.is_some(), "{}: {device} is not looked at", host.name);
        }
    }
    assert!(hosts::names().len() >= 30);
}

#[test]
fn page_sizes_follow_cpu_and_hardware() {
    let of = |host: &str, kernel, device| {
        info(&hosts::find(host).unwrap(), kernel, device).unwrap().page_sizes.0
    };
    let nic = "0000:01:00.0";
    assert_eq!(of("smmu-64k", Kernel::V7_3, nic), 0x2001_0000);
    assert_eq!(of("smmuv3-52", Kernel::V7_3, nic), 0x400_2001_0000);
    assert_eq!(of("amd-v2-47", Kernel::V6_12, nic), 0xf_ff7f_ffff_f000);
    assert_eq!(of("amd-v2-47", Kernel::V7_3, nic), 0x4020_1000);
    assert_eq!(of("apple-dart-t8103", Kernel::V7_3, nic), 0x4000);
    assert_eq!(of("s390-zpci", Kernel::V6_1, "0000:00:00.0"), !0xfff);
    assert_eq!(of("s390-zpci", Kernel::V6_12, "0000:00:00.0"), 0x1000);
    assert_eq!(of("cloud-hypervisor-viommu", Kernel::V7_3, "0000:00:05.0"), 0x20_1000);
    let haswell = |kernel| of("intel-haswell-39", kernel, "0000:00:02.0");
    assert_eq!((haswell(Kernel::V5_10), haswell(Kernel::V6_1)), (!0xfff, 0x1000));
}
