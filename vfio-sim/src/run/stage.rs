// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The files of a host in the place of this machine's, for this process and its children.
//!
//! `/sys` and `/dev` are made anew, on file systems in memory, of the host's files and, everywhere
//! else, of what was there before. Directories that both have a part in are made here; all others of
//! this machine's are bound whole. Nothing is left behind: the file systems go with the last process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rustix::fs::{Mode, OFlags};

use crate::render::Tree;

/// Directories that the host's files are mixed with this machine's in. Any other one is the host's alone,
/// if the host has it.
const MIXED: [&str; 11] = [
    "dev",
    "sys",
    "sys/bus",
    "sys/bus/mdev",
    "sys/bus/pci",
    "sys/bus/pci/drivers",
    "sys/class",
    "sys/devices",
    "sys/devices/virtual",
    "sys/kernel",
    "sys/module",
];

/// What does not show of this machine, also if the host has nothing in its place; and what is made another way.
const HIDDEN: [&str; 6] = [
    "dev/iommu",
    "dev/ptmx",
    "dev/vfio",
    "sys/kernel/iommu_groups",
    // What a run that this one is inside of has made.
    "dev/.before",
    "sys/kernel/vfio-sim.json",
];

/// Files that anyone may open, as udev's rules have it; the others are their owner's.
const FOR_ALL: [&str; 2] = ["vfio", "iommu"];

/// A host's files that cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The system lets this user have no namespaces.
    #[error(
        "the kernel lets this user have no user and mount namespaces ({error}): run as root, or \
         allow them with sysctl kernel.unprivileged_userns_clone=1, a user.max_user_namespaces above 0, \
         kernel.apparmor_restrict_unprivileged_userns=0; in a container, with a seccomp profile that \
         has unshare and mount"
    )]
    Namespaces {
        /// What the system says.
        error: io::Error,
    },
    /// A file cannot be put in place.
    #[error("{path}: cannot be put in place: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Enters namespaces of this process's own, which must have one thread.
pub fn enter() -> Result<(), StageError> {
    let refused = |error: io::Error| StageError::Namespaces { error };
    // With the privilege to mount, a user namespace would only take other privileges away.
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        enter_as_user().map_err(refused)?;
    }
    // What is mounted here must not show outside.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| refused(e.into()))
}

fn enter_as_user() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // The groups' map may be written only when groups cannot be dropped any more.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Puts the host's files in place.
pub fn set(tree: &Tree) -> Result<(), StageError> {
    for top in ["sys", "dev"] {
        let place = Path::new("/").join(top);
        let stage = Stage::over(&place).map_err(at(&place))?;
        tree.write_below(top, &place).map_err(|error| {
            let error = io::Error::other(error);
            StageError::File { path: place.clone(), error }
        })?;
        stage.mix(top)?;
        if top == "dev" {
            stage.open_terminals().map_err(at(&place))?;
            set_modes(tree)?;
        }
    }
    Ok(())
}

/// Sets who may open VFIO's files.
fn set_modes(tree: &Tree) -> Result<(), StageError> {
    let paths = tree.nodes().map(|(path, _)| Path::new("/").join(path));
    for path in paths.filter(|path| path.starts_with("/dev") && path.is_file()) {
        let all = path.file_name().is_some_and(|name| FOR_ALL.iter().any(|known| name == *known));
        let mode = if all { 0o666 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))?;
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> StageError {
    let path = path.to_owned();
    move |error| StageError::File { path: path.clone(), error }
}

/// A directory that is hidden by a new one.
struct Stage {
    hidden: OwnedFd,
    place: PathBuf,
}

impl Stage {
    /// Hides a directory under an empty one. What was there stays within reach.
    fn over(place: &Path) -> io::Result<Self> {
        let hidden = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        // Other modes than this one keep shells from writing to /dev/null.
        mount(Some("vfio-sim"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        Ok(Self { hidden, place: place.to_owned() })
    }

    /// Adds what the host does not have in a directory. `name` is its path, without the first `/`.
    fn mix(&self, name: &str) -> Result<(), StageError> {
        let here = Path::new("/").join(name);
        let hosts: BTreeSet<OsString> = names(&here).into_iter().collect();
        let path = |entry: &OsString| format!("{name}/{}", entry.to_string_lossy());
        for entry in names(&self.before(&here)) {
            let path = path(&entry);
            let there = hosts.contains(&entry);
            if there && MIXED.contains(&path.as_str()) {
                self.mix(&path)?;
            } else if !there && !HIDDEN.contains(&path.as_str()) {
                let place = here.join(&entry);
                // Without one of this machine's files most programs can do.
                let _ = bring(&self.before(&place), &place);
            }
        }
        Ok(())
    }

    /// Lets new terminals be opened: `ptmx` looks for `pts` beside itself, so it has to be the one of the
    /// directory that was here before. A new instance would not know the terminals that are open.
    fn open_terminals(&self) -> io::Result<()> {
        let before = self.place.join(".before");
        fs::create_dir(&before)?;
        bind(&self.before(&self.place), &before)?;
        // What hides the directory came along, on top.
        umount2(&before, MntFlags::MNT_DETACH)?;
        symlink(".before/ptmx", self.place.join("ptmx"))
    }

    /// What was at a path before.
    fn before(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.place).unwrap_or(path);
        Path::new("/proc/self/fd").join(self.hidden.as_raw_fd().to_string()).join(below)
    }
}

/// The names in a directory; none if it is not there.
fn names(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Lets a file, a directory or a link be at another place too.
fn bring(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    } else {
        drop(File::create_new(to)?);
    }
    bind(from, to)
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    // In a user namespace, a directory is bound only with all that is mounted below it.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}
