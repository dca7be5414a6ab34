// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reports as JUnit XML, which CI systems show: a suite per host, a case per kernel.

use quick_junit::{
    NonSuccessKind, Report as Xml, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

use crate::check::Report;
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
    let mut status = match (&report.expected, report.verdict) {
        _ if report.is_good() => TestCaseStatus::success(),
        (None, Verdict::NotAssigned) => TestCaseStatus::skipped(),
        _ => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    if !report.is_good() {
        let reasons = report.reasons();
        let expected = report.expected.as_ref().map(|expected| expected.verdict.name());
        let message = match expected {
            Some(expected) => format!("{}, expected: {expected}", report.verdict.name()),
            None => reasons.join("; "),
        };
        status.set_type(report.verdict.name()).set_message(message);
        status.set_description(reasons.join("\n"));
    }
    let mut case = TestCase::new(format!("kernel {}", report.kernel), status);
    case.set_classname(report.host.as_str());
    case
}
