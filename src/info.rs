// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The typed answer of `VFIO_IOMMU_GET_INFO` (spec 7.1). Its bytes are made in `abi`.

use crate::bitmap::MAX_BITMAP_BYTES;
use crate::kernel::InfoChain;
use crate::page_size::PageSizes;
use crate::range::IovaRange;
use crate::type1::Type1;

/// What a container says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Page sizes that every domain can map; mappings are aligned to the smallest.
    pub page_sizes: PageSizes,
    /// How dirty pages can be reported (with dirty tracking, from 5.8; here from 5.10).
    pub migration: Option<Migration>,
    /// How many more mappings the limit allows (from 5.10).
    pub entries_left: Option<u32>,
    /// The valid IOVA list, ascending (from 5.4). Empty means that the capability is left out:
    /// the kernel keeps no list, or no group is behind an IOMMU. What can be mapped then is in
    /// [`crate::Container::mappable`].
    pub iova_ranges: Vec<IovaRange>,
}

/// How dirty pages can be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The page sizes a bitmap may have: one, the container's page.
    pub page_sizes: PageSizes,
    /// The largest bitmap, in bytes.
    pub max_bitmap_bytes: u64,
}

impl Type1 {
    pub(crate) fn info(&self) -> Info {
        let chain = self.behaviours().info_chain;
        let full = matches!(chain, InfoChain::Packed | InfoChain::Aligned);
        let migration = Migration {
            page_sizes: PageSizes(self.page().bytes()),
            max_bitmap_bytes: MAX_BITMAP_BYTES,
        };
        let ranges = match chain {
            InfoChain::None => &[],
            InfoChain::IovaRanges | InfoChain::Packed | InfoChain::Aligned => {
                self.iova_list.ranges()
            }
        };
        Info {
            page_sizes: self.page_sizes,
            migration: full.then_some(migration),
            entries_left: full.then_some(self.entries_left),
            iova_ranges: ranges.to_vec(),
        }
    }
}
