// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the valid ranges of a host begin and end, by asking the emulator.

use std::collections::BTreeSet;
use std::sync::Arc;

use vfio_type1::{IovaRange, ModelMemory, Process, Vfio, extension};

use crate::trace::Trace;

/// Addresses that are borders on every machine: page tables, 32 bits, signs.
const ALWAYS: [u64; 7] = [0, 1 << 21, 1 << 30, 1 << 32, 1 << 39, 1 << 48, 1 << 63];

/// The first address of each piece of the address space, ascending: valid ranges, what lies between
/// them, reserved regions, and some borders that are everywhere.
pub(super) fn edges(header: &Trace, devices: &[String]) -> Vec<u64> {
    let mut edges = BTreeSet::from(ALWAYS);
    let mut add = |first: u64, last: u64| edges.extend([first, last.wrapping_add(1)]);
    if let Ok(vfio) = header.host.boot(header.kernel) {
        for device in devices {
            for range in valid_ranges(&vfio, device).unwrap_or_default() {
                add(range.first().0, range.last().0);
            }
        }
    }
    for device in header.host.groups.iter().flat_map(|group| &group.devices) {
        device.regions.iter().for_each(|at| add(at.region.first.0, at.region.last.0));
    }
    edges.into_iter().collect()
}

/// Whether the device's group can be given to a container at all.
pub(super) fn is_assignable(header: &Trace, device: &str) -> bool {
    let vfio = header.host.boot(header.kernel);
    vfio.is_ok_and(|vfio| valid_ranges(&vfio, device).is_some())
}

/// The valid ranges of a container with the device's group alone; `None` if it cannot be assigned.
fn valid_ranges(vfio: &Vfio, device: &str) -> Option<Vec<IovaRange>> {
    let process = Process::new(Arc::new(ModelMemory::new()));
    let container = vfio.open_container();
    let group = vfio.open_group(vfio.group_of(device)?, &process).ok()?;
    group.set_container(&container, &process).ok()?;
    container.set_iommu(&process, extension::TYPE1V2).ok()?;
    Some(container.info().ok()?.iova_ranges.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_borders_of_valid_ranges_and_of_regions_are_edges() {
        let header = "# kernel 6.12\n\
            # iommu vtd aperture 0 7fffffffff pgsizes 1000 coherent 0 isolated-msi 1\n\
            # group 1: 0000:00:03.0\n#   0x00000000fee00000 0x00000000feefffff msi\n# end\n";
        let header = Trace::parse("test", header).unwrap();
        let found = edges(&header, &["0000:00:03.0".to_owned()]);
        for edge in [0xfee0_0000, 0xfef0_0000, 0x80_0000_0000] {
            assert!(found.contains(&edge), "{edge:x}");
        }
    }
}
