// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host file says of a PCI function.

use std::collections::BTreeMap;

use toml::Spanned;
use vfio_type1::IovaRange;

use super::schema::Device;
use crate::device::{DeviceSpec, ModelSpec, SpecError, check_places};
use crate::host::HostGroupKind;
use crate::names::pci_bus;
use crate::number::{Register, parse_range};
use crate::pci::{Bar, BarKind, PciFunction};
use crate::toml_file::Problem;

/// What a file says of a function, and of the model that simulates it.
pub(super) fn function(
    device: &Device,
    group: HostGroupKind,
) -> Result<(PciFunction, Option<ModelSpec>), Problem> {
    let stated = stated(device)?;
    match &device.model {
        Some(text) => modelled(device, text, stated, group),
        None => Ok((stated, None)),
    }
}

fn stated(device: &Device) -> Result<PciFunction, Problem> {
    let (bars, rom) = bars(&device.bars)?;
    let function = PciFunction {
        ids: ids(device)?,
        class: device.class.as_ref().map(class).transpose()?,
        buses: device.buses.as_ref().map(|text| behind(device, text)).transpose()?,
        bars,
        rom,
        dma_mask_bits: device.dma_mask_bits.as_ref().map(dma_mask_bits).transpose()?,
    };
    check_registers(&device.bars, &function)?;
    Ok(function)
}

/// A model says itself what the device is; the file may say where its BARs are.
fn modelled(
    device: &Device,
    text: &Spanned<String>,
    stated: PciFunction,
    group: HostGroupKind,
) -> Result<(PciFunction, Option<ModelSpec>), Problem> {
    let spec = text.get_ref().parse();
    let spec: DeviceSpec = spec.map_err(|error: SpecError| Problem::at(text, error.to_string()))?;
    if spec.bdf.is_some() {
        return Err(Problem::at(text, "the device's name says where it is; leave bdf out"));
    }
    if group == HostGroupKind::Emulated {
        return Err(Problem::at(text, "models are of PCI devices, not of emulated ones"));
    }
    let said = [&device.vendor, &device.device, &device.class].into_iter().flatten().next();
    if let Some(said) = said {
        return Err(Problem::at(said, "the model says that; leave it out"));
    }
    if let Some(buses) = &device.buses {
        return Err(Problem::at(buses, "the model is no bridge; leave buses out"));
    }
    let rom = device.bars.iter().find(|(name, _)| name.get_ref() == "rom");
    if let Some((name, _)) = rom {
        return Err(Problem::at(name, "the model has no ROM; leave it out"));
    }
    let function = spec.model.function();
    if !device.bars.is_empty() {
        let checked = check_places(&function, &stated);
        checked.map_err(|problem| Problem::maybe_at(device.bars.values().next(), problem))?;
    }
    let (ids, class) = (Some(function.ids), Some(function.class));
    Ok((PciFunction { ids, class, ..stated }, Some(spec.model)))
}

fn ids(device: &Device) -> Result<Option<(u16, u16)>, Problem> {
    let id = |number: &Spanned<Register>| {
        let id = u16::try_from(number.get_ref().value);
        id.map_err(|_| Problem::at(number, "an ID has 16 bits, such as 0x8086".to_owned()))
    };
    match (&device.vendor, &device.device) {
        (None, None) => Ok(None),
        (Some(vendor), Some(device)) => Ok(Some((id(vendor)?, id(device)?))),
        (Some(alone), None) | (None, Some(alone)) => {
            Err(Problem::at(alone, "vendor and device go together; state both".to_owned()))
        }
    }
}

/// A class with its subclass and programming interface: 24 bits.
fn class(class: &Spanned<Register>) -> Result<u32, Problem> {
    let Register { value, digits } = *class.get_ref();
    let value = u32::try_from(value).ok().filter(|_| digits == 6);
    value.ok_or_else(|| {
        Problem::at(class, "a class has six digits, such as 0x0c0330 for a USB controller")
    })
}

/// `01-02`: secondary and subordinate bus of a bridge, in hexadecimal.
pub(super) fn buses(text: &Spanned<String>) -> Result<(u8, u8), Problem> {
    let bus = |text: &str| u8::from_str_radix(text, 16).ok();
    let ends = text.get_ref().split_once('-').unwrap_or((text.get_ref(), text.get_ref()));
    match (bus(ends.0), bus(ends.1)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => {
            let problem = format!("\"{}\" are not buses such as \"01-02\"", text.get_ref());
            Err(Problem::at(text, problem))
        }
    }
}

/// The buses behind a bridge, which are not the one it stands on.
fn behind(device: &Device, text: &Spanned<String>) -> Result<(u8, u8), Problem> {
    let (first, last) = buses(text)?;
    match pci_bus(device.name.get_ref()) {
        Some((_, own)) if (first..=last).contains(&own) => {
            let problem = format!(
                "bus {own:02x} is the one that the bridge stands on, not behind it; leave it out"
            );
            Err(Problem::at(text, problem))
        }
        _ => Ok((first, last)),
    }
}

fn dma_mask_bits(bits: &Spanned<u32>) -> Result<u32, Problem> {
    match *bits.get_ref() {
        good @ 1..=64 => Ok(good),
        _ => Err(Problem::at(bits, "a DMA mask has between 1 and 64 bits".to_owned())),
    }
}

type Bars = BTreeMap<u8, Bar>;

fn bars(
    texts: &BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<(Bars, Option<IovaRange>), Problem> {
    let (mut bars, mut rom) = (Bars::new(), None);
    for (name, text) in texts {
        let bar = bar(text.get_ref()).map_err(|problem| Problem::at(text, problem))?;
        if name.get_ref() == "rom" {
            rom = Some(bar.range);
            continue;
        }
        let index =
            (0..6).find(|index: &u8| index.to_string() == *name.get_ref()).ok_or_else(|| {
                Problem::at(name, "the BARs of a device are 0 to 5, and rom".to_owned())
            })?;
        bars.insert(index, bar);
    }
    Ok((bars, rom))
}

/// A BAR of 64 bits takes the register behind it too, and a bridge has two registers.
fn check_registers(
    texts: &BTreeMap<Spanned<String>, Spanned<String>>,
    pci: &PciFunction,
) -> Result<(), Problem> {
    let registers = if pci.is_bridge() { 2 } else { 6 };
    let wrong = pci.bars.iter().find_map(|(index, bar)| {
        let next = index + 1;
        let taken = next >= registers || pci.bars.contains_key(&next);
        if *index >= registers {
            Some((index, format!("a bridge has BARs 0 and 1, and no BAR {index}")))
        } else if bar.kind.registers() == 2 && taken {
            let text = format!("BAR {index} has 64 bits, so it takes the register behind it too");
            Some((index, text))
        } else {
            None
        }
    });
    let Some((index, problem)) = wrong else { return Ok(()) };
    let place =
        texts.values().zip(texts.keys()).find(|(_, key)| *key.get_ref() == index.to_string());
    Err(Problem::maybe_at(place.map(|(text, _)| text), problem))
}

/// `RANGE [64-bit] [prefetchable]`, or `RANGE io`.
fn bar(text: &str) -> Result<Bar, String> {
    let mut words = text.split_whitespace();
    let range = parse_range(words.next().unwrap_or_default()).map_err(|error| error.to_string())?;
    let kind = match words.collect::<Vec<_>>()[..] {
        [] => BarKind::Memory { wide: false, prefetchable: false },
        ["io"] => BarKind::Io,
        ["64-bit"] => BarKind::Memory { wide: true, prefetchable: false },
        ["prefetchable"] => BarKind::Memory { wide: false, prefetchable: true },
        ["64-bit", "prefetchable"] => BarKind::Memory { wide: true, prefetchable: true },
        _ => {
            return Err(format!(
                "\"{text}\" is not a BAR: write RANGE [64-bit] [prefetchable], or RANGE io"
            ));
        }
    };
    let bar = Bar { range, kind };
    bar.check().map_err(|problem| format!("BAR {problem}"))?;
    Ok(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_powers_of_two_where_they_belong() {
        assert!(bar("0xfebc0000+128K").is_ok());
        assert!(bar("0x380000000000+16G 64-bit prefetchable").is_ok());
        assert!(bar("0xc000+32 io").is_ok());
        for (text, expected) in [
            ("0xfebc0000+100K", "no power of two"),
            ("0xfebc1000+128K", "not at a multiple"),
            ("0x380000000000+16G", "needs 64-bit"),
            ("0xfebc0000+128K 32-bit", "is not a BAR"),
            ("", "is not a range"),
        ] {
            let problem = bar(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
