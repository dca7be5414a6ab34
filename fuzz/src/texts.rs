// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Texts that people, kernels and programs write: each parses or is refused in a sentence; what
//! parses can be used, and printed and parsed again it is the same.

use std::fmt::Display;

use vfio_sim::check::check;
use vfio_sim::device::DeviceSpec;
use vfio_sim::knobs::Knobs;
use vfio_sim::layout::WantedRange;
use vfio_sim::trace::Trace;
use vfio_sim::{host_file, hosts, layout_file, replay, show};
use vfio_type1::{FaultPlan, Kernel, MergeRule, RegionList, sysfs};

/// Text out of the fuzzer's bytes; those that are no text are passed over, as every parser here
/// gets a `&str`.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// What parses, or nothing for what is refused with a reason.
fn parsed<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

/// Host files: what is read can be shown under each kernel, and written and read again.
pub fn host_file(data: &[u8]) {
    let parse = |text: &str| host_file::parse("fuzzed", "fuzzed.toml", text);
    let Some(host) = text(data).and_then(|text| parsed(parse(text))) else { return };
    let written = host_file::write(&host);
    let again = parse(&written);
    assert_eq!(again.as_ref(), Ok(&host), "{written}");
    for kernel in [Kernel::V4_19, Kernel::NEWEST] {
        let shown = show::show(&host, kernel, None);
        assert!(shown.is_ok_and(|shown| !show::render(&shown).is_empty()), "{kernel}");
    }
}

/// Layout files: what is read can be tried on a host.
pub fn layout_file(data: &[u8]) {
    let parse = |text: &str| layout_file::parse("fuzzed", "fuzzed.toml", text);
    let Some(layout) = text(data).and_then(|text| parsed(parse(text))) else { return };
    // Many pieces take long and tell nothing more.
    let pieces = |range: &WantedRange| range.piece.map_or(1, |piece| range.range.span() / piece);
    if layout.ranges.iter().map(pieces).fold(0, u64::saturating_add) > 1000 {
        return;
    }
    let host = hosts::find("amd").expect("the host is built in");
    for kernel in [Kernel::V5_10, Kernel::NEWEST] {
        let report = check(&host, kernel, &Knobs::default(), None, &layout).expect("it boots");
        assert!(report.fits || !report.reasons().is_empty(), "{report:?}");
    }
}

/// Recordings: what is read can be replayed.
pub fn trace(data: &[u8]) {
    let Some(trace) = text(data).and_then(|text| parsed(Trace::parse("fuzzed", text))) else {
        return;
    };
    if let Some(outcome) = parsed(replay::replay(&trace, trace.kernel)) {
        assert!(outcome.differences.len() <= outcome.calls);
    }
}

/// `reserved_regions`: what is read is exactly what a kernel prints, and merges as a list does.
pub fn sysfs_text(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Some(regions) = parsed(sysfs::parse(text)) else { return };
    let line = |region: &vfio_type1::ReservedRegion| {
        let kind = sysfs::kind_name(region.kind);
        format!("{:#018x} {:#018x} {kind}\n", region.first.0, region.last.0)
    };
    assert_eq!(regions.iter().map(line).collect::<String>(), text);
    for rule in [MergeRule::SortedByStart, MergeRule::InsertionOrder] {
        let merged = RegionList::merged(regions.iter().copied(), rule);
        let printed = sysfs::render(&merged, false);
        assert_eq!(sysfs::parse(&printed).as_deref(), Ok(merged.as_slice()));
    }
}

/// Devices in a line of text, which a host takes.
pub fn device_spec(data: &[u8]) {
    let Some(spec) = text(data).and_then(|text| parsed(text.parse::<DeviceSpec>())) else { return };
    assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
    let mut host = hosts::find("vtd39").expect("the host is built in");
    if let Some(name) = parsed(host.add_device(&spec)) {
        assert!(host.device(&name).is_some_and(|(_, device)| device.model == Some(spec.model)));
        let written = host_file::write(&host);
        assert_eq!(host_file::parse(&host.name, "written", &written).as_ref(), Ok(&host));
    }
}

/// Fault plans.
pub fn fault_plan(data: &[u8]) {
    let Some(plan) = text(data).and_then(|text| parsed(text.parse::<FaultPlan>())) else { return };
    assert_eq!(plan.to_string().parse(), Ok(plan));
}
