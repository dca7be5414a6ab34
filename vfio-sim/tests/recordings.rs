// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the emulator gives the answers of the recorded kernels, byte for byte.
//!
//! `tests/traces` holds recordings of Debian 5.10, 6.1, 6.12 and 7.2 and of a 7.3 kernel on VT-d,
//! AMD-Vi, SMMUv3, virtio-iommu, with emulated groups, without an IOMMU, and on iommufd.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::{Path, PathBuf};

use vfio_sim::replay::replay;
use vfio_sim::trace::Trace;
use vfio_type1::Kernel;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces")
}

fn recordings() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory()).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_recording_replays_without_a_difference() {
    let mut calls = 0;
    for path in recordings() {
        let trace = Trace::load(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let outcome = replay(&trace, trace.kernel).unwrap();
        assert_eq!(outcome.differences.first(), None, "{path:?}");
        calls += outcome.calls;
    }
    assert!(calls > 100_000, "only {calls} calls were replayed: are the recordings there?");
}

#[test]
fn every_kernel_and_kind_of_iommu_is_recorded() {
    let traces: Vec<Trace> = recordings().iter().map(|path| Trace::load(path).unwrap()).collect();
    for kernel in [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::V7_2, Kernel::V7_3] {
        assert!(traces.iter().any(|trace| trace.kernel == kernel), "{kernel}");
    }
    for name in ["vtd", "amd", "smmuv3", "virtio"] {
        let uses = |trace: &Trace| trace.host.iommus.iter().any(|iommu| iommu.name == name);
        assert!(traces.iter().any(uses), "{name}");
    }
}

#[test]
fn another_kernel_gives_other_answers() {
    let trace = Trace::load(&directory().join("6.12-vtd48-edges.trace.xz")).unwrap();
    let outcome = replay(&trace, Kernel::V7_2).unwrap();
    // Ranges that wrap around became EOVERFLOW in 6.18.
    assert!(outcome.differences.iter().all(|d| d.emulator.starts_with("-1 EOVERFLOW")));
    assert!(outcome.differences.len() > 10);
}

#[test]
fn a_wrong_answer_is_found_and_explained() {
    let text = "# memory rw 100000000000 1000\n# kernel 6.12.107\n\
        # iommu vtd aperture 0 ffffffff pgsizes 1000 coherent 0 isolated-msi 1\n\
        # group 3: 0000:00:03.0 \n#   0x00000000fee00000 0x00000000feefffff msi\n\
        container c => 0 0\ngroup g 0000:00:03.0 => 0 0\nsetc g c => 0 0\nioctlv c 3b66 3 => 0 0\n\
        ioctl c 3b71 200000000300000000000000001000000000e0fe000000000010000000000000 => 0 0 \
        200000000300000000000000001000000000e0fe000000000010000000000000\n# end\n";
    let trace = Trace::parse("test", text).unwrap();
    let outcome = replay(&trace, trace.kernel).unwrap();
    let [difference] = &outcome.differences[..] else { panic!("{outcome:?}") };
    assert_eq!(difference.line, 10);
    assert_eq!((&*difference.kernel, &*difference.emulator), ("0", "-1 EINVAL"));
    assert!(difference.call.contains("VFIO_IOMMU_MAP_DMA"), "{difference:?}");
    assert!(difference.rule.as_ref().unwrap().contains("MSI window"), "{difference:?}");
}

#[test]
fn a_name_stands_for_the_newest_file_that_is_open() {
    let text = "# kernel 7.3.4\n\
        # iommu vtd aperture 0 ffffffff pgsizes 1000 coherent 0 isolated-msi 1\n\
        # group 3: 0000:00:03.0 \n\
        iommufd c => 0 0\ncontainer c => 0 0\nioctlv c 3b66 1 => -1 22\nclose c => 0 0\n\
        ioctlv c 3b66 1 => -1 19\nclose c => 0 0\nclose c => -1 9\n# end\n";
    let trace = Trace::parse("test", text).unwrap();
    assert_eq!(replay(&trace, trace.kernel).unwrap().differences, []);
}

#[test]
fn a_header_that_its_recording_contradicts_is_reported() {
    let trace = Trace::load(&directory().join("7.3-amd-mdev-v1-31.trace.xz")).unwrap();
    let outcome = replay(&trace, trace.kernel).unwrap();
    assert_eq!(outcome.differences, []);
    assert!(outcome.notes[0].contains("isolated-msi 0"), "{:?}", outcome.notes);
}
