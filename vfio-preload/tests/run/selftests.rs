// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the kernel's VFIO selftests pass. They judge themselves; here is how many have to.

use crate::said::run;
use crate::tool::{ADDRESS, brought};

/// Runs a test, of which `count` variants have to pass and none to fail or to be skipped. An I/OAT has a BAR of more
/// than a page, so that a part of it can be mapped, and the selftests have a driver for it.
#[track_caller]
fn passes(test: &str, options: &[&str], count: usize) {
    let (Some(test), Some(run)) = (brought("selftests", test), run("ioat")) else { return };
    let said = run.program(test, [options, &[ADDRESS]].concat()).ok();
    said.prints(&format!("# Totals: pass:{count} fail:0 xfail:0 xpass:0 skip:0 error:0"));
}

/// The ways to map memory: a container, an iommufd that takes a container's calls, and its own calls.
const MODES: [&str; 5] = [
    "vfio_type1_iommu",
    "vfio_type1v2_iommu",
    "iommufd_compat_type1",
    "iommufd_compat_type1v2",
    "iommufd",
];

#[test]
fn memory_is_mapped_up_to_the_last_page() {
    // The other variants need huge pages of the machine's.
    let anonymous = MODES.map(|mode| format!("{mode}_anonymous"));
    let variants = MODES.into_iter().chain(anonymous.iter().map(String::as_str));
    let options: Vec<&str> = variants.flat_map(|variant| ["-v", variant]).collect();
    passes("vfio_dma_mapping_test", &options, 20);
}

#[test]
fn bars_are_mapped_for_devices() {
    passes("vfio_dma_mapping_mmio_test", &[], 15);
}

#[test]
fn devices_are_opened_by_threads_at_once() {
    passes("vfio_pci_device_init_perf_test", &[], 5);
}

#[test]
fn a_device_has_configuration_bars_interrupts_and_reset() {
    passes("vfio_pci_device_test", &[], 5);
}

#[test]
fn a_driver_copies_and_takes_interrupts() {
    // Each of the 14 has a gigabyte brought in and mapped, which takes a second; the other modes do the same.
    passes("vfio_pci_driver_test", &["-v", "vfio_type1v2_iommu", "-v", "iommufd"], 14);
}

#[test]
fn devices_are_bound_to_an_iommufd() {
    passes("vfio_iommufd_setup_test", &[], 6);
}
