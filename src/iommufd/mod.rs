// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! iommufd: `/dev/iommu`, once opened (`drivers/iommu/iommufd`; spec 9).
//!
//! An iommufd holds address spaces, and devices that translate by them. A group can be put into it in
//! place of a container; then the type1 calls work on one of its address spaces (`compat`).
//!
//! `context` is what its descriptors share, `objects` the numbers that programs know things by. `ioas` is
//! an address space; what is done to it is in `map`, `place`, `pin`, `unmap`, `attach` and `access`;
//! `remove` is `unmap` with those who have to know.
//! `bind` is how devices come; the calls of iommufd's own are in `native`, `allow`, `option`, `hwpt` and
//! `destroy`. The mapping table and the bus are those of type1.

mod access;
mod allow;
mod attach;
mod attach_error;
mod bind;
mod compat;
mod context;
mod destroy;
mod hwpt;
mod ioas;
mod large_pages;
mod map;
mod native;
mod objects;
mod option;
mod pin;
mod place;
mod remove;
mod unmap;

use std::fmt;
use std::sync::Arc;

pub use access::AccessError;
pub use allow::AllowIovasError;
pub(crate) use allow::AllowedRanges;
pub use attach_error::IoasAttachError;
pub use bind::BindError;
pub(crate) use bind::{Bound, BoundDevices};
pub(crate) use compat::OtherKind;
pub use compat::{CompatInfo, CompatMapError, CompatSetIommuError, CompatUnmapError};
pub(crate) use context::Context;
pub use context::NoCompatIoas;
pub use destroy::DestroyError;
pub use hwpt::{HwptAlloc, HwptAllocError, NoSuchDevice};
pub use large_pages::LargePagesError;
pub use map::IoasMapError;
pub use native::{IoasMap, IoasRanges, NativeMapError, NativeUnmapError, NoSuchIoas};
pub(crate) use objects::ObjectId;
pub use option::{IommuOption, OptionError};
pub use unmap::IoasUnmapError;

use crate::kernel::Kernel;
use crate::mapping::MappingInfo;
use crate::vfio::Shared;

/// An open `/dev/iommu`. A clone is what `dup` makes: another descriptor of the same file.
///
/// Groups and devices keep it open: its mappings live for as long as one of them, or a descriptor, does.
#[derive(Clone)]
pub struct Iommufd {
    pub(crate) context: Arc<Context>,
}

impl Iommufd {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { context: Arc::new(Context::new(shared)) }
    }

    /// The kernel that is imitated.
    pub fn kernel(&self) -> &Kernel {
        &self.context.shared.kernel
    }

    /// The mappings of an address space, ascending; none of a number that is no address space.
    pub fn mappings(&self, ioas: u32) -> Vec<MappingInfo> {
        let state = self.context.lock();
        let ioas = state.objects.ioas(ioas);
        ioas.map(|ioas| ioas.mappings.iter().map(|one| one.info()).collect()).unwrap_or_default()
    }

    /// How many mappings of an address space are live; none of a number that is no address space.
    pub fn mapping_count(&self, ioas: u32) -> usize {
        self.context.lock().objects.ioas(ioas).map_or(0, |ioas| ioas.mappings.len())
    }

    /// The numbers of the address spaces, ascending.
    pub fn address_spaces(&self) -> Vec<u32> {
        self.context.lock().objects.ioas_ids().collect()
    }

    /// Checks what must always hold between the parts of the iommufd's state, for tests and fuzzers. The
    /// error names what does not.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let state = self.context.lock();
        let broken = state.objects.all_ioas().find_map(|ioas| ioas.broken_invariant());
        broken.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.context, f)
    }
}
