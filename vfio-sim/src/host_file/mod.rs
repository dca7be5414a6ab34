// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Host files: a machine described in TOML, for a person to read and edit.
//!
//! `vfio-sim/HOSTS.md` explains the format. Every mistake is reported with its line, the field, and
//! what was expected. `schema` has the shape of the file, `facts` reads what it says of
//! IOMMUs, `pci` what it says of devices, `bridge` of host bridges,
//! `region` the regions that it states, `build` makes a host and checks one part against
//! another.

mod bridge;
mod build;
mod facts;
mod pci;
mod region;
mod schema;

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use crate::host::Host;
use build::build;
pub use region::region_kind_name;
use schema::File;

/// A host file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostFileError {
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

/// The largest host file, in bytes: far more than a machine needs.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// Reads a text of `limit` bytes at most.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        return Err(format!("the file has more than {limit} bytes"));
    }
    Ok(text)
}

/// Reads a host file.
pub fn load(path: &Path) -> Result<Host, HostFileError> {
    let file = path.display().to_string();
    let text = read_limited(path, MAX_FILE)
        .map_err(|error| HostFileError::Unreadable { file: file.clone(), error })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &file, &text)
}

/// Parses the text of a host file. `name` becomes the host's, `file` stands in errors.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Host, HostFileError> {
    let invalid = |problem: Problem| problem.in_file(file, text);
    let parsed: File = toml::from_str(text).map_err(|error| {
        invalid(Problem { span: error.span(), text: error.message().replace('\n', "; ") })
    })?;
    build(name, parsed).map_err(invalid)
}

/// What is wrong, and where in the text.
pub(crate) struct Problem {
    pub(crate) span: Option<Range<usize>>,
    pub(crate) text: String,
}

impl Problem {
    pub(crate) fn at<T>(place: &Spanned<T>, text: String) -> Self {
        Self { span: Some(place.span()), text }
    }

    pub(crate) fn nowhere(text: impl Into<String>) -> Self {
        Self { span: None, text: text.into() }
    }

    pub(crate) fn in_file(self, file: &str, text: &str) -> HostFileError {
        let offset = self.span.map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        HostFileError::Invalid { file: file.to_owned(), line, column, problem: self.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Iova;

    const IOMMU: &str = "[[iommu]]\ndriver = \"vtd\"\naperture = \"0-0xffff\"\n\
        page-sizes = \"0x1000\"\ncoherent = false\nisolated-msi = true\n";

    fn problem(rest: &str) -> String {
        parse("test", "test.toml", &format!("{IOMMU}{rest}")).unwrap_err().to_string()
    }

    fn device(name: &str, regions: &str) -> String {
        format!(
            "[[group]]\nnumber = 1\n[[group.device]]\nname = \"{name}\"\nregions = [{regions}]\n"
        )
    }

    #[test]
    fn mistakes_are_reported_with_line_and_field() {
        let cases = [
            ("", "test.toml:1:1: the host has no [[group]]"),
            ("[[group]]\nnumber = 1\n", "test.toml:8:10: group 1 has no device"),
            (&device("00:03.0", ""), "test.toml:10:8: \"00:03.0\" is not a PCI address"),
            (&device("0000:00:03.0", "\"5-4 msi\""), "test.toml:11:12: range \"5-4\" ends below"),
            (&device("0000:00:03.0", "\"0+1 mis\""), "11:12: unknown region kind \"mis\""),
            (&device("0000:00:03.0", "\"0+1\""), "write RANGE KIND"),
            (&device("0000:00:03.0", "\"0+1 msi since 6.6\""), "unknown kernel \"6.6\""),
            ("[[group]]\nnumber = -1\n", "test.toml:8:10: "),
            (
                "[[iommu]]\n[iommu.smmuv3]\ninput-bits = 48\noutput-bits = 48\n\
                 granules = [\"4K\"]\nisolated-msi = true\n[[iommu.smmuv3.rmr]]\n\
                 base = \"0xfffffffffffff000\"\nlength = \"8K\"\ndevices = []\n\
                 [[group]]\nnumber = 1\n",
                "test.toml:15:10: 0x2000 bytes from 0xfffffffffffff000 are no range",
            ),
            ("[[group]]\nnumbr = 1\n", "test.toml:8:1: unknown field `numbr`"),
            ("[[group]\n", "test.toml:7:"),
        ];
        for (rest, expected) in cases {
            let problem = problem(rest);
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn twins_are_refused() {
        let group = device("0000:00:03.0", "");
        assert!(problem(&format!("{group}{group}")).contains("two groups have the number 1"));
        let second = group.replace("number = 1", "number = 2");
        assert!(problem(&format!("{group}{second}")).contains("is in group 1 already"));
    }

    #[test]
    fn facts_are_checked_too() {
        let vtd = |capability: &str, rest: &str| {
            let facts = format!("capability = \"{capability}\"\ninterrupt-remapping = true\n");
            let group = device("0000:00:03.0", "");
            let text = format!("[[iommu]]\n[iommu.vtd]\n{facts}{rest}{group}");
            parse("test", "test.toml", &text).unwrap_err().to_string()
        };
        let good = "0xd2008c222f0686";
        let rmrr = |range: &str, device: &str| {
            format!("[[iommu.vtd.rmrr]]\nrange = \"{range}\"\ndevices = [\"{device}\"]\n")
        };
        let cases = [
            (vtd("0x10000", ""), "test.toml:3:14: the capability register offers no page walk"),
            (vtd(good, &rmrr("5-4", "0000:00:03.0")), "test.toml:6:9: range \"5-4\" ends below"),
            (vtd(good, &rmrr("0-5", "0000:00:09.0")), "test.toml:7:12: the host has no device"),
            (problem("[iommu.vtd]\ncapability = 1\ninterrupt-remapping = true\n"), "exclude each"),
            (
                parse("t", "t.toml", "[[iommu]]\n[[group]]\nnumber = 1\n").unwrap_err().to_string(),
                "needs driver",
            ),
        ];
        for (problem, expected) in cases {
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
        }
        let classes = device("0000:00:03.0", "") + "class = \"0x1000000\"\n";
        assert!(problem(&classes).contains("test.toml:12:9: a class has 24 bits"));
        let buses = device("0000:00:03.0", "") + "buses = \"02-01\"\n";
        assert!(problem(&buses).contains("\"02-01\" are not buses"));
        let wide =
            device("0000:00:03.0", "") + "bars = { 0 = \"0+16M 64-bit\", 1 = \"0x1000000+16M\" }\n";
        assert!(problem(&wide).contains("test.toml:12:14: BAR 0 has 64 bits"));
        let bridge = "[[host-bridge]]\nbuses = \"00-7f\"\n";
        let bridges = format!("{}{bridge}{bridge}", device("0000:00:03.0", ""));
        assert!(problem(&bridges).contains("test.toml:15:9: two host bridges have bus 00 of"));
        let bridge = device("0000:00:03.0", "") + "[[host-bridge]]\nwindows = [\"5-4\"]\n";
        assert!(problem(&bridge).contains("test.toml:13:11: range \"5-4\" ends below"));
        let alone = device("0000:00:03.0", "") + "vendor = \"0x8086\"\n";
        assert!(problem(&alone).contains("test.toml:12:10: vendor and device go together"));
    }

    #[test]
    fn a_region_of_no_bytes_can_be_stated() {
        let text = format!("{IOMMU}{}", device("0000:00:03.0", "\"0x2000+0 direct\""));
        let host = parse("test", "test.toml", &text).unwrap();
        let region = host.groups[0].devices[0].regions[0].region;
        assert_eq!((region.first, region.last), (Iova(0x2000), Iova(0x1fff)));
    }
}
