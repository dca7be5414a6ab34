// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: where the tool stays to report, a signal for it is one for the program, once, whoever sends it; and no
//! other program is begun.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::said::run;
use crate::tool::{compiled, vfio_sim};

/// Has the tool report on a program that says which signals reach it. `None` where that cannot be.
fn supervise(mut command: Command) -> Option<Child> {
    let program = compiled("supervised")?;
    run("dma-engine")?;
    command.args(["run", "vtd48", "--report", "--"]).arg(program);
    Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// What a supervised program prints that is sent something when it is ready.
fn printed(mut child: Child, send: impl FnOnce(&Child)) -> String {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    assert_eq!(text, "ready\n");
    send(&child);
    text.clear();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7), "{text}");
    text
}

#[test]
fn what_a_process_sends_is_handed_on() {
    let signals = [
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
    ];
    for (name, signal) in signals {
        let Some(tool) = supervise(Command::new(vfio_sim())) else { return };
        let text = printed(tool, |tool| {
            kill_process(Pid::from_child(tool), signal).unwrap();
        });
        assert_eq!(text, format!("{name}\nover\n"));
    }
}

#[test]
fn what_a_terminal_sends_is_not_sent_twice() {
    for (name, key) in [("INT", 3), ("QUIT", 28)] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&terminal).unwrap();
        let end = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // In a session of its own, of which this is the terminal.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(vfio_sim()).stdin(end);
        let Some(tool) = supervise(command) else { return };
        let text = printed(tool, |_| {
            rustix::io::write(&terminal, &[key]).unwrap();
        });
        assert_eq!(text, format!("{name}\nover\n"));
    }
}

#[test]
fn a_matrix_ends_with_the_program_that_is_running() {
    if run("dma-engine").is_none() {
        return;
    }
    let mut command = Command::new(vfio_sim());
    command.args(["run", "--host-matrix", "--", "sleep", "0.2"]);
    let mut tool = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut rows = BufReader::new(tool.stdout.take().unwrap()).lines();
    rows.next().unwrap().unwrap();
    kill_process(Pid::from_child(&tool), Signal::TERM).unwrap();
    let more = rows.count();
    assert_eq!(tool.wait().unwrap().code(), Some(128 + Signal::TERM.as_raw()));
    // The machine may be slow, but not that slow.
    assert!(more < 20, "{more} more hosts were tried");
}
