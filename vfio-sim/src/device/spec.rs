// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A model in a line of text: `MODEL[,bdf=BDF][,KEY=VALUE...]`, as a host file and the command line
//! name one.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use crate::device::edu::Edu;
use crate::device::engine::{Engine, Settings};
use crate::device::ioat::{self, Ioat};
use crate::device::model::{Function, Model};
use crate::device::nvme::{self, Backing, DiskError, Nvme};
use crate::device::peer::Peer;
use crate::names::{is_pci_address, with_domain};
use crate::number::{NumberError, parse_number};

/// A device to be placed on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// What it is.
    pub model: ModelSpec,
    /// Its PCI address; `None` for any free one.
    pub bdf: Option<String>,
}

/// A model and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSpec {
    /// `dma-engine`, with `chunk`, `overrun`, `stray` and `address-bits`.
    Engine(Settings),
    /// `edu`, with `address-bits`.
    Edu {
        /// The address bits that it states.
        address_bits: u32,
    },
    /// `ioat`, with `version` and `xfercap`.
    Ioat(ioat::Settings),
    /// `nvme`, with `file` or `size`, `block`, `serial` and `address-bits`.
    Nvme(nvme::Settings),
    /// `peer`, with `size`.
    Peer {
        /// The bytes of its memory, a power of two.
        size: u64,
    },
}

/// What is wrong with the text of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is no such model.
    #[error("there is no device model \"{name}\"; known are {}", names().join(", "))]
    UnknownModel {
        /// What was given.
        name: String,
    },
    /// It is not a key with a value.
    #[error("\"{text}\" is not KEY=VALUE")]
    NotAKey {
        /// What was given.
        text: String,
    },
    /// The model does not have the key.
    #[error("{model} has no \"{key}\"; it has {}", known.join(", "))]
    UnknownKey {
        /// The model.
        model: &'static str,
        /// The key.
        key: String,
        /// Its keys.
        known: Vec<&'static str>,
    },
    /// A key is given twice.
    #[error("\"{key}\" is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// The value is not one for the key.
    #[error("{key}={value}: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

const ENGINE: &str = "dma-engine";
const EDU: &str = "edu";
const IOAT: &str = "ioat";
const NVME: &str = "nvme";
const PEER: &str = "peer";

type ParseKeys = fn(&mut Keys<'_>) -> Result<ModelSpec, SpecError>;

/// The models, and how their keys are read.
const MODELS: [(&str, ParseKeys); 5] =
    [(ENGINE, engine), (EDU, edu), (IOAT, ioat), (NVME, nvme), (PEER, peer)];

impl ModelSpec {
    /// The model's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Engine(_) => ENGINE,
            Self::Edu { .. } => EDU,
            Self::Ioat(_) => IOAT,
            Self::Nvme(_) => NVME,
            Self::Peer { .. } => PEER,
        }
    }

    /// What it is, for people.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Engine(_) => "DMA test engine",
            Self::Edu { .. } => "QEMU's educational device",
            Self::Ioat(_) => "Intel IOAT DMA engine",
            Self::Nvme(_) => "NVMe controller",
            Self::Peer { .. } => "peer-to-peer target",
        }
    }

    /// The file that it is made of, if it is made of one.
    pub fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Nvme(nvme::Settings { backing: Backing::File(file), .. }) => Some(file),
            _ => None,
        }
    }

    /// What configuration space says of it. No file is opened for that.
    pub fn function(&self) -> Function {
        match self {
            Self::Engine(settings) => Engine::new(*settings).function(),
            Self::Edu { address_bits } => Edu::with_address_bits(*address_bits).function(),
            Self::Ioat(settings) => Ioat::new(*settings).function(),
            Self::Nvme(settings) => settings.function(),
            Self::Peer { size } => Peer::with_size(*size).function(),
        }
    }

    /// Makes one, at the PCI address `name`. The file of a disk is opened, which may fail.
    pub fn model(&self, name: &str) -> Result<Box<dyn Model>, DiskError> {
        Ok(match self {
            Self::Engine(settings) => Box::new(Engine::new(*settings)),
            Self::Edu { address_bits } => Box::new(Edu::with_address_bits(*address_bits)),
            Self::Ioat(settings) => Box::new(Ioat::new(*settings)),
            Self::Nvme(settings) => Box::new(Nvme::new(settings, name)?),
            Self::Peer { size } => Box::new(Peer::with_size(*size)),
        })
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split(',').map(str::trim);
        let name = words.next().unwrap_or_default();
        let known = MODELS.into_iter().find(|(model, _)| *model == name);
        let (model, parse) =
            known.ok_or_else(|| SpecError::UnknownModel { name: name.to_owned() })?;
        let mut keys = Keys { model, asked: vec!["bdf"], values: Vec::new() };
        words.try_for_each(|word| keys.add(word))?;
        let bdf = keys.take("bdf").map(bdf).transpose()?;
        let model = parse(&mut keys)?;
        keys.finish()?;
        Ok(Self { model, bdf })
    }
}

fn bdf(text: &str) -> Result<String, SpecError> {
    let full = with_domain(&text.to_lowercase());
    if is_pci_address(&full) {
        return Ok(full);
    }
    Err(wrong("bdf", text, "is no PCI address such as 0000:07:00.0"))
}

fn names() -> Vec<&'static str> {
    MODELS.map(|(name, _)| name).to_vec()
}

fn engine(keys: &mut Keys<'_>) -> Result<ModelSpec, SpecError> {
    let good = Settings::default();
    Ok(ModelSpec::Engine(Settings {
        chunk: keys.number("chunk", 1, MAX_CHUNK)?.unwrap_or(good.chunk),
        overrun: keys.number("overrun", 0, u64::MAX)?.unwrap_or(good.overrun),
        stray: keys.number("stray", 0, u64::MAX)?,
        address_bits: keys.bits()?.unwrap_or(good.address_bits),
    }))
}

/// A step's bytes are in memory at once.
const MAX_CHUNK: u64 = 1 << 30;

fn edu(keys: &mut Keys<'_>) -> Result<ModelSpec, SpecError> {
    let good = Edu::default().function().address_bits;
    Ok(ModelSpec::Edu { address_bits: keys.bits()?.unwrap_or(good) })
}

fn nvme(keys: &mut Keys<'_>) -> Result<ModelSpec, SpecError> {
    nvme::Settings::from_keys(keys).map(ModelSpec::Nvme)
}

fn ioat(keys: &mut Keys<'_>) -> Result<ModelSpec, SpecError> {
    let good = ioat::Settings::default();
    Ok(ModelSpec::Ioat(ioat::Settings {
        version: keys.byte("version", ioat::Settings::VERSIONS)?.unwrap_or(good.version),
        xfercap: keys.byte("xfercap", ioat::Settings::XFERCAPS)?.unwrap_or(good.xfercap),
    }))
}

fn peer(keys: &mut Keys<'_>) -> Result<ModelSpec, SpecError> {
    let good = Peer::default().function().bars.iter().map(|bar| bar.size).max().unwrap_or(0);
    let size = keys.number("size", Peer::MIN_SIZE, Peer::MAX_SIZE)?.unwrap_or(good);
    if !size.is_power_of_two() {
        return Err(wrong("size", size, "the size of a BAR is a power of two"));
    }
    Ok(ModelSpec::Peer { size })
}

/// A value that the key does not take.
pub(super) fn wrong(key: &str, value: impl Display, problem: &str) -> SpecError {
    SpecError::Value { key: key.to_owned(), value: value.to_string(), problem: problem.to_owned() }
}

/// Keys and values that are not read yet.
pub(crate) struct Keys<'a> {
    model: &'static str,
    /// The keys that were asked for.
    asked: Vec<&'static str>,
    values: Vec<(&'a str, &'a str)>,
}

impl<'a> Keys<'a> {
    fn add(&mut self, word: &'a str) -> Result<(), SpecError> {
        let pair = word.split_once('=');
        let (key, value) = pair.ok_or_else(|| SpecError::NotAKey { text: word.to_owned() })?;
        if self.values.iter().any(|(known, _)| *known == key) {
            return Err(SpecError::Twice { key: key.to_owned() });
        }
        self.values.push((key, value));
        Ok(())
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a str> {
        self.asked.push(key);
        let at = self.values.iter().position(|(known, _)| *known == key)?;
        Some(self.values.remove(at).1)
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, SpecError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let wrong = |problem: &str| wrong(key, value, problem);
        let number = parse_number(value).map_err(|error: NumberError| wrong(&error.to_string()))?;
        if !(least..=most).contains(&number) {
            return Err(wrong(&format!("must be between {least} and {most}")));
        }
        Ok(Some(number))
    }

    fn byte(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u8>,
    ) -> Result<Option<u8>, SpecError> {
        let number = self.number(key, u64::from(*range.start()), u64::from(*range.end()))?;
        Ok(number.and_then(|number| u8::try_from(number).ok()))
    }

    pub(super) fn bits(&mut self) -> Result<Option<u32>, SpecError> {
        let bits = self.number("address-bits", 1, 64)?;
        Ok(bits.and_then(|bits| u32::try_from(bits).ok()))
    }

    /// What nobody asked for.
    fn finish(mut self) -> Result<(), SpecError> {
        let Some((key, _)) = self.values.first() else { return Ok(()) };
        self.asked.dedup();
        Err(SpecError::UnknownKey { model: self.model, key: (*key).to_owned(), known: self.asked })
    }
}

/// The text that parses to the same, without what is as usual.
impl Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            &Self::Engine(Settings { chunk, overrun, stray, address_bits }) => {
                let usual = Settings::default();
                key(f, "chunk", chunk, usual.chunk)?;
                key(f, "overrun", overrun, usual.overrun)?;
                if let Some(stray) = stray {
                    write!(f, ",stray={stray:#x}")?;
                }
                key(f, "address-bits", address_bits, usual.address_bits)
            }
            &Self::Edu { address_bits } => {
                key(f, "address-bits", address_bits, Edu::default().function().address_bits)
            }
            Self::Ioat(ioat::Settings { version, xfercap }) => {
                let usual = ioat::Settings::default();
                key(f, "version", version, &usual.version)?;
                key(f, "xfercap", xfercap, &usual.xfercap)
            }
            Self::Nvme(settings) => write!(f, "{settings}"),
            Self::Peer { size } => write!(f, ",size={size:#x}"),
        }
    }
}

/// Writes a key, if it is not as usual.
pub(super) fn key<T: Display + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: T,
    usual: T,
) -> fmt::Result {
    if value == usual { Ok(()) } else { write!(f, ",{key}={value}") }
}

impl Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        match &self.bdf {
            Some(bdf) => write!(f, ",bdf={bdf}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DeviceSpec, String> {
        text.parse().map_err(|error: SpecError| error.to_string())
    }

    #[test]
    fn a_device_is_a_line() {
        let engine = parse("dma-engine,bdf=07:00.0,chunk=4K,overrun=64,stray=0xfee00000").unwrap();
        assert_eq!(engine.bdf.as_deref(), Some("0000:07:00.0"));
        let settings =
            Settings { chunk: 4096, overrun: 64, stray: Some(0xfee0_0000), ..Settings::default() };
        assert_eq!(engine.model, ModelSpec::Engine(settings));
        assert_eq!(parse("edu").unwrap().model, ModelSpec::Edu { address_bits: 28 });
        assert_eq!(parse("peer,size=16G").unwrap().model, ModelSpec::Peer { size: 1 << 34 });
    }

    #[test]
    fn what_is_written_parses_to_the_same() {
        for text in [
            "dma-engine,chunk=1,stray=0,address-bits=32",
            "edu,address-bits=40",
            "peer",
            "edu,bdf=0001:00:1f.7",
            "dma-engine",
            "nvme",
            "nvme,file=/some disk.img,serial=A 1,address-bits=48",
            "nvme,size=1G,block=4096,bdf=0000:01:00.0",
            "ioat,version=0x34,xfercap=20",
            "ioat",
        ] {
            let spec = parse(text).unwrap();
            assert_eq!(parse(&spec.to_string()).unwrap(), spec, "{text}");
        }
    }

    #[test]
    fn problems_are_told() {
        for (text, expected) in [
            ("", "no device model \"\"; known are dma-engine, edu, ioat, nvme, peer"),
            ("virtio", "no device model \"virtio\""),
            ("nvme,file=", "file=: name a file or a block device"),
            ("nvme,file=a,size=1M", "file=a: the file has a size; leave size out"),
            ("nvme,block=1K", "block=1024: a block has 512 or 4096 bytes"),
            ("nvme,size=5K,block=4K", "size=5120: must be a multiple of 4096, a block"),
            ("nvme,serial=ABCDEFGHIJKLMNOPQRSTU", "a serial number has 1 to 20 characters"),
            ("edu,bdf", "\"bdf\" is not KEY=VALUE"),
            ("edu,bdf=7", "bdf=7: is no PCI address such as 0000:07:00.0"),
            ("edu,size=4K", "edu has no \"size\"; it has bdf, address-bits"),
            ("edu,address-bits=65", "address-bits=65: must be between 1 and 64"),
            ("peer,size=3G", "size=3221225472: the size of a BAR is a power of two"),
            ("ioat,version=0x40", "version=0x40: must be between 48 and 52"),
            ("ioat,xfercap=8", "xfercap=8: must be between 12 and 30"),
            ("peer,size=1x", "size=1x: \"1x\" is not a number"),
            ("peer,size=4K,size=8K", "\"size\" is given twice"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
