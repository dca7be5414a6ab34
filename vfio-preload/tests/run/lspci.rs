// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the machine's own tools find the host's devices in `/sys`.

use crate::said::run;
use crate::tool::{ADDRESS, installed};

#[test]
fn lspci_lists_the_device() {
    let (Some(lspci), Some(run)) = (installed("lspci", "pciutils"), run("ioat")) else { return };
    let listed = run.program(lspci, ["-n", "-k", "-s", ADDRESS]).ok();
    listed.prints("8086:2021").prints("Kernel driver in use: vfio-pci");
}
