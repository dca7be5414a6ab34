// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a container's descriptors, groups and devices share: its state, the lock around it, and how
//! groups come and go. What a program asks of it is in `container`.
//!
//! Locks are taken in one order: group, container.

use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::addr::Iova;
use crate::bus::{Found, Translator};
use crate::callback::{Callbacks, Pins, UnmapCallback};
use crate::claim::{AddGroupError, Claim};
use crate::dma::Miss;
use crate::ending::Ending;
use crate::fault::{Refusal, RemovedBy};
use crate::history::History;
use crate::host::{Group, GroupId};
use crate::process::Process;
use crate::range::IovaRange;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::translation::Translation;
use crate::type1::{NoType1, Type1};
use crate::vfio::Shared;
use crate::watch::{LiveMappings, Watch};

/// What descriptors and groups share.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    state: Mutex<State>,
    /// How many calls have removed something that accesses may still run through. Other calls wait for
    /// those accesses too, as a kernel's calls wait for each other.
    settling: AtomicU32,
}

pub(crate) struct State {
    /// In the order in which they were added.
    pub(crate) groups: Vec<Arc<Group>>,
    /// Their DMA, each claimed once.
    claims: Vec<Claim>,
    /// Groups that were here, and whose devices may still be at it.
    leaving: Vec<Arc<Group>>,
    pub(crate) driver: Driver,
    pub(crate) callbacks: Callbacks,
    pub(crate) history: History,
    pub(crate) ending: Ending,
}

pub(crate) enum Driver {
    None,
    Type1(Box<Type1>),
    NoIommu,
}

/// What sort of groups a container holds; it never holds both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Groups behind an IOMMU, and emulated ones.
    Iommu,
    NoIommu,
}

impl Kind {
    pub(crate) fn of(group: &Group) -> Self {
        if group.is_noiommu() { Self::NoIommu } else { Self::Iommu }
    }
}

impl State {
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.groups.first().map(|group| Kind::of(group))
    }

    pub(crate) fn type1(&mut self) -> Result<&mut Type1, NoType1> {
        match &mut self.driver {
            Driver::Type1(type1) => Ok(type1),
            Driver::None => Err(NoType1::Unset),
            Driver::NoIommu => Err(NoType1::NoIommu),
        }
    }

    /// Lets the group's devices translate by the container's mappings, if an IOMMU does it for them.
    pub(crate) fn connect(&self, group: &Group) {
        if let (Driver::Type1(type1), Some(_)) = (&self.driver, group.iommu()) {
            group.bus.attach(Some(type1.mappings.page_table().1));
        }
    }

    /// Lets devices know whether there are refusals to be asked about.
    pub(crate) fn note_refusals(&self) {
        if let Driver::Type1(type1) = &self.driver {
            type1.mappings.page_table().0.set_suspect(self.history.has_refusals());
        }
    }

    /// Remembers what the call has removed, for devices that use it. Whether there was any.
    pub(crate) fn note_removed(&mut self, by: RemovedBy) -> bool {
        let Driver::Type1(type1) = &mut self.driver else { return false };
        if type1.removed.is_empty() {
            return false;
        }
        if self.groups.iter().any(|group| group.bus.is_used()) {
            self.history.remember(&type1.removed, by);
        }
        type1.removed.clear();
        true
    }

    /// Tells the watch what goes with the last group.
    fn report_lost(&mut self, group: GroupId, watch: &Watch) {
        let Driver::Type1(type1) = &self.driver else { return };
        if let Some(live) = LiveMappings::of(type1.mappings.iter().map(|mapping| mapping.info())) {
            self.ending.lose(group, live, self.history.calls(), watch);
        }
    }
}

impl Core {
    /// An empty container.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            groups: Vec::new(),
            claims: Vec::new(),
            leaving: Vec::new(),
            driver: Driver::None,
            callbacks: Callbacks::default(),
            history: History::default(),
            ending: Ending::default(),
        };
        Self { shared, state: Mutex::new(state), settling: AtomicU32::new(0) }
    }

    /// Ends a call: if it `changed` what devices reach, or another call did that is not done yet, waits
    /// for the accesses that run.
    #[inline]
    pub(crate) fn settle(&self, state: MutexGuard<'_, State>, changed: bool) {
        // Acquires what another call released when it was done, and with it what its accesses did.
        if changed || self.settling.load(Ordering::Acquire) != 0 {
            self.wait_for_accesses(state);
        }
    }

    fn wait_for_accesses(&self, state: MutexGuard<'_, State>) {
        let groups = || state.groups.iter().chain(&state.leaving);
        groups().for_each(|group| group.bus.renew());
        let mut kept = Vec::new();
        if groups().all(|group| group.bus.is_quiet(&mut kept)) {
            // What devices kept is not ours to drop under a lock.
            drop(state);
            return;
        }
        let busy: Vec<Arc<Group>> = groups().cloned().collect();
        // Before the state is free: who takes it next knows that there is something to wait for.
        self.settling.fetch_add(1, Ordering::Relaxed);
        drop(state);
        busy.iter().for_each(|group| group.bus.settle());
        self.settling.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every operation checks first and commits last, so a panic leaves a usable state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_driver(&self) -> bool {
        !matches!(self.lock().driver, Driver::None)
    }

    /// Runs `operation` on the type1 instance.
    pub(crate) fn with_type1<T>(
        &self,
        operation: impl FnOnce(&mut Type1) -> T,
    ) -> Result<T, NoType1> {
        self.lock().type1().map(operation)
    }

    /// Whether to remember what was refused: if a device may use it. A container without groups
    /// cannot tell yet.
    pub(crate) fn remembers(&self, state: &State) -> bool {
        let used = state.groups.is_empty() || state.groups.iter().any(|group| group.bus.is_used());
        used || self.shared.watch.is_on()
    }

    /// As whom it claims groups.
    fn owner(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes a group in: claims its DMA, and attaches it if there is a driver (spec 2.4 step 5).
    pub(crate) fn add(&self, group: &Arc<Group>, caller: &Process) -> Result<(), AddGroupError> {
        let mut state = self.lock();
        state.history.count_call();
        if state.kind().is_some_and(|kind| kind != Kind::of(group)) {
            return Err(AddGroupError::MixedKinds);
        }
        let claim = Claim::take(group, self.owner(), self.shared.kernel.behaviours())?;
        if let Driver::Type1(type1) = &mut state.driver {
            type1
                .attach(group, caller, self.shared.allow_unsafe_interrupts())
                .map_err(|error| AddGroupError::Attach { group: group.id, error })?;
        }
        state.claims.push(claim);
        state.groups.push(Arc::clone(group));
        state.connect(group);
        Ok(())
    }

    /// Lets a group go; with the last one goes the driver. When it returns, the group's devices access
    /// nothing.
    pub(crate) fn remove(&self, group: &Arc<Group>) {
        group.bus.leave();
        let mut state = self.lock();
        state.history.count_call();
        group.bus.attach(None);
        state.groups.retain(|member| member.id != group.id);
        state.claims.retain(|claim| claim.group() != group.id);
        if state.groups.is_empty() && self.shared.watch.is_on() {
            state.report_lost(group.id, &self.shared.watch);
        }
        let mut driver = Driver::None;
        if let Driver::Type1(type1) = &mut state.driver {
            type1.detach(group.id);
            let removed = std::mem::take(&mut type1.removed);
            state.history.remember(&removed, RemovedBy::LastGroup);
        }
        if state.groups.is_empty() {
            driver = std::mem::replace(&mut state.driver, Driver::None);
        }
        state.leaving.push(Arc::clone(group));
        self.settle(state, true);
        let leaving = &mut self.lock().leaving;
        if let Some(at) = leaving.iter().position(|left| Arc::ptr_eq(left, group)) {
            leaving.swap_remove(at);
        }
        // What the driver owns (processes, their memory) is not ours to run under a lock.
        drop(driver);
    }

    /// Registers an unmap callback and returns its number, which is never 0.
    pub(crate) fn register(&self, callback: UnmapCallback) -> u64 {
        self.lock().callbacks.add(callback)
    }

    pub(crate) fn unregister(&self, number: u64) {
        let callback = self.lock().callbacks.take(number);
        // The lock is free again: what the callback owns may come back here.
        drop(callback);
    }
}

impl Translator for Core {
    fn translation(&self, group: &Group, iova: Iova) -> Result<Found, Miss> {
        let mut state = self.lock();
        let type1 = state.type1().map_err(|_| Miss::NotAttached)?;
        if !type1.iommu_groups().any(|attached| attached.id == group.id) {
            return Err(Miss::NotAttached);
        }
        let found = type1.mappings.entry(iova).filter(|entry| entry.attributes.iommu_mapped());
        match found {
            Some(translation) => {
                let owner = Arc::clone(type1.mappings.owner(translation.attributes.owner()));
                Ok(Found { translation, owner, generation: group.bus.generation() })
            }
            None => Err(state.history.why_unmapped(iova)),
        }
    }

    fn refusal_of_other_memory(
        &self,
        part: &IovaRange,
        mapping: &Translation,
    ) -> Option<(Iova, Refusal)> {
        self.lock().history.refusal_of_other_memory(part, mapping.vaddr_of(part.first()))
    }
}

impl Pins for Core {
    fn unpin_range(&self, iova: &IovaRange) {
        // Without a driver there are no mappings and so no pins.
        let _ = self.with_type1(|type1| type1.unpin_range(iova));
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let groups: Vec<GroupId> = state.groups.iter().map(|group| group.id).collect();
        let driver = match &state.driver {
            Driver::None => "none".to_owned(),
            Driver::Type1(type1) => format!("type1 {:?}", type1.version),
            Driver::NoIommu => "noiommu".to_owned(),
        };
        f.debug_struct("Container")
            .field("groups", &groups)
            .field("driver", &driver)
            .finish_non_exhaustive()
    }
}
