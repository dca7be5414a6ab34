// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Models on a host: a slot, a group, addresses for their BARs.

use vfio_type1::{Iova, IovaRange, Vfio};

use crate::device::idle::Idle;
use crate::device::model::{BadFunction, BarLayout, Function, Model};
use crate::device::nvme::DiskError;
use crate::device::pci_device::{Pace, PciDevice};
use crate::device::spec::{DeviceSpec, ModelSpec, SpecError};
use crate::host::{Host, HostDevice, HostGroup, HostGroupKind};
use crate::names::pci_bus;
use crate::pci::{Bar, BarKind, PciFunction};

/// Where BARs go on hosts that do not tell their bridges' windows: below the interrupt controllers; the
/// upper half of 39 bits; and for what is too large for it, where servers put it.
const USUAL_WINDOWS: [(u64, u64); 3] = [
    (0xc000_0000, 0xfebf_ffff),
    (0x40_0000_0000, 0x7f_ffff_ffff),
    (0x3800_0000_0000, 0x3fff_ffff_ffff),
];

/// A device that cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The host has no group that a device could be put beside.
    #[error("host {host} has no IOMMU group, so there is nothing to put a device behind")]
    NoIommu {
        /// The host.
        host: String,
    },
    /// No bus is free.
    #[error("host {host} has no free bus; say with bdf= which device to replace")]
    NoSlot {
        /// The host.
        host: String,
    },
    /// A bridge cannot be anything else.
    #[error("{device} is a bridge; say bdf= of another device, or of a free slot")]
    Bridge {
        /// The bridge.
        device: String,
    },
    /// No host bridge leads to the address.
    #[error(
        "no host bridge of {host} leads to {device}; its [[host-bridge]]s say which buses it has"
    )]
    NoBridge {
        /// The host.
        host: String,
        /// The PCI address.
        device: String,
    },
    /// The BAR does not fit into any window.
    #[error(
        "there is no room for BAR {bar} of {device}, {size:#x} bytes; \
         state larger windows of its [[host-bridge]], or a smaller device"
    )]
    NoRoom {
        /// The device.
        device: String,
        /// The BAR's index.
        bar: u8,
        /// Its size in bytes.
        size: u64,
    },
}

/// A device that cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PowerOnError {
    /// The host, or its driver, does not have the device.
    #[error("there is no device \"{device}\"")]
    NoDevice {
        /// The device.
        device: String,
    },
    /// The host says what the device is called, not what it does.
    #[error("{device} has no model; place one with bdf={device}")]
    NoModel {
        /// The device.
        device: String,
    },
    /// The model is of something that is no PCI device.
    #[error(transparent)]
    BadFunction(#[from] BadFunction),
    /// There is nothing behind the disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A device that was given as text and cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddDevicesError {
    /// The text is not one of a device.
    #[error("--device {text}: {error}")]
    Spec {
        /// What was given.
        text: String,
        /// What is wrong with it.
        error: SpecError,
    },
    /// The host has no place for it.
    #[error("--device {text}: {error}")]
    Place {
        /// What was given.
        text: String,
        /// Why.
        error: PlaceError,
    },
}

impl Host {
    /// Places devices that are given as text, as by the option `--device`, in their order.
    pub fn add_devices(&mut self, texts: &[String]) -> Result<(), AddDevicesError> {
        for text in texts {
            let spec = |error| AddDevicesError::Spec { text: text.clone(), error };
            let place = |error| AddDevicesError::Place { text: text.clone(), error };
            self.add_device(&text.parse().map_err(spec)?).map_err(place)?;
        }
        Ok(())
    }

    /// Places a device, bound to vfio-pci, and returns its PCI address.
    ///
    /// One that is there already becomes this model, in its group. A new one joins the group of the other
    /// functions of its slot, or of the conventional bridge above it, as Linux groups them; otherwise it
    /// gets a group of its own, behind the IOMMU that most groups of its segment are behind.
    pub fn add_device(&mut self, spec: &DeviceSpec) -> Result<String, PlaceError> {
        let name = match &spec.bdf {
            Some(bdf) => bdf.clone(),
            None => self.free_slot()?,
        };
        if !self.bridges.is_empty() && !self.bridges.iter().any(|bridge| bridge.leads_to(&name)) {
            return Err(PlaceError::NoBridge { host: self.name.clone(), device: name });
        }
        let pci = self.function_of(&name, &spec.model)?;
        let device = HostDevice {
            name: name.clone(),
            description: spec.model.description().to_owned(),
            driver: Some("vfio-pci".to_owned()),
            pci,
            model: Some(spec.model.clone()),
            regions: Vec::new(),
        };
        let known = self.groups.iter_mut().flat_map(|group| &mut group.devices);
        match known.into_iter().find(|known| known.name == name) {
            Some(known) if known.pci.is_any_bridge() => {
                return Err(PlaceError::Bridge { device: name });
            }
            // What firmware reserves for the slot stays.
            Some(known) => {
                *known = HostDevice { regions: std::mem::take(&mut known.regions), ..device };
            }
            None => self.insert(device)?,
        }
        Ok(name)
    }

    fn insert(&mut self, device: HostDevice) -> Result<(), PlaceError> {
        if let Some(group) =
            self.groups.iter_mut().find(|group| shares_isolation(group, &device.name))
        {
            group.devices.push(device);
            return Ok(());
        }
        let kind = self.usual_kind(&device.name)?;
        self.groups.push(HostGroup { number: self.free_number(), kind, devices: vec![device] });
        Ok(())
    }

    /// Switches a device on that has a model.
    pub fn power_on(&self, vfio: &Vfio, name: &str, pace: Pace) -> Result<PciDevice, PowerOnError> {
        let device = self.known_device(name)?;
        let no_model = || PowerOnError::NoModel { device: name.to_owned() };
        let model = device.model.as_ref().ok_or_else(no_model)?;
        self.power(vfio, device, model.model(name)?, pace)
    }

    /// Switches a device on. One without a model looks as the host describes it and does nothing; behind its
    /// BARs is memory.
    pub fn power_on_idle(
        &self,
        vfio: &Vfio,
        name: &str,
        pace: Pace,
    ) -> Result<PciDevice, PowerOnError> {
        let device = self.known_device(name)?;
        match device.model {
            Some(_) => self.power_on(vfio, name, pace),
            None => self.power(vfio, device, Box::new(Idle::new(&device.pci)), pace),
        }
    }

    fn known_device(&self, name: &str) -> Result<&HostDevice, PowerOnError> {
        let known = self.device(name).map(|(_, device)| device);
        known.ok_or_else(|| PowerOnError::NoDevice { device: name.to_owned() })
    }

    fn power(
        &self,
        vfio: &Vfio,
        device: &HostDevice,
        model: Box<dyn Model>,
        pace: Pace,
    ) -> Result<PciDevice, PowerOnError> {
        let unknown = || PowerOnError::NoDevice { device: device.name.clone() };
        let bus = vfio.bus_master(&device.name).ok_or_else(unknown)?;
        Ok(PciDevice::new(bus, model, &device.pci, pace)?)
    }

    /// Finds addresses for the BARs of models that have none.
    pub(crate) fn place_models(&mut self) -> Result<(), PlaceError> {
        let unplaced = |device: &&HostDevice| device.pci.bars.is_empty();
        let models = self.devices().filter(unplaced);
        let models = models.filter_map(|device| Some((device.name.clone(), device.model.clone()?)));
        for (name, model) in models.collect::<Vec<_>>() {
            let bars = self.function_of(&name, &model)?.bars;
            let mut devices = self.groups.iter_mut().flat_map(|group| &mut group.devices);
            if let Some(device) = devices.find(|device| device.name == name) {
                device.pci.bars = bars;
            }
        }
        Ok(())
    }

    /// What configuration space says of a model at `name`, its BARs clear of all others.
    fn function_of(&self, name: &str, model: &ModelSpec) -> Result<PciFunction, PlaceError> {
        let others = self.devices().filter(|device| device.name != name);
        let taken: Vec<IovaRange> = others.flat_map(|device| device.pci.decoded_memory()).collect();
        let bridge = self.bridges.iter().find(|bridge| bridge.leads_to(name));
        let windows = bridge.map_or(&[][..], |bridge| &bridge.windows);
        let function = model.function();
        places(&function, &taken, windows).map_err(|bar| PlaceError::NoRoom {
            device: name.to_owned(),
            bar: bar.index,
            size: bar.size,
        })
    }

    /// The first function on the lowest bus that nothing is on.
    fn free_slot(&self) -> Result<String, PlaceError> {
        let segments = self.devices().filter_map(|device| pci_bus(&device.name));
        let first_segment = segments.map(|(segment, _)| segment).min().unwrap_or(0);
        let mut buses: Vec<(u32, u8, u8)> = self
            .bridges
            .iter()
            .map(|bridge| (bridge.segment, bridge.buses.0, bridge.buses.1))
            .collect();
        if buses.is_empty() {
            buses.push((first_segment, 0, u8::MAX));
        }
        let taken = |segment: u32, bus: u8| {
            let on = |device: &HostDevice| pci_bus(&device.name) == Some((segment, bus));
            let behind = |device: &HostDevice| {
                device.pci.leads_to(&device.name, &format!("{segment:04x}:{bus:02x}:00.0"))
            };
            self.devices().any(|device| on(device) || behind(device))
        };
        // The first bus of a host bridge is the one of the chipset.
        let mut free = buses.into_iter().flat_map(|(segment, first, last)| {
            let buses = first.saturating_add(1)..=last;
            buses.filter(move |bus| !taken(segment, *bus)).map(move |bus| (segment, bus))
        });
        let slot = free.next().map(|(segment, bus)| format!("{segment:04x}:{bus:02x}:00.0"));
        slot.ok_or_else(|| PlaceError::NoSlot { host: self.name.clone() })
    }

    fn free_number(&self) -> u32 {
        let next = self.groups.iter().map(|group| group.number).max();
        let next = next.map_or(Some(0), |number| number.checked_add(1));
        let free = |number: &u32| !self.groups.iter().any(|group| group.number == *number);
        next.or_else(|| (0..u32::MAX).find(free)).unwrap_or(u32::MAX)
    }

    /// What most groups of the segment of `name` are behind, or most groups of all.
    fn usual_kind(&self, name: &str) -> Result<HostGroupKind, PlaceError> {
        let segment = |name: &str| pci_bus(name).map(|(segment, _)| segment);
        let near = |group: &&HostGroup| {
            group.devices.iter().any(|device| segment(&device.name) == segment(name))
        };
        let count = |at: &usize| {
            let behind = self.groups.iter().filter(|group| group.kind == HostGroupKind::Iommu(*at));
            (behind.clone().filter(near).count(), behind.count())
        };
        // Of several with as many groups the last one: firmware states the one for all others so.
        if let Some(at) = (0..self.iommus.len()).max_by_key(count) {
            return Ok(HostGroupKind::Iommu(at));
        }
        let mut kinds = self.groups.iter().map(|group| group.kind);
        let noiommu = kinds.find(|kind| *kind == HostGroupKind::NoIommu);
        noiommu.ok_or_else(|| PlaceError::NoIommu { host: self.name.clone() })
    }
}

/// Whether a new device at `name` cannot be told from those of a group: another function of its slot is
/// in it, or a bridge above it with other devices behind it.
fn shares_isolation(group: &HostGroup, name: &str) -> bool {
    let slot = |name: &str| name.rsplit_once('.').map(|(slot, _)| slot.to_owned());
    let devices = || group.devices.iter();
    let is_pci = group.kind != HostGroupKind::Emulated;
    let above = |bridge: &HostDevice| {
        let leads_to = |other: &str| bridge.pci.leads_to(&bridge.name, other);
        leads_to(name) && devices().any(|other| leads_to(&other.name))
    };
    is_pci && devices().any(|device| slot(&device.name) == slot(name) || above(device))
}

/// What configuration space says of a function whose BARs are in `windows`, or in the usual ones if there
/// are none, clear of what is taken. The error is the BAR that does not fit.
pub(crate) fn places(
    function: &Function,
    taken: &[IovaRange],
    windows: &[IovaRange],
) -> Result<PciFunction, BarLayout> {
    let usual = USUAL_WINDOWS.map(|(first, last)| IovaRange::new(Iova(first), Iova(last)));
    let usual: Vec<IovaRange> = usual.into_iter().flatten().collect();
    let windows = if windows.is_empty() { &usual[..] } else { windows };
    let mut taken = taken.to_vec();
    let mut placed = PciFunction {
        ids: Some(function.ids),
        class: Some(function.class),
        ..PciFunction::default()
    };
    let low = IovaRange::new(Iova(0), Iova(u64::from(u32::MAX)));
    let high = IovaRange::new(Iova(1 << 32), Iova(u64::MAX));
    for bar in &function.bars {
        let wide = bar.kind.registers() == 2;
        // What can lie above 4G leaves the room below to what cannot.
        let halves = [high.filter(|_| wide), low];
        let mut parts = halves
            .into_iter()
            .flatten()
            .flat_map(|half| windows.iter().filter_map(move |window| window.intersection(&half)));
        let range = parts.find_map(|window| first_fit(&window, bar.size, &taken));
        let range = range.ok_or(*bar)?;
        taken.push(range);
        placed.bars.insert(bar.index, Bar { range, kind: bar.kind });
    }
    Ok(placed)
}

/// The lowest range of a size, at a multiple of it, in a window and clear of what is taken.
fn first_fit(window: &IovaRange, size: u64, taken: &[IovaRange]) -> Option<IovaRange> {
    // A BAR at address 0 is none.
    let mut from = window.first().0.max(1);
    loop {
        let first = from.checked_next_multiple_of(size)?;
        let range = IovaRange::from_size(Iova(first), size).ok()?;
        if range.last() > window.last() {
            return None;
        }
        match taken.iter().find(|other| other.overlaps(&range)) {
            Some(other) => from = other.last().0.checked_add(1)?,
            None => return Some(range),
        }
    }
}

/// What keeps stated BARs from being those of a function.
pub(crate) fn check_places(function: &Function, pci: &PciFunction) -> Result<(), String> {
    for bar in &function.bars {
        let (index, size) = (bar.index, bar.size);
        let right = |stated: &&Bar| stated.kind == bar.kind && stated.range.size() == Some(size);
        if pci.bars.get(&index).filter(right).is_none() {
            let width = if bar.kind.registers() == 2 { "64-bit" } else { "32-bit" };
            let BarKind::Memory { prefetchable, .. } = bar.kind else {
                return Err(format!("BAR {index} of the model is {size:#x} I/O ports"));
            };
            let prefetchable = if prefetchable { ", prefetchable" } else { "" };
            let what = format!("{size:#x} bytes of memory, {width}{prefetchable}");
            return Err(format!(
                "BAR {index} of the model is {what}; state it so, or leave bars out"
            ));
        }
    }
    match pci.bars.keys().find(|index| !function.bars.iter().any(|bar| bar.index == **index)) {
        Some(index) => Err(format!("the model has no BAR {index}")),
        None => Ok(()),
    }
}
