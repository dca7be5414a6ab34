// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fields of VT-d's registers that decide what VFIO sees, as the VT-d specification places them.

use vfio_type1::PageSizes;

/// The capability register.
#[derive(Clone, Copy)]
pub(super) struct Capability(pub(super) u64);

/// A set of page table depths, as the SAGAW field has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Walks(u64);

/// The depths by their bits, and their widths in bits.
const WIDTHS: [(u64, u32); 3] = [(1 << 1, 39), (1 << 2, 48), (1 << 3, 57)];

impl Walks {
    pub(super) fn shared_with(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn widest(self) -> u32 {
        WIDTHS.iter().rev().find(|(bit, _)| self.0 & bit != 0).map_or(0, |(_, width)| *width)
    }
}

impl Capability {
    fn bit(self, bit: u32) -> u64 {
        self.0 >> bit & 1
    }

    /// What the second stage can walk (SAGAW).
    pub(super) fn second_stage_walks(self) -> Walks {
        Walks(self.0 >> 8 & 0x1f)
    }

    /// What the first stage can walk: four levels, and five with FL5LP.
    pub(super) fn first_stage_walks(self) -> Walks {
        Walks(1 << 2 | self.bit(60) << 3)
    }

    /// The widest of some walks, limited by the maximum guest address width (MGAW). 0 without walks.
    pub(super) fn address_bits(self, walks: Walks) -> u32 {
        // Six bits, so it fits.
        let mgaw = u32::try_from(self.0 >> 16 & 0x3f).unwrap_or(0) + 1;
        walks.widest().min(mgaw)
    }

    /// 4 KiB, and the large pages of the second stage (SLLPS).
    pub(super) fn second_stage_pages(self) -> PageSizes {
        PageSizes(1 << 12 | self.bit(34) << 21 | self.bit(35) << 30)
    }

    /// 4 KiB, 2 MiB, and 1 GiB with FL1GP.
    pub(super) fn first_stage_pages(self) -> PageSizes {
        PageSizes(1 << 12 | 1 << 21 | self.bit(56) << 30)
    }
}

/// The extended capability register.
#[derive(Clone, Copy)]
pub(crate) struct ExtendedCapability(pub(crate) u64);

impl ExtendedCapability {
    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// The register of a unit that has these too.
    pub(crate) fn with(self, interrupt_remapping: bool, snoop_control: bool) -> Self {
        Self(self.0 | u64::from(interrupt_remapping) << 3 | u64::from(snoop_control) << 7)
    }

    /// Interrupts can be remapped (IR).
    pub(crate) fn interrupt_remapping(self) -> bool {
        self.bit(3)
    }

    /// A domain can enforce cache coherency (SC).
    pub(crate) fn snoop_control(self) -> bool {
        self.bit(7)
    }

    /// There is a scalable mode (SMTS).
    pub(crate) fn scalable_mode(self) -> bool {
        self.bit(43)
    }

    /// The scalable mode has a second stage (SLTS, now SSTS).
    pub(crate) fn second_stage(self) -> bool {
        self.bit(46)
    }

    /// The scalable mode has a first stage (FLTS, now FSTS).
    pub(crate) fn first_stage(self) -> bool {
        self.bit(47)
    }
}
