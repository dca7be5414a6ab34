// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the client never takes a machine without its device for one with it.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::process::{Command, Output};

fn client(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-client")).args(arguments).output().unwrap()
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let output = client(&["ffff:ff:1f.7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("vfio-client: "));
    assert!(output.stdout.is_empty());
}

#[test]
fn it_takes_one_address() {
    for arguments in [&[][..], &["0000:01:00.0", "0000:02:00.0"]] {
        let output = client(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("usage: vfio-client "));
    }
}
