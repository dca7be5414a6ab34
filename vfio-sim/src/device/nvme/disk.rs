// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is behind a namespace: a file, a block device, or memory.
//!
//! Memory is a file without a name, so there is one way to all of them. The system calls are made
//! without libc, since a device may work inside a program whose libc leads to it.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};
use rustix::{fs, io};

use super::status::Status;
use crate::device::descriptor::moved_up;

/// What is behind a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A regular file or a block device, as large as the namespace.
    File(PathBuf),
    /// Memory of so many bytes, which is zero at first and takes space where it has been written.
    Memory(u64),
}

/// A namespace without anything behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error(
        "there is no file {path}; make one, for example with \"truncate -s 1G {path}\"",
        path = path.display()
    )]
    Missing {
        /// Its path.
        path: PathBuf,
    },
    /// It cannot be opened, or looked at.
    #[error("cannot open {path}: {problem}", path = path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What the operating system says.
        problem: String,
    },
    /// It is a directory, a pipe or the like.
    #[error("{path} is neither a regular file nor a block device", path = path.display())]
    NotADisk {
        /// Its path.
        path: PathBuf,
    },
    /// Its size is none that a namespace can have.
    #[error(
        "{path} has {size} bytes, and a disk has one or more blocks of {block}; \
         \"truncate -s %{block} {path}\" rounds it up",
        path = path.display()
    )]
    Size {
        /// Its path.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The size of a block in bytes.
        block: u32,
    },
    /// There is no memory to be had.
    #[error("cannot get {size:#x} bytes of memory for a disk: {problem}")]
    NoMemory {
        /// How many bytes were asked for.
        size: u64,
        /// What the operating system says.
        problem: String,
    },
}

/// The bytes of a namespace.
#[derive(Debug)]
pub(super) struct Disk {
    file: OwnedFd,
    size: u64,
    read_only: bool,
}

impl Disk {
    /// Opens what is behind a namespace with blocks of `block` bytes.
    pub(super) fn open(backing: &Backing, block: u32) -> Result<Self, DiskError> {
        match backing {
            Backing::File(path) => Self::open_file(path, block),
            Backing::Memory(size) => Self::in_memory(*size),
        }
    }

    fn in_memory(size: u64) -> Result<Self, DiskError> {
        let problem = |error: Errno| DiskError::NoMemory { size, problem: error.to_string() };
        let file = fs::memfd_create("vfio-sim-disk", MemfdFlags::CLOEXEC).map_err(problem)?;
        fs::ftruncate(&file, size).map_err(problem)?;
        Ok(Self { file: moved_up(file), size, read_only: false })
    }

    fn open_file(path: &Path, block: u32) -> Result<Self, DiskError> {
        let owned = || path.to_owned();
        let unusable = |error: Errno| match error {
            Errno::NOENT => DiskError::Missing { path: owned() },
            error => DiskError::Unusable { path: owned(), problem: error.to_string() },
        };
        // Not opened before it is known to be a disk: opening a pipe may wait for ever.
        let stat = fs::stat(path).map_err(unusable)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Err(DiskError::NotADisk { path: owned() });
        }
        let (file, read_only) = open_writable(path, &stat).map_err(unusable)?;
        let size = fs::seek(&file, SeekFrom::End(0)).map_err(unusable)?;
        if size == 0 || !size.is_multiple_of(block.into()) {
            return Err(DiskError::Size { path: owned(), size, block });
        }
        Ok(Self { file: moved_up(file), size, read_only })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn check_writable(&self) -> Result<(), Status> {
        if self.read_only { Err(Status::WriteProtected) } else { Ok(()) }
    }

    /// Reads all of `into`. A file that has become shorter cannot be read there.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Status> {
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            match retry_on_intr(|| io::pread(&self.file, &mut *rest, at + done as u64)) {
                Ok(0) | Err(_) => return Err(Status::ReadError),
                Ok(count) => done += count,
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Status> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let written = retry_on_intr(|| io::pwrite(&self.file, rest, at + done as u64));
            match written.map_err(write_status)? {
                0 => return Err(Status::WriteFault),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Makes bytes zero, and gives their space back if the file can.
    pub(super) fn zero(&self, at: u64, length: u64) -> Result<(), Status> {
        if length == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fs::fallocate(&self.file, hole, at, length)) {
            Ok(()) => Ok(()),
            Err(_) => self.write_zeroes(at, length),
        }
    }

    fn write_zeroes(&self, at: u64, length: u64) -> Result<(), Status> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let mut done = 0;
        while done < length {
            let left = usize::try_from(length - done).unwrap_or(usize::MAX);
            let piece = &ZEROES[..left.min(ZEROES.len())];
            self.write(at + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits until what was written would outlive a power failure.
    pub(super) fn flush(&self) -> Result<(), Status> {
        if self.read_only {
            return Ok(());
        }
        retry_on_intr(|| fs::fdatasync(&self.file)).map_err(write_status)
    }
}

/// Opens a file for writing, or for reading only if it is read-only; says which. Root may write any file,
/// so its mode is looked at too.
fn open_writable(path: &Path, stat: &Stat) -> Result<(OwnedFd, bool), Errno> {
    let open = |flags| fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let anyone = Mode::WUSR | Mode::WGRP | Mode::WOTH;
    if !Mode::from_raw_mode(stat.st_mode).intersects(anyone) {
        return open(OFlags::RDONLY).map(|file| (file, true));
    }
    match open(OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            open(OFlags::RDONLY).map(|file| (file, true))
        }
        opened => opened.map(|file| (file, false)),
    }
}

fn write_status(error: Errno) -> Status {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Status::CapacityExceeded,
        _ => Status::WriteFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn open(path: &Path) -> Result<Disk, DiskError> {
        Disk::open(&Backing::File(path.to_owned()), 512)
    }

    #[test]
    fn problems_name_the_file_and_what_to_do() {
        let problem = |path: &Path| open(path).unwrap_err().to_string();
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none");
        let told = problem(&missing);
        let path = missing.display();
        assert_eq!(
            told,
            format!(
                "there is no file {path}; make one, for example with \"truncate -s 1G {path}\""
            )
        );
        assert!(
            problem(directory.path()).ends_with("is neither a regular file nor a block device")
        );
        let ragged = file(&[0; 700]);
        assert!(
            problem(ragged.path()).contains("has 700 bytes, and a disk has one or more blocks")
        );
        assert!(matches!(open(file(&[]).path()), Err(DiskError::Size { size: 0, .. })));
    }

    #[test]
    fn a_read_only_file_is_not_written() {
        let file = file(&[7; 512]);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o444)).unwrap();
        let disk = open(file.path()).unwrap();
        assert_eq!(disk.check_writable(), Err(Status::WriteProtected));
        let mut bytes = [0; 512];
        disk.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 512]);
    }

    #[test]
    fn zeroes_are_zero_with_and_without_holes() {
        let disk = Disk::open(&Backing::Memory(1 << 20), 512).unwrap();
        for zero in [Disk::zero, Disk::write_zeroes] {
            disk.write(0, &[1; 1 << 18]).unwrap();
            zero(&disk, 513, 200_001).unwrap();
            let mut bytes = vec![9; 1 << 18];
            disk.read(0, &mut bytes).unwrap();
            assert!(bytes[513..200_514].iter().all(|byte| *byte == 0));
            assert_eq!((bytes[512], bytes[200_514]), (1, 1));
        }
    }

    #[test]
    fn a_file_that_was_cut_short_cannot_be_read_there() {
        let file = file(&[7; 1024]);
        let disk = open(file.path()).unwrap();
        std::fs::write(file.path(), [7; 600]).unwrap();
        assert_eq!(disk.read(512, &mut [0; 512]), Err(Status::ReadError));
        assert_eq!(disk.size(), 1024);
    }
}
