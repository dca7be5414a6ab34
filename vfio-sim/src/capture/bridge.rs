// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PCI host bridges as the boot log tells them: `pci_bus 0000:00: root bus resource [...]`.

use vfio_type1::{Iova, IovaRange};

use super::log::Log;
use super::source::{Source, hexadecimal};
use crate::pci::HostBridge;

/// The host bridges of the log, in its order. They concern the kernel's DMA API only, so without a
/// log there is nothing to note.
pub(super) fn bridges(log: &Log, source: &mut Source) -> Vec<HostBridge> {
    let mut bridges: Vec<HostBridge> = Vec::new();
    for line in log.after("pci_bus ") {
        let Some((place, resource)) = line.split_once(": root bus resource ") else { continue };
        let Some((segment, bus)) = root(place) else { continue };
        let known = bridges.iter().position(|one| (one.segment, one.buses.0) == (segment, bus));
        let at = known.unwrap_or_else(|| {
            let buses = (bus, u8::MAX);
            bridges.push(HostBridge {
                segment,
                buses,
                windows: Vec::new(),
                dma_ranges: Vec::new(),
            });
            bridges.len() - 1
        });
        if let Some(last) = last_bus(resource) {
            bridges[at].buses.1 = last.max(bus);
        }
        bridges[at].windows.extend(window(resource));
    }
    let clash = |(at, one): (usize, &HostBridge)| {
        bridges[..at].iter().any(|other| other.shared_bus(one).is_some())
    };
    if bridges.iter().enumerate().any(clash) {
        source.note("host bridges left out: by the log, two of them have the same bus");
        return Vec::new();
    }
    bridges
}

/// `0000:00`: segment and first bus.
fn root(place: &str) -> Option<(u32, u8)> {
    let (segment, bus) = place.split_once(':')?;
    Some((u32::try_from(hexadecimal(segment)?).ok()?, u8::try_from(hexadecimal(bus)?).ok()?))
}

/// `[bus 00-7f]`: the last bus.
fn last_bus(resource: &str) -> Option<u8> {
    let (_, last) = resource.strip_prefix("[bus ")?.split_once(']')?.0.split_once('-')?;
    u8::try_from(hexadecimal(last)?).ok()
}

/// `[mem 0xc0000000-0xfebfffff window]`; with `(bus address [0x...-0x...])` if devices see it there.
fn window(resource: &str) -> Option<IovaRange> {
    let cpu = resource.strip_prefix("[mem ")?;
    let bus = resource.split_once("(bus address [").map(|(_, bus)| bus);
    let text = bus.unwrap_or(cpu).split([']', ' ']).next()?;
    let (first, last) = text.split_once('-')?;
    IovaRange::new(Iova(hexadecimal(first)?), Iova(hexadecimal(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_bus_addresses() {
        let range = |first, last| IovaRange::new(Iova(first), Iova(last));
        let same = "[mem 0xc0000000-0xfebfffff window]";
        assert_eq!(window(same), range(0xc000_0000, 0xfebf_ffff));
        let moved = "[mem 0x4000000000-0x407fffffff] (bus address [0x80000000-0xffffffff])";
        assert_eq!(window(moved), range(0x8000_0000, 0xffff_ffff));
        assert_eq!(window("[io  0x0000-0x0cf7 window]"), None);
        assert_eq!(window("[mem 0xc-"), None);
        assert_eq!(last_bus("[bus 00-7f]"), Some(0x7f));
    }
}
