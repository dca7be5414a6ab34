// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files of a tree that may be anything, and notes of what was wrong with them.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes. Those of sysfs are a page long, lists of regions longer.
const MAX_FILE: u64 = 1 << 20;

/// A tree of files, and what was found wrong with it.
pub(super) struct Source {
    root: PathBuf,
    /// It is the machine this runs on.
    pub(super) live: bool,
    notes: Vec<String>,
}

impl Source {
    /// The tree at `root`, or this machine.
    pub(super) fn new(root: Option<&Path>) -> Self {
        let (live, root) = (root.is_none(), root.unwrap_or(Path::new("/")).to_owned());
        Self { root, live, notes: Vec::new() }
    }

    /// Notes what could not be read or had to be assumed; once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    /// A path of the tree, for people.
    pub(super) fn shown(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }

    pub(super) fn is_directory(&self, path: &str) -> bool {
        self.root.join(path).is_dir()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The bytes of a file; `None`, with a note, if it cannot be read, and without one if there is
    /// none.
    pub(super) fn bytes(&mut self, path: &str) -> Option<Vec<u8>> {
        match read(&self.root.join(path), MAX_FILE) {
            Ok(bytes) => bytes,
            Err(problem) => {
                self.note(format!("{path}: {problem}"));
                None
            }
        }
    }

    /// The text of a file, as [`bytes`](Self::bytes) does.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        let text = String::from_utf8(self.bytes(path)?);
        if text.is_err() {
            self.note(format!("{path}: not a text"));
        }
        text.ok()
    }

    /// The first line of a file, without blanks around it.
    pub(super) fn line(&mut self, path: &str) -> Option<String> {
        Some(self.text(path)?.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// The number in a file, in hexadecimal with or without `0x`.
    pub(super) fn hexadecimal(&mut self, path: &str) -> Option<u64> {
        let line = self.line(path)?;
        let number = hexadecimal(&line);
        if number.is_none() {
            self.note(format!("{path}: \"{line}\" is not a hexadecimal number"));
        }
        number
    }

    /// The number in a file, in decimal.
    pub(super) fn decimal(&mut self, path: &str) -> Option<u64> {
        let line = self.line(path)?;
        let number = line.parse().ok();
        if number.is_none() {
            self.note(format!("{path}: \"{line}\" is not a number"));
        }
        number
    }

    /// The last part of what a link says; `None` if there is no link.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a directory, shorter ones first, so that 2 comes before 10. None if there is no
    /// such directory.
    pub(super) fn names(&mut self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path)).into_iter().flatten().flatten() {
            match entry.file_name().into_string() {
                Ok(name) => names.push(name),
                Err(name) => self.note(format!("{path}/{}: not a name", name.to_string_lossy())),
            }
        }
        names.sort_by_cached_key(|name| (name.len(), name.clone()));
        names
    }
}

/// Reads a regular file of `limit` bytes at most: a pipe would wait, a device never end. `None` if
/// there is none.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let problem = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
        _ => Err(format!("cannot read: {error}")),
    };
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return problem(error),
    };
    if !kind.is_file() {
        return Err("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => problem(error),
        Ok(_) if bytes.len() as u64 > limit => Err(format!("more than {limit} bytes")),
        Ok(_) => Ok(Some(bytes)),
    }
}

/// A hexadecimal number, with or without `0x`.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}
