// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reserved regions as host files write them.

use vfio_type1::{Kernel, RegionKind, ReservedRegion};

use crate::host::HostRegion;
use crate::number::{NumberError, parse_number, parse_range};

/// Parses `RANGE KIND [since KERNEL]`.
pub(super) fn parse_region(text: &str) -> Result<HostRegion, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (range, kind, since) = match words[..] {
        [range, kind] => (range.to_owned(), kind, None),
        [range, kind, "since", kernel] => (range.to_owned(), kind, Some(kernel)),
        // As sysfs prints it.
        [first, last, kind] => (format!("{first}-{last}"), kind, None),
        _ => {
            return Err(format!("\"{text}\" is not a region: write RANGE KIND [since KERNEL]"));
        }
    };
    let since: Option<Kernel> =
        since.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
    let region = region(&range, region_kind(kind)?).map_err(|error| error.to_string())?;
    Ok(HostRegion { region, since })
}

/// Firmware may state a region of no bytes, which only the form FIRST+0 can say.
fn region(range: &str, kind: RegionKind) -> Result<ReservedRegion, NumberError> {
    if let Some(first) = range.strip_suffix("+0") {
        return Ok(ReservedRegion::from_length(parse_number(first)?, 0, kind));
    }
    Ok(ReservedRegion::from_range(parse_range(range)?, kind))
}

const KINDS: [(&str, RegionKind); 5] = [
    ("direct", RegionKind::Direct),
    ("direct-relaxable", RegionKind::DirectRelaxable),
    ("reserved", RegionKind::Reserved),
    ("msi", RegionKind::Msi),
    ("software-msi", RegionKind::SoftwareMsi),
];

/// The word for a kind in host files.
pub fn region_kind_name(kind: RegionKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

fn region_kind(name: &str) -> Result<RegionKind, String> {
    let known = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    known.ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        format!("unknown region kind \"{name}\"; known are {}", names.join(", "))
    })
}
