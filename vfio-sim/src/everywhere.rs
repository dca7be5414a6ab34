// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A test run on every known host under every kernel.
//!
//! ```
//! use vfio_sim::everywhere::everywhere;
//! use vfio_type1::{Access, MapDma};
//!
//! // A gigabyte at 4 GiB: fine nearly everywhere, which is what a test would not notice.
//! let failures = everywhere(|machine| {
//!     let request = MapDma::new(4 << 30, 0, 1 << 30, Access::ReadWrite);
//!     machine.assigned.container.map(&machine.assigned.process, &request)
//! });
//! assert!(failures.on_host("apple-dart-t8103").any(|failure| failure.why.contains("0xffffffff")));
//! assert!(failures.on_host("amd").next().is_none());
//! ```

use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use vfio_type1::{Kernel, Vfio};

use crate::assign::{Assigned, Selection};
use crate::host::Host;
use crate::hosts;

/// A known host under a kernel, with one of its groups in a container.
#[derive(Debug)]
pub struct Machine {
    /// The host.
    pub host: Host,
    /// The driver on it.
    pub vfio: Vfio,
    /// The container, with a type1v2 driver, and a process whose memory is everywhere.
    pub assigned: Assigned,
    /// The device that is assigned: the first one that can be.
    pub device: String,
}

/// A host and a kernel on which a test failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The host's name.
    pub host: String,
    /// The kernel's name.
    pub kernel: &'static str,
    /// The error that the test gave, or what it panicked with.
    pub why: String,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Failures {
    /// How often it ran.
    pub runs: usize,
    /// Where it failed, by host, then by kernel.
    pub failed: Vec<Failure>,
}

/// Runs `test` once on each known host under each kernel where a device can be assigned. It fails by
/// an error or by a panic.
pub fn everywhere<E: Display>(test: impl Fn(&Machine) -> Result<(), E>) -> Failures {
    let mut failures = Failures::default();
    // The known hosts are checked by this crate's own tests.
    for host in hosts::known().filter_map(Result::ok) {
        for kernel in Kernel::ALL {
            let Some(machine) = machine(&host, kernel) else { continue };
            failures.runs += 1;
            if let Err(why) = run(&test, &machine) {
                let host = host.name.clone();
                failures.failed.push(Failure { host, kernel: kernel.name(), why });
            }
        }
    }
    failures
}

/// The first group of the host that can be assigned, in a container.
fn machine(host: &Host, kernel: Kernel) -> Option<Machine> {
    let vfio = host.boot(kernel).ok()?;
    let (assigned, device) = Selection::each(host).iter().find_map(|selection| {
        let assigned = selection.assign(&vfio).ok()?;
        // Without an IOMMU there is nothing to map into.
        assigned.container.info().ok()?;
        Some((assigned, selection.device_names().first()?.to_string()))
    })?;
    Some(Machine { host: host.clone(), vfio, assigned, device })
}

fn run<E: Display>(
    test: &impl Fn(&Machine) -> Result<(), E>,
    machine: &Machine,
) -> Result<(), String> {
    // What the test leaves behind is dropped with the machine.
    match catch_unwind(AssertUnwindSafe(|| test(machine))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "the test panicked".to_owned(),
        }),
    }
}

impl Failures {
    /// The failures on one host.
    pub fn on_host<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Failure> {
        self.failed.iter().filter(move |failure| failure.host == host)
    }

    /// The names of the hosts on which the test failed under some kernel.
    pub fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.failed.iter().map(|f| f.host.as_str()).collect();
        hosts.dedup();
        hosts
    }

    /// Panics with a list unless the test failed on just these hosts.
    ///
    /// # Panics
    ///
    /// If it failed elsewhere, or did not fail on one of them.
    #[track_caller]
    pub fn expect_on(&self, hosts: &[&str]) {
        let mut expected = hosts.to_vec();
        let mut given = self.hosts();
        expected.sort_unstable();
        given.sort_unstable();
        assert_eq!(given, expected, "the hosts on which the test fails\n{self}");
    }
}

impl Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} runs failed", self.failed.len(), self.runs)?;
        for failure in &self.failed {
            let why = failure.why.lines().next().unwrap_or_default();
            writeln!(f, "  {}, kernel {}: {why}", failure.host, failure.kernel)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::{Access, MapDma};

    #[test]
    fn failures_name_host_kernel_and_reason() {
        let failures = everywhere(|machine| {
            let request = MapDma::new(0xfd_0000_0000, 0, 0x1_0000, Access::ReadWrite);
            machine.assigned.container.map(&machine.assigned.process, &request)
        });
        let amd: Vec<&str> = failures.on_host("amd").map(|failure| failure.kernel).collect();
        assert_eq!(amd, ["2018-v6", "5.10", "6.1", "6.12", "7.2", "7.3"]);
        assert!(failures.failed.iter().all(|failure| !failure.why.is_empty()));
        assert!(failures.hosts().contains(&"vtd39") && !failures.hosts().contains(&"vtd48"));
        assert!(failures.runs > 200, "{}", failures.runs);
    }

    #[test]
    fn a_panic_is_a_failure_too() {
        let failures = everywhere(|machine| -> Result<(), String> {
            assert!(machine.host.name != "igd", "not on {}", machine.host.name);
            Ok(())
        });
        failures.expect_on(&["igd"]);
        assert_eq!(failures.failed[0].why, "not on igd");
        assert!(failures.to_string().contains("igd, kernel 2018-v6: not on igd"));
    }
}
