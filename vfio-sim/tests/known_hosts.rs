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
