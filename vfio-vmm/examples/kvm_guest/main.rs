// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small VMM on KVM, with a simulated device on a host of your choice.
//!
//! It lays guest RAM out as PCs do, and if the host does not take that says why, and lays it out
//! around what the host reserves. Then the guest lets the device copy to the end of RAM and back.
//!
//! `cargo run -p vfio-vmm --features vm-memory --example kvm_guest -- [HOST [KERNEL [RAM]]]`, for example
//! `amd 6.12 2T`.

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("the guest of this example is an x86 program; this machine cannot run it");
}

#[cfg(target_arch = "x86_64")]
mod guest;
#[cfg(target_arch = "x86_64")]
mod machine;
#[cfg(target_arch = "x86_64")]
mod vmm;

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    match vmm::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvm_guest: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
