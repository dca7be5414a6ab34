// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device of which only the outside is known: what a host file says of its configuration space. It does
//! nothing; there is memory behind its BARs.

use crate::device::link::Link;
use crate::device::model::{BarContent, BarLayout, Function, Model, Register};
use crate::pci::{Bar, BarKind, PciFunction};

/// The smallest BAR with memory: a page.
const PAGE: u64 = 4096;

/// The model.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    function: Function,
}

impl Idle {
    /// A device that looks so from outside.
    pub(super) fn new(pci: &PciFunction) -> Self {
        Self {
            function: Function {
                ids: pci.ids.unwrap_or_default(),
                class: pci.class.unwrap_or_default(),
                revision: 0,
                bars: pci.bars.iter().filter_map(|(index, bar)| layout(*index, bar)).collect(),
                interrupt_line: false,
                msi_vectors: 0,
                msix_vectors: 0,
                express: false,
                address_bits: 64,
            },
        }
    }
}

fn layout(index: u8, bar: &Bar) -> Option<BarLayout> {
    let size = bar.range.size()?;
    let memory = bar.kind != BarKind::Io && size >= PAGE;
    let content = if memory { BarContent::Memory } else { BarContent::Registers };
    Some(BarLayout { index, kind: bar.kind, size, content })
}

impl Model for Idle {
    fn function(&self) -> Function {
        self.function.clone()
    }

    fn read(&mut self, _register: Register) -> u64 {
        0
    }

    fn write(&mut self, _register: Register, _value: u64, _link: &Link<'_>) {}

    fn step(&mut self, _link: &Link<'_>) -> bool {
        false
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use crate::device::{CONFIG_REGION, Pace};
    use crate::hosts;
    use vfio_type1::Kernel;

    #[test]
    fn a_device_without_a_model_shows_what_is_known_of_it() {
        let host = hosts::find("intel-client-39-igd").unwrap();
        let vfio = host.boot(Kernel::NEWEST).unwrap();
        let with_bars = host.devices().filter(|device| !device.pci.is_any_bridge());
        let mut seen = 0;
        for device in with_bars {
            let idle = host.power_on_idle(&vfio, &device.name, Pace::Immediate).unwrap();
            let mut ids = [0; 4];
            idle.read(CONFIG_REGION, 0, &mut ids).unwrap();
            let (vendor, id) = device.pci.ids.unwrap_or_default();
            assert_eq!(ids, [vendor.to_le_bytes(), id.to_le_bytes()].concat()[..]);
            for (index, bar) in &device.pci.bars {
                assert_eq!(Some(idle.region_size(*index)), bar.range.size(), "{}", device.name);
            }
            seen += 1;
        }
        assert!(seen > 0);
    }
}
