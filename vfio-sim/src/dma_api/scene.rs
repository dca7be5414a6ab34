// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The claims on a device's addresses, gathered from its host.

use vfio_type1::{Iova, IovaRange, Kernel, RegionKind, ReservedRegion, is_excluded};

use super::NoView;
use super::bridge;
use super::claim::{Claim, Claimant, Pages};
use super::era::Era;
use crate::host::{Host, HostDevice, HostGroup};
use crate::pci::BarKind;

/// A device in its group, behind an IOMMU.
pub(super) struct Scene<'a> {
    pub(super) host: &'a Host,
    pub(super) kernel: &'a Kernel,
    pub(super) group: &'a HostGroup,
    /// The regions that the IOMMU driver lists for each device of the group.
    pub(super) regions: &'a [Vec<ReservedRegion>],
    /// The device's place in its group.
    pub(super) at: usize,
    pub(super) aperture: IovaRange,
    pub(super) pages: Pages,
}

impl Scene<'_> {
    fn device(&self) -> &HostDevice {
        &self.group.devices[self.at]
    }

    /// The name of a device of the group, unless it is this one.
    fn other(&self, at: usize) -> Option<String> {
        (at != self.at).then(|| self.group.devices[at].name.clone())
    }

    /// Whether VFIO cuts anything from what the IOMMU translates.
    fn vfio_has_list(&self) -> bool {
        self.kernel.behaviours().valid_iova_list
    }

    /// Page 0, the aperture, and DMA masks.
    pub(super) fn limits(&self) -> Vec<Claim> {
        let (pages, aperture, full) = (self.pages, self.aperture, IovaRange::full());
        let edge = |dma_api, vfio| Claim { by: Claimant::Aperture, dma_api, vfio };
        let first_page = IovaRange::new(Iova(0), Iova(0)).map(|byte| pages.holding(byte));
        let mut claims = vec![
            Claim {
                by: Claimant::FirstPage,
                dma_api: first_page.filter(|page| page.contains(aperture.first())),
                vfio: None,
            },
            edge(pages.below(aperture.first()), full.below(aperture.first())),
            edge(pages.above(aperture.last()), full.above(aperture.last())),
        ];
        claims.extend(self.own_mask());
        claims.extend(self.narrower_mask());
        claims.retain(|claim| claim.dma_api.is_some() || claim.vfio.is_some());
        claims
    }

    fn own_mask(&self) -> Option<Claim> {
        let pci = &self.device().pci;
        let mask = pci.dma_mask()?;
        Some(Claim {
            by: Claimant::DmaMask { bits: pci.dma_mask_bits?, other: None },
            dma_api: self.pages.above(mask),
            vfio: IovaRange::full().above(mask).filter(|_| self.reserves_masks()),
        })
    }

    /// The narrowest mask of the group, if it is another device's. It limits VFIO's list only, and
    /// only by the policy.
    fn narrower_mask(&self) -> Option<Claim> {
        let bits = |at: &usize| self.group.devices[*at].pci.dma_mask_bits.unwrap_or(64);
        let narrowest = (0..self.group.devices.len()).min_by_key(bits)?;
        let pci = &self.group.devices[narrowest].pci;
        if !self.reserves_masks() || bits(&narrowest) >= bits(&self.at) {
            return None;
        }
        Some(Claim {
            by: Claimant::DmaMask { bits: pci.dma_mask_bits?, other: self.other(narrowest) },
            dma_api: None,
            vfio: IovaRange::full().above(pci.dma_mask()?),
        })
    }

    fn reserves_masks(&self) -> bool {
        self.host.reserve_dma_masks && self.vfio_has_list()
    }

    /// What the host bridge takes. The group's first device sets the domain up, so it is its bridge.
    pub(super) fn bridge(&self, era: &Era) -> Result<Vec<Claim>, NoView> {
        let first = self.group.devices.first();
        let mut bridges = self.host.bridges.iter();
        let Some(bridge) =
            bridges.find(|bridge| first.is_some_and(|first| bridge.leads_to(&first.name)))
        else {
            return Ok(Vec::new());
        };
        let aperture = self.aperture;
        if let Some(span) = bridge::span(bridge).filter(|span| !span.overlaps(&aperture)) {
            return Err(NoView::OutsideCapability { span, aperture });
        }
        bridge::claims(bridge, self.pages, era.dma_ranges)
    }

    /// The memory BARs of all devices of the host, which allocators of IOMMU drivers avoided
    /// (`dmar_init_reserved_ranges` in `intel-iommu.c`, `init_reserved_iova_ranges` in `amd_iommu.c`;
    /// spec 10 and 12.7).
    pub(super) fn bars(&self) -> Vec<Claim> {
        let devices = self.host.groups.iter().flat_map(|group| &group.devices);
        devices.flat_map(|device| self.bars_of(device)).collect()
    }

    fn bars_of(&self, device: &HostDevice) -> impl Iterator<Item = Claim> {
        let memory = device.pci.bars.iter().filter(|(_, bar)| bar.kind != BarKind::Io);
        let bars = memory.map(|(index, bar)| (format!("BAR {index}"), bar.range));
        let rom = device.pci.rom.map(|rom| ("ROM".to_owned(), rom));
        bars.chain(rom).map(|(name, range)| Claim {
            by: Claimant::Bar { name, device: device.name.clone() },
            dma_api: Some(self.pages.holding(range)),
            vfio: None,
        })
    }

    /// The regions of the group: VFIO cuts out those of all its devices, the DMA API those of the
    /// first one. The device's own come first, so that a region is said to be another's only if it is
    /// not this one's.
    pub(super) fn region_claims(&self) -> Vec<Claim> {
        let mut seen: Vec<ReservedRegion> = Vec::new();
        let mut claims = Vec::new();
        for at in [self.at].into_iter().chain(0..self.regions.len()) {
            for region in &self.regions[at] {
                if !seen.contains(region) {
                    seen.push(*region);
                    claims.extend(self.region(region, self.other(at)));
                }
            }
        }
        claims
    }

    fn region(&self, region: &ReservedRegion, other: Option<String>) -> Option<Claim> {
        let kind = self.kind(region);
        let range = region.range()?;
        let of_first = self.regions.first().is_some_and(|first| first.contains(region));
        let reserved = of_first && kind != RegionKind::SoftwareMsi;
        let excluded = self.vfio_has_list() && is_excluded(kind);
        let claim = Claim {
            by: Claimant::Region { kind, other },
            dma_api: reserved.then(|| self.pages.holding(range)),
            vfio: excluded.then_some(range),
        };
        (reserved || excluded).then_some(claim)
    }

    /// The kind that the kernel knows: old ones have no relaxable regions.
    fn kind(&self, region: &ReservedRegion) -> RegionKind {
        match region.kind {
            RegionKind::DirectRelaxable if !self.kernel.behaviours().relaxable_regions => {
                RegionKind::Direct
            }
            kind => kind,
        }
    }
}
