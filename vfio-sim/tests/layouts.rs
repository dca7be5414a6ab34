// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the known layouts, each a public report of a program that failed, come out as their files
//! say on every host and kernel; what the tool suggests instead fits; CI systems can read the verdicts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::path::PathBuf;
use std::process::{Command, Output};

use quick_junit::{Report as Xml, TestCaseStatus};
use vfio_sim::check::Report;
use vfio_sim::host::Host;
use vfio_sim::knobs::Knobs;
use vfio_sim::layout::Layout;
use vfio_sim::verdict::Verdict;
use vfio_sim::{hosts, layout_file, layouts, matrix};
use vfio_type1::Kernel;

fn all_hosts() -> Vec<Host> {
    hosts::known().map(Result::unwrap).collect()
}

fn reports(hosts: &[Host], kernels: &[Kernel], layout: &Layout) -> Vec<Report> {
    matrix::check_all(hosts, kernels, &Knobs::default(), layout)
        .unwrap()
        .reports()
        .cloned()
        .collect()
}

/// The limit that a layout of a hundred thousand mappings is about knows no hosts: one will do.
fn cases_for(layout: &Layout) -> (Vec<Host>, Vec<Kernel>) {
    if layout.ranges.iter().all(|range| range.piece.is_none()) {
        return (all_hosts(), Kernel::ALL.to_vec());
    }
    (vec![hosts::find("vtd39").unwrap()], vec![Kernel::V4_19, Kernel::V5_10, Kernel::V7_3])
}

#[test]
fn every_known_layout_comes_out_as_its_file_says() {
    for layout in layouts::known() {
        let layout = layout.unwrap();
        assert!(layout.source.starts_with("https://"), "{} has no source", layout.name);
        assert!(!layout.expectations.is_empty(), "{} expects nothing", layout.name);
        let (hosts, kernels) = cases_for(&layout);
        let reports = reports(&hosts, &kernels, &layout);
        let unmet: Vec<String> = reports
            .iter()
            .filter(|report| !report.is_good())
            .map(|r| format!("{} {}: {:?} {:?}", r.host, r.kernel, r.verdict, r.reasons()))
            .collect();
        assert!(unmet.is_empty(), "{}:\n{}", layout.name, unmet.join("\n"));
        let goes_wrong = |report: &Report| report.verdict != Verdict::Fits;
        assert!(reports.iter().any(goes_wrong), "{} goes wrong nowhere", layout.name);
    }
}

#[test]
fn every_refused_layout_gets_one_that_fits_if_there_is_room() {
    let hosts = all_hosts();
    let mut suggested = 0;
    for layout in layouts::known().map(Result::unwrap) {
        let many = layout.ranges.iter().any(|range| range.piece.is_some());
        if layout.states_steps || many {
            continue;
        }
        for report in reports(&hosts, &[Kernel::V6_12, Kernel::V7_3], &layout) {
            let host = hosts.iter().find(|host| host.name == report.host).unwrap();
            for container in report.containers.iter().filter(|c| !c.would_fit.is_empty()) {
                let ranges = vfio_sim::layout::parse_ranges(&container.would_fit).unwrap();
                let kernel = report.kernel.parse().unwrap();
                let together =
                    vfio_sim::assign::Selection::of_devices(host, &container.devices).unwrap();
                let plain = Layout::plain(ranges);
                let again = vfio_sim::check::check(
                    host,
                    kernel,
                    &Knobs::default(),
                    Some(&together),
                    &plain,
                )
                .unwrap();
                assert!(again.fits, "{} {}: {:?}", report.host, report.kernel, container.would_fit);
                suggested += 1;
            }
        }
    }
    assert!(suggested > 30, "{suggested}");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-sim")).args(arguments).output().unwrap()
}

#[test]
fn verdicts_are_written_for_ci_systems() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report.xml");
    let file = path.to_str().unwrap();
    let output = run(&["check", "--all-hosts", "--all-kernels", "--junit", file, "ram=0+1T"]);
    assert_eq!(output.status.code(), Some(1));
    let xml = Xml::deserialize_from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(xml.test_suites.len(), hosts::names().len());
    let amd = xml.test_suites.iter().find(|suite| *suite.name == *"amd").unwrap();
    assert_eq!(amd.test_cases.len(), Kernel::ALL.len());
    let message = |kernel: usize| match &amd.test_cases[kernel].status {
        TestCaseStatus::NonSuccess { message, .. } => message.as_ref().unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    assert!(message(6).contains("0xfd00000000..0xffffffffff"), "{}", message(6));
    assert!(matches!(amd.test_cases[1].status, TestCaseStatus::Success { .. }));
    let unwritable = run(&["check", "amd", "--junit", "no/such/dir/x.xml", "0+4K"]);
    assert_eq!(unwritable.status.code(), Some(2));
}

#[test]
fn a_program_that_asks_too_early_is_refused() {
    let text = "steps = [\"set-iommu v2\", \"attach\", \"map a\"]\n\
                [[range]]\nname = \"a\"\nkind = \"ram\"\nrange = \"0+1G\"\n";
    let layout = layout_file::parse("early", "early.toml", text).unwrap();
    let reports = reports(&[hosts::find("vtd39").unwrap()], &[Kernel::V7_3], &layout);
    assert_eq!(reports[0].verdict, Verdict::Refused);
    let steps = &reports[0].containers[1].steps;
    assert_eq!(steps.len(), 3, "the program goes on");
    assert!(steps[0].refusal.is_some() && steps[1].refusal.is_none());
}

#[test]
fn an_expectation_that_is_not_met_is_marked() {
    let text = "[[range]]\nname = \"ram\"\nkind = \"ram\"\nrange = \"0+1T\"\n\
                [[expect]]\nverdict = \"refused\"\nhosts = [\"vtd39\"]\nwhy = \"0x0..0x7fffffffff\"\n";
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mine.toml");
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(run(&["check", "vtd39", "--layout", file]).status.code(), Some(0));
    let amd = run(&["check", "amd", "--all-kernels", "--layout", file]);
    assert_eq!(amd.status.code(), Some(1));
    assert!(String::from_utf8(amd.stdout).unwrap().contains("refused!"));
    let layout = layout_file::load(&path).unwrap();
    assert_eq!(layout.name, "mine");
    let both = run(&["check", "amd", "0+4K", "--layout", file]);
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(run(&["check", "amd", "--layout", "t99"]).status.code(), Some(2));
}
