// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an IOMMU shows: its directory under `/sys/class/iommu` with the registers that drivers
//! publish, and what they print at boot.
//!
//! Names, files and lines are those of `drivers/iommu/intel/{iommu,dmar,irq_remapping}.c`,
//! `amd/init.c`, `arm/arm-smmu{,-v3}`, `virtio-iommu.c` and `drivers/irqchip/irq-gic-v3-its.c`. A
//! platform that is new to the simulator gets its arm in [`unit`].

use vfio_type1::{IommuDriver, Kernel, PageSize};

use super::stand_in::stand_in;
use super::tree::Tree;
use crate::host::{Host, age};
use crate::ivrs;
use crate::platform::{
    AmdVi, Dart, ExtendedCapability, Platform, Smmu, Stated, VirtioIommu, Vtd, x86_msi_window,
};

/// An IOMMU as Linux shows it.
pub(super) struct Unit {
    /// Its name under `/sys/class/iommu`.
    name: String,
    /// The device that it is; none for VT-d, whose units are no devices to Linux.
    parent: Option<Parent>,
    /// The files in its directory, by name.
    attributes: Vec<(String, String)>,
    /// The start of the IVRS table, for AMD-Vi.
    table: Option<[u8; ivrs::SIZE]>,
    /// What its driver prints at boot.
    pub(super) log: Vec<String>,
    /// What of its facts is nowhere to be seen.
    pub(super) note: Option<String>,
    /// Its driver, to VFIO.
    pub(super) iommu_driver: IommuDriver,
}

struct Parent {
    directory: String,
    /// The bus and the driver on it.
    driver: Option<(&'static str, &'static str)>,
}

impl Parent {
    fn platform(name: &str, driver: &'static str) -> Self {
        Self {
            directory: format!("sys/devices/platform/{name}"),
            driver: Some(("platform", driver)),
        }
    }
}

impl Unit {
    fn new(name: String, parent: Option<Parent>, iommu_driver: IommuDriver) -> Self {
        let (attributes, log) = (Vec::new(), Vec::new());
        Self { name, parent, attributes, table: None, log, note: None, iommu_driver }
    }

    fn attribute(&mut self, name: &str, value: String) {
        self.attributes.push((name.to_owned(), value + "\n"));
    }

    /// Its directory.
    pub(super) fn directory(&self) -> String {
        let parent = self.parent.as_ref().map_or("sys/devices/virtual", |parent| &parent.directory);
        format!("{parent}/iommu/{}", self.name)
    }

    pub(super) fn show(&self, tree: &mut Tree) {
        let directory = self.directory();
        tree.directory(format!("{directory}/devices"));
        tree.link(format!("sys/class/iommu/{}", self.name), &directory);
        tree.link(format!("{directory}/subsystem"), "sys/class/iommu");
        tree.file(format!("{directory}/uevent"), "");
        for (name, value) in &self.attributes {
            tree.file(format!("{directory}/{name}"), value.as_str());
        }
        if let Some(table) = self.table {
            tree.file(ivrs::PATH, table);
        }
        let Some(parent) = &self.parent else { return };
        tree.link(format!("{directory}/device"), &parent.directory);
        if let Some((bus, driver)) = parent.driver {
            let driver = format!("sys/bus/{bus}/drivers/{driver}");
            tree.link(format!("{}/driver", parent.directory), &driver);
            tree.directory(driver);
        }
    }
}

/// The IOMMUs of a host, in its order. Linux counts those of each kind.
pub(super) fn units(host: &Host, kernel: &Kernel) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for iommu in &host.iommus {
        let driver = iommu.platform.iommu(kernel, host.page_size).driver;
        let index = match driver {
            // Those of all other drivers share one name.
            IommuDriver::Other(_) => units.len(),
            _ => units.iter().filter(|unit| unit.iommu_driver == driver).count(),
        };
        units.push(unit(&iommu.platform, &iommu.name, index, kernel, host.page_size));
    }
    units
}

/// `index` counts the units of this kind, from 0; `name` is the host's name for it.
fn unit(
    platform: &Platform,
    name: &str,
    index: usize,
    kernel: &Kernel,
    cpu_page: PageSize,
) -> Unit {
    match platform {
        Platform::Stated(facts) => stated(facts, name, index, kernel, cpu_page),
        Platform::Vtd(facts) => vtd(facts, index),
        Platform::AmdVi(facts) => amd(facts, index, kernel),
        Platform::Smmu(facts) => smmu(facts, index),
        Platform::Virtio(facts) => virtio(facts, name, index),
        Platform::Dart(facts) => dart(facts, name, index),
        Platform::S390(_) => untold(name, format!("s390-iommu.{index:08x}"), "s390"),
        Platform::RiscV(_) => untold(name, format!("riscv-iommu@{index}"), "RISC-V IOMMU"),
    }
}

/// Registers that mean what the host states; nothing but a directory if none do.
fn stated(facts: &Stated, name: &str, index: usize, kernel: &Kernel, cpu_page: PageSize) -> Unit {
    if let Some(platform) = stand_in(facts, kernel, cpu_page) {
        return unit(&platform, name, index, kernel, cpu_page);
    }
    let mut unit = untold(name, format!("iommu{index}"), "");
    unit.iommu_driver = facts.driver;
    unit
}

/// An IOMMU whose driver shows and prints nothing of its widths.
fn untold(name: &str, shown: String, driver: &'static str) -> Unit {
    let mut unit = Unit::new(shown, None, IommuDriver::Other(driver));
    unit.note = Some(format!("{name}: no file tells what it translates"));
    unit
}

fn vtd(facts: &Vtd, index: usize) -> Unit {
    let mut unit = Unit::new(format!("dmar{index}"), None, IommuDriver::IntelVtd);
    let register = ExtendedCapability(facts.extended_capability)
        .with(facts.interrupt_remapping, facts.snoop_control);
    let ecap = register.0;
    // Where clients have their first units; a host does not tell.
    let address = 0xfed9_0000 + 0x1000 * index;
    let cap = facts.capability;
    unit.attribute("intel-iommu/version", "1:0".to_owned());
    unit.attribute("intel-iommu/address", format!("{address:x}"));
    unit.attribute("intel-iommu/cap", format!("{cap:x}"));
    unit.attribute("intel-iommu/ecap", format!("{ecap:x}"));
    // ND: 16 domains, and four times as many for each step.
    unit.attribute("intel-iommu/domains_supported", (16u32 << (2 * (cap & 7))).to_string());
    unit.log.push(format!(
        "DMAR: dmar{index}: reg_base_addr {address:x} ver 1:0 cap {cap:x} ecap {ecap:x}"
    ));
    unit.log.extend(facts.rmrrs.iter().map(|rmrr| {
        let (first, last) = (rmrr.range.first().0, rmrr.range.last().0);
        format!("DMAR: RMRR base: {first:#016x} end: {last:#016x}")
    }));
    if register.scalable_mode() {
        unit.log.push(
            if facts.scalable_mode { SCALABLE_MODE_ON } else { SCALABLE_MODE_OFF }.to_owned(),
        );
    }
    if facts.interrupt_remapping {
        unit.log.push("DMAR-IR: Enabled IRQ remapping in x2apic mode".to_owned());
    }
    unit
}

/// What the driver prints if it is told to use scalable mode, or not to (`intel_iommu_setup`).
pub(crate) const SCALABLE_MODE_ON: &str = "DMAR: Enable scalable mode if hardware supports";
pub(crate) const SCALABLE_MODE_OFF: &str = "DMAR: Scalable mode is disallowed";

/// Extended feature 2: the HyperTransport range is ordinary memory.
const EFR2_HT_RANGE_IGNORE: u64 = 1 << 11;

fn amd(facts: &AmdVi, index: usize, kernel: &Kernel) -> Unit {
    // Where the function of the unit usually is; a host does not tell, and it has no driver.
    let parent = Parent { directory: "sys/devices/pci0000:00/0000:00:00.2".into(), driver: None };
    let mut unit = Unit::new(format!("ivhd{index}"), Some(parent), IommuDriver::AmdVi);
    // HATS: 0 means four levels.
    let efr = u64::from(facts.table_levels.saturating_sub(4)) << 10;
    let efr2 = if facts.ht_range_ignore { EFR2_HT_RANGE_IGNORE } else { 0 };
    unit.attribute("amd-iommu/cap", "0".to_owned());
    unit.attribute("amd-iommu/features", amd_features(efr, efr2, kernel));
    if facts.interrupt_remapping {
        unit.log.push("AMD-Vi: Interrupt remapping enabled".to_owned());
    }
    if let Some(levels) = facts.guest_levels.filter(|_| age(kernel) >= age(&Kernel::V6_1)) {
        // 6.1 has tables of four levels only, and does not count them.
        let counted = age(kernel) >= age(&Kernel::V6_12);
        let depth =
            if counted { format!(" (Paging mode : {levels} level)") } else { String::new() };
        unit.log.push(format!("{AMD_GUEST_TABLES}{depth}"));
    }
    unit.table = Some(ivrs::table(facts.virtual_address_bits));
    unit
}

/// What the driver prints if it is told to use guest tables (`print_iommu_info`).
pub(crate) const AMD_GUEST_TABLES: &str = "AMD-Vi: V2 page table enabled";

/// One register up to 5.18, then the second before the first, and from 6.7 the first before the
/// second (`amd_iommu_show_features`).
fn amd_features(efr: u64, efr2: u64, kernel: &Kernel) -> String {
    if age(kernel) < age(&Kernel::V6_1) {
        format!("{efr:x}")
    } else if age(kernel) < age(&Kernel::V6_12) {
        format!("{efr2:x}:{efr:x}")
    } else {
        format!("{efr:x}:{efr2:x}")
    }
}

fn smmu(facts: &Smmu, index: usize) -> Unit {
    let Smmu { input_bits, output_bits, .. } = facts;
    let (driver, iommu_driver, class) = match facts.v3 {
        true => ("arm-smmu-v3", IommuDriver::SmmuV3, "smmu3"),
        false => ("arm-smmu", IommuDriver::SmmuV2, "smmu"),
    };
    let device = format!("{driver}.{index}.auto");
    // Where QEMU's virt machine has its SMMU; a host does not tell.
    let address = 0x905_0000 + 0x2_0000 * index;
    let parent = Parent::platform(&device, driver);
    let mut unit = Unit::new(format!("{class}.{address:#018x}"), Some(parent), iommu_driver);
    if facts.v3 {
        unit.log.push(format!(
            "{driver} {device}: ias {input_bits}-bit, oas {output_bits}-bit (features 0x00000000)"
        ));
    } else {
        let sizes = smmu_v2_page_sizes(&facts.granules);
        unit.log.push(format!("{driver} {device}: \tSupported page sizes: {sizes:#010x}"));
        unit.log.push(format!(
            "{driver} {device}: \tStage-1: {input_bits}-bit VA -> {output_bits}-bit IPA"
        ));
    }
    if facts.isolated_msi {
        let windows = facts.its_windows.iter().map(|window| its_log(Some(window.first().0)));
        unit.log.extend(windows);
        if facts.its_windows.is_empty() {
            unit.log.push(its_log(None));
        }
    }
    unit
}

/// Each granule with its blocks.
fn smmu_v2_page_sizes(granules: &[PageSize]) -> u64 {
    let sizes = |granule: &PageSize| match granule.bytes() {
        0x1000 => 1 << 12 | 1 << 21 | 1 << 30,
        0x4000 => 1 << 14 | 1 << 25,
        0x1_0000 => 1 << 16 | 1 << 29,
        other => other,
    };
    granules.iter().map(sizes).fold(0, |all, one| all | one)
}

/// An ITS has two frames of 64 KiB; devices write to the second. QEMU's virt machine has it here.
fn its_log(window: Option<u64>) -> String {
    const FRAME: u64 = 0x1_0000;
    let first = window.map_or(0x808_0000, |window| window.saturating_sub(FRAME));
    format!("ITS [mem {first:#010x}-{:#010x}]", first.saturating_add(2 * FRAME - 1))
}

fn virtio(facts: &VirtioIommu, name: &str, index: usize) -> Unit {
    let parent = Parent {
        directory: format!("sys/devices/platform/virtio-mmio.{index}/virtio{index}"),
        driver: Some(("virtio", "virtio_iommu")),
    };
    let mut unit = Unit::new(format!("virtio-mmio.{index}"), Some(parent), IommuDriver::Virtio);
    let range = facts.input_range;
    let bits = u64::BITS - range.last().0.leading_zeros();
    let driver = format!("virtio_iommu virtio{index}");
    unit.log.push(format!("{driver}: input address: {bits} bits"));
    unit.log.push(format!("{driver}: page mask: {:#x}", facts.page_sizes.0));
    let on_x86 = facts.regions.contains(&x86_msi_window());
    if facts.isolated_msi && !on_x86 {
        unit.log.push(its_log(None));
    }
    let whole = range.first().0 == 0 && range.last().0.trailing_ones() == bits;
    unit.note = match (whole, facts.isolated_msi && on_x86) {
        (false, _) => {
            Some(format!("{name}: of its input range {range} the log tells {bits} bits only"))
        }
        (true, true) => Some(format!("{name}: no file tells that its MSIs are isolated")),
        (true, false) => None,
    };
    unit
}

fn dart(facts: &Dart, name: &str, index: usize) -> Unit {
    // Where the M1 has the DART of its first PCI port; a host does not tell.
    let device = format!("{:x}.iommu", 0x6_8100_8000u64 + 0x100_0000 * index as u64);
    let parent = Parent::platform(&device, "apple-dart");
    let driver = IommuDriver::Other("Apple DART");
    let mut unit = Unit::new(format!("apple-dart.{device}"), Some(parent), driver);
    unit.log.push(format!(
        "apple-dart {device}: DART [pagesize 4000, 16 streams, bypass support: 0, bypass forced: 0, \
         AS {} -> 36] initialized",
        facts.input_bits
    ));
    unit.note =
        facts.isolated_msi.then(|| format!("{name}: no file tells that its MSIs are isolated"));
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd_prints_its_registers_in_three_ways() {
        let text = |kernel| amd_features(0x800, 0x400, &kernel);
        assert_eq!(text(Kernel::V5_10), "800");
        assert_eq!(text(Kernel::V6_1), "400:800");
        assert_eq!(text(Kernel::V6_12), "800:400");
    }

    #[test]
    fn the_frames_of_an_its_are_around_its_window() {
        assert_eq!(its_log(Some(0xc601_0000)), "ITS [mem 0xc6000000-0xc601ffff]");
        assert_eq!(its_log(None), "ITS [mem 0x08080000-0x0809ffff]");
    }
}
