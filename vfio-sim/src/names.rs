// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of devices and IOMMU drivers, as recordings and host files write them.

use vfio_type1::IommuDriver;

/// The IOMMU drivers by the names that recordings and host files use.
const DRIVERS: [(&str, IommuDriver); 8] = [
    ("vtd", IommuDriver::IntelVtd),
    ("amd", IommuDriver::AmdVi),
    ("smmuv3", IommuDriver::SmmuV3),
    ("smmuv2", IommuDriver::SmmuV2),
    ("virtio", IommuDriver::Virtio),
    ("s390", IommuDriver::Other("s390")),
    ("dart", IommuDriver::Other("Apple DART")),
    ("riscv", IommuDriver::Other("RISC-V IOMMU")),
];

/// The driver of that name.
pub(crate) fn iommu_driver(kind: &str) -> Result<IommuDriver, String> {
    let known = DRIVERS.iter().find(|(name, _)| *name == kind);
    known.map(|(_, driver)| *driver).ok_or_else(|| {
        let names: Vec<&str> = DRIVERS.iter().map(|(name, _)| *name).collect();
        format!("unknown IOMMU \"{kind}\"; known are {}", names.join(", "))
    })
}

/// The name of a driver. Host files refuse what one that is not known gets.
pub(crate) fn iommu_driver_name(driver: IommuDriver) -> &'static str {
    let known = DRIVERS.iter().find(|(_, known)| *known == driver);
    known.map_or("unknown", |(name, _)| name)
}

/// Whether a device name is a UUID as Linux prints it, as emulated devices have.
pub(crate) fn is_uuid(name: &str) -> bool {
    let lengths = name.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && name.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f'))
}

/// A PCI address in full: `lspci` leaves out the domain where it is 0.
pub(crate) fn with_domain(name: &str) -> String {
    let full = format!("0000:{name}");
    if is_pci_address(&full) { full } else { name.to_owned() }
}

/// Whether a name is `DOMAIN:BUS:DEVICE.FUNCTION` as Linux prints it.
pub(crate) fn is_pci_address(name: &str) -> bool {
    let hex = |digits: &str, count: usize| {
        let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        digits.len() >= count && digits.chars().all(lower)
    };
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let [domain, bus, device, function] = parts[..] else {
        return false;
    };
    let shape = name.matches(':').count() == 2 && name.rfind(':') < name.find('.');
    let device_fits = u8::from_str_radix(device, 16).is_ok_and(|number| number < 32);
    shape
        && hex(domain, 4)
        && (domain.len() == 4 || domain.len() <= 8 && !domain.starts_with('0'))
        && hex(bus, 2)
        && bus.len() == 2
        && hex(device, 2)
        && device_fits
        && matches!(function, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7")
}

/// The domain and the bus of a PCI address.
pub(crate) fn pci_bus(name: &str) -> Option<(u32, u8)> {
    let name = Some(name).filter(|name| is_pci_address(name))?;
    let mut parts = name.split(':');
    let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some((domain, u8::from_str_radix(parts.next()?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses() {
        for good in ["0000:00:03.0", "10000:e1:1f.7", "0000:ff:00.0"] {
            assert!(is_pci_address(good), "{good}");
        }
        for bad in [
            "",
            "00000000:00:03.0",
            "00:03.0",
            "0000:00:20.0",
            "0000:00:03.8",
            "0000.00.03.0",
            "0000:00:3.0",
        ] {
            assert!(!is_pci_address(bad), "{bad}");
        }
    }
}
