// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! iommufd: `/dev/iommu`, once opened (`drivers/iommu/iommufd`; spec 9).
//!
//! An iommufd holds address spaces, and devices that translate by them. A group can be put into it in
//! place of a container; then the type1 calls work on one of its address spaces (`compat`).
//!
//! `context` is what its descriptors share, `objects` the numbers that programs know things by. `ioas` is
//! an address space; what is done to it is in `map`, `place`, `pin`, `unmap`, `attach` and `access`.
//! `bind` is how devices come. The mapping table, the bus and the locked-memory account are those of type1.

mod access;
mod attach;
mod bind;
mod compat;
mod context;
mod ioas;
mod map;
mod objects;
mod pin;
mod place;
mod unmap;

use std::fmt;
use std::sync::Arc;

pub use attach::IoasAttachError;
pub use bind::BindError;
pub(crate) use bind::{Bound, BoundDevices};
pub(crate) use compat::OtherKind;
pub use compat::{CompatInfo, CompatMapError, CompatSetIommuError, CompatUnmapError};
pub(crate) use context::Context;
pub use context::NoCompatIoas;
pub use map::IoasMapError;
pub(crate) use objects::ObjectId;
pub use unmap::IoasUnmapError;

use crate::kernel::Kernel;
use crate::mapping::MappingInfo;
use crate::range::IovaRange;
use crate::sync::MutexGuard;
use crate::vfio::Shared;
use context::State;
use unmap::Unmapped;

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

    /// Checks what must always hold between the parts of the iommufd's state, for tests and fuzzers. The
    /// error names what does not.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let state = self.context.lock();
        let broken = state.objects.all_ioas().find_map(|ioas| ioas.broken_invariant());
        broken.map_or(Ok(()), Err)
    }
}

impl Context {
    /// Removes the mappings in a range of an address space, and waits until no device accesses them.
    /// Emulated devices are told to unpin what they have of them, without a lock.
    fn unmap(
        &self,
        state: MutexGuard<'_, State>,
        ioas: ObjectId,
        range: IovaRange,
    ) -> Result<u64, IoasUnmapError> {
        let mut state = state;
        let Some(space) = state.objects.ioas_mut(ioas) else { return Ok(0) };
        space.history.count_call();
        let step = space.unmap(range);
        let changed = space.note_removed();
        self.settle(state, changed, None);
        match step? {
            Unmapped::Done(removed) => Ok(removed),
            Unmapped::Notify { mapping, removed } => {
                Err(IoasUnmapError::StillPinned { mapping, unmapped: removed })
            }
        }
    }
}

impl fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.context, f)
    }
}
