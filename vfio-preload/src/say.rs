// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Words to the person who runs the program, on its stderr.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

/// Says something in a line of its own.
pub(crate) fn say(text: impl Display) {
    let line = format!("vfio-sim: {text}\n");
    // Straight to the system: the program may have its own ideas of stderr's buffers and locks.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// Says something the first time.
pub(crate) fn say_once(text: impl Display) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let text = text.to_string();
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
        say(text);
    }
}
