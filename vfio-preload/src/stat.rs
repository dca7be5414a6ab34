// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `stat` and its kin say of VFIO's files: that they are character devices, with the numbers that sysfs
//! tells. In a user namespace nobody can make such files; the placeholders are regular ones.
//!
//! No world is needed for it: who lists `/dev/vfio` does not use VFIO yet.
#![expect(unsafe_code, reason = "functions that C calls, with what C gives them")]

use std::ffi::{c_char, c_int, c_uint};
use std::fs;
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;

use vfio_sim::render::device_number;

use crate::calls;
use crate::next;
use crate::world::FileId;

/// Where VFIO's files are, below `/dev`.
const DIRECTORIES: [&str; 3] = ["vfio", "vfio/devices", ""];

/// The number of a file as a device, if it is one of VFIO's.
fn number(mode: u32, (file_system, inode): FileId) -> Option<(u32, u32)> {
    if mode & libc::S_IFMT != libc::S_IFREG || file_system != calls::file_system() {
        return None;
    }
    DIRECTORIES.iter().find_map(|directory| {
        let mut entries = fs::read_dir(Path::new("/dev").join(directory)).ok()?.flatten();
        let entry = entries.find(|entry| entry.ino() == inode)?;
        device_number(Path::new(directory).join(entry.file_name()).to_str()?)
    })
}

/// A mode with another type of file: the placeholders' permissions are the devices'.
fn as_device(mode: u32) -> u32 {
    mode & !libc::S_IFMT | libc::S_IFCHR
}

/// What calls fill in.
trait Shown {
    fn show(&mut self);
}

impl Shown for libc::stat {
    fn show(&mut self) {
        if let Some((major, minor)) = number(self.st_mode, (self.st_dev, self.st_ino)) {
            self.st_mode = as_device(self.st_mode);
            self.st_rdev = libc::makedev(major, minor);
        }
    }
}

impl Shown for libc::statx {
    fn show(&mut self) {
        let file_system = libc::makedev(self.stx_dev_major, self.stx_dev_minor);
        if let Some((major, minor)) = number(self.stx_mode.into(), (file_system, self.stx_ino)) {
            self.stx_mode = u16::try_from(as_device(self.stx_mode.into())).unwrap_or(self.stx_mode);
            (self.stx_rdev_major, self.stx_rdev_minor) = (major, minor);
        }
    }
}

macro_rules! stats {
    ($($name:ident($($argument:ident: $type:ty),*) fills $into:ident;)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: as libc's: the arguments are the caller's. What a call that succeeds was to fill is there.
            unsafe {
                let result = next::$name($($argument),*);
                if result == 0 {
                    (*$into).show();
                }
                result
            }
        }
    )*};
}

// Those with 64 differ from the others on other machines only. Those with x are what programs of long ago call.
stats! {
    stat(path: *const c_char, into: *mut libc::stat) fills into;
    stat64(path: *const c_char, into: *mut libc::stat) fills into;
    lstat(path: *const c_char, into: *mut libc::stat) fills into;
    lstat64(path: *const c_char, into: *mut libc::stat) fills into;
    fstat(fd: c_int, into: *mut libc::stat) fills into;
    fstat64(fd: c_int, into: *mut libc::stat) fills into;
    fstatat(at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) fills into;
    fstatat64(at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) fills into;
    statx(at: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut libc::statx) fills into;
    __xstat(version: c_int, path: *const c_char, into: *mut libc::stat) fills into;
    __xstat64(version: c_int, path: *const c_char, into: *mut libc::stat) fills into;
    __lxstat(version: c_int, path: *const c_char, into: *mut libc::stat) fills into;
    __lxstat64(version: c_int, path: *const c_char, into: *mut libc::stat) fills into;
    __fxstat(version: c_int, fd: c_int, into: *mut libc::stat) fills into;
    __fxstat64(version: c_int, fd: c_int, into: *mut libc::stat) fills into;
    __fxstatat(
        version: c_int, at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) fills into;
    __fxstatat64(
        version: c_int, at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) fills into;
}
