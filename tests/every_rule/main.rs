// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: every rule can be broken, gives its own error with its errno, and stands in
//! `SEMANTICS.md`.
//!
//! Each module breaks the rules of one operation. The test below holds what was broken against the
//! error enums in `src` and the rows of `SEMANTICS.md`, so that no rule is without either.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod attach;
mod bytes;
mod dirty;
mod emulated;
mod files;
mod injected;
mod iommufd;
mod iommufd_bytes;
mod iommufd_hwpt;
mod map;
mod unmap;

use std::collections::BTreeMap;
use std::fmt::Debug;

use vfio_type1::{Errno, Kernel};

/// The rules broken so far: `Enum::Variant`, and the errno.
#[derive(Default)]
struct Broken(BTreeMap<String, Errno>);

impl Broken {
    #[track_caller]
    fn add(&mut self, enumeration: &str, error: &impl Debug, errno: Errno, expected: Errno) {
        let debug = format!("{error:?}");
        let variant: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert_eq!(errno, expected, "{enumeration}::{debug}");
        self.0.insert(format!("{enumeration}::{variant}"), errno);
    }

    /// A rule inside another error: the first parenthesis.
    #[track_caller]
    fn add_inner(&mut self, enumeration: &str, error: &impl Debug) {
        let debug = format!("{error:?}");
        let inner = debug.split_once('(').map_or("", |(_, inner)| inner);
        let variant: String = inner.chars().take_while(char::is_ascii_alphanumeric).collect();
        self.0.insert(format!("{enumeration}::{variant}"), Errno::EINVAL);
    }
}

const K: Kernel = Kernel::V7_3;

/// Expects a refusal with this errno, and notes its rule.
macro_rules! broken {
    ($broken:ident, $enumeration:literal, $result:expr, $errno:ident) => {{
        let error = $result.unwrap_err();
        $broken.add($enumeration, &error, error.errno(), vfio_type1::Errno::$errno);
        assert!(!error.to_string().is_empty());
        error
    }};
}

pub(crate) use broken;

/// The variant that follows `marker` in an error's debug text: a rule inside another one.
fn variant_after(error: &impl Debug, enumeration: &str, marker: &str) -> String {
    let debug = format!("{error:?}");
    let rest = debug.split_once(marker).map_or("", |(_, rest)| rest);
    let variant: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    format!("{enumeration}::{variant}")
}

/// Rules that no sequence of calls reaches; each is kept because a caller's own type could.
const UNREACHABLE: [&str; 5] = [
    // A group is open once, and is in one container.
    "AttachError::AlreadyAttached",
    // Emulated devices and lost addresses exclude each other (spec 6.3), as do devices and drivers.
    "PinPagesError::VaddrsInvalid",
    "PinPagesError::NoDriver",
    // An emulated device is open only while it is attached.
    "AccessError::NotAttached",
    // Numbers run out after millions of processes.
    "IoasMapError::TooManyProcesses",
];

/// `Enum::Variant` of every error enum in `src`.
fn rules_in_source() -> Vec<String> {
    let mut rules = Vec::new();
    let mut pending = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut enumeration = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("pub enum ") {
                let name = rest.trim_end_matches(" {");
                let is_error = name.ends_with("Error") || name == "NoType1";
                enumeration = is_error.then(|| name.to_owned());
            } else if line == "}" {
                enumeration = None;
            } else if let Some(name) = &enumeration
                && let Some(variant) = line.strip_prefix("    ")
                && variant.starts_with(|c: char| c.is_ascii_uppercase())
            {
                let end = variant.find(|c: char| !c.is_ascii_alphanumeric());
                rules.push(format!("{name}::{}", &variant[..end.unwrap_or(variant.len())]));
            }
        }
    }
    rules
}

#[test]
fn every_rule_is_broken_and_documented() {
    let mut broken = Broken::default();
    map::break_map(&mut broken);
    map::break_map_on_odd_hosts(&mut broken);
    unmap::break_unmap(&mut broken);
    dirty::break_dirty(&mut broken);
    attach::break_attach(&mut broken);
    files::break_files(&mut broken);
    emulated::break_emulated(&mut broken);
    emulated::break_emulated_without_vaddr(&mut broken);
    bytes::break_bytes(&mut broken);
    files::break_descriptions(&mut broken);
    iommufd::break_ioas_map(&mut broken);
    iommufd::break_ioas_unmap(&mut broken);
    iommufd::break_ioas_attach(&mut broken);
    iommufd::break_cdevs(&mut broken);
    iommufd::break_groups_on_iommufds(&mut broken);
    iommufd::break_compat(&mut broken);
    iommufd::break_accesses(&mut broken);
    iommufd::break_memory_of_devices(&mut broken);
    iommufd_bytes::break_iommufd_bytes(&mut broken);
    iommufd_hwpt::break_hwpt_alloc(&mut broken);
    injected::break_on_demand(&mut broken);
    injected::break_plans(&mut broken);

    let rules = rules_in_source();
    assert!(rules.len() > 100, "the error enums were not found: {rules:?}");
    let untested: Vec<&String> = rules
        .iter()
        .filter(|rule| !broken.0.contains_key(*rule) && !UNREACHABLE.contains(&rule.as_str()))
        .collect();
    assert_eq!(untested, Vec::<&String>::new(), "rules that no test here breaks");

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SEMANTICS.md");
    let semantics = std::fs::read_to_string(path).unwrap();
    let states = ["emulated", "accepted and ignored", "rejected", "not modelled"];
    for rule in &rules {
        let row = semantics.lines().find(|line| line.starts_with(&format!("| `{rule}` |")));
        let row = row.unwrap_or_else(|| panic!("{rule} has no row in SEMANTICS.md"));
        let state = row.split('|').nth(2).unwrap_or_default().trim();
        assert!(states.contains(&state), "{rule} is \"{state}\"");
        let test = row.split('|').nth(3).unwrap_or_default().trim().trim_matches('`');
        let exists = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(test).is_file();
        assert!(exists != UNREACHABLE.contains(&rule.as_str()), "{rule}: test \"{test}\"");
    }
}
