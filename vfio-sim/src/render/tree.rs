// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tree of files in memory, and on disk.
//!
//! Paths are relative to the root of the tree, with `/` between names. Links are kept by what they
//! lead to, and written as relative links, as sysfs has them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A tree of files, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// A file, a link or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file with this content.
    File(Vec<u8>),
    /// A file of this many bytes, all 0, that takes no room.
    Sparse(u64),
    /// A link to this path of the tree.
    Link(String),
    /// A directory, which may be empty. Those above a file need not be listed.
    Directory,
}

/// A tree that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteTreeError {
    /// The directory has something in it already.
    #[error("{directory} is not empty; name a directory that does not exist yet")]
    NotEmpty {
        /// The directory.
        directory: String,
    },
    /// The system refuses a file.
    #[error("{path}: cannot write: {error}")]
    Unwritable {
        /// The file.
        path: String,
        /// What the system says.
        error: String,
    },
}

impl Tree {
    /// Adds a file.
    pub(super) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.nodes.insert(path.into(), Node::File(content.into()));
    }

    /// Adds a file of `size` bytes of 0.
    pub(super) fn sparse(&mut self, path: impl Into<String>, size: u64) {
        self.nodes.insert(path.into(), Node::Sparse(size));
    }

    /// Adds a link to `target`, a path of the tree.
    pub(super) fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.nodes.insert(path.into(), Node::Link(target.into()));
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, path: impl Into<String>) {
        self.nodes.entry(path.into()).or_insert(Node::Directory);
    }

    /// Everything in it, by path.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Writes it below `directory`, which must not exist or be empty. Returns what could not be as
    /// it should: files larger than the file system takes, which are left empty.
    pub fn write(&self, directory: &Path) -> Result<Vec<String>, WriteTreeError> {
        self.write_below("", directory)
    }

    /// Writes what is below the directory `top` of the tree, as [`Self::write`] writes all.
    pub(crate) fn write_below(
        &self,
        top: &str,
        directory: &Path,
    ) -> Result<Vec<String>, WriteTreeError> {
        let refused = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| WriteTreeError::Unwritable { path, error: error.to_string() }
        };
        fs::create_dir_all(directory).map_err(refused(directory))?;
        if fs::read_dir(directory).map_err(refused(directory))?.next().is_some() {
            let directory = directory.display().to_string();
            return Err(WriteTreeError::NotEmpty { directory });
        }
        let (mut notes, mut made) = (Vec::new(), None);
        for (path, node) in &self.nodes {
            let Ok(below) = Path::new(path).strip_prefix(top) else { continue };
            let place = directory.join(below);
            let parent = place.parent().map(Path::to_owned);
            if let Some(parent) = parent.as_ref().filter(|parent| made.as_ref() != Some(*parent)) {
                fs::create_dir_all(parent).map_err(refused(parent))?;
            }
            made = parent;
            notes.extend(node.write(path, &place).map_err(refused(&place))?);
        }
        Ok(notes)
    }
}

impl Node {
    fn write(&self, path: &str, place: &Path) -> io::Result<Option<String>> {
        match self {
            Self::File(content) => fs::File::create_new(place)?.write_all(content)?,
            Self::Sparse(size) => {
                let file = fs::File::create_new(place)?;
                return Ok(file.set_len(*size).err().map(|error| {
                    format!("{path} is empty instead of {size:#x} bytes long: {error}")
                }));
            }
            Self::Link(target) => symlink(&relative(path, target), place)?,
            Self::Directory => fs::create_dir_all(place)?,
        }
        Ok(None)
    }
}

/// How a link at `path` says `target`. It always ends with the name of its target, as in sysfs, even if
/// that is above.
fn relative(path: &str, target: &str) -> PathBuf {
    let parts = |path| str::split(path, '/').collect::<Vec<_>>();
    let (from, to) = (parts(path), parts(target));
    let (above, parent) = (&from[..from.len() - 1], &to[..to.len() - 1]);
    let shared = above.iter().zip(parent).take_while(|(from, to)| from == to).count();
    let up = above[shared..].iter().map(|_| "..");
    up.chain(to[shared..].iter().copied()).collect()
}

#[cfg(unix)]
fn symlink(target: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "symbolic links are written on Unix only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_as_in_sysfs() {
        let device = "sys/devices/pci0000:00/0000:00:01.0";
        for (path, target, expected) in [
            (
                format!("{device}/driver"),
                "sys/bus/pci/drivers/e1000e",
                "../../../bus/pci/drivers/e1000e",
            ),
            (
                "sys/bus/pci/devices/0000:00:01.0".into(),
                device,
                "../../../devices/pci0000:00/0000:00:01.0",
            ),
            ("a/b".into(), "a/c", "c"),
            ("a".into(), "b/c", "b/c"),
            ("a/b/iommu/c/device".into(), "a/b", "../../../b"),
        ] {
            assert_eq!(relative(&path, target), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.file("a/b", "text\n");
        assert_eq!(tree.write(place.path()), Ok(Vec::new()));
        let again = tree.write(place.path()).unwrap_err();
        assert!(matches!(again, WriteTreeError::NotEmpty { .. }), "{again}");
        let on_a_file = tree.write(&place.path().join("a/b")).unwrap_err();
        assert!(matches!(on_a_file, WriteTreeError::Unwritable { .. }), "{on_a_file}");
    }

    #[test]
    fn what_the_file_system_does_not_take_is_told() {
        let place = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.sparse("resource0", u64::MAX);
        let notes = tree.write(place.path()).unwrap();
        assert!(notes[0].starts_with("resource0 is empty instead of 0xffffffffffffffff"));
    }
}
