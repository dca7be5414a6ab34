// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: `qemu-img` reads and writes images on an NVMe controller, byte for byte, as an ordinary user; and on a host
//! that its driver was not made for, the report says why it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::said::{Run, run, run_on};
use crate::tool::{ADDRESS, installed, open_directory};

const SIZE: usize = 64 << 20;

fn namespace() -> String {
    format!("nvme://{ADDRESS}/1")
}

/// Pages that all differ, of words that all differ.
fn contents(seed: u64) -> Vec<u8> {
    let word = |at: u64| (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let words: Vec<u8> = (1..512).flat_map(word).collect();
    let mut contents = Vec::with_capacity(SIZE);
    for page in 0..SIZE as u64 / 4096 {
        contents.extend_from_slice(&page.to_le_bytes());
        contents.extend_from_slice(&words);
    }
    contents
}

/// A file for any user to write.
fn file(directory: &TempDir, name: &str, contents: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    path
}

fn nvme(disk: &Path) -> String {
    format!("nvme,file={}", disk.display())
}

/// `qemu-img`, and a run that it can see the disk in.
fn qemu_img(disk: &Path) -> Option<(PathBuf, Run)> {
    Some((installed("qemu-img", "qemu-utils")?, run(&nvme(disk))?.by_an_ordinary_user()))
}

#[test]
fn an_image_is_written_to_a_namespace_and_compared_with_it() {
    let (directory, image) = (open_directory(), contents(1));
    let source = file(&directory, "source", &image);
    let disk = file(&directory, "disk", &[]);
    fs::File::options().write(true).open(&disk).unwrap().set_len(SIZE as u64).unwrap();
    let source = source.to_str().unwrap();
    let Some((program, run)) = qemu_img(&disk) else { return };
    run.program(program, ["convert", "-n", "-f", "raw", "-O", "raw", source, &namespace()]).ok();
    assert!(fs::read(&disk).unwrap() == image, "the disk differs from the image");
    let Some((program, run)) = qemu_img(&disk) else { return };
    let same = run.program(program, ["compare", "-f", "raw", "-F", "raw", source, &namespace()]);
    same.ok().prints("Images are identical.");
}

#[test]
fn an_image_is_read_from_a_namespace() {
    let (directory, image) = (open_directory(), contents(2));
    let disk = file(&directory, "disk", &image);
    let copy = directory.path().join("copy.qcow2");
    let copy = copy.to_str().unwrap();
    let Some((program, run)) = qemu_img(&disk) else { return };
    run.program(&program, ["info", &namespace()]).ok().prints("64 MiB");
    let Some((program, run)) = qemu_img(&disk) else { return };
    run.program(&program, ["convert", "-f", "raw", "-O", "qcow2", &namespace(), copy]).ok();
    let Some((program, run)) = qemu_img(&disk) else { return };
    let back = directory.path().join("back");
    run.program(program, ["convert", "-O", "raw", copy, back.to_str().unwrap()]).ok();
    assert!(fs::read(back).unwrap() == image, "the copy differs from the disk");
}

/// QEMU takes the end of the last range, plus one, for where its temporary mappings begin, downwards. If the range
/// ends with the address space, that is 0, and each mapping is put at the very top.
#[test]
fn an_aperture_of_64_bits_is_too_much_and_the_report_says_why() {
    let directory = open_directory();
    let known =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../vfio-sim/hosts/qemu-virtio-q35.toml");
    let wide = fs::read_to_string(known).unwrap().replace("0-0x7fffffffff", "0-0xffffffffffffffff");
    let host = file(&directory, "wide.toml", wide.as_bytes());
    let (source, disk) =
        (file(&directory, "source", &contents(3)), file(&directory, "disk", &contents(4)));
    let (Some(program), Some(run)) =
        (installed("qemu-img", "qemu-utils"), run_on(host, &nvme(&disk)))
    else {
        return;
    };
    let run = run.options(["--report"]).by_an_ordinary_user();
    let source = source.to_str().unwrap();
    let said =
        run.program(program, ["convert", "-n", "-f", "raw", "-O", "raw", source, &namespace()]);
    let said = said.ends_with(1).complains("File exists");
    said.complains("overlaps the mapping 0xfffffffffffff000..0xffffffffffffffff");
}

#[test]
fn what_qemu_io_writes_in_pieces_is_there() {
    let (directory, image) = (open_directory(), contents(5));
    let disk = file(&directory, "disk", &image);
    let (Some(program), Some(run)) = (installed("qemu-io", "qemu-utils"), run(&nvme(&disk))) else {
        return;
    };
    let commands = "write -P 0xa5 1536 5120\nwrite -z 1M 128k\nflush\nread -P 0xa5 1536 5120\n\
                    read -P 0 1M 128k\nquit\n";
    let run = run.by_an_ordinary_user().input(commands);
    let said = run.program(program, ["-f", "raw", &namespace()]).ok();
    assert!(!said.out.contains("Pattern verification failed"), "{said:#?}");
    let disk = fs::read(disk).unwrap();
    assert!(disk[1536..1536 + 5120].iter().all(|byte| *byte == 0xa5));
    assert!(disk[1 << 20..(1 << 20) + (128 << 10)].iter().all(|byte| *byte == 0));
    assert!(disk[..1536] == image[..1536] && disk[2 << 20..] == image[2 << 20..]);
}
