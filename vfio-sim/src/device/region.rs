// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Regions of a device: which accesses VFIO refuses, and how it cuts the others
//! (`drivers/vfio/pci/vfio_pci_rdwr.c`, `vfio_pci_config.c`).

use vfio_type1::Errno;

use crate::device::config::ConfigSpace;
use crate::device::model::{BarLayout, Register};

/// The region of the configuration space (`VFIO_PCI_CONFIG_REGION_INDEX`). Regions 0 to 5 are the BARs.
pub const CONFIG_REGION: u8 = 7;

/// A region access that VFIO refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The device does not have the region. EINVAL.
    #[error("the device has no region {region}")]
    NoRegion {
        /// The region's index.
        region: u8,
    },
    /// The access begins past the region's end. EINVAL.
    #[error("offset {offset:#x} is past the end of region {region}, which has {size:#x} bytes")]
    PastTheEnd {
        /// The region's index.
        region: u8,
        /// Where the access begins.
        offset: u64,
        /// The region's size in bytes.
        size: u64,
    },
    /// The access to configuration space is not all inside. EFAULT.
    #[error("{length} bytes at {offset:#x} run past the configuration space, {size:#x} bytes")]
    PastConfiguration {
        /// Where the access begins.
        offset: u64,
        /// How many bytes it has.
        length: usize,
        /// The size of the configuration space in bytes.
        size: u64,
    },
    /// The command register has memory decoding turned off. EIO.
    #[error("region {region} does not decode; set bit 1 of the command register")]
    NotDecoding {
        /// The region's index.
        region: u8,
    },
}

impl RegionError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoRegion { .. } | Self::PastTheEnd { .. } => Errno::EINVAL,
            Self::PastConfiguration { .. } => Errno::EFAULT,
            Self::NotDecoding { .. } => Errno::EIO,
        }
    }
}

/// Where an access to configuration space begins.
pub(super) fn check_config(
    config: &ConfigSpace,
    offset: u64,
    length: usize,
) -> Result<usize, RegionError> {
    let size = config.bytes().len();
    let from = usize::try_from(offset).ok();
    from.filter(|from| size.checked_sub(*from).is_some_and(|left| length <= left))
        .ok_or(RegionError::PastConfiguration { offset, length, size: size as u64 })
}

/// How much of an access of `length` bytes is inside the BAR.
pub(super) fn within(bar: &BarLayout, offset: u64, length: usize) -> usize {
    usize::try_from(bar.size - offset).map_or(length, |left| left.min(length))
}

/// Cuts an access into naturally aligned ones of 8 bytes at most, each with its place in the bytes.
pub(super) fn registers(
    bar: u8,
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (Register, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let fits = |size: &&u8| {
            at.is_multiple_of(u64::from(**size)) && usize::from(**size) <= length - done
        };
        let size = *[8, 4, 2, 1].iter().find(fits)?;
        let part = done;
        done += usize::from(size);
        Some((Register { bar, offset: at, size }, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_cut_into_aligned_ones() {
        let cut = |offset, length| {
            let pieces = registers(0, offset, length);
            pieces
                .map(|(register, part)| (register.offset, register.size, part))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(0, 8), [(0, 8, 0)]);
        assert_eq!(cut(4, 8), [(4, 4, 0), (8, 4, 4)]);
        assert_eq!(cut(1, 6), [(1, 1, 0), (2, 2, 1), (4, 2, 3), (6, 1, 5)]);
        assert_eq!(cut(3, 0), []);
    }
}
