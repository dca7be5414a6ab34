// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Words to the person who runs the program, on its stderr.

use std::fmt::Display;

/// Says something in a line of its own.
pub(crate) fn say(text: impl Display) {
    let line = format!("vfio-sim: {text}\n");
    // Straight to the system: the program may have its own ideas of stderr's buffers and locks.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}
