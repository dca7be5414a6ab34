// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files in TOML that people write: hosts and layouts. Every mistake is reported with its line, its
//! column, and what was expected.

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{file}: cannot read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        error: String,
    },
    /// Something in the file is wrong.
    #[error("{file}:{line}:{column}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The largest file, in bytes: far more than a machine or a program needs.
const MAX_FILE: u64 = 16 << 20;

/// Reads a text of `limit` bytes at most.
fn read_limited(path: &Path, limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(format!("the file has more than {limit} bytes"));
    }
    Ok(text)
}

/// Reads a file. `parse` gets its name without the ending, its path for errors, and its text.
pub(crate) fn load<T>(
    path: &Path,
    parse: impl FnOnce(&str, &str, &str) -> Result<T, FileError>,
) -> Result<T, FileError> {
    let file = path.display().to_string();
    let text = read_limited(path, MAX_FILE)
        .map_err(|error| FileError::Unreadable { file: file.clone(), error })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &file, &text)
}

/// Parses a text into its shape, of which `build` makes the thing itself. `file` stands in errors.
pub(crate) fn parse<S: DeserializeOwned, T>(
    file: &str,
    text: &str,
    build: impl FnOnce(S) -> Result<T, Problem>,
) -> Result<T, FileError> {
    let invalid = |problem: Problem| problem.in_file(file, text);
    let shape: S = toml::from_str(text).map_err(|error| {
        invalid(Problem { span: error.span(), text: in_our_words(error.message()) })
    })?;
    build(shape).map_err(invalid)
}

/// What serde says, with what to do where its words are about itself.
fn in_our_words(message: &str) -> String {
    let hint = match message {
        _ if message.starts_with("invalid type: map, expected a sequence") => {
            "; there can be several, so write it in two brackets: [[...]]"
        }
        _ if message.ends_with("expected a sequence") => "; write a list: [\"...\"]",
        _ if message.ends_with("expected u32") => "; write a number without quotes",
        _ if message.ends_with("expected a boolean") => "; write true or false without quotes",
        _ => "",
    };
    message.replace('\n', "; ") + hint
}

/// What is wrong, and where in the text.
pub(crate) struct Problem {
    span: Option<Range<usize>>,
    text: String,
}

impl Problem {
    pub(crate) fn at<T>(place: &Spanned<T>, text: impl Into<String>) -> Self {
        Self { span: Some(place.span()), text: text.into() }
    }

    /// At `place`, if the file says anything there.
    pub(crate) fn maybe_at<T>(place: Option<&Spanned<T>>, text: impl Into<String>) -> Self {
        Self { span: place.map(Spanned::span), text: text.into() }
    }

    pub(crate) fn nowhere(text: impl Into<String>) -> Self {
        Self { span: None, text: text.into() }
    }

    fn in_file(self, file: &str, text: &str) -> FileError {
        let offset = self.span.map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        FileError::Invalid { file: file.to_owned(), line, column, problem: self.text }
    }
}
