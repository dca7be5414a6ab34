// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the kernel's VFIO selftests pass. They judge themselves; here is how many have to.

use crate::said::run;
use crate::tool::{ADDRESS, brought};

/// The variants that use a container.
const TYPE1: [&str; 4] = ["-v", "vfio_type1_iommu", "-v", "vfio_type1v2_iommu"];

/// Runs the variants of a test, of which `count` have to pass and none to fail or to be skipped. An I/OAT has a BAR
/// of more than a page, so that a part of it can be mapped.
#[track_caller]
fn passes(test: &str, variants: &[&str], count: usize) {
    let (Some(test), Some(run)) = (brought("selftests", test), run("ioat")) else { return };
    let said = run.program(test, [variants, &[ADDRESS]].concat()).ok();
    said.prints(&format!("# Totals: pass:{count} fail:0 xfail:0 xpass:0 skip:0 error:0"));
}

#[test]
fn memory_is_mapped_up_to_the_last_page() {
    // Others need huge pages of the machine's.
    let anonymous = ["-v", "vfio_type1_iommu_anonymous", "-v", "vfio_type1v2_iommu_anonymous"];
    passes("vfio_dma_mapping_test", &[&TYPE1[..], &anonymous].concat(), 8);
}

#[test]
fn bars_are_mapped_for_devices() {
    passes("vfio_dma_mapping_mmio_test", &TYPE1, 6);
}

#[test]
fn devices_are_opened_by_threads_at_once() {
    passes("vfio_pci_device_init_perf_test", &TYPE1, 2);
}

// vfio_pci_device_test and vfio_pci_driver_test open /dev/iommu first: they belong here when it is there, without
// variants.
