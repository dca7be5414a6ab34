// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The layouts that the tool knows by name: the files in `vfio-sim/layouts`, each a public report
//! of a program that failed.

use crate::known::{FindError, Known, texts};
use crate::layout::Layout;
use crate::layout_file;
use crate::toml_file::FileError;

const KNOWN: Known<Layout> = Known {
    what: "layout",
    texts: texts!["layouts":
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
    ],
    parse: layout_file::parse,
    load: layout_file::load,
};

/// The names of the known layouts.
pub fn names() -> Vec<&'static str> {
    KNOWN.names()
}

/// The known layouts.
pub fn known() -> impl Iterator<Item = Result<Layout, FileError>> {
    KNOWN.all()
}

/// The layout of that name, or the one in that file. A name with a `/` or ending in `.toml` is a file; so
/// is one that no known layout has.
pub fn find(name: &str) -> Result<Layout, FindError> {
    KNOWN.find(name)
}
