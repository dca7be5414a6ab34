// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: a VMM gives a device to its guest: QEMU's firmware starts what is on an NVMe disk, whether it maps the
//! registers or not; and KVM takes the groups that it is told of.

use std::fs;

use crate::said::{Run, Said, run};
use crate::tool::{ADDRESS, compiled, installed, linked, open_directory, skip};

const SECTOR: usize = 512;

/// What is on the disk.
const TEXT: &[u8] = b"started from a simulated disk\0";

/// How QEMU ends when the guest says that all went well: twice the 1 that it writes, and one.
const WELL: i32 = 3;

/// Starts a guest from a disk that is the host's, and looks at what the guest has written.
fn boots(accelerator: &str, options: &[&str]) {
    let directory = open_directory();
    let disk = directory.path().join("disk");
    let Some(boot) = linked("boot", 0x7c00) else { return };
    let mut image = fs::read(boot).unwrap();
    assert_eq!(image.len(), SECTOR);
    image.extend_from_slice(TEXT);
    image.resize(1 << 20, 0);
    fs::write(&disk, &image).unwrap();
    let device = format!("nvme,file={}", disk.display());
    let (Some(program), Some(run)) =
        (installed("qemu-system-x86_64", "qemu-system-x86"), run(&device))
    else {
        return;
    };
    let machine = format!("q35,accel={accelerator}");
    let given = format!("vfio-pci,host={ADDRESS},bootindex=0");
    let arguments = [
        "-machine",
        &machine,
        "-m",
        "64",
        "-nodefaults",
        "-display",
        "none",
        "-device",
        &given,
        "-debugcon",
        "stdio",
        "-device",
        "isa-debug-exit,iobase=0xf4",
    ];
    let said = run.options(options).program(program, arguments).ends_with(WELL);
    let said = said.prints("started from a simulated disk");
    assert!(!said.err.contains("vfio"), "{said:#?}");
    let written = fs::read(disk).unwrap();
    assert!(written[2 * SECTOR..].starts_with(TEXT), "the third sector is not the second");
}

#[test]
fn firmware_starts_from_a_disk_whose_registers_are_mapped() {
    boots("tcg", &[]);
}

#[test]
fn firmware_starts_from_a_disk_whose_registers_are_not_mapped() {
    boots("tcg", &["--no-mmap"]);
}

/// Whether this machine has KVM for us.
fn kvm() -> Option<()> {
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Some(()),
        Err(error) => skip(&format!("there is no KVM: /dev/kvm: {error}")),
    }
}

#[test]
fn a_guest_of_kvm_that_has_registers_for_memory_is_explained() {
    if let Some(said) = case("registers_are_given_as_memory") {
        said.complains("0000:01:00.0: BAR 0 is mapped into a guest of KVM's");
    }
}

#[test]
fn firmware_starts_on_kvm() {
    if kvm().is_some() {
        boots("kvm", &["--no-mmap"]);
    }
}

fn case(name: &str) -> Option<Said> {
    case_on("7.3", name)
}

fn case_on(kernel: &str, name: &str) -> Option<Said> {
    kvm()?;
    let (program, run): (_, Run) = (compiled("kvm")?, run("dma-engine")?);
    Some(run.options(["--kernel", kernel]).program(program, [name]).ok())
}

#[test]
fn only_groups_are_added_before_devices_have_nodes() {
    case_on("6.1", "only_groups_are_added");
}

macro_rules! cases {
    ($($case:ident)*) => {$(
        #[test]
        fn $case() {
            case(stringify!($case));
        }
    )*};
}

cases! {
    groups_are_added_and_removed
    devices_are_added
    attributes_are_told
    a_group_is_held_by_kvm
    other_devices_of_kvm_are_its_own
}
