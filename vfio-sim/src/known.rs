// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tool knows by name: files of the repository that are built into it.

use std::path::Path;

use crate::toml_file::FileError;

/// A name that stands for nothing known, nor for a usable file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing known has the name, and there is no such file.
    #[error("\"{name}\" is no {what} file and no known {what}; known are {}", known.join(", "))]
    Unknown {
        /// What it should be: a host, a layout.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Files of one kind.
pub(crate) struct Known<T> {
    /// What they are.
    pub(crate) what: &'static str,
    /// Name and text of each, in the order in which they are listed.
    pub(crate) texts: &'static [(&'static str, &'static str)],
    /// Parses a text: name, file for errors, text.
    pub(crate) parse: fn(&str, &str, &str) -> Result<T, FileError>,
    /// Reads a file.
    pub(crate) load: fn(&Path) -> Result<T, FileError>,
}

impl<T> Known<T> {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.texts.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Result<T, FileError>> {
        self.texts.iter().map(|(name, text)| self.parse(name, text))
    }

    /// The only one whose name begins so, up to a dash.
    fn begins_with(&self, start: &str) -> Option<&'static (&'static str, &'static str)> {
        let begins =
            |name: &str| name.strip_prefix(start).is_some_and(|rest| rest.starts_with('-'));
        let mut found = self.texts.iter().filter(|(name, _)| begins(name));
        found.next().filter(|_| found.next().is_none())
    }

    fn parse(&self, name: &str, text: &str) -> Result<T, FileError> {
        (self.parse)(name, &format!("{}s/{name}.toml", self.what), text)
    }

    /// What is known by that name or by its beginning, or what is in that file. A name with a `/` or
    /// ending in `.toml` is a file; so is one that nothing known has.
    pub(crate) fn find(&self, name: &str) -> Result<T, FindError> {
        let file = name.contains('/') || name.ends_with(".toml");
        let path = Path::new(name);
        let known = self.texts.iter().find(|(known, _)| *known == name);
        let begun = || self.begins_with(name).filter(|_| !path.exists());
        if let Some((name, text)) = known.or_else(begun).filter(|_| !file) {
            return Ok(self.parse(name, text)?);
        }
        if !file && !path.exists() {
            let (what, name) = (self.what, name.to_owned());
            return Err(FindError::Unknown { what, name, known: self.names() });
        }
        Ok((self.load)(path)?)
    }
}

/// Name and text of each file in a folder of this crate.
macro_rules! texts {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../", $folder, "/", $name, ".toml")))),*]
    };
}

pub(crate) use texts;
