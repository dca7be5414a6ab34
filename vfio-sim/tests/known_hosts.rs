// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the hosts that are known by name have the regions and valid ranges of the recorded ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::Path;

use vfio_sim::hosts;
use vfio_sim::trace::Trace;
use vfio_type1::{GroupId, Kernel, Vfio};

fn sysfs(vfio: &Vfio) -> Vec<(GroupId, String)> {
    vfio.groups().map(|id| (id, vfio.reserved_regions(id).unwrap())).collect()
}

/// Each host against the header of a recording on each kernel.
#[test]
fn known_hosts_are_the_recorded_ones() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
    let mut compared = 0;
    for name in ["vtd48", "vtd39", "igd", "amd", "amd-ivmd", "smmu"] {
        let host = hosts::find(name).unwrap();
        for kernel in Kernel::ALL {
            let prefix = if name == "smmu" { "arm64-smmu" } else { name };
            let path = traces.join(format!("{kernel}-{prefix}-v3-1.trace.xz"));
            if !path.exists() {
                continue;
            }
            let recorded = Trace::load(&path).unwrap().host;
            let ours = sysfs(&host.boot(kernel).unwrap());
            assert_eq!(ours, sysfs(&recorded.boot(kernel).unwrap()), "{name}, {kernel}");
            for (ours, theirs) in host.groups.iter().zip(&recorded.groups) {
                let names = |group: &vfio_sim::host::HostGroup| -> Vec<String> {
                    group.devices.iter().map(|device| device.name.clone()).collect()
                };
                assert_eq!(names(ours), names(theirs), "{name}, {kernel}");
                let context = format!("{name}, {kernel}");
                assert_eq!(
                    host.aperture(ours, &kernel),
                    recorded.aperture(theirs, &kernel),
                    "{context}"
                );
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 4 + 1);
}
