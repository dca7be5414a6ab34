// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! IOMMUs as `/sys/class/iommu` and the boot log tell them.

use vfio_type1::{IommuDriver, IovaRange, PageSize, PageSizes};

use super::log::Log;
use super::machine::Machine;
use super::source::{Source, hexadecimal};
use crate::host::HostIommu;
use crate::ivrs;
use crate::names::iommu_driver;
use crate::platform::{
    AmdVi, Dart, ExtendedCapability, Platform, Smmu, Stated, VirtioIommu, Vtd, Widths,
    address_space,
};
use crate::render::{AMD_GUEST_TABLES, SCALABLE_MODE_OFF, SCALABLE_MODE_ON};

/// An IOMMU, and where it is.
pub(super) struct CapturedUnit {
    /// Its name in sysfs, which is its name in the host too.
    pub(super) iommu: HostIommu,
    /// Its directory.
    pub(super) directory: String,
}

/// The IOMMUs that a host file can describe. Groups behind others cannot be described either.
pub(super) fn units(machine: &Machine<'_>, source: &mut Source) -> Vec<CapturedUnit> {
    let mut units = Vec::new();
    for name in source.names("sys/class/iommu") {
        let directory = format!("sys/class/iommu/{name}");
        let unit = Unit { machine, name: &name, directory: &directory };
        match unit.platform(source) {
            Some(platform) => {
                let iommu = HostIommu { name: name.clone(), platform };
                units.push(CapturedUnit { iommu, directory });
            }
            None => source.note(format!("{directory}: an IOMMU that host files do not know")),
        }
    }
    units
}

/// What drives an IOMMU.
enum Kind {
    Vtd,
    AmdVi,
    SmmuV3,
    SmmuV2,
    Virtio,
    Dart,
    /// Host files know it, by this name, but not its facts.
    Other(&'static str),
}

struct Unit<'a> {
    machine: &'a Machine<'a>,
    name: &'a str,
    directory: &'a str,
}

impl Unit<'_> {
    /// What it is, by its driver or, where Linux shows no device for it, by its name.
    fn kind(&self, source: &Source) -> Option<Kind> {
        let driver = source.link(&format!("{}/device/driver", self.directory));
        Some(match (driver.as_deref(), self.name) {
            (Some("arm-smmu-v3"), _) => Kind::SmmuV3,
            (Some("arm-smmu"), _) => Kind::SmmuV2,
            (Some("virtio_iommu"), _) => Kind::Virtio,
            (Some("apple-dart"), _) => Kind::Dart,
            (Some(driver), _) if driver.starts_with("riscv") => Kind::Other("riscv"),
            // A copied tree may have the link to the device, but not the device.
            _ if self.machine.log.has(&format!("virtio_iommu {}: ", self.device(source))) => {
                Kind::Virtio
            }
            (_, name) if name.starts_with("dmar") => Kind::Vtd,
            (_, name) if name.starts_with("ivhd") => Kind::AmdVi,
            (_, name) if name.starts_with("smmu3.") => Kind::SmmuV3,
            (_, name) if name.starts_with("smmu.") => Kind::SmmuV2,
            (_, name) if name.starts_with("apple-dart.") => Kind::Dart,
            (_, name) if name.starts_with("riscv-iommu") => Kind::Other("riscv"),
            (_, name) if name.starts_with("s390-iommu") => Kind::Other("s390"),
            _ => return None,
        })
    }

    fn platform(&self, source: &mut Source) -> Option<Platform> {
        Some(match self.kind(source)? {
            Kind::Vtd => Platform::Vtd(self.vtd(source)),
            Kind::AmdVi => Platform::AmdVi(self.amd(source)),
            Kind::SmmuV3 => Platform::Smmu(self.smmu(true, source)),
            Kind::SmmuV2 => Platform::Smmu(self.smmu(false, source)),
            Kind::Virtio => Platform::Virtio(self.virtio(source)),
            Kind::Dart => Platform::Dart(self.dart(source)),
            Kind::Other(name) => Platform::Stated(self.other(name, source)?),
        })
    }

    fn assume(&self, what: &str, source: &mut Source) {
        source.note(format!("{}: {what}", self.name));
    }

    fn isolated_msi(&self, source: &mut Source) -> bool {
        if self.machine.isolated_msi.is_none() {
            self.assume("nothing tells whether MSIs are isolated; assumed that they are", source);
        }
        self.machine.isolated_msi.unwrap_or(true)
    }

    fn vtd(&self, source: &mut Source) -> Vtd {
        /// The narrowest unit there is: three levels, 39 bits, pages of 4 KiB.
        const NARROW: u64 = 1 << 9 | 38 << 16;
        let cap = source.hexadecimal(&format!("{}/intel-iommu/cap", self.directory));
        let ecap = source.hexadecimal(&format!("{}/intel-iommu/ecap", self.directory));
        let logged = self.machine.log.vtd_registers(self.name);
        let capability = cap.or(logged.map(|(cap, _)| cap));
        let ecap = ecap.or(logged.map(|(_, ecap)| ecap)).unwrap_or(0);
        let register = ExtendedCapability(ecap);
        let scalable_mode = register.scalable_mode() && self.scalable_mode(source);
        let mut facts = Vtd {
            capability: capability.unwrap_or(NARROW),
            extended_capability: ecap,
            scalable_mode,
            snoop_control: register.snoop_control(),
            interrupt_remapping: register.interrupt_remapping() && self.isolated_msi(source),
            rmrrs: Vec::new(),
        };
        if capability.is_none() || facts.address_bits() == 0 {
            facts.capability = NARROW;
            self.assume("no capability register with a page walk; assumed 39 bits", source);
        }
        facts
    }

    /// Whether a unit that has scalable mode uses it. The log tells only what the driver was told.
    fn scalable_mode(&self, source: &mut Source) -> bool {
        let log = self.machine.log;
        if !log.has(SCALABLE_MODE_ON) && !log.has(SCALABLE_MODE_OFF) {
            self.assume("nothing tells whether scalable mode is on; assumed that it is", source);
        }
        !log.has(SCALABLE_MODE_OFF)
    }

    /// The levels of guest tables, if the driver was told to use them.
    fn guest_levels(&self) -> Option<u32> {
        let rest = self.machine.log.after(AMD_GUEST_TABLES).next()?;
        let levels = rest.split_once("Paging mode : ").and_then(|(_, rest)| rest.split(' ').next());
        Some(if levels == Some("5") { 5 } else { 4 })
    }

    fn amd(&self, source: &mut Source) -> AmdVi {
        let path = format!("{}/amd-iommu/features", self.directory);
        let (efr, efr2) = source
            .line(&path)
            .and_then(|line| amd_features(&line, self.machine.version()))
            .unwrap_or_else(|| {
                self.assume("no feature registers; assumed page tables of four levels", source);
                (0, 0)
            });
        // HATS: 4, 5 or 6 levels; 3 is reserved.
        let table_levels = 4 + u32::from(efr & 1 << 10 != 0) + 2 * u32::from(efr & 1 << 11 != 0);
        let stated = ivrs::virtual_address_bits(&source.bytes(ivrs::PATH).unwrap_or_default());
        if stated.is_none() {
            self.assume(
                "no IVRS table, which root may read; assumed that it limits nothing",
                source,
            );
        }
        AmdVi {
            virtual_address_bits: stated.unwrap_or(64),
            table_levels: table_levels.min(6),
            guest_levels: self.guest_levels(),
            ht_range_ignore: efr2 & 1 << 11 != 0,
            interrupt_remapping: self.isolated_msi(source),
            ivmds: Vec::new(),
        }
    }

    /// The name of its device, which begins the lines of its driver.
    fn device(&self, source: &Source) -> String {
        source.link(&format!("{}/device", self.directory)).unwrap_or_default()
    }

    fn smmu(&self, v3: bool, source: &mut Source) -> Smmu {
        let (log, device) = (self.machine.log, self.device(source));
        let widths = if v3 { smmu_v3_widths(log, &device) } else { smmu_v2_widths(log, &device) };
        let (input_bits, output_bits) = widths.unwrap_or_else(|| {
            self.assume("the log does not tell its address sizes; assumed 48 bits", source);
            (48, 48)
        });
        let granules = if v3 { None } else { smmu_v2_granules(log, &device) };
        Smmu {
            v3,
            input_bits,
            output_bits,
            granules: granules.unwrap_or_else(|| {
                self.assume("nothing tells its granules; assumed 4K, 16K and 64K", source);
                vec![PageSize::P4K, PageSize::P16K, PageSize::P64K]
            }),
            isolated_msi: self.isolated_msi(source),
            its_windows: Vec::new(),
            rmrs: Vec::new(),
        }
    }

    fn virtio(&self, source: &mut Source) -> VirtioIommu {
        let head = format!("virtio_iommu {}: ", self.device(source));
        let said =
            |what: &str| self.machine.log.after(&head).find_map(|rest| rest.strip_prefix(what));
        let bits = said("input address: ")
            .and_then(|rest| rest.split_once(" bits")?.0.parse().ok())
            .filter(|bits| (1..=64).contains(bits));
        let sizes = said("page mask: ").and_then(|rest| hexadecimal(rest.trim()));
        if bits.is_none() || sizes.is_none() {
            self.assume(
                "the log does not tell its widths; assumed 64 bits, 4K pages and up",
                source,
            );
        }
        VirtioIommu {
            input_range: bits.map_or_else(IovaRange::full, address_space),
            page_sizes: PageSizes(sizes.filter(|sizes| *sizes != 0).unwrap_or(!0xfff)),
            isolated_msi: self.isolated_msi(source),
            // What the probe reports is in the groups' regions.
            regions: Vec::new(),
        }
    }

    /// MSIs of Apple's controller do not count as isolated.
    fn dart(&self, source: &mut Source) -> Dart {
        let head = format!("apple-dart {}: DART [", self.device(source));
        let said = |rest: &str| {
            let (_, bits) = rest.split_once(" AS ")?;
            bits.split(' ').next()?.parse().ok().filter(|bits| (32..=64).contains(bits))
        };
        let input_bits = self.machine.log.after(&head).find_map(said);
        if input_bits.is_none() {
            self.assume("the log does not tell its address size; assumed 32 bits", source);
        }
        Dart {
            input_bits: input_bits.unwrap_or(32),
            msi_doorbell: Dart::DEFAULT_DOORBELL,
            isolated_msi: false,
        }
    }

    fn other(&self, name: &str, source: &mut Source) -> Option<Stated> {
        let driver: IommuDriver = iommu_driver(name).ok()?;
        self.assume("nothing tells its aperture; assumed 32 bits and the CPU's page", source);
        let page = self.machine.page_size.unwrap_or(PageSize::P4K).bytes();
        Some(Stated {
            driver,
            coherent: false,
            isolated_msi: self.isolated_msi(source),
            widths: Widths { aperture: address_space(32), page_sizes: PageSizes(page) },
            newer: Vec::new(),
        })
    }
}

/// The two extended feature registers. Kernels print the first alone up to 5.18, then the second
/// before the first, and from 6.7 the first before the second (`amd_iommu_show_features`).
fn amd_features(line: &str, version: Option<(u32, u32)>) -> Option<(u64, u64)> {
    let Some((one, other)) = line.split_once(':') else { return Some((hexadecimal(line)?, 0)) };
    let (one, other) = (hexadecimal(one)?, hexadecimal(other)?);
    let second_first = version.is_some_and(|version| version < (6, 7));
    Some(if second_first { (other, one) } else { (one, other) })
}

/// `ias 48-bit, oas 48-bit`, in bits that a host file takes.
fn smmu_v3_widths(log: &Log, device: &str) -> Option<(u32, u32)> {
    let head = format!("{device}: ias ");
    let (input, rest) = log.after(&head).next()?.split_once("-bit, oas ")?;
    widths(input, rest.split_once("-bit")?.0)
}

/// `Stage-1: 48-bit VA -> 48-bit IPA`; of the second stage if it has only that.
fn smmu_v2_widths(log: &Log, device: &str) -> Option<(u32, u32)> {
    let head = format!("{device}: ");
    let stage = |stage| log.after(&head).find_map(|rest| rest.trim_start().strip_prefix(stage));
    let line = stage("Stage-1: ").or_else(|| stage("Stage-2: "))?;
    let (input, output) = line.split_once(" -> ")?;
    widths(input.split_once("-bit")?.0, output.split_once("-bit")?.0)
}

fn widths(input: &str, output: &str) -> Option<(u32, u32)> {
    let bits = |text: &str| text.parse().ok().filter(|bits| (32..=64).contains(bits));
    Some((bits(input)?, bits(output)?))
}

/// Of `Supported page sizes`, by the blocks: the short descriptor format has pages of 64 KiB too.
fn smmu_v2_granules(log: &Log, device: &str) -> Option<Vec<PageSize>> {
    let head = format!("{device}: ");
    let said = |rest: &'_ str| {
        hexadecimal(rest.trim_start().strip_prefix("Supported page sizes: ")?.trim())
    };
    let sizes = log.after(&head).find_map(said)?;
    let blocks = [(21, PageSize::P4K), (25, PageSize::P16K), (29, PageSize::P64K)];
    let granules = blocks.iter().filter(|(block, _)| sizes & 1 << block != 0);
    Some(granules.map(|(_, granule)| *granule).collect()).filter(|all: &Vec<_>| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd_features_in_all_forms() {
        assert_eq!(amd_features("800", Some((5, 10))), Some((0x800, 0)));
        assert_eq!(amd_features("400:800", Some((6, 1))), Some((0x800, 0x400)));
        assert_eq!(amd_features("800:400", Some((6, 12))), Some((0x800, 0x400)));
        assert_eq!(amd_features("x:400", None), None);
    }
}
