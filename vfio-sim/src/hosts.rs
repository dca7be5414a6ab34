// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The hosts that the tool knows by name: the files in `vfio-sim/hosts`.

use std::path::Path;

use crate::host::Host;
use crate::host_file::{self, HostFileError};

macro_rules! known {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each host, in the order in which they are listed.
        const KNOWN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../hosts/", $name, ".toml")))),*];
    };
}

known![
    // Recorded.
    "vtd48",
    "vtd39",
    "igd",
    "amd",
    "amd-ivmd",
    "smmu",
    // From reports, boot logs and driver source.
    "igd-57",
    "intel-client-39-igd",
    "intel-haswell-39",
    "intel-client-39-cml",
    "intel-client-39-glk",
    "intel-sandybridge",
    "intel-isa-bridge",
    "intel-client-42",
    "intel-xeon-48",
    "intel-xeon-57",
    "intel-fs-47",
    "intel-fs-56",
    "hp-proliant-rmrr",
    "amd-57",
    "amd-64",
    "amd-no-hole",
    "amd-v2-47",
    "amd-v2-56",
    "smmu-64k",
    "smmuv3-52",
    "nvidia-grace",
    "hisi-d05",
    "lx2160a",
    "tegra-smmuv2-39",
    "qemu-virt-smmuv3",
    "qemu-virtio-q35",
    "qemu-virtio-arm",
    "cloud-hypervisor-viommu",
    "apple-dart-t8103",
    "s390-zpci",
    "riscv-sv39",
    "riscv-sv48",
    "riscv-sv57",
    "noiommu",
];

/// A host that is neither known nor a usable file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindHostError {
    /// No known host has the name, and there is no such file.
    #[error("\"{name}\" is no host file and no known host; known are {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] HostFileError),
}

/// The names of the known hosts.
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|(name, _)| *name).collect()
}

/// The known hosts.
pub fn known() -> impl Iterator<Item = Result<Host, HostFileError>> {
    KNOWN.iter().map(|(name, text)| parse(name, text))
}

fn parse(name: &str, text: &str) -> Result<Host, HostFileError> {
    host_file::parse(name, &format!("hosts/{name}.toml"), text)
}

/// The host of that name, or the host in that file. A name with a `/` or ending in `.toml` is a
/// file; so is one that no known host has.
pub fn find(name: &str) -> Result<Host, FindHostError> {
    let file = name.contains('/') || name.ends_with(".toml");
    let known = KNOWN.iter().find(|(known, _)| *known == name && !file);
    if let Some((_, text)) = known {
        return Ok(parse(name, text)?);
    }
    let path = Path::new(name);
    if !file && !path.exists() {
        return Err(FindHostError::Unknown { name: name.to_owned() });
    }
    Ok(host_file::load(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_type1::Kernel;

    #[test]
    fn every_known_host_boots_on_every_kernel() {
        for host in known() {
            let host = host.unwrap();
            for kernel in Kernel::ALL {
                host.boot(kernel).unwrap();
            }
            assert!(!host.description.is_empty(), "{} has no description", host.name);
        }
    }

    #[test]
    fn an_unknown_host_lists_the_known_ones() {
        let error = find("vtd47").unwrap_err().to_string();
        assert!(error.contains("vtd48, vtd39, igd"), "{error}");
        assert!(matches!(find("no/such.toml"), Err(FindHostError::File(_))));
    }
}
