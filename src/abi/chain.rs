// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The answer of `VFIO_IOMMU_GET_INFO` in bytes: header and capability chain
//! (`vfio_iommu_type1_get_info`, `vfio_info_cap_add` and `vfio_info_cap_shift` in the kernel;
//! spec 7.1).

use super::argument::{ArgumentError, Bytes, behind};
use super::layout::{capability, info};
use crate::addr::Vaddr;
use crate::info::{Info, Migration};
use crate::kernel::{Behaviours, InfoChain};
use crate::memory::Memory;
use crate::range::IovaRange;

/// Answers GET_INFO into the structure at `arg`, whose first bytes are `request`.
pub(super) fn write_info(
    answer: &Info,
    request: &Bytes<{ info::MINIMUM }>,
    behaviours: &Behaviours,
    memory: &dyn Memory,
    arg: u64,
) -> Result<(), ArgumentError> {
    let chain = Chain::of(answer, behaviours.info_chain);
    let given = request.argsz();
    let needed = u32::try_from(info::SIZE + chain.bytes.len()).unwrap_or(u32::MAX);
    let mut header = Header {
        argsz: given,
        flags: info::FLAG_PGSIZES,
        page_sizes: answer.page_sizes.0,
        cap_offset: 0,
    };
    if !chain.bytes.is_empty() {
        header.flags |= info::FLAG_CAPS;
        if given < needed {
            header.argsz = needed;
        } else {
            // The capabilities go first: if they cannot be written, the header stays as it was.
            let at = behind(arg, info::SIZE);
            memory.write(at, &chain.bytes).map_err(ArgumentError::Fault)?;
            header.cap_offset = info::CAP_OFFSET;
        }
    }
    let written = header_size(given as usize, behaviours.info_chain);
    memory.write(Vaddr(arg), &header.bytes()[..written]).map_err(ArgumentError::Fault)
}

/// How much of the header a kernel writes for this `argsz`.
fn header_size(argsz: usize, chain: InfoChain) -> usize {
    match chain {
        InfoChain::None => info::MINIMUM,
        InfoChain::IovaRanges | InfoChain::Packed if argsz < info::WITHOUT_PAD => info::MINIMUM,
        InfoChain::IovaRanges | InfoChain::Packed => info::WITHOUT_PAD,
        InfoChain::Aligned => argsz.min(info::SIZE),
    }
}

struct Header {
    argsz: u32,
    flags: u32,
    page_sizes: u64,
    cap_offset: u32,
}

impl Header {
    fn bytes(&self) -> [u8; info::SIZE] {
        let mut bytes = [0; info::SIZE];
        bytes[0..4].copy_from_slice(&self.argsz.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.page_sizes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.cap_offset.to_le_bytes());
        bytes
    }
}

/// Capabilities one after the other, each pointing to the next by its offset from the start of the
/// whole structure.
struct Chain {
    bytes: Vec<u8>,
    /// Where the last capability starts in `bytes`.
    last: Option<usize>,
    alignment: usize,
}

impl Chain {
    fn of(answer: &Info, kind: InfoChain) -> Self {
        let alignment = if kind == InfoChain::Aligned { 8 } else { 1 };
        let mut chain = Self { bytes: Vec::new(), last: None, alignment };
        if let Some(migration) = &answer.migration {
            chain.add(capability::MIGRATION, &migration_body(migration));
        }
        if let Some(left) = answer.entries_left {
            chain.add(capability::DMA_AVAIL, &left.to_le_bytes());
        }
        if !answer.iova_ranges.is_empty() {
            chain.add(capability::IOVA_RANGE, &ranges_body(&answer.iova_ranges));
        }
        chain
    }

    fn add(&mut self, id: u16, body: &[u8]) {
        let start = self.bytes.len();
        if let Some(last) = self.last {
            let offset = u32::try_from(info::SIZE + start).unwrap_or(u32::MAX);
            self.bytes[last + capability::NEXT..][..4].copy_from_slice(&offset.to_le_bytes());
        }
        self.bytes.extend(id.to_le_bytes());
        self.bytes.extend(capability::VERSION.to_le_bytes());
        self.bytes.extend(0u32.to_le_bytes());
        self.bytes.extend(body);
        let padded = self.bytes.len().next_multiple_of(self.alignment);
        self.bytes.resize(padded, 0);
        self.last = Some(start);
    }
}

fn migration_body(migration: &Migration) -> [u8; 24] {
    // Flags, always 0, and four bytes that align what follows.
    let mut body = [0; 24];
    body[8..16].copy_from_slice(&migration.page_sizes.0.to_le_bytes());
    body[16..24].copy_from_slice(&migration.max_bitmap_bytes.to_le_bytes());
    body
}

fn ranges_body(ranges: &[IovaRange]) -> Vec<u8> {
    let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
    let mut body = Vec::with_capacity(8 + 16 * ranges.len());
    body.extend(count.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    for range in ranges {
        body.extend(range.first().0.to_le_bytes());
        body.extend(range.last().0.to_le_bytes());
    }
    body
}
