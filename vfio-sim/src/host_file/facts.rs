// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host file says of an IOMMU: facts, or results stated outright.

use toml::Spanned;
use vfio_type1::{Kernel, PageSizes};

use super::Problem;
use super::schema::{AmdFacts, Iommu, IvmdFacts, Newer, VtdFacts};
use crate::host::age;
use crate::number::Number;
use crate::platform::{AmdVi, Ivmd, IvmdDevices, Platform, Rmrr, Stated, Vtd, Widths};

/// What is known of an IOMMU. Facts and results exclude each other: both could not be true of every
/// kernel.
pub(super) fn platform(iommu: &Iommu) -> Result<Platform, Problem> {
    let place = iommu.driver.as_ref().map(Spanned::span).or(iommu.name.as_ref().map(Spanned::span));
    let wrong = |text: &str| Err(Problem { span: place.clone(), text: text.to_owned() });
    let states = iommu.aperture.is_some() || iommu.page_sizes.is_some() || !iommu.from.is_empty();
    match (&iommu.vtd, &iommu.amd) {
        (None, None) => stated(iommu).map(Platform::Stated),
        _ if states || iommu.driver.is_some() => {
            wrong("facts ([iommu.vtd], [iommu.amd]) and stated results exclude each other")
        }
        (Some(vtd), None) => vtd_facts(vtd).map(Platform::Vtd),
        (None, Some(amd)) => amd_facts(amd).map(Platform::AmdVi),
        (Some(_), Some(_)) => wrong("an IOMMU is [iommu.vtd] or [iommu.amd], not both"),
    }
}

/// The devices that firmware tables name, where the file names them.
pub(super) fn scopes(iommu: &Iommu) -> Vec<Spanned<String>> {
    let rmrrs = iommu.vtd.iter().flat_map(|vtd| vtd.rmrr.iter().flat_map(|rmrr| &rmrr.devices));
    let ivmds = iommu.amd.iter().flat_map(|amd| amd.ivmd.iter().filter_map(|i| i.devices.as_ref()));
    rmrrs.chain(ivmds.flatten()).cloned().collect()
}

fn stated(iommu: &Iommu) -> Result<Stated, Problem> {
    let place = iommu.driver.as_ref().map(Spanned::span).or(iommu.name.as_ref().map(Spanned::span));
    let missing = |field: &str| Problem {
        span: place.clone(),
        text: format!("an [[iommu]] without facts needs {field}"),
    };
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

fn vtd_facts(facts: &VtdFacts) -> Result<Vtd, Problem> {
    let vtd = Vtd {
        capability: facts.capability.get_ref().0,
        snoop_control: facts.snoop_control,
        interrupt_remapping: facts.interrupt_remapping,
        rmrrs: facts
            .rmrr
            .iter()
            .map(|rmrr| Rmrr { range: rmrr.range.0.0, devices: names(&rmrr.devices) })
            .collect(),
    };
    if vtd.address_bits() == 0 {
        let problem = "the capability register offers no page walk (SAGAW, bits 12:8)".to_owned();
        return Err(Problem::at(&facts.capability, problem));
    }
    Ok(vtd)
}

fn amd_facts(facts: &AmdFacts) -> Result<AmdVi, Problem> {
    if !(4..=6).contains(facts.table_levels.get_ref()) {
        return Err(Problem::at(&facts.table_levels, "table-levels is 4, 5 or 6".to_owned()));
    }
    let bits = facts.virtual_address_bits.as_ref();
    if let Some(bits) = bits.filter(|bits| !(32..=64).contains(bits.get_ref())) {
        return Err(Problem::at(bits, "virtual-address-bits is between 32 and 64".to_owned()));
    }
    Ok(AmdVi {
        virtual_address_bits: bits.map_or(64, |bits| *bits.get_ref()),
        table_levels: *facts.table_levels.get_ref(),
        ht_range_ignore: facts.ht_range_ignore,
        interrupt_remapping: facts.interrupt_remapping,
        ivmds: facts.ivmd.iter().map(ivmd).collect(),
    })
}

fn ivmd(facts: &IvmdFacts) -> Ivmd {
    Ivmd {
        start: facts.start.0,
        length: facts.length.0,
        exclusion: facts.exclusion,
        devices: match &facts.devices {
            None => IvmdDevices::All,
            Some(devices) => IvmdDevices::Named(names(devices)),
        },
    }
}

fn names(devices: &[Spanned<String>]) -> Vec<String> {
    devices.iter().map(|device| device.get_ref().clone()).collect()
}
