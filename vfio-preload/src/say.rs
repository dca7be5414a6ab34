// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Words to the person who runs the program, on its stderr.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) const STDERR: RawFd = 2;

/// Whether the program has closed its stderr: what is open by that number then is another file.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Notes whether what is open by the number of stderr is stderr.
pub(crate) fn stderr_is(there: bool) {
    CLOSED.store(!there, Ordering::Relaxed);
}

/// Straight to the system: the program may have its own ideas of stderr's buffers and locks.
fn write(line: &[u8]) {
    if !CLOSED.load(Ordering::Relaxed) {
        let _ = rustix::io::write(rustix::stdio::stderr(), line);
    }
}

/// Says something in a line of its own.
pub(crate) fn say(text: impl Display) {
    write(format!("vfio-sim: {text}\n").as_bytes());
}

/// Says something that is made of these parts, without any memory but the stack's.
pub(crate) fn say_plainly(parts: &[&str]) {
    let mut line = [0; 512];
    let mut left = &mut line[..];
    let room = left.len();
    for part in ["vfio-sim: "].iter().chain(parts).chain(&["\n"]) {
        // What does not fit is left out.
        let _ = left.write(part.as_bytes());
    }
    let used = room - left.len();
    write(&line[..used]);
}

/// Says something the first time.
pub(crate) fn say_once(text: impl Display) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let text = text.to_string();
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
        say(text);
    }
}
