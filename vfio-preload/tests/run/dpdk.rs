// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: DPDK drives an I/OAT, and its own tests of DMA devices pass.

use crate::said::run;
use crate::tool::{ADDRESS, brought};

#[test]
fn dmadev_autotest_passes() {
    let (Some(program), Some(run)) = (brought("dpdk", "dpdk-test"), run("ioat")) else { return };
    let options = ["--iova-mode=va", "--no-huge", "--no-shconf", "--no-telemetry"];
    let options = [&options[..], &["-m", "64", "-l", "0", "-a", ADDRESS]].concat();
    let said = run.input("dmadev_autotest\nquit\n").program(program, options).ok();
    let said = said.prints("Test OK");
    // Without a device the test is skipped, which its exit status does not tell.
    assert!(!said.out.contains("Test Skipped"), "{said:#?}");
}
