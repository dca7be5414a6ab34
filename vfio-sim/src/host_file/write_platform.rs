// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host file says of an IOMMU, written: the inverse of `facts`.

use super::write::{Text, quoted, range, region, size};
use crate::host::HostRegion;
use crate::names::iommu_driver_name;
use crate::platform::{
    AmdVi, Dart, IvmdDevices, Platform, RiscV, RiscVMode, S390, S390Table, Smmu, Stated,
    VirtioIommu, Vtd, Widths,
};

pub(super) fn platform(platform: &Platform, text: &mut Text) {
    match platform {
        Platform::Stated(facts) => stated(facts, text),
        Platform::Vtd(facts) => vtd(facts, text),
        Platform::AmdVi(facts) => amd(facts, text),
        Platform::Smmu(facts) => smmu(facts, text),
        Platform::Virtio(facts) => virtio(facts, text),
        Platform::Dart(facts) => dart(facts, text),
        Platform::S390(facts) => s390(facts, text),
        Platform::RiscV(facts) => riscv(facts, text),
    }
}

fn stated(facts: &Stated, text: &mut Text) {
    text.value("driver", quoted(iommu_driver_name(facts.driver)));
    widths(&facts.widths, text);
    text.value("coherent", facts.coherent);
    text.value("isolated-msi", facts.isolated_msi);
    for (kernel, newer) in &facts.newer {
        text.table("[[iommu.from]]");
        text.value("kernel", quoted(kernel.name()));
        widths(newer, text);
    }
}

fn widths(widths: &Widths, text: &mut Text) {
    text.value("aperture", quoted(&range(widths.aperture)));
    text.value("page-sizes", hexadecimal(widths.page_sizes.0));
}

fn vtd(facts: &Vtd, text: &mut Text) {
    text.table("[iommu.vtd]");
    text.value("capability", hexadecimal(facts.capability));
    match facts.extended_capability {
        // Without the register, this bit of it may be stated.
        0 => text.flag("snoop-control", facts.snoop_control),
        register => text.value("extended-capability", hexadecimal(register)),
    }
    text.flag("scalable-mode", facts.scalable_mode);
    text.value("interrupt-remapping", facts.interrupt_remapping);
    for rmrr in &facts.rmrrs {
        text.table("[[iommu.vtd.rmrr]]");
        text.value("range", quoted(&range(rmrr.range)));
        devices(&rmrr.devices, text);
    }
}

fn amd(facts: &AmdVi, text: &mut Text) {
    text.table("[iommu.amd]");
    text.value("table-levels", facts.table_levels);
    if facts.virtual_address_bits != 64 {
        text.value("virtual-address-bits", facts.virtual_address_bits);
    }
    if let Some(levels) = facts.guest_levels {
        text.value("guest-levels", levels);
    }
    text.flag("ht-range-ignore", facts.ht_range_ignore);
    text.value("interrupt-remapping", facts.interrupt_remapping);
    for ivmd in &facts.ivmds {
        text.table("[[iommu.amd.ivmd]]");
        text.value("start", hexadecimal(ivmd.start));
        text.value("length", quoted(&size(ivmd.length)));
        text.flag("exclusion", ivmd.exclusion);
        match &ivmd.devices {
            IvmdDevices::All => {}
            IvmdDevices::Named(names) => devices(names, text),
        }
    }
}

fn smmu(facts: &Smmu, text: &mut Text) {
    let kind = if facts.v3 { "smmuv3" } else { "smmuv2" };
    text.table(&format!("[iommu.{kind}]"));
    text.value("input-bits", facts.input_bits);
    text.value("output-bits", facts.output_bits);
    let granules: Vec<String> =
        facts.granules.iter().map(|granule| quoted(&size(granule.bytes()))).collect();
    text.value("granules", format!("[{}]", granules.join(", ")));
    text.value("isolated-msi", facts.isolated_msi);
    text.list("its-windows", facts.its_windows.iter().map(|window| range(*window)));
    for rmr in &facts.rmrs {
        text.table(&format!("[[iommu.{kind}.rmr]]"));
        text.value("base", hexadecimal(rmr.base));
        text.value("length", quoted(&size(rmr.length)));
        text.flag("remap-permitted", rmr.remap_permitted);
        devices(&rmr.devices, text);
    }
}

fn virtio(facts: &VirtioIommu, text: &mut Text) {
    text.table("[iommu.virtio]");
    text.value("input-range", quoted(&range(facts.input_range)));
    text.value("page-sizes", hexadecimal(facts.page_sizes.0));
    text.value("isolated-msi", facts.isolated_msi);
    text.list("regions", facts.regions.iter().map(|probed| region(&HostRegion::always(*probed))));
}

fn dart(facts: &Dart, text: &mut Text) {
    text.table("[iommu.dart]");
    text.value("input-bits", facts.input_bits);
    if facts.msi_doorbell != Dart::DEFAULT_DOORBELL {
        text.value("msi-doorbell", hexadecimal(facts.msi_doorbell));
    }
    text.value("isolated-msi", facts.isolated_msi);
}

fn s390(facts: &S390, text: &mut Text) {
    text.table("[iommu.s390]");
    text.value("window", quoted(&range(facts.window)));
    let table = match facts.table {
        S390Table::Third => "region-third",
        S390Table::Second => "region-second",
        S390Table::First => "region-first",
    };
    text.value("table", quoted(table));
}

fn riscv(facts: &RiscV, text: &mut Text) {
    text.table("[iommu.riscv]");
    let mode = match facts.mode {
        RiscVMode::Sv39 => "sv39",
        RiscVMode::Sv48 => "sv48",
        RiscVMode::Sv57 => "sv57",
    };
    text.value("mode", quoted(mode));
    text.value("isolated-msi", facts.isolated_msi);
}

/// The devices of a firmware table; the key has to be there even if there are none.
fn devices(names: &[String], text: &mut Text) {
    match names {
        [] => text.value("devices", "[]"),
        names => text.list("devices", names.iter().cloned()),
    }
}

fn hexadecimal(number: u64) -> String {
    quoted(&format!("{number:#x}"))
}
