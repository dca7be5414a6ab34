// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Section 7.1: GET_INFO, its meaning and its bytes.

use super::refusal::Answer;
use super::release::Release;
use super::span::Span;
use super::type1::Type1;
use super::{Host, Oracle};

/// What a container says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleInfo {
    /// The container's page sizes.
    pub page_sizes: u64,
    /// The page sizes that a dirty bitmap may have, and its largest size in bytes.
    pub migration: Option<(u64, u64)>,
    /// `dma_avail`.
    pub available: Option<u64>,
    /// The valid list, if it is told.
    pub ranges: Vec<Span>,
}

impl Oracle {
    /// `VFIO_IOMMU_GET_INFO`.
    pub fn info(&mut self, container: usize) -> Answer<OracleInfo> {
        let (host, _, type1) = self.type1(container)?;
        Ok(type1.info(host))
    }
}

impl Type1 {
    pub(super) fn info(&self, host: &Host) -> OracleInfo {
        let capable = host.release.from(5, 10);
        OracleInfo {
            page_sizes: self.page_sizes(),
            migration: capable.then_some((self.page_or_cpu(), 0x1000_0000)),
            available: capable.then_some(self.available),
            ranges: self.list.clone(),
        }
    }
}

/// What GET_INFO writes: the header, and the capabilities at offset 24 if they fit.
pub(super) fn reply(release: Release, info: &OracleInfo, argsz: u32) -> (Vec<u8>, Vec<u8>) {
    let chain = capabilities(release, info);
    let need = 24 + u32::try_from(chain.len()).unwrap_or(u32::MAX);
    let fits = argsz >= need;
    // 4.
    let (argsz_out, flags, offset) = match (chain.is_empty(), fits) {
        (true, _) => (argsz, 1, 0),
        (false, true) => (argsz, 3, 24),
        (false, false) => (need, 3, 0),
    };
    let mut header = Vec::new();
    header.extend(u32::to_le_bytes(argsz_out));
    header.extend(u32::to_le_bytes(flags));
    header.extend(info.page_sizes.to_le_bytes());
    header.extend(u32::to_le_bytes(offset));
    header.extend([0; 4]);
    // 5.
    let written = match argsz {
        _ if release.from(6, 6) => argsz.min(24),
        _ if !release.has_list() => 16,
        20.. => 20,
        _ => 16,
    };
    let header = header.into_iter().zip(0..written).map(|(byte, _)| byte).collect();
    (header, if fits { chain } else { Vec::new() })
}

/// The capabilities in their order, each with its place in the chain.
fn capabilities(release: Release, info: &OracleInfo) -> Vec<u8> {
    let mut capabilities: Vec<(u16, Vec<u8>)> = Vec::new();
    if let Some((page_sizes, largest)) = info.migration {
        let mut body = vec![0; 8];
        body.extend(page_sizes.to_le_bytes());
        body.extend(largest.to_le_bytes());
        capabilities.push((2, body));
    }
    if let Some(available) = info.available {
        capabilities.push((3, u32::try_from(available).unwrap_or(u32::MAX).to_le_bytes().to_vec()));
    }
    if !info.ranges.is_empty() {
        let count = u32::try_from(info.ranges.len()).unwrap_or(u32::MAX);
        let mut body = count.to_le_bytes().to_vec();
        body.extend([0; 4]);
        for range in &info.ranges {
            body.extend(range.first.to_le_bytes());
            body.extend(range.last.to_le_bytes());
        }
        capabilities.push((1, body));
    }
    chain(release, capabilities)
}

fn chain(release: Release, capabilities: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut remaining = capabilities.into_iter().peekable();
    while let Some((id, mut body)) = remaining.next() {
        while release.from(6, 6) && !body.len().is_multiple_of(8) {
            body.push(0);
        }
        let end = u32::try_from(24 + bytes.len() + 8 + body.len()).unwrap_or(u32::MAX);
        bytes.extend(id.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend(if remaining.peek().is_some() { end } else { 0 }.to_le_bytes());
        bytes.extend(body);
    }
    bytes
}
