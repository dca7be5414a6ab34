// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shape of a host file: what serde reads, before anything is checked against anything.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;
use vfio_type1::{IommuDriver, IovaRange, Kernel};

use crate::names::iommu_driver;
use crate::number::{Number, NumberError, Register, Text, parse_range};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) source: String,
    pub(super) page_size: Option<Spanned<Number>>,
    #[serde(default)]
    pub(super) allow_unsafe_interrupts: bool,
    pub(super) dma_entry_limit: Option<u32>,
    #[serde(default)]
    pub(super) reserve_dma_masks: bool,
    #[serde(default)]
    pub(super) iommu: Vec<Spanned<Iommu>>,
    #[serde(default)]
    pub(super) group: Vec<Group>,
    #[serde(default)]
    pub(super) host_bridge: Vec<Bridge>,
}

/// A PCI host bridge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Bridge {
    #[serde(default)]
    pub(super) segment: u32,
    pub(super) buses: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) windows: Vec<Text<RangeText>>,
    #[serde(default)]
    pub(super) dma_ranges: Vec<Text<RangeText>>,
}

/// An IOMMU: results stated outright, or facts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Iommu {
    pub(super) name: Option<Spanned<String>>,
    pub(super) driver: Option<Spanned<Text<Driver>>>,
    pub(super) aperture: Option<Text<RangeText>>,
    pub(super) page_sizes: Option<Spanned<Number>>,
    pub(super) coherent: Option<bool>,
    pub(super) isolated_msi: Option<bool>,
    #[serde(default)]
    pub(super) from: Vec<Newer>,
    pub(super) vtd: Option<VtdFacts>,
    pub(super) amd: Option<AmdFacts>,
    pub(super) smmuv3: Option<SmmuFacts>,
    pub(super) smmuv2: Option<SmmuFacts>,
    pub(super) virtio: Option<VirtioFacts>,
    pub(super) dart: Option<DartFacts>,
    pub(super) s390: Option<S390Facts>,
    pub(super) riscv: Option<RiscVFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DartFacts {
    pub(super) input_bits: Spanned<u32>,
    pub(super) msi_doorbell: Option<Number>,
    pub(super) isolated_msi: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct S390Facts {
    pub(super) window: Spanned<Text<RangeText>>,
    pub(super) table: Table,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) enum Table {
    #[serde(rename = "region-third")]
    Third,
    #[serde(rename = "region-second")]
    Second,
    #[serde(rename = "region-first")]
    First,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RiscVFacts {
    pub(super) mode: Mode,
    pub(super) isolated_msi: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    Sv39,
    Sv48,
    Sv57,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SmmuFacts {
    pub(super) input_bits: Spanned<u32>,
    pub(super) output_bits: Spanned<u32>,
    pub(super) granules: Spanned<Vec<Spanned<Number>>>,
    pub(super) isolated_msi: bool,
    #[serde(default)]
    pub(super) its_windows: Vec<Text<RangeText>>,
    #[serde(default)]
    pub(super) rmr: Vec<RmrFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RmrFacts {
    pub(super) base: Number,
    pub(super) length: Spanned<Number>,
    #[serde(default)]
    pub(super) remap_permitted: bool,
    pub(super) devices: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VirtioFacts {
    pub(super) input_range: Option<Text<RangeText>>,
    pub(super) page_sizes: Spanned<Number>,
    pub(super) isolated_msi: bool,
    #[serde(default)]
    pub(super) regions: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VtdFacts {
    pub(super) capability: Spanned<Register>,
    pub(super) extended_capability: Option<Spanned<Register>>,
    pub(super) scalable_mode: Option<Spanned<bool>>,
    pub(super) snoop_control: Option<Spanned<bool>>,
    pub(super) interrupt_remapping: Spanned<bool>,
    #[serde(default)]
    pub(super) rmrr: Vec<RmrrFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RmrrFacts {
    pub(super) range: Text<RangeText>,
    pub(super) devices: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AmdFacts {
    pub(super) virtual_address_bits: Option<Spanned<u32>>,
    pub(super) table_levels: Spanned<u32>,
    pub(super) guest_levels: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) ht_range_ignore: bool,
    pub(super) interrupt_remapping: bool,
    #[serde(default)]
    pub(super) ivmd: Vec<IvmdFacts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct IvmdFacts {
    pub(super) start: Number,
    pub(super) length: Spanned<Number>,
    #[serde(default)]
    pub(super) exclusion: bool,
    pub(super) devices: Option<Vec<Spanned<String>>>,
}

/// What a newer kernel makes of an IOMMU.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Newer {
    pub(super) kernel: Spanned<Text<Kernel>>,
    pub(super) aperture: Option<Text<RangeText>>,
    pub(super) page_sizes: Option<Spanned<Number>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Group {
    pub(super) number: Spanned<u32>,
    pub(super) kind: Option<GroupKind>,
    pub(super) iommu: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) device: Vec<Device>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GroupKind {
    Iommu,
    Emulated,
    Noiommu,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Device {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) description: String,
    pub(super) driver: Option<Spanned<String>>,
    pub(super) model: Option<Spanned<String>>,
    pub(super) vendor: Option<Spanned<Register>>,
    pub(super) device: Option<Spanned<Register>>,
    pub(super) class: Option<Spanned<Register>>,
    pub(super) buses: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) bars: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) dma_mask_bits: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) regions: Vec<Spanned<String>>,
}

pub(super) struct Driver(pub(super) IommuDriver);

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        iommu_driver(text).map(Self)
    }
}

pub(super) struct RangeText(pub(super) IovaRange);

impl FromStr for RangeText {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        parse_range(text).map(Self)
    }
}
