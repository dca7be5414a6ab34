// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a call maps or unmaps, be it type1's or iommufd's own.

use vfio_type1::abi::command;

/// A call that maps memory, or unmaps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MappingCall {
    Map {
        /// The address space that it names; type1's names none.
        ioas: Option<u32>,
        /// The process address.
        vaddr: u64,
        bytes: u64,
    },
    Unmap,
}

impl MappingCall {
    /// Reads a request, as far as its bytes go. Any other command is none.
    pub(super) fn of(command: u32, request: &[u8]) -> Option<Self> {
        match command {
            command::IOMMU_MAP_DMA => {
                Some(Self::Map { ioas: None, vaddr: word(request, 8), bytes: word(request, 24) })
            }
            command::IOAS_MAP => {
                let ioas = u32::try_from(word(request, 8) & u64::from(u32::MAX)).ok();
                Some(Self::Map { ioas, vaddr: word(request, 16), bytes: word(request, 24) })
            }
            command::IOMMU_UNMAP_DMA | command::IOAS_UNMAP => Some(Self::Unmap),
            _ => None,
        }
    }
}

fn word(request: &[u8], at: usize) -> u64 {
    let bytes = request.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type1_names_no_address_space() {
        let request: Vec<u8> = (0..40).collect();
        let at = |at: usize| word(&request, at);
        let of = |command| MappingCall::of(command, &request);
        let map = MappingCall::Map { ioas: None, vaddr: at(8), bytes: at(24) };
        assert_eq!(of(command::IOMMU_MAP_DMA), Some(map));
        let map = MappingCall::Map { ioas: Some(0x0b0a_0908), vaddr: at(16), bytes: at(24) };
        assert_eq!(of(command::IOAS_MAP), Some(map));
        assert_eq!(of(command::IOAS_UNMAP), Some(MappingCall::Unmap));
        assert_eq!(of(command::IOAS_COPY), None);
        let none = MappingCall::Map { ioas: Some(0), vaddr: 0, bytes: 0 };
        assert_eq!(MappingCall::of(command::IOAS_MAP, &[]), Some(none));
    }
}
