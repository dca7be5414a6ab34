// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The layouts that the tool knows by name: the files in `vfio-sim/layouts`, each a public report
//! of a program that failed.

use std::path::Path;

use crate::host_file::HostFileError;
use crate::layout::Layout;
use crate::layout_file;

macro_rules! known {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each layout, in the order in which they are listed.
        const KNOWN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../layouts/", $name, ".toml")))),*];
    };
}

known![
    "t02-1tib-ram",
    "t03-four-128g-bars",
    "t06-40-bit-base",
    "t09-16g-bar",
    "t15-map-before-set",
    "t16-late-group",
    "t20-subrange-unmap-v1",
    "t22-last-device",
    "t26-second-gpu-overlap",
    "t27-bar-move",
    "t30-256g-in-2m-pieces",
    "t43-rmrr-nic",
    "t49-ram-at-0",
    "t57-unmap-with-bitmap",
];

/// A layout that is neither known nor a usable file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindLayoutError {
    /// No known layout has the name, and there is no such file.
    #[error("\"{name}\" is no layout file and no known layout; known are {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] HostFileError),
}

/// The names of the known layouts.
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|(name, _)| *name).collect()
}

/// The known layouts.
pub fn known() -> impl Iterator<Item = Result<Layout, HostFileError>> {
    KNOWN.iter().map(|(name, text)| parse(name, text))
}

fn parse(name: &str, text: &str) -> Result<Layout, HostFileError> {
    layout_file::parse(name, &format!("layouts/{name}.toml"), text)
}

/// The layout of that name, or the one in that file. A name with a `/` or ending in `.toml` is a
/// file; so is one that no known layout has.
pub fn find(name: &str) -> Result<Layout, FindLayoutError> {
    let file = name.contains('/') || name.ends_with(".toml");
    let known = KNOWN.iter().find(|(known, _)| *known == name && !file);
    if let Some((_, text)) = known {
        return Ok(parse(name, text)?);
    }
    let path = Path::new(name);
    if !file && !path.exists() {
        return Err(FindLayoutError::Unknown { name: name.to_owned() });
    }
    Ok(layout_file::load(path)?)
}
