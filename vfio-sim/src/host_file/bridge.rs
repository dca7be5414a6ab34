// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host file says of PCI host bridges.

use vfio_type1::IovaRange;

use super::pci::buses;
use super::schema::{Bridge, RangeText};
use crate::number::Text;
use crate::pci::HostBridge;
use crate::toml_file::Problem;

/// Host bridges of one segment share its buses, so no bus may have two.
pub(super) fn host_bridges(facts: &[Bridge]) -> Result<Vec<HostBridge>, Problem> {
    let mut bridges: Vec<HostBridge> = Vec::new();
    for facts in facts {
        let bridge = host_bridge(facts)?;
        if let Some(bus) = bridges.iter().find_map(|other| other.shared_bus(&bridge)) {
            let segment = bridge.segment;
            let problem = format!(
                "two host bridges have bus {bus:02x} of segment {segment:04x}; give each its buses"
            );
            return Err(Problem::maybe_at(facts.buses.as_ref(), problem));
        }
        bridges.push(bridge);
    }
    Ok(bridges)
}

fn host_bridge(facts: &Bridge) -> Result<HostBridge, Problem> {
    let ranges = |texts: &[Text<RangeText>]| -> Vec<IovaRange> {
        texts.iter().map(|range| range.0.0).collect()
    };
    Ok(HostBridge {
        segment: facts.segment,
        buses: facts.buses.as_ref().map(buses).transpose()?.unwrap_or((0, u8::MAX)),
        windows: ranges(&facts.windows),
        dma_ranges: ranges(&facts.dma_ranges),
    })
}
