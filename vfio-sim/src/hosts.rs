// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The hosts that the tool knows by name: the files in `vfio-sim/hosts`.

use crate::host::Host;
use crate::host_file;
use crate::known::{FindError, Known, texts};
use crate::toml_file::FileError;

const KNOWN: Known<Host> = Known {
    what: "host",
    texts: texts!["hosts":
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
        "apple-dart-t8110",
        "s390-zpci",
        "riscv-sv39",
        "riscv-sv48",
        "riscv-sv57",
        "noiommu",
    ],
    parse: host_file::parse,
    load: host_file::load,
};

/// The names of the known hosts.
pub fn names() -> Vec<&'static str> {
    KNOWN.names()
}

/// The known hosts.
pub fn known() -> impl Iterator<Item = Result<Host, FileError>> {
    KNOWN.all()
}

/// The host of that name, or the one in that file. A name with a `/` or ending in `.toml` is a file; so
/// is one that no known host has.
pub fn find(name: &str) -> Result<Host, FindError> {
    KNOWN.find(name)
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
        assert!(matches!(find("no/such.toml"), Err(FindError::File(_))));
    }
}
