// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device as sysfs shows it.

use std::collections::BTreeMap;

use vfio_type1::{Binding, Iova, IovaRange};

use super::source::{Source, hexadecimal};
use crate::config_space::UNKNOWN_IDS;
use crate::host::HostDevice;
use crate::pci::{Bar, BarKind, PciFunction};
use crate::render::{DEFAULT_DMA_MASK_BITS, flag};

/// An emulated device: nothing but its name.
pub(super) fn emulated(name: &str) -> HostDevice {
    HostDevice {
        name: name.to_owned(),
        description: String::new(),
        driver: Some("vfio_mdev".to_owned()),
        pci: PciFunction::default(),
        model: None,
        regions: Vec::new(),
    }
}

/// The PCI device `name`, whose directory is `directory`.
pub(super) fn pci(name: &str, directory: &str, source: &mut Source) -> HostDevice {
    let driver = source.link(&format!("{directory}/driver"));
    let pci = Function { directory, source }.read();
    let mut device = HostDevice {
        name: name.to_owned(),
        description: description(pci.class).to_owned(),
        driver,
        pci,
        model: None,
        regions: Vec::new(),
    };
    // The default says nothing of a device for which nobody has set a mask.
    let drives_dma = matches!(device.binding(), Binding::Kernel(_));
    if device.pci.dma_mask_bits == Some(DEFAULT_DMA_MASK_BITS) && !drives_dma {
        device.pci.dma_mask_bits = None;
    }
    device
}

/// What a class is called, for people who do not know the codes.
fn description(class: Option<u32>) -> &'static str {
    let Some(class) = class else { return "" };
    match (class >> 16, class >> 8) {
        (_, 0x0106) => "SATA controller",
        (_, 0x0108) => "NVMe controller",
        (0x01, _) => "storage controller",
        (_, 0x0200) => "Ethernet controller",
        (0x02, _) => "network controller",
        (0x03, _) => "display",
        (0x04, _) => "multimedia controller",
        (0x05, _) => "memory controller",
        (_, 0x0600) => "host bridge",
        (_, 0x0601) => "ISA bridge",
        (_, 0x0604) => "PCI bridge",
        (0x06, _) => "bridge",
        (0x07, _) => "communication controller",
        (0x08, _) => "system peripheral",
        (_, 0x0c03) => "USB controller",
        (_, 0x0c05) => "SMBus controller",
        (0x0c, _) => "serial bus controller",
        (0x0d, _) => "wireless controller",
        (0x10, _) => "encryption controller",
        (0x12, _) => "processing accelerator",
        _ => "",
    }
}

struct Function<'a> {
    directory: &'a str,
    source: &'a mut Source,
}

impl Function<'_> {
    fn read(&mut self) -> PciFunction {
        let mask = self.source.decimal(&self.path("dma_mask_bits"));
        let mask = mask.and_then(|bits| u32::try_from(bits).ok());
        let (bars, rom) = self.resources();
        PciFunction {
            ids: self.ids(),
            // Class 0 is that of devices from before there were classes; nobody has them.
            class: self.number("class").filter(|class| (1..1 << 24).contains(class)),
            buses: self.buses(),
            bars,
            rom,
            dma_mask_bits: mask.filter(|bits| (1..=64).contains(bits)),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    fn number(&mut self, name: &str) -> Option<u32> {
        u32::try_from(self.source.hexadecimal(&self.path(name))?).ok()
    }

    fn ids(&mut self) -> Option<(u16, u16)> {
        let vendor = u16::try_from(self.number("vendor")?).ok()?;
        let device = u16::try_from(self.number("device")?).ok()?;
        Some((vendor, device)).filter(|ids| *ids != UNKNOWN_IDS)
    }

    /// The buses behind a bridge, by their files or, on older kernels, in its configuration space.
    fn buses(&mut self) -> Option<(u8, u8)> {
        let secondary = self.path("secondary_bus_number");
        let buses = if self.source.exists(&secondary) {
            let subordinate = self.path("subordinate_bus_number");
            (self.source.decimal(&secondary)?, self.source.decimal(&subordinate)?)
        } else {
            let config = self.source.bytes(&self.path("config"))?;
            let header = config.get(..0x1b).filter(|header| header[0x0e] & 0x7f == 1)?;
            (header[0x19].into(), header[0x1a].into())
        };
        let (first, last) = (u8::try_from(buses.0).ok()?, u8::try_from(buses.1).ok()?);
        (first != 0 && first <= last).then_some((first, last))
    }

    /// BARs and the ROM, from the first seven lines of `resource`.
    fn resources(&mut self) -> (BTreeMap<u8, Bar>, Option<IovaRange>) {
        let (mut bars, mut rom) = (BTreeMap::new(), None);
        let text = self.source.text(&self.path("resource")).unwrap_or_default();
        for (index, line) in (0u8..7).zip(text.lines()) {
            match resource(line, index) {
                Ok(None) => {}
                Ok(Some(bar)) if index == 6 => rom = Some(bar.range),
                Ok(Some(bar)) => {
                    bars.insert(index, bar);
                }
                Err(problem) => {
                    let path = self.path("resource");
                    self.source.note(format!("{path}: BAR {index} left out: {problem}"));
                }
            }
        }
        // The upper half of a register of 64 bits is no register of its own.
        let wide = bars.iter().filter(|(_, bar): &(_, &Bar)| bar.kind.registers() == 2);
        let upper: Vec<u8> = wide.map(|(index, _)| index + 1).collect();
        bars.retain(|index, _| !upper.contains(index));
        (bars, rom)
    }
}

/// An address has not been given to it (`IORESOURCE_UNSET`).
const UNSET: u64 = 0x2000_0000;

/// The ROM is a copy in the machine's memory, not the device's (`IORESOURCE_ROM_SHADOW`).
const SHADOW: u64 = 0x2;

/// A line of `resource`: first, last and flags.
fn resource(line: &str, index: u8) -> Result<Option<Bar>, String> {
    let numbers: Option<Vec<u64>> = line.split_whitespace().map(hexadecimal).collect();
    let Some([first, last, flags]) = numbers.as_deref() else {
        return Err(format!("\"{line}\" is not three numbers"));
    };
    let rom = index == 6;
    if *flags == 0 || flags & UNSET != 0 || rom && flags & SHADOW != 0 {
        return Ok(None);
    }
    let range = IovaRange::new(Iova(*first), Iova(*last)).ok_or("it ends below its start")?;
    let kind = match flags {
        flags if flags & flag::IO != 0 => BarKind::Io,
        flags if flags & flag::MEMORY != 0 => BarKind::Memory {
            wide: flags & flag::WIDE != 0,
            prefetchable: flags & flag::PREFETCH != 0,
        },
        _ => return Err(format!("flags {flags:#x} are neither memory nor ports")),
    };
    let plain = BarKind::Memory { wide: false, prefetchable: false };
    let bar = Bar { range, kind: if rom { plain } else { kind } };
    bar.check()?;
    match index {
        5 if bar.kind.registers() == 2 => Err("the last register cannot have 64 bits".to_owned()),
        _ => Ok(Some(bar)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_resource_are_checked() {
        let memory = "0x0000004000000000 0x000000400007ffff 0x0000000000140204";
        let bar = resource(memory, 0).unwrap().unwrap();
        assert_eq!(bar.kind, BarKind::Memory { wide: true, prefetchable: false });
        assert_eq!(bar.range.size(), Some(0x8_0000));
        assert_eq!(resource("0x0 0x0 0x0", 0), Ok(None));
        assert_eq!(resource("0x0 0x3fff 0x20040200", 0), Ok(None));
        assert_eq!(resource("0xc0000 0xdffff 0x212", 6), Ok(None));
        for (line, index, expected) in [
            (memory, 5, "cannot have 64 bits"),
            ("0x1000 0xfff 0x40200", 0, "ends below"),
            ("0x1000 0x2fff 0x40200", 0, "power of two"),
            ("0x1000 0x1fff 0x40000", 0, "neither memory nor ports"),
            ("0x1000 0x1fff", 0, "not three numbers"),
            ("", 0, "not three numbers"),
        ] {
            let problem = resource(line, index).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}
