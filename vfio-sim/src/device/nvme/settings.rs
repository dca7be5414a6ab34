// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a controller is to be, and how that is written: `file=PATH` or `size=SIZE`, and other keys.

use std::fmt;

use super::disk::Backing;
use super::function;
use crate::device::model::Function;
use crate::device::spec::{Keys, SpecError, key, wrong};

/// The largest disk in memory, in bytes.
const MAX_MEMORY: u64 = 1 << 42;
const SMALL_BLOCK: u32 = 512;
const LARGE_BLOCK: u32 = 4096;

/// What a device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is behind the namespace.
    pub backing: Backing,
    /// Whether a block has 4096 bytes, and not 512.
    pub large_blocks: bool,
    /// The serial number, up to 20 characters of ASCII; `None` for the device's PCI address.
    pub serial: Option<String>,
    /// The address bits that it can state.
    pub address_bits: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let backing = Backing::Memory(64 << 20);
        Self { backing, large_blocks: false, serial: None, address_bits: 64 }
    }
}

impl Settings {
    /// In bytes.
    pub(super) fn block_size(&self) -> u32 {
        if self.large_blocks { LARGE_BLOCK } else { SMALL_BLOCK }
    }

    pub(crate) fn function(&self) -> Function {
        function(self.address_bits)
    }

    pub(crate) fn from_keys(keys: &mut Keys<'_>) -> Result<Self, SpecError> {
        let usual = Self::default();
        let block = keys.number("block", 0, u64::MAX)?.unwrap_or(usual.block_size().into());
        let large_blocks = block == u64::from(LARGE_BLOCK);
        if !large_blocks && block != u64::from(SMALL_BLOCK) {
            return Err(wrong("block", block, "a block has 512 or 4096 bytes"));
        }
        let backing = backing(keys, block)?.unwrap_or(usual.backing);
        let serial = keys.take("serial").map(serial).transpose()?;
        let address_bits = keys.bits()?.unwrap_or(usual.address_bits);
        Ok(Self { backing, large_blocks, serial, address_bits })
    }
}

fn backing(keys: &mut Keys<'_>, block: u64) -> Result<Option<Backing>, SpecError> {
    let file = keys.take("file");
    let size = keys.number("size", block, MAX_MEMORY)?;
    match (file, size) {
        (Some(file), Some(_)) => Err(wrong("file", file, "the file has a size; leave size out")),
        (Some(""), None) => Err(wrong("file", "", "name a file or a block device")),
        (Some(file), None) => Ok(Some(Backing::File(file.into()))),
        (None, Some(size)) if !size.is_multiple_of(block) => {
            Err(wrong("size", size, &format!("must be a multiple of {block}, a block")))
        }
        (None, size) => Ok(size.map(Backing::Memory)),
    }
}

fn serial(text: &str) -> Result<String, SpecError> {
    let printable = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    match printable && (1..=20).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(wrong("serial", text, "a serial number has 1 to 20 characters of ASCII")),
    }
}

/// The keys that parse to the same, without what is as usual.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        match &self.backing {
            Backing::File(path) => write!(f, ",file={}", path.display())?,
            Backing::Memory(size) => write!(f, ",size={size:#x}")?,
        }
        key(f, "block", self.block_size(), usual.block_size())?;
        if let Some(serial) = &self.serial {
            write!(f, ",serial={serial}")?;
        }
        key(f, "address-bits", self.address_bits, usual.address_bits)
    }
}
