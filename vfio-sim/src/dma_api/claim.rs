// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Claims: who takes which addresses, from the DMA API, from VFIO, or from both, and why.

use vfio_type1::{Iova, IovaRange, PageSize, RegionKind};

/// Who takes addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// The allocator, which never gives out the first page.
    FirstPage,
    /// The IOMMU, beyond its aperture.
    Aperture,
    /// The device, beyond the DMA mask that its driver has set.
    DmaMask {
        /// The bits of the mask.
        bits: u32,
        /// The device, if it is another one of the group.
        other: Option<String>,
    },
    /// A memory window of the host bridge.
    BridgeWindow,
    /// The host bridge, between its inbound windows.
    OutsideDmaRanges,
    /// The page that holds the first byte of this inbound window.
    DmaRangeEdge(IovaRange),
    /// A reserved region.
    Region {
        /// Its kind, as the kernel has it.
        kind: RegionKind,
        /// The device it is listed for, if it is another one of the group.
        other: Option<String>,
    },
    /// A memory BAR of a device of the host, or its ROM.
    Bar {
        /// `BAR 0` or `ROM`.
        name: String,
        /// The device.
        device: String,
    },
}

/// What a claimant takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub by: Claimant,
    /// What the DMA API does not give out because of it: whole pages.
    pub dma_api: Option<IovaRange>,
    /// What VFIO does not map because of it, byte for byte.
    pub vfio: Option<IovaRange>,
}

impl Claim {
    /// Whether it takes anything of `range`, and from whom: the DMA API, VFIO.
    pub(super) fn takes(&self, range: &IovaRange) -> (bool, bool) {
        let takes = |taken: &Option<IovaRange>| taken.is_some_and(|taken| taken.overlaps(range));
        (takes(&self.dma_api), takes(&self.vfio))
    }

    /// Who takes the addresses, in a few words.
    pub fn who(&self) -> String {
        let of = |other: &Option<String>| match other {
            Some(device) => format!(" of {device}"),
            None => String::new(),
        };
        match &self.by {
            Claimant::FirstPage => "page 0".to_owned(),
            Claimant::Aperture => "IOMMU".to_owned(),
            Claimant::DmaMask { bits, other } => format!("DMA mask{}, {bits} bits", of(other)),
            Claimant::BridgeWindow => "host bridge window".to_owned(),
            Claimant::OutsideDmaRanges => "outside dma-ranges".to_owned(),
            Claimant::DmaRangeEdge(_) => "edge of dma-ranges".to_owned(),
            Claimant::Region { kind, other } => format!("{kind}{}", of(other)),
            Claimant::Bar { name, device } => format!("{name} of {device}"),
        }
    }

    /// Why, and why the other view differs if it does.
    pub fn why(&self) -> String {
        match &self.by {
            Claimant::FirstPage => "never given out; VFIO does not care".to_owned(),
            Claimant::Aperture => "it does not translate these addresses".to_owned(),
            Claimant::DmaMask { .. } => self.why_mask().to_owned(),
            Claimant::BridgeWindow => {
                "DMA there may reach a device instead of memory; VFIO does not look".to_owned()
            }
            Claimant::OutsideDmaRanges => {
                "the host bridge lets no DMA through here; VFIO does not look".to_owned()
            }
            Claimant::DmaRangeEdge(window) => {
                format!("the kernel reserves what lies below {window} one page too far")
            }
            Claimant::Region { kind, .. } => self.why_region(*kind),
            Claimant::Bar { .. } => {
                "the driver's own allocator avoids the memory BARs of all devices; VFIO does not"
                    .to_owned()
            }
        }
    }

    fn why_mask(&self) -> &'static str {
        match (self.dma_api.is_some(), self.vfio.is_some()) {
            (true, false) => "its driver takes no higher address; VFIO does not look at masks",
            (true, true) => "its driver takes no higher address; VFIO, by the policy of 2020",
            (false, _) => "by the policy of 2020, VFIO; the DMA API minds each device's own mask",
        }
    }

    fn why_region(&self, kind: RegionKind) -> String {
        let what = match kind {
            RegionKind::Direct => "mapped one to one, for the firmware's DMA",
            RegionKind::DirectRelaxable => {
                "mapped one to one while the kernel has the device; VFIO lets go of it"
            }
            RegionKind::Reserved => "these addresses never reach memory",
            RegionKind::Msi => "writes there are interrupts",
            RegionKind::SoftwareMsi => {
                "VFIO keeps it for MSI doorbells; the DMA API maps those where it likes"
            }
        };
        match (kind, self.dma_api.is_some(), self.vfio.is_some()) {
            (RegionKind::DirectRelaxable, true, false) | (RegionKind::SoftwareMsi, ..) => {
                what.to_owned()
            }
            (_, true, false) => format!("{what}; VFIO of this kernel does not look"),
            (_, false, _) => format!("{what}; the DMA API asks the first device of the group only"),
            (_, true, true) => what.to_owned(),
        }
    }
}

/// The pages in which addresses are given out: those of the domain's smallest size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages(pub(super) PageSize);

impl Pages {
    fn last_of(self, address: Iova) -> Iova {
        Iova(address.0 | (self.0.bytes() - 1))
    }

    fn first_of(self, address: Iova) -> Iova {
        Iova(address.0 & !(self.0.bytes() - 1))
    }

    /// The pages that hold an address of `range`.
    pub(super) fn holding(self, range: IovaRange) -> IovaRange {
        let pages = IovaRange::new(self.first_of(range.first()), self.last_of(range.last()));
        pages.unwrap_or(range)
    }

    /// The pages above the one that holds `address`.
    pub(super) fn above(self, address: Iova) -> Option<IovaRange> {
        IovaRange::full().above(self.last_of(address))
    }

    /// The pages below the one that holds `address`.
    pub(super) fn below(self, address: Iova) -> Option<IovaRange> {
        IovaRange::full().below(self.first_of(address))
    }
}
