// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Injected failures: passages of a point are counted, and those that the plan names fail.
//!
//! Which ones is decided in `plan`; what a failure means, where it happens. It is told apart from a
//! failure of the model's own by its errors, which say so and give the passage.

use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;

use crate::addr::Vaddr;
use crate::errno::Errno;
use crate::pin::PinError;
use crate::plan::{FaultPlan, Point, write_nth};
use crate::range::IovaRange;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What a kernel allocates for a request, in the order in which a program meets it. Each is one
/// passage of [`Point::Allocation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allocation {
    /// SET_IOMMU: the driver's state.
    Driver,
    /// Attach: what the container remembers of a group.
    Group,
    /// Attach: a domain of the IOMMU. Up to 6.1 the answer is EIO.
    Domain,
    /// Attach: the list of the group's reserved regions, if it has any (from 5.4).
    Regions,
    /// Attach and detach: the new valid IOVA list (from 5.4). Detach answers nothing: it keeps the old
    /// list.
    IovaList,
    /// Attach and MAP: the page tables of a domain, once for each run of pages pinned together.
    PageTables,
    /// MAP: the mapping.
    Mapping,
    /// MAP while dirty tracking is on, and its START for each mapping: a dirty bitmap.
    DirtyBitmap,
    /// `VFIO_IOMMU_GET_INFO`, by ioctl: the capability chain, if the kernel has one.
    InfoChain,
    /// Emulated devices: what is remembered of a pinned page.
    PinnedPage,
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "the state of the driver",
            Self::Group => "the group",
            Self::Domain => "an IOMMU domain",
            Self::Regions => "the list of reserved regions",
            Self::IovaList => "the valid IOVA list",
            Self::PageTables => "IOMMU page tables",
            Self::Mapping => "the mapping",
            Self::DirtyBitmap => "a dirty bitmap",
            Self::InfoChain => "the capability chain",
            Self::PinnedPage => "a pinned page",
        })
    }
}

/// An allocation that failed. ENOMEM, but for [`Allocation::Domain`] up to 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {what}; injected as allocation:{nth}")]
pub struct OutOfMemory {
    /// What the memory was for.
    pub what: Allocation,
    /// Which allocation it was since the plan was set, counted from 1.
    pub nth: u64,
}

/// A failure that was injected. As text it is the item of a plan that lets it fail again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The point.
    pub point: Point,
    /// Which passage of the point it was since the plan was set, counted from 1.
    pub nth: u64,
    /// What it failed with.
    pub errno: Errno,
    /// What was about to be done, for people.
    pub what: String,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_nth(self.point, self.nth, self.errno, f)
    }
}

/// How many injected failures a driver remembers: the newest ones.
pub const MAX_INJECTED: usize = 1024;

/// The plan of a driver and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Injector {
    /// Whether there is a plan: without one, a passage costs this look.
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    /// Passages so far, by the place of the point in [`Point::ALL`].
    passages: [u64; Point::ALL.len()],
    /// Oldest first.
    injected: VecDeque<Injected>,
}

impl Injector {
    /// Begins a plan; what an earlier one did is forgotten.
    pub(crate) fn set(&self, plan: FaultPlan) {
        let mut state = self.lock();
        self.active.store(!plan.is_empty(), Ordering::Relaxed);
        *state = State { plan, ..State::default() };
    }

    pub(crate) fn injected(&self) -> Vec<Injected> {
        self.lock().injected.iter().cloned().collect()
    }

    /// A passage of [`Point::Map`]: if it shall fail, which one it is and its errno.
    #[inline]
    pub(crate) fn map(&self, iova: IovaRange) -> Option<(u64, Errno)> {
        self.pass(Point::Map, || format!("MAP of iova {iova}"))
    }

    /// A passage of [`Point::Pin`].
    #[inline]
    pub(crate) fn pin(&self, at: Vaddr) -> Result<(), PinError> {
        let failed = self.pass(Point::Pin, || format!("pinning memory from {at} on"));
        failed.map_or(Ok(()), |(nth, errno)| Err(PinError::Injected { at, nth, errno }))
    }

    /// A passage of [`Point::Allocation`].
    #[inline]
    pub(crate) fn allocate(&self, what: Allocation) -> Result<(), OutOfMemory> {
        let failed = self.pass(Point::Allocation, || format!("allocating {what}"));
        failed.map_or(Ok(()), |(nth, _)| Err(OutOfMemory { what, nth }))
    }

    #[inline]
    fn pass(&self, point: Point, what: impl FnOnce() -> String) -> Option<(u64, Errno)> {
        if self.active.load(Ordering::Relaxed) { self.pass_with_plan(point, what) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn pass_with_plan(&self, point: Point, what: impl FnOnce() -> String) -> Option<(u64, Errno)> {
        let mut state = self.lock();
        let passages = &mut state.passages[point as usize];
        *passages += 1;
        let nth = *passages;
        let errno = state.plan.errno_at(point, nth)?;
        if state.injected.len() == MAX_INJECTED {
            state.injected.pop_front();
        }
        state.injected.push_back(Injected { point, nth, errno, what: what() });
        Some((nth, errno))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two of its changes leaves counters that are one passage off at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
