// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The recordings of a program that has ended: the lines that each of its processes has written, with a
//! header in front.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vfio_type1::Kernel;

use crate::host::{BootError, Host};
use crate::trace::write::header;
use crate::trace::{Trace, TraceError};

/// Recordings that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The lines of a process cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No driver runs on the host.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The lines are no recording: the program has written into the file, or the disk was full.
    #[error("{path}: {error}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TraceError,
    },
}

/// The texts of the recordings in a directory, one for each process, in the order in which they began.
pub fn texts(directory: &Path, host: &Host, kernel: Kernel) -> Result<Vec<String>, RecordingError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| RecordingError::Unreadable { path, error }
    };
    let entries = fs::read_dir(directory).map_err(unreadable(directory))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable(directory))?;
        let begun =
            entry.metadata().and_then(|metadata| metadata.created().or(metadata.modified()));
        files.push((begun.map_err(unreadable(&entry.path()))?, entry.path()));
    }
    files.sort();
    let header = header(host, kernel, &[])?;
    files
        .into_iter()
        .map(|(_, path)| {
            let lines = fs::read_to_string(&path).map_err(unreadable(&path))?;
            // A process that was killed may have left half a line.
            let whole = lines.rfind('\n').map_or("", |end| &lines[..=end]);
            Ok(format!("{header}{whole}# end\n"))
        })
        .collect()
}

/// Whether a process has opened anything: a child may have looked at a file and left it.
pub fn has_calls(text: &str) -> bool {
    text.lines().any(|line| line.ends_with(" => 0 0"))
}

/// The recording of a process, to be reported on.
pub fn parse(text: &str) -> Result<Trace, TraceError> {
    Trace::parse("program", text)
}
