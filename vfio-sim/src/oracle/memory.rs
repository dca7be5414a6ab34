// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process's memory: areas, and the bytes in them.

use std::collections::BTreeMap;

use super::span::Span;

const PAGE: u64 = 0x1000;

fn in_page(address: u64) -> usize {
    usize::try_from(address % PAGE).unwrap_or(0)
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Each with whether it can be written.
    areas: Vec<(Span, bool)>,
    /// Pages of 4 KiB by their number; what is not here is zero.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    pub(super) fn add(&mut self, area: Span, writable: bool) {
        self.areas.push((area, writable));
    }

    pub(super) fn poke(&mut self, to: u64, bytes: &[u8]) {
        for (address, byte) in (to..).zip(bytes) {
            self.set(address, *byte);
        }
    }

    pub(super) fn peek(&self, from: u64, length: u64) -> Vec<u8> {
        (from..from + length).map(|address| self.byte(address)).collect()
    }

    fn byte(&self, address: u64) -> u8 {
        let page = self.pages.get(&(address / PAGE));
        page.and_then(|page| page.get(in_page(address))).copied().unwrap_or(0)
    }

    fn set(&mut self, address: u64, byte: u8) {
        let page =
            self.pages.entry(address / PAGE).or_insert_with(|| vec![0; in_page(PAGE - 1) + 1]);
        if let Some(place) = page.get_mut(in_page(address)) {
            *place = byte;
        }
    }

    /// The area that holds `address`, if it permits the access.
    pub(super) fn area(&self, address: u64, write: bool) -> Option<Span> {
        let (area, writable) = self.areas.iter().find(|(area, _)| area.holds(address))?;
        (*writable || !write).then_some(*area)
    }

    /// Copies out; the error is the first address that cannot be read.
    pub(super) fn read(&self, from: u64, length: u64) -> Result<Vec<u8>, u64> {
        let mut bytes = Vec::new();
        for offset in 0..length {
            let address = from.checked_add(offset).ok_or(u64::MAX)?;
            self.area(address, false).ok_or(address)?;
            bytes.push(self.byte(address));
        }
        Ok(bytes)
    }

    /// Copies in, up to the first address that cannot be written, which is the error.
    pub(super) fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), u64> {
        for (offset, byte) in (0..).zip(bytes) {
            let address = to.checked_add(offset).ok_or(u64::MAX)?;
            self.area(address, true).ok_or(address)?;
            self.set(address, *byte);
        }
        Ok(())
    }
}
