// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel reserves, explained by facts where there are facts, and stated where not.

use vfio_type1::{IovaRange, Kernel, RegionKind, ReservedRegion, Vfio, sysfs};

use super::CaptureError;
use super::group::CapturedGroup;
use super::machine::Machine;
use super::source::Source;
use crate::host::{Host, HostDevice, HostGroup, HostGroupKind, HostRegion};
use crate::platform::{Platform, Rmrr, ht_hole, software_msi_window};

/// Completes `host` so that it reports what the machine did. `groups` are those of the host.
pub(super) fn explain(
    host: &mut Host,
    machine: &Machine<'_>,
    groups: &[CapturedGroup],
    source: &mut Source,
) -> Result<(), CaptureError> {
    for at in 0..host.iommus.len() {
        let behind = |group: &&CapturedGroup| group.group.kind == HostGroupKind::Iommu(at);
        let behind: Vec<&CapturedGroup> = groups.iter().filter(behind).collect();
        match &mut host.iommus[at].platform {
            Platform::Virtio(virtio) => virtio.regions = shared(&behind),
            Platform::AmdVi(amd) => amd.ht_range_ignore |= has_no_hole(&behind),
            Platform::Smmu(smmu) => {
                // The doorbells of ITSs are the only such windows that an SMMU driver lists.
                let windows = shared(&behind).into_iter();
                let windows = windows.filter(|region| region.kind == RegionKind::Msi);
                smmu.its_windows = windows.filter_map(|region| region.range()).collect();
            }
            Platform::Dart(dart) => {
                let is_msi = |region: &ReservedRegion| region.kind == RegionKind::Msi;
                if let Some(page) = shared(&behind).into_iter().find(is_msi)
                    && !(page.first.0..=page.last.0).contains(&dart.msi_doorbell)
                {
                    dart.msi_doorbell = page.first.0;
                }
            }
            Platform::Vtd(_) | Platform::Stated(_) | Platform::S390(_) | Platform::RiscV(_) => {}
        }
    }
    rmrrs(host, machine, groups, source);
    state_the_rest(host, machine, groups)?;
    compare(host, machine, groups, source)
}

/// What all groups of an IOMMU have, but for the kernel's own window: what the probe of a virtio-iommu
/// reports, and what devices reach past an SMMU.
fn shared(groups: &[&CapturedGroup]) -> Vec<ReservedRegion> {
    let Some((first, others)) = groups.split_first() else { return Vec::new() };
    let kernels_own = |region: &ReservedRegion| is_same(region, &software_msi_window());
    let shared = |region: &&ReservedRegion| {
        matches!(region.kind, RegionKind::Msi | RegionKind::Reserved)
            && !kernels_own(region)
            && region.range().is_some()
            && others.iter().all(|group| group.reported.contains(region))
    };
    first.reported.iter().filter(shared).copied().collect()
}

/// Whether the kernel lists regions, but not the HyperTransport hole.
fn has_no_hole(groups: &[&CapturedGroup]) -> bool {
    let read = |group: &&CapturedGroup| !group.cut && !group.reported.is_empty();
    let holes = || groups.iter().flat_map(|group| &group.reported);
    groups.iter().any(read) && !holes().any(|region| is_same(region, &ht_hole()))
}

/// Gives the RMRRs of the log to the devices in whose groups the kernel reports them. The log tells no
/// devices.
fn rmrrs(host: &mut Host, machine: &Machine<'_>, groups: &[CapturedGroup], source: &mut Source) {
    let vtd = |host: &Host, at: usize| matches!(host.iommus[at].platform, Platform::Vtd(_));
    let Some(mut unit) = (0..host.iommus.len()).find(|at| vtd(host, *at)) else { return };
    for range in machine.log.rmrrs() {
        let owners = groups
            .iter()
            .filter_map(|group| Some((unit_of(group)?, owner(group, range, &machine.kernel)?)));
        let owners: Vec<(usize, String)> = owners.filter(|(at, _)| vtd(host, *at)).collect();
        if owners.is_empty() {
            source.note(format!("the log has an RMRR {range}, but no group reports it"));
        }
        let mut units: Vec<usize> = owners.iter().map(|(at, _)| *at).collect();
        units.dedup();
        // One that nobody has goes where the last one went, to keep the order of the table.
        let units = if units.is_empty() { vec![unit] } else { units };
        for at in units {
            let of_unit = owners.iter().filter(|(other, _)| *other == at);
            let devices = of_unit.map(|(_, device)| device.clone()).collect();
            if let Platform::Vtd(vtd) = &mut host.iommus[at].platform {
                vtd.rmrrs.push(Rmrr { range, devices });
            }
            unit = at;
        }
    }
}

fn unit_of(group: &CapturedGroup) -> Option<usize> {
    match group.group.kind {
        HostGroupKind::Iommu(at) => Some(at),
        HostGroupKind::Emulated | HostGroupKind::NoIommu => None,
    }
}

/// The device of a group that an RMRR is for, if the group reports it.
fn owner(group: &CapturedGroup, rmrr: IovaRange, kernel: &Kernel) -> Option<String> {
    let holds = |region: &&ReservedRegion| {
        matches!(region.kind, RegionKind::Direct | RegionKind::DirectRelaxable)
            && region.range().is_some_and(|range| range.contains_range(&rmrr))
    };
    let region = group.reported.iter().find(holds)?;
    let (at, kind) = holder(&group.group.devices, region, kernel);
    let device = group.group.devices.get(at)?;
    let relaxable = kind == RegionKind::DirectRelaxable;
    (device.pci.lets_go_of_rmrrs() == relaxable).then(|| device.name.clone())
}

/// Which device of a VT-d group a region is for, and of what kind: the kernel tells regions of groups,
/// not of devices. Relaxable memory is that of a device that lets go of it; kernels before 5.3 call
/// it direct.
fn holder(devices: &[HostDevice], region: &ReservedRegion, kernel: &Kernel) -> (usize, RegionKind) {
    let lets_go = |wanted| devices.iter().position(|one| one.pci.lets_go_of_rmrrs() == wanted);
    let knows_relaxable = kernel.behaviours().relaxable_regions;
    match (region.kind, lets_go(true)) {
        (RegionKind::Direct, Some(at)) if !knows_relaxable => (at, RegionKind::DirectRelaxable),
        (RegionKind::DirectRelaxable, Some(at)) => (at, region.kind),
        (kind, _) => (lets_go(false).unwrap_or(0), kind),
    }
}

/// States what does not follow from the facts, with a device of each group.
fn state_the_rest(
    host: &mut Host,
    machine: &Machine<'_>,
    groups: &[CapturedGroup],
) -> Result<(), CaptureError> {
    let vfio = host.boot(machine.kernel)?;
    for (group, captured) in host.groups.iter_mut().zip(groups) {
        let derived = vfio.merged_regions(group.id());
        let vtd = matches!(group.platform(&host.iommus), Some(Platform::Vtd(_)));
        for region in missing(&captured.reported, &derived) {
            let (at, kind) = match vtd {
                true => holder(&group.devices, &region, &machine.kernel),
                false => (0, region.kind),
            };
            let stated = HostRegion::always(ReservedRegion { kind, ..region });
            if let Some(device) = group.devices.get_mut(at) {
                device.regions.push(stated);
            }
        }
    }
    Ok(())
}

/// Notes where the host would report something else than the machine did.
fn compare(
    host: &Host,
    machine: &Machine<'_>,
    groups: &[CapturedGroup],
    source: &mut Source,
) -> Result<(), CaptureError> {
    let vfio = host.boot(machine.kernel)?;
    for (group, captured) in host.groups.iter().zip(groups).filter(|(_, captured)| !captured.cut) {
        for note in differences(group, &captured.reported, &vfio) {
            source.note(note);
        }
    }
    Ok(())
}

fn differences(group: &HostGroup, reported: &[ReservedRegion], vfio: &Vfio) -> Vec<String> {
    let ours = vfio.merged_regions(group.id());
    let (kernel, number) = (vfio.kernel(), group.number);
    let line = |region: ReservedRegion| {
        let (first, last) = (region.first.0, region.last.0);
        format!("{first:#x}-{last:#x} {}", sysfs::kind_name(region.kind))
    };
    let extra = missing(&ours, reported).into_iter().map(line);
    let extra = extra.map(|region| {
        format!("group {number}: {kernel} would reserve {region} too, by the facts; this kernel does not")
    });
    let lost = missing(reported, &ours).into_iter().map(line);
    let lost = lost.map(|region| {
        format!("group {number}: {region} is reported, but {kernel} merges it with others")
    });
    extra.chain(lost).collect()
}

/// The regions of `these` that are not in `those`, as sysfs prints them.
fn missing(these: &[ReservedRegion], those: &[ReservedRegion]) -> Vec<ReservedRegion> {
    let absent = |region: &&ReservedRegion| !those.iter().any(|other| is_same(region, other));
    these.iter().filter(absent).copied().collect()
}

/// Whether sysfs prints the same line for both.
fn is_same(one: &ReservedRegion, other: &ReservedRegion) -> bool {
    let line = |region: &ReservedRegion| (region.first, region.last, sysfs::kind_name(region.kind));
    line(one) == line(other)
}
