// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reports as JUnit XML, which CI systems show: a suite per host, a case per kernel.

use quick_junit::{
    NonSuccessKind, Report as Xml, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

use crate::check::{Expected, Report};
use crate::verdict::Verdict;

/// The reports as JUnit XML. `name` stands for the layout. Reports of one host stand together.
///
/// A case fails if the layout does not do what it is expected to, or does not fit if nothing is
/// expected. A host with nothing to assign is skipped.
pub fn render<'a>(
    name: &str,
    reports: impl IntoIterator<Item = &'a Report>,
) -> Result<String, SerializeError> {
    let mut suites: Vec<TestSuite> = Vec::new();
    for report in reports {
        let case = case(report);
        match suites.last_mut().filter(|suite| *suite.name == report.host) {
            Some(suite) => {
                suite.add_test_case(case);
            }
            None => {
                let mut suite = TestSuite::new(report.host.as_str());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    let mut xml = Xml::new(name);
    xml.add_test_suites(suites);
    xml.to_string()
}

fn case(report: &Report) -> TestCase {
    let expects_none = |expected: &Expected| expected.verdict == Verdict::NotAssigned;
    let nothing_tried = report.verdict == Verdict::NotAssigned
        && !report.expected.as_ref().is_some_and(expects_none);
    let mut status = match nothing_tried {
        true => TestCaseStatus::skipped(),
        false if report.is_good() => TestCaseStatus::success(),
        false => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    if nothing_tried || !report.is_good() {
        let reasons = report.reasons();
        status.set_type(report.verdict.name()).set_message(message(report, &reasons));
        status.set_description(reasons.join("\n"));
    }
    let mut case = TestCase::new(format!("kernel {}", report.kernel), status);
    case.set_classname(report.host.as_str());
    case
}

fn message(report: &Report, reasons: &[String]) -> String {
    let came = report.verdict.name();
    match &report.expected {
        Some(Expected { verdict, why: Some(why), met: false }) if *verdict == report.verdict => {
            format!("{came} as expected, but no reason contains \"{why}\"")
        }
        Some(Expected { verdict, met: false, .. }) => {
            format!("{came}, expected: {}", verdict.name())
        }
        _ => reasons.join("; "),
    }
}
