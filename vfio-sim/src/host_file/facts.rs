// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host file says of an IOMMU: facts, or results stated outright.

use toml::Spanned;
use vfio_type1::{Iova, IovaRange, Kernel, PageSize, PageSizes, RegionKind};

use super::region::parse_region;
use super::schema::{
    AmdFacts, DartFacts, Iommu, IvmdFacts, Mode, Newer, RiscVFacts, RmrFacts, RmrrFacts, S390Facts,
    SmmuFacts, Table, VirtioFacts, VtdFacts,
};
use crate::host::age;
use crate::number::Number;
use crate::platform::{
    AmdVi, Dart, ExtendedCapability, Ivmd, IvmdDevices, Platform, RiscV, RiscVMode, Rmr, Rmrr,
    S390, S390Table, Smmu, Stated, VirtioIommu, Vtd, Widths,
};
use crate::toml_file::Problem;

/// What is known of an IOMMU. Facts and results exclude each other: both could not be true of every
/// kernel.
pub(super) fn platform(iommu: &Spanned<Iommu>, cpu_page: PageSize) -> Result<Platform, Problem> {
    let wrong = |text: &str| Err(Problem::at(iommu, text));
    let said = iommu.get_ref();
    let states = said.aperture.is_some() || said.page_sizes.is_some() || !said.from.is_empty();
    let mut facts = facts(said, cpu_page);
    match (facts.pop(), facts.is_empty()) {
        (None, _) => stated(iommu).map(Platform::Stated),
        (Some(_), _) if states || said.driver.is_some() => {
            wrong("facts (such as [iommu.vtd]) and stated results exclude each other; keep one")
        }
        (Some(_), false) => {
            wrong("an IOMMU has facts of one platform only; write an [[iommu]] for each")
        }
        (Some(platform), true) => platform,
    }
}

/// The platform of each set of facts; there should be one at the most.
fn facts(iommu: &Iommu, cpu_page: PageSize) -> Vec<Result<Platform, Problem>> {
    [
        iommu.vtd.as_ref().map(|facts| vtd(facts).map(Platform::Vtd)),
        iommu.amd.as_ref().map(|facts| amd(facts).map(Platform::AmdVi)),
        iommu.smmuv3.as_ref().map(|facts| smmu(facts, true).map(Platform::Smmu)),
        iommu.smmuv2.as_ref().map(|facts| smmu(facts, false).map(Platform::Smmu)),
        iommu.virtio.as_ref().map(|facts| virtio(facts).map(Platform::Virtio)),
        iommu.dart.as_ref().map(|facts| dart(facts, cpu_page).map(Platform::Dart)),
        iommu.s390.as_ref().map(|facts| s390(facts).map(Platform::S390)),
        iommu.riscv.as_ref().map(|facts| Ok(Platform::RiscV(riscv(facts)))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The devices that firmware tables name, where the file names them.
pub(super) fn scopes(iommu: &Iommu) -> Vec<Spanned<String>> {
    let rmrrs = iommu.vtd.iter().flat_map(|vtd| vtd.rmrr.iter().flat_map(|rmrr| &rmrr.devices));
    let ivmds = iommu.amd.iter().flat_map(|amd| amd.ivmd.iter().filter_map(|i| i.devices.as_ref()));
    let smmus = iommu.smmuv3.iter().chain(&iommu.smmuv2);
    let rmrs = smmus.flat_map(|smmu| smmu.rmr.iter().flat_map(|rmr| &rmr.devices));
    rmrrs.chain(ivmds.flatten()).chain(rmrs).cloned().collect()
}

fn stated(iommu: &Spanned<Iommu>) -> Result<Stated, Problem> {
    let missing =
        |field: &str| Problem::at(iommu, format!("an [[iommu]] without facts needs {field}"));
    let iommu = iommu.get_ref();
    let driver = iommu.driver.as_ref().ok_or_else(|| missing("driver"))?.get_ref().0.0;
    let aperture = iommu.aperture.as_ref().ok_or_else(|| missing("aperture"))?.0.0;
    let sizes = iommu.page_sizes.as_ref().ok_or_else(|| missing("page-sizes"))?;
    let widths = Widths { aperture, page_sizes: page_sizes(sizes)? };
    Ok(Stated {
        driver,
        coherent: iommu.coherent.ok_or_else(|| missing("coherent"))?,
        isolated_msi: iommu.isolated_msi.ok_or_else(|| missing("isolated-msi"))?,
        newer: newer(widths, &iommu.from)?,
        widths,
    })
}

fn page_sizes(sizes: &Spanned<Number>) -> Result<PageSizes, Problem> {
    match sizes.get_ref().0 {
        0 => Err(Problem::at(sizes, "page-sizes must have a bit set, such as 0x1000".to_owned())),
        bits => Ok(PageSizes(bits)),
    }
}

/// Each entry repeats the one before, but for what it states.
fn newer(widths: Widths, changes: &[Newer]) -> Result<Vec<(Kernel, Widths)>, Problem> {
    let mut newer: Vec<(Kernel, Widths)> = Vec::new();
    for change in changes {
        let (last, before) = newer.last().map_or((None, widths), |(k, w)| (Some(*k), *w));
        let kernel = change.kernel.get_ref().0;
        if let Some(last) = last.filter(|last| age(&kernel) <= age(last)) {
            let problem = format!("kernel {kernel} does not follow {last}: oldest first");
            return Err(Problem::at(&change.kernel, problem));
        }
        let aperture = change.aperture.as_ref().map_or(before.aperture, |range| range.0.0);
        let sizes = change.page_sizes.as_ref().map(page_sizes).transpose()?;
        newer.push((kernel, Widths { aperture, page_sizes: sizes.unwrap_or(before.page_sizes) }));
    }
    Ok(newer)
}

fn vtd(facts: &VtdFacts) -> Result<Vtd, Problem> {
    let extended = facts.extended_capability.as_ref().map(|register| register.get_ref().value);
    let unit = Vtd {
        capability: facts.capability.get_ref().value,
        extended_capability: extended.unwrap_or(0),
        scalable_mode: facts.scalable_mode.as_ref().is_some_and(|mode| *mode.get_ref()),
        snoop_control: snoop_control(facts, extended.map(ExtendedCapability))?,
        interrupt_remapping: *facts.interrupt_remapping.get_ref(),
        rmrrs: facts.rmrr.iter().map(rmrr).collect(),
    };
    if unit.address_bits() == 0 {
        let problem = "the capability register offers no page walk (SAGAW, bits 12:8); copy it \
                       from /sys/class/iommu/dmar0/intel-iommu/cap";
        return Err(Problem::at(&facts.capability, problem));
    }
    if let Some(register) = extended.map(ExtendedCapability)
        && unit.interrupt_remapping
        && !register.interrupt_remapping()
    {
        let problem = "extended-capability offers no interrupt remapping (IR, bit 3); say false";
        return Err(Problem::at(&facts.interrupt_remapping, problem));
    }
    if let Some(mode) = facts.scalable_mode.as_ref().filter(|_| unit.scalable_mode) {
        check_scalable_mode(&unit).map_err(|problem| Problem::at(mode, problem))?;
    }
    Ok(unit)
}

/// What the kernel is said to use must be what the unit offers.
fn check_scalable_mode(unit: &Vtd) -> Result<(), &'static str> {
    let register = ExtendedCapability(unit.extended_capability);
    if !register.scalable_mode() {
        return Err("scalable mode needs a unit that has it: state extended-capability, from \
                    /sys/class/iommu/dmar0/intel-iommu/ecap, with bit 43 set");
    }
    if !register.first_stage() && !register.second_stage() {
        return Err("extended-capability offers no stage (bits 46 and 47); copy it from \
                    /sys/class/iommu/dmar0/intel-iommu/ecap");
    }
    if unit.shared_address_bits() == 0 {
        return Err(
            "the stages share no page walk (SAGAW has neither 48 nor 57 bits), so kernels \
                    up to 6.18 leave the unit alone; say false",
        );
    }
    Ok(())
}

/// Stated, or read from the register; both must agree.
fn snoop_control(facts: &VtdFacts, register: Option<ExtendedCapability>) -> Result<bool, Problem> {
    let register = register.map(ExtendedCapability::snoop_control);
    match (&facts.snoop_control, register) {
        (Some(stated), Some(has)) if *stated.get_ref() != has => {
            let problem = format!(
                "bit 7 of extended-capability says that snoop-control is {has}; leave it out"
            );
            Err(Problem::at(stated, problem))
        }
        (stated, register) => {
            Ok(stated.as_ref().map(|stated| *stated.get_ref()).or(register).unwrap_or(false))
        }
    }
}

fn amd(facts: &AmdFacts) -> Result<AmdVi, Problem> {
    if !(4..=6).contains(facts.table_levels.get_ref()) {
        return Err(Problem::at(&facts.table_levels, "table-levels is 4, 5 or 6".to_owned()));
    }
    let guest = facts.guest_levels.as_ref();
    if let Some(levels) = guest.filter(|levels| !(4..=5).contains(levels.get_ref())) {
        return Err(Problem::at(levels, "guest-levels is 4 or 5".to_owned()));
    }
    let bits = facts.virtual_address_bits.as_ref();
    if let Some(bits) = bits.filter(|bits| !(32..=64).contains(bits.get_ref())) {
        return Err(Problem::at(bits, "virtual-address-bits is between 32 and 64".to_owned()));
    }
    Ok(AmdVi {
        virtual_address_bits: bits.map_or(64, |bits| *bits.get_ref()),
        table_levels: *facts.table_levels.get_ref(),
        guest_levels: guest.map(|levels| *levels.get_ref()),
        ht_range_ignore: facts.ht_range_ignore,
        interrupt_remapping: facts.interrupt_remapping,
        ivmds: facts.ivmd.iter().map(ivmd).collect::<Result<_, _>>()?,
    })
}

fn smmu(facts: &SmmuFacts, v3: bool) -> Result<Smmu, Problem> {
    if facts.granules.get_ref().is_empty() {
        let problem = "an SMMU has at least one granule: 4K, 16K or 64K";
        return Err(Problem::at(&facts.granules, problem));
    }
    Ok(Smmu {
        v3,
        input_bits: address_bits(&facts.input_bits)?,
        output_bits: address_bits(&facts.output_bits)?,
        granules: facts.granules.get_ref().iter().map(granule).collect::<Result<_, _>>()?,
        isolated_msi: facts.isolated_msi,
        its_windows: facts.its_windows.iter().map(|window| window.0.0).collect(),
        rmrs: facts.rmr.iter().map(rmr).collect::<Result<_, _>>()?,
    })
}

fn address_bits(bits: &Spanned<u32>) -> Result<u32, Problem> {
    match *bits.get_ref() {
        good @ 32..=64 => Ok(good),
        _ => Err(Problem::at(bits, "an address size is between 32 and 64 bits".to_owned())),
    }
}

fn granule(size: &Spanned<Number>) -> Result<PageSize, Problem> {
    let known = [PageSize::P4K, PageSize::P16K, PageSize::P64K];
    let granule = known.into_iter().find(|granule| granule.bytes() == size.get_ref().0);
    granule.ok_or_else(|| Problem::at(size, "a granule is 4K, 16K or 64K".to_owned()))
}

fn rmr(facts: &RmrFacts) -> Result<Rmr, Problem> {
    let (base, length) = (facts.base.0, facts.length.get_ref().0);
    if length == 0 || base.checked_add(length - 1).is_none() {
        let problem = format!(
            "{length:#x} bytes from {base:#x} are no range of addresses; state what the IORT table does"
        );
        return Err(Problem::at(&facts.length, problem));
    }
    let devices = scope(&facts.devices);
    Ok(Rmr { base, length, remap_permitted: facts.remap_permitted, devices })
}

fn virtio(facts: &VirtioFacts) -> Result<VirtioIommu, Problem> {
    let mut regions = Vec::new();
    for text in &facts.regions {
        let region = parse_region(text.get_ref()).map_err(|problem| Problem::at(text, problem))?;
        let probed = matches!(region.region.kind, RegionKind::Msi | RegionKind::Reserved);
        if !probed || region.since.is_some() {
            let problem = "a probe reports RANGE msi and RANGE reserved, nothing else".to_owned();
            return Err(Problem::at(text, problem));
        }
        regions.push(region.region);
    }
    Ok(VirtioIommu {
        input_range: facts.input_range.as_ref().map_or_else(IovaRange::full, |range| range.0.0),
        page_sizes: page_sizes(&facts.page_sizes)?,
        isolated_msi: facts.isolated_msi,
        regions,
    })
}

fn dart(facts: &DartFacts, cpu_page: PageSize) -> Result<Dart, Problem> {
    if cpu_page != PageSize::P16K {
        let problem = format!(
            "a DART has pages of 16K only, and does not translate with a CPU page of {cpu_page}; \
             write page-size = \"16K\" at the top"
        );
        return Err(Problem::at(&facts.input_bits, problem));
    }
    Ok(Dart {
        input_bits: address_bits(&facts.input_bits)?,
        msi_doorbell: facts.msi_doorbell.map_or(Dart::DEFAULT_DOORBELL, |doorbell| doorbell.0),
        isolated_msi: facts.isolated_msi,
    })
}

fn s390(facts: &S390Facts) -> Result<S390, Problem> {
    let table = match facts.table {
        Table::Third => S390Table::Third,
        Table::Second => S390Table::Second,
        Table::First => S390Table::First,
    };
    let window = facts.window.get_ref().0.0;
    if window.first() >= Iova(1 << 42) {
        let problem = "the window starts outside a region third table (2^42 bytes), which up to \
                       6.12 is the only one; state the start of the DMA area";
        return Err(Problem::at(&facts.window, problem));
    }
    Ok(S390 { window, table })
}

fn riscv(facts: &RiscVFacts) -> RiscV {
    let mode = match facts.mode {
        Mode::Sv39 => RiscVMode::Sv39,
        Mode::Sv48 => RiscVMode::Sv48,
        Mode::Sv57 => RiscVMode::Sv57,
    };
    RiscV { mode, isolated_msi: facts.isolated_msi }
}

fn rmrr(facts: &RmrrFacts) -> Rmrr {
    Rmrr { range: facts.range.0.0, devices: scope(&facts.devices) }
}

/// A block of no bytes is what some firmware states, so it is taken.
fn ivmd(facts: &IvmdFacts) -> Result<Ivmd, Problem> {
    let (start, length) = (facts.start.0, facts.length.get_ref().0);
    let block = Ivmd {
        start,
        length,
        exclusion: facts.exclusion,
        devices: match &facts.devices {
            None => IvmdDevices::All,
            Some(devices) => IvmdDevices::Named(scope(devices)),
        },
    };
    if !block.fits() {
        let problem = format!(
            "{length:#x} bytes from {start:#x} run past the end of the space; copy the IVRS table"
        );
        return Err(Problem::at(&facts.length, problem));
    }
    Ok(block)
}

/// The devices that firmware memory is for; none, if the host has none of them.
fn scope(devices: &[Spanned<String>]) -> Vec<String> {
    devices.iter().map(|device| device.get_ref().clone()).collect()
}
