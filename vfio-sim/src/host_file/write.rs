// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host as the text of a host file: the inverse of [`parse`](super::parse).
//!
//! What a reader may leave out is left out if it has its default. Addresses are hexadecimal, sizes
//! of pages have their suffix, and each device is a table of its own.

use std::fmt::Write as _;

use vfio_type1::{DEFAULT_DMA_ENTRY_LIMIT, IovaRange, PageSize};

use super::region::region_kind_name;
use super::write_platform::platform;
use crate::host::{Host, HostDevice, HostGroup, HostGroupKind, HostRegion};
use crate::pci::{Bar, BarKind, HostBridge, PciFunction};

/// The text of a host file that says what `host` does, but for its name, which is the file's.
pub fn write(host: &Host) -> String {
    let mut text = Text::default();
    text.word("description", &host.description);
    text.word("source", &host.source);
    if host.page_size != PageSize::P4K {
        text.value("page-size", quoted(&size(host.page_size.bytes())));
    }
    text.flag("allow-unsafe-interrupts", host.allow_unsafe_interrupts);
    if host.dma_entry_limit != DEFAULT_DMA_ENTRY_LIMIT {
        text.value("dma-entry-limit", host.dma_entry_limit);
    }
    text.flag("reserve-dma-masks", host.reserve_dma_masks);
    for (index, iommu) in host.iommus.iter().enumerate() {
        text.table("[[iommu]]");
        if iommu.name != format!("iommu{index}") {
            text.value("name", quoted(&iommu.name));
        }
        platform(&iommu.platform, &mut text);
    }
    for host_bridge in &host.bridges {
        bridge(host_bridge, &mut text);
    }
    for one in &host.groups {
        group(one, host, &mut text);
    }
    text.0
}

fn bridge(bridge: &HostBridge, text: &mut Text) {
    text.table("[[host-bridge]]");
    if bridge.segment != 0 {
        text.value("segment", bridge.segment);
    }
    if bridge.buses != (0, u8::MAX) {
        text.value("buses", quoted(&buses(bridge.buses)));
    }
    text.list("windows", bridge.windows.iter().map(|window| range(*window)));
    text.list("dma-ranges", bridge.dma_ranges.iter().map(|window| range(*window)));
}

fn group(group: &HostGroup, host: &Host, text: &mut Text) {
    text.table("[[group]]");
    text.value("number", group.number);
    match group.kind {
        HostGroupKind::Iommu(at) if host.iommus.len() > 1 => {
            let name = host.iommus.get(at).map_or("", |iommu| &iommu.name);
            text.value("iommu", quoted(name));
        }
        HostGroupKind::Iommu(_) => {}
        HostGroupKind::Emulated => text.value("kind", quoted("emulated")),
        HostGroupKind::NoIommu => text.value("kind", quoted("noiommu")),
    }
    for one in &group.devices {
        text.table("[[group.device]]");
        device(one, group.kind, text);
    }
}

fn device(device: &HostDevice, kind: HostGroupKind, text: &mut Text) {
    text.value("name", quoted(&device.name));
    text.word("description", &device.description);
    match device.driver.as_deref() {
        // The driver of an emulated device is its parent's.
        _ if kind == HostGroupKind::Emulated => {}
        Some("vfio-pci") => {}
        driver => text.value("driver", quoted(driver.unwrap_or("none"))),
    }
    match &device.model {
        // It says itself what it is.
        Some(model) => {
            text.value("model", quoted(&model.to_string()));
            let pci = PciFunction { ids: None, class: None, ..device.pci.clone() };
            function(&pci, text);
        }
        None => function(&device.pci, text),
    }
    text.list("regions", device.regions.iter().map(region));
}

fn function(pci: &PciFunction, text: &mut Text) {
    if let Some((vendor, device)) = pci.ids {
        text.value("vendor", quoted(&format!("{vendor:#06x}")));
        text.value("device", quoted(&format!("{device:#06x}")));
    }
    if let Some(class) = pci.class {
        text.value("class", quoted(&format!("{class:#08x}")));
    }
    if let Some(behind) = pci.buses {
        text.value("buses", quoted(&buses(behind)));
    }
    if let Some(bits) = pci.dma_mask_bits {
        text.value("dma-mask-bits", bits);
    }
    let entry = |(index, bar): (&u8, &Bar)| format!("{index} = {}", quoted(&bar_text(bar)));
    let rom = pci.rom.map(|rom| format!("rom = {}", quoted(&extent(rom))));
    let bars: Vec<String> = pci.bars.iter().map(entry).chain(rom).collect();
    if !bars.is_empty() {
        text.value("bars", format!("{{ {} }}", bars.join(", ")));
    }
}

fn bar_text(bar: &Bar) -> String {
    let kind = match bar.kind {
        BarKind::Io => " io",
        BarKind::Memory { wide: false, prefetchable: false } => "",
        BarKind::Memory { wide: true, prefetchable: false } => " 64-bit",
        BarKind::Memory { wide: false, prefetchable: true } => " prefetchable",
        BarKind::Memory { wide: true, prefetchable: true } => " 64-bit prefetchable",
    };
    extent(bar.range) + kind
}

fn buses((first, last): (u8, u8)) -> String {
    format!("{first:02x}-{last:02x}")
}

/// `RANGE KIND [since KERNEL]`; a region of no bytes is `FIRST+0`.
pub(super) fn region(region: &HostRegion) -> String {
    let place = match region.region.range() {
        Some(place) => range(place),
        None => format!("{:#x}+0", region.region.first.0),
    };
    let since = region.since.map(|kernel| format!(" since {kernel}")).unwrap_or_default();
    format!("{place} {}{since}", region_kind_name(region.region.kind))
}

/// `FIRST-LAST`, both included.
pub(super) fn range(range: IovaRange) -> String {
    format!("{:#x}-{:#x}", range.first().0, range.last().0)
}

/// `FIRST+SIZE`, as one speaks of a BAR; the whole space has no size, so it has its ends.
fn extent(place: IovaRange) -> String {
    match place.size() {
        Some(bytes) => format!("{:#x}+{}", place.first().0, size(bytes)),
        None => range(place),
    }
}

/// A size with the largest suffix that loses nothing.
pub(super) fn size(bytes: u64) -> String {
    let suffixes = [(50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    let fits = suffixes.iter().find(|(bits, _)| bytes != 0 && bytes.is_multiple_of(1 << bits));
    match fits {
        Some((bits, suffix)) => format!("{}{suffix}", bytes >> bits),
        None => bytes.to_string(),
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML text that grows line by line.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// The head of a table, set off by an empty line.
    pub(super) fn table(&mut self, head: &str) {
        let gap = if self.0.is_empty() || head.matches('[').count() == 1 { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{head}");
    }

    /// A key with its value, written as TOML.
    pub(super) fn value(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    /// A key with a string, if there is one.
    pub(super) fn word(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.value(key, quoted(value));
        }
    }

    /// A key that is true, if it is.
    pub(super) fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.value(key, true);
        }
    }

    /// A key with a list of strings, one a line if there are several; nothing if there are none.
    pub(super) fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.map(|item| quoted(&item)).collect();
        match &items[..] {
            [] => {}
            [one] => self.value(key, format!("[{one}]")),
            several => self.value(key, format!("[\n    {},\n]", several.join(",\n    "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_file::parse;
    use crate::hosts;

    /// Every key of HOSTS.md, with values that are not the defaults.
    const EVERYTHING: &str = r#"
        description = "a \"desktop\"\nof two lines"
        source = "its log"
        page-size = "16K"
        allow-unsafe-interrupts = true
        dma-entry-limit = 512
        reserve-dma-masks = true
        [[iommu]]
        name = "one"
        driver = "dart"
        aperture = "0x1000-0xffffffff"
        page-sizes = "0x4000"
        coherent = true
        isolated-msi = false
        [[iommu.from]]
        kernel = "6.1"
        aperture = "0-0xffffffffffffffff"
        [[iommu]]
        [iommu.vtd]
        capability = "0xd2008c222f0686"
        snoop-control = true
        interrupt-remapping = true
        [[iommu.vtd.rmrr]]
        range = "0x1000-0x1fff"
        devices = ["0000:00:02.0", "0000:00:1c.0"]
        [[iommu]]
        [iommu.amd]
        table-levels = 5
        guest-levels = 4
        virtual-address-bits = 48
        ht-range-ignore = true
        interrupt-remapping = false
        [[iommu.amd.ivmd]]
        start = "0x40000000"
        length = 0
        exclusion = true
        [[iommu.amd.ivmd]]
        start = 1
        length = "1M"
        devices = []
        [[iommu]]
        [iommu.smmuv2]
        input-bits = 48
        output-bits = 40
        granules = ["4K", "64K"]
        isolated-msi = true
        its-windows = ["0xc6010000-0xc601ffff"]
        [[iommu.smmuv2.rmr]]
        base = "0x80c000001"
        length = "257M"
        remap-permitted = true
        devices = ["0000:00:1c.0"]
        [[iommu]]
        [iommu.virtio]
        input-range = "0x1000-0x7fffffffff"
        page-sizes = "0x1000"
        isolated-msi = false
        regions = ["0xfee00000-0xfeefffff msi", "0-0xfff reserved"]
        [[iommu]]
        [iommu.vtd]
        capability = "0xf9ed008cee780c66"
        extended-capability = "0xc80000000088"
        scalable-mode = true
        interrupt-remapping = true
        [[iommu]]
        [iommu.dart]
        input-bits = 36
        msi-doorbell = "0xff000"
        isolated-msi = false
        [[iommu]]
        [iommu.s390]
        window = "0x100000000-0x4ffffffff"
        table = "region-second"
        [[iommu]]
        [iommu.riscv]
        mode = "sv48"
        isolated-msi = true
        [[host-bridge]]
        segment = 1
        buses = "00-7f"
        windows = ["0xc0000000-0xfebfffff"]
        dma-ranges = ["0x80000000+2G"]
        [[group]]
        number = 4
        iommu = "iommu1"
        [[group.device]]
        name = "0000:00:02.0"
        vendor = "0x8086"
        device = 2
        class = "0x030000"
        dma-mask-bits = 39
        bars = { 0 = "0x6000000000+16M 64-bit", 2 = "0x40000000+256M prefetchable", 3 = "0x80000000+4K", 4 = "0x5000+64 io", rom = "0xc0000+128K" }
        regions = ["0x2000+0 direct", "0-0xfff software-msi since 6.12"]
        [[group.device]]
        name = "0000:00:1c.0"
        description = "root port"
        driver = "none"
        buses = "01-0a"
        [[group]]
        number = 5
        kind = "emulated"
        [[group.device]]
        name = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
        [[group]]
        number = 4
        kind = "noiommu"
        [[group.device]]
        name = "0000:01:00.0"
        driver = "e1000e"
    "#;

    fn written_and_read(host: &Host) -> Host {
        let text = write(host);
        parse(&host.name, "written.toml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn every_key_is_written_as_it_is_read() {
        let host = parse("all", "all.toml", EVERYTHING).unwrap();
        assert_eq!(written_and_read(&host), host);
    }

    #[test]
    fn every_known_host_is_written_as_it_is_read() {
        for host in hosts::known() {
            let host = host.unwrap();
            assert_eq!(written_and_read(&host), host);
        }
    }

    #[test]
    fn sizes_lose_nothing() {
        let texts = [0, 1, 1000, 1024, 3 << 20, 1 << 40, u64::MAX].map(size);
        assert_eq!(texts, ["0", "1", "1000", "1K", "3M", "1T", "18446744073709551615"]);
    }
}
