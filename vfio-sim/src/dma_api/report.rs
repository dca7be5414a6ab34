// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vfio-sim show --dma-api`: both views as data for programs. `render` has them for people.

use serde::Serialize;
use vfio_type1::{Kernel, Vfio};

use super::{Allocator, Entry, LowFirst, NoView, View, views};
use crate::assign::Selection;
use crate::host::{BootError, Host, HostGroup};
use crate::report::{Range, Refusal};

/// A host's devices under the DMA API and under VFIO.
#[derive(Clone, Debug, Serialize)]
pub struct DmaApiReport {
    /// The host.
    pub host: String,
    /// A line about it.
    pub description: String,
    /// The kernel.
    pub kernel: String,
    /// Whether DMA masks and apertures are reserved regions, as proposed in 2020.
    pub reserve_dma_masks: bool,
    /// The devices, by group.
    pub devices: Vec<DeviceReport>,
}

/// A device under both views.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// Its name.
    pub device: String,
    /// What its group's device node is called.
    pub group: String,
    /// What is said of it.
    #[serde(flatten)]
    pub view: ViewReport,
}

/// What is said of a device, and of others that look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewReport {
    /// Why the DMA API has no view of the device, if so; all that follows is empty then.
    pub unavailable: Option<Refusal>,
    /// Why the kernel would not give the group to VFIO, if so.
    pub vfio_refuses: Option<Refusal>,
    /// The device whose reservations count for the DMA API, if it is another one of the group.
    pub set_up_by: Option<String>,
    /// The bits of its DMA mask, if known. Otherwise no limit is assumed.
    pub dma_mask_bits: Option<u32>,
    /// Whose code gives out addresses.
    pub allocator: Option<&'static str>,
    /// The highest usable address below 4 GiB, where allocations begin.
    pub first_below_4g: Option<String>,
    /// The highest usable address, if above 4 GiB, where they go on.
    pub first_above_4g: Option<String>,
    /// When they go on there: `every-time` the lower part is full, or `after-first-failure`.
    pub above_4g: Option<&'static str>,
    /// The whole address space in pieces, ascending.
    pub entries: Vec<EntryReport>,
    /// What the DMA API may give out, ascending.
    pub usable: Vec<Range>,
    /// What VFIO maps, with the group alone in its container, ascending.
    pub valid: Vec<Range>,
}

/// A piece of the address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryReport {
    /// Its addresses.
    #[serde(flatten)]
    pub range: Range,
    /// Whether the DMA API gives them out.
    pub dma_api: bool,
    /// Whether VFIO maps them.
    pub vfio: bool,
    /// Who takes them, from either.
    pub reasons: Vec<Reason>,
}

/// Who takes addresses, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Who.
    pub who: String,
    /// Why, and why the other view differs if it does.
    pub why: String,
}

/// Looks at the devices of the groups in `selection`, or at all.
pub fn report(
    host: &Host,
    kernel: Kernel,
    selection: Option<&Selection<'_>>,
) -> Result<DmaApiReport, BootError> {
    let vfio = host.boot(kernel)?;
    let all = || host.groups.iter().collect();
    let groups: Vec<&HostGroup> = selection.map_or_else(all, |chosen| chosen.groups.clone());
    Ok(DmaApiReport {
        host: host.name.clone(),
        description: host.description.clone(),
        kernel: kernel.to_string(),
        reserve_dma_masks: host.reserve_dma_masks,
        devices: groups.into_iter().flat_map(|group| of_group(host, &vfio, group)).collect(),
    })
}

fn of_group(host: &Host, vfio: &Vfio, group: &HostGroup) -> Vec<DeviceReport> {
    let refuses = Selection::of_group(host, group).assign(vfio).err();
    // Who holds a device now does not matter here, only what the kernel would say.
    let refuses = refuses.filter(|refusal| refusal.errno.is_some());
    let first = group.devices.first().map(|first| first.name.as_str());
    let views = views(host, vfio.kernel(), group);
    let devices = group.devices.iter().zip(views).map(|(device, view)| {
        let mut report = match view {
            Ok(view) => ViewReport::of(&view),
            Err(none) => ViewReport::without(&none),
        };
        if report.unavailable.is_none() {
            report.vfio_refuses = refuses.clone();
            report.set_up_by = first.filter(|first| *first != device.name).map(str::to_owned);
            report.dma_mask_bits = device.pci.dma_mask_bits;
        }
        DeviceReport { device: device.name.clone(), group: group.id().to_string(), view: report }
    });
    devices.collect()
}

impl ViewReport {
    fn of(view: &View) -> Self {
        let first_above_4g = view.first_above_4g();
        let above_4g = match view.low_first {
            LowFirst::EveryTime => "every-time",
            LowFirst::UntilFirstFailure => "after-first-failure",
        };
        Self {
            unavailable: None,
            vfio_refuses: None,
            set_up_by: None,
            dma_mask_bits: None,
            allocator: Some(match view.allocator {
                Allocator::DmaIommu => "dma-iommu",
                Allocator::Driver => "the IOMMU driver",
            }),
            first_below_4g: view.first_below_4g().map(|first| first.to_string()),
            first_above_4g: first_above_4g.map(|first| first.to_string()),
            above_4g: first_above_4g.map(|_| above_4g),
            entries: view.entries().iter().map(EntryReport::of).collect(),
            usable: view.usable().into_iter().map(Range::from).collect(),
            valid: view.valid().into_iter().map(Range::from).collect(),
        }
    }

    fn without(none: &NoView) -> Self {
        let errno = none.errno().map(|errno| errno.to_string());
        Self {
            unavailable: Some(Refusal { errno, why: none.to_string() }),
            vfio_refuses: None,
            set_up_by: None,
            dma_mask_bits: None,
            allocator: None,
            first_below_4g: None,
            first_above_4g: None,
            above_4g: None,
            entries: Vec::new(),
            usable: Vec::new(),
            valid: Vec::new(),
        }
    }
}

impl EntryReport {
    fn of(entry: &Entry<'_>) -> Self {
        let reasons =
            entry.claims.iter().map(|claim| Reason { who: claim.who(), why: claim.why() });
        Self {
            range: Range::from(entry.range),
            dma_api: entry.dma_api,
            vfio: entry.vfio,
            reasons: reasons.collect(),
        }
    }
}
