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
    selection.assign(&vfio).ok().map(|assigned| assigned.container.info().unwrap())
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

/// The valid ranges that a host's device has by itself.
fn valid(host: &str, kernel: Kernel, device: &str) -> String {
    let info = info(&hosts::find(host).unwrap(), kernel, device);
    let ranges = info.unwrap_or_else(|| panic!("{host}: {device}")).iova_ranges;
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn hosts_that_are_not_recorded_have_the_ranges_their_facts_mean() {
    let nic = "0000:01:00.0";
    let below = "0x0..0xfedfffff 0xfef00000.";
    let hole = "0x0..0xfedfffff 0xfef00000..0xfcffffffff 0x10000000000.";
    let arm = "0x0..0x7ffffff 0x8100000.";
    let hisi = "0x0..0x7ffffff 0x8100000..0xc600ffff 0xc6020000.";
    let cases = [
        ("intel-client-39-igd", "0000:00:02.0", Kernel::V6_12, below, "0x7fffffffff"),
        ("intel-haswell-39", "0000:00:02.0", Kernel::V6_12, below, "0x7fffffffff"),
        ("intel-client-39-igd", nic, Kernel::V6_12, below, "0x7fffffffff"),
        ("intel-sandybridge", "0000:00:02.0", Kernel::V6_1, below, "0x7fffffffff"),
        ("intel-xeon-48", "0000:00:14.0", Kernel::V7_3, below, "0xffffffffffff"),
        ("intel-xeon-57", nic, Kernel::V7_3, below, "0x1ffffffffffffff"),
        ("amd-57", nic, Kernel::V6_12, hole, "0xffffffffffffffff"),
        ("amd-57", nic, Kernel::V7_3, hole, "0x1ffffffffffffff"),
        ("amd-64", nic, Kernel::V7_3, hole, "0xffffffffffffffff"),
        ("amd-no-hole", nic, Kernel::V6_12, hole, "0xffffffffffffffff"),
        ("amd-no-hole", nic, Kernel::V7_2, below, "0xffffffffffff"),
        ("smmu-64k", nic, Kernel::V7_3, arm, "0xffffffffffff"),
        ("hisi-d05", nic, Kernel::V7_3, hisi, "0xffffffffffff"),
        ("lx2160a", nic, Kernel::V7_3, arm, "0xffffffffffff"),
        ("tegra-smmuv2-39", nic, Kernel::V7_3, arm, "0x7fffffffff"),
        ("qemu-virtio-q35", nic, Kernel::V6_12, below, "0x7fffffffff"),
        ("qemu-virtio-arm", nic, Kernel::V6_12, "0x0..0x808ffff 0x80a0000.", "0xffffffffffff"),
    ];
    for (host, device, kernel, first, last) in cases {
        assert_eq!(valid(host, kernel, device), format!("{first}.{last}"), "{host}, {kernel}");
    }
    // The 2018 series cut the displays' RMRRs out.
    assert_eq!(
        valid("intel-client-39-igd", Kernel::SERIES_2018_V6, "0000:00:02.0"),
        "0x0..0x63ffffff 0x68800000..0xfedfffff 0xfef00000..0x7fffffffff"
    );
    let altra = hosts::find("smmu-64k").unwrap();
    assert_eq!(info(&altra, Kernel::V7_3, nic).unwrap().page_sizes.0, 0x2001_0000);
    let haswell = hosts::find("intel-haswell-39").unwrap();
    let page_sizes = |kernel| info(&haswell, kernel, "0000:00:02.0").unwrap().page_sizes.0;
    assert_eq!((page_sizes(Kernel::V5_10), page_sizes(Kernel::V6_1)), (!0xfff, 0x1000));
}
