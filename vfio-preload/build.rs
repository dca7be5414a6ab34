// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the library is linked.

fn main() {
    // Calls from one of its functions to another one stay inside, whatever stands in front of libc besides.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
    println!("cargo::rerun-if-changed=build.rs");
}
