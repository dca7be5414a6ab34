// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the descriptors, groups and devices of an iommufd share: its objects and the lock around them
//! (`struct iommufd_ctx`). It lives for as long as one of them does, and with it all mappings.
//!
//! Locks are taken in one order: group, iommufd.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use super::attach_error::IoasAttachError;
use super::ioas::Ioas;
use super::objects::{Attached, Device, Object, ObjectId, Objects};
use crate::addr::Iova;
use crate::bus::{Found, Translator};
use crate::callback::{Callbacks, UnmapCallback};
use crate::dma::Miss;
use crate::errno::Errno;
use crate::fault::{Refusal, RemovedBy};
use crate::host::Group;
use crate::process::Account;
use crate::range::IovaRange;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::translation::Translation;
use crate::vfio::Shared;

/// What the descriptors of an iommufd, its groups and its devices share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    state: Mutex<State>,
    /// How many calls have removed something that accesses may still run through.
    settling: AtomicU32,
}

pub(super) struct State {
    pub(super) objects: Objects,
    /// The address space that the type1 calls mean.
    pub(super) compat: Option<ObjectId>,
    /// A group without an IOMMU was put into the iommufd.
    pub(super) noiommu: bool,
    /// Where pinned pages are counted.
    pub(super) account: Account,
    pub(super) callbacks: Callbacks,
    /// Groups that were attached, and whose devices may still be at it.
    leaving: Vec<Arc<Group>>,
}

/// An iommufd has no compatibility address space, so the type1 calls have nothing to work on. ENODEV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the iommufd has no compatibility address space; set a group's container to it first")]
pub struct NoCompatIoas;

impl NoCompatIoas {
    /// What the kernel answers.
    pub fn errno(self) -> Errno {
        Errno::ENODEV
    }
}

impl State {
    pub(super) fn compat(&mut self) -> Result<&mut Ioas, NoCompatIoas> {
        let id = self.compat.ok_or(NoCompatIoas)?;
        self.objects.ioas_mut(id).ok_or(NoCompatIoas)
    }

    pub(super) fn new_ioas(&mut self, shared: &Shared) -> ObjectId {
        let ioas = Box::new(Ioas::new(shared, self.account));
        self.objects.add(Object::Ioas(ioas))
    }

    /// The groups whose devices may access memory through one of the address spaces.
    fn groups(&self) -> Vec<Arc<Group>> {
        let domains = self.objects.all_ioas().flat_map(|ioas| &ioas.domains);
        domains.flat_map(|domain| &domain.groups).chain(&self.leaving).cloned().collect()
    }

    /// The address space that a group's devices translate by.
    fn ioas_of(&mut self, group: &Group) -> Option<&mut Ioas> {
        let of_group = |(_, device): &(ObjectId, &Device)| device.group.id == group.id;
        let attached = self.objects.devices().filter(of_group).find_map(|(_, one)| one.attached)?;
        self.objects.ioas_mut(attached.ioas)
    }

    /// Attaches a device to an address space, or to a domain of one; returns what it is attached to. One
    /// that is attached already changes over, and its group with it.
    pub(super) fn attach(
        &mut self,
        id: ObjectId,
        target: ObjectId,
    ) -> Result<ObjectId, IoasAttachError> {
        let no_object = IoasAttachError::NoSuchObject { id: target };
        let Some(device) = self.objects.device(id).cloned() else { return Err(no_object) };
        let not_an_ioas = |errno| IoasAttachError::NotAnIoas { id: target, errno };
        let (ioas, only) = match self.objects.get(target).ok_or(no_object)? {
            Object::Ioas(_) => (target, None),
            Object::Domain { ioas } if !device.is_emulated() => (*ioas, Some(target)),
            Object::Domain { .. } => return Err(not_an_ioas(Errno::ENOENT)),
            Object::Device(_) if device.is_emulated() => return Err(not_an_ioas(Errno::ENOENT)),
            Object::Device(_) => return Err(not_an_ioas(Errno::EINVAL)),
        };
        if device.is_emulated() {
            return self.attach_access(id, &device, ioas);
        }
        match device.attached {
            Some(Attached { domain, .. }) if domain.is_some() && domain == only => Ok(target),
            Some(Attached { ioas: now, domain: Some(domain) })
                if now == ioas && only.is_none() && self.is_automatic(ioas, domain) =>
            {
                Ok(domain)
            }
            Some(now) => self.change_over(&device, now, ioas, only),
            None => self.attach_first(id, &device, ioas, only),
        }
    }

    /// Attaches a device that is attached nowhere.
    fn attach_first(
        &mut self,
        id: ObjectId,
        device: &Device,
        ioas: ObjectId,
        only: Option<ObjectId>,
    ) -> Result<ObjectId, IoasAttachError> {
        let elsewhere = self.members(&device.group).find_map(|(_, member)| member.attached?.domain);
        let here = self.objects.ioas(ioas).and_then(|ioas| ioas.domain_of(&device.group));
        // Without a domain of the program's choice, an automatic one is meant.
        let meant =
            |other| only.map_or_else(|| self.is_automatic(ioas, other), |only| only == other);
        if let Some(other) = elsewhere
            && (here != Some(other) || !meant(other))
        {
            return Err(IoasAttachError::GroupElsewhere { group: device.group.id, other });
        }
        self.reserve_for(&[id], ioas)?;
        let domain = match here {
            Some(domain) => domain,
            None => self.join(&device.group, ioas, only).inspect_err(|_| {
                if let Some(ioas) = self.objects.ioas_mut(ioas) {
                    ioas.release_reserved(id);
                }
            })?,
        };
        self.set_attached(&[id], Some(Attached { ioas, domain: Some(domain) }));
        Ok(domain)
    }

    /// Moves a group from one domain to another (`iommufd_device_replace`). A refusal leaves it where it
    /// is.
    fn change_over(
        &mut self,
        device: &Device,
        now: Attached,
        ioas: ObjectId,
        only: Option<ObjectId>,
    ) -> Result<ObjectId, IoasAttachError> {
        let members: Vec<ObjectId> = self.members(&device.group).map(|(id, _)| id).collect();
        if ioas != now.ioas {
            self.reserve_for(&members, ioas)?;
        }
        let joined = self.join(&device.group, ioas, only);
        let domain = joined.inspect_err(|_| {
            if ioas != now.ioas {
                self.release_reserved(&members, ioas);
            }
        })?;
        if ioas != now.ioas {
            self.release_reserved(&members, now.ioas);
        }
        self.leave(&device.group, now);
        self.set_attached(&members, Some(Attached { ioas, domain: Some(domain) }));
        Ok(domain)
    }

    /// Detaches a device; returns the group that has left its domain with it.
    pub(super) fn detach(&mut self, id: ObjectId) -> Option<Arc<Group>> {
        let device = self.objects.device_mut(id)?;
        let attached = device.attached.take()?;
        let (group, emulated) = (Arc::clone(&device.group), device.is_emulated());
        if emulated {
            self.detach_access(id, attached.ioas);
            return None;
        }
        self.release_reserved(&[id], attached.ioas);
        if self.members(&group).next().is_some() {
            return None;
        }
        self.leave(&group, attached);
        Some(group)
    }

    /// Whether a domain was made by attaching a device to the address space.
    fn is_automatic(&self, ioas: ObjectId, domain: ObjectId) -> bool {
        let domain = self.objects.ioas(ioas).and_then(|ioas| ioas.domain(domain));
        domain.is_some_and(|domain| domain.automatic)
    }

    /// The devices of a group that are attached.
    fn members<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = (ObjectId, &'a Device)> {
        let devices = self.objects.devices();
        devices.filter(|(_, one)| one.group.id == group.id && one.attached.is_some())
    }

    fn set_attached(&mut self, devices: &[ObjectId], attached: Option<Attached>) {
        for id in devices {
            if let Some(device) = self.objects.device_mut(*id) {
                device.attached = attached;
            }
        }
    }

    /// Reserves the regions of devices, of all or of none.
    fn reserve_for(&mut self, devices: &[ObjectId], ioas: ObjectId) -> Result<(), IoasAttachError> {
        for (done, id) in devices.iter().enumerate() {
            let Some(device) = self.objects.device(*id).cloned() else { continue };
            let (Some(described), Some(space)) =
                (device.description(), self.objects.ioas_mut(ioas))
            else {
                continue;
            };
            if let Err(error) = space.reserve_for(*id, &device.group, described) {
                self.release_reserved(&devices[..done], ioas);
                return Err(error);
            }
        }
        Ok(())
    }

    fn release_reserved(&mut self, devices: &[ObjectId], ioas: ObjectId) {
        if let Some(ioas) = self.objects.ioas_mut(ioas) {
            devices.iter().for_each(|id| ioas.release_reserved(*id));
        }
    }

    fn join(
        &mut self,
        group: &Arc<Group>,
        ioas: ObjectId,
        only: Option<ObjectId>,
    ) -> Result<ObjectId, IoasAttachError> {
        let new = self.objects.free_id();
        let no_object = IoasAttachError::NoSuchObject { id: ioas };
        let (Some(space), Some(iommu)) = (self.objects.ioas_mut(ioas), group.iommu()) else {
            return Err(no_object);
        };
        let domain = space.join(group, iommu, new, only)?;
        group.bus.attach(Some(space.mappings.page_table().1));
        if domain == new {
            self.objects.insert(new, Object::Domain { ioas });
        }
        Ok(domain)
    }

    /// Lets a group leave a domain; an automatic one goes with its last group.
    fn leave(&mut self, group: &Group, attached: Attached) {
        let (Some(ioas), Some(domain)) = (self.objects.ioas_mut(attached.ioas), attached.domain)
        else {
            return;
        };
        if ioas.leave(group, domain) {
            self.objects.remove(domain);
        }
    }
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            objects: Objects::default(),
            compat: None,
            noiommu: false,
            account: Account::User,
            callbacks: Callbacks::default(),
            leaving: Vec::new(),
        };
        Self { shared, state: Mutex::new(state), settling: AtomicU32::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every operation checks first and commits last, so a panic leaves a usable state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As whom it claims groups.
    pub(super) fn owner(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Lets a group's devices find their translations here.
    pub(super) fn enter(self: &Arc<Self>, group: &Group) {
        let translator: Weak<Self> = Arc::downgrade(self);
        group.bus.enter(translator);
    }

    /// Ends a call: if it `changed` what devices reach, or another call did that is not done yet, waits
    /// for the accesses that run.
    pub(super) fn settle(&self, state: MutexGuard<'_, State>, changed: bool) {
        // Acquires what another call released when it was done, and with it what its accesses did.
        if !changed && self.settling.load(Ordering::Acquire) == 0 {
            return;
        }
        let groups = state.groups();
        groups.iter().for_each(|group| group.bus.renew());
        // Before the state is free: who takes it next knows that there is something to wait for.
        self.settling.fetch_add(1, Ordering::Relaxed);
        drop(state);
        groups.iter().for_each(|group| group.bus.settle());
        self.settling.fetch_sub(1, Ordering::Release);
    }

    /// Detaches a device, and waits until its group's devices access nothing.
    pub(super) fn detach(&self, id: ObjectId) {
        let mut state = self.lock();
        let Some(group) = state.detach(id) else { return };
        group.bus.leave();
        group.bus.attach(None);
        state.leaving.push(Arc::clone(&group));
        self.settle(state, true);
        let leaving = &mut self.lock().leaving;
        if let Some(at) = leaving.iter().position(|left| Arc::ptr_eq(left, &group)) {
            leaving.swap_remove(at);
        }
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

impl Ioas {
    /// Remembers what the call has removed, for devices that use it. Whether there was any.
    pub(super) fn note_removed(&mut self) -> bool {
        if self.removed.is_empty() {
            return false;
        }
        let mut groups = self.domains.iter().flat_map(|domain| &domain.groups);
        if groups.any(|group| group.bus.is_used()) {
            self.history.remember(&self.removed, RemovedBy::Unmap);
        }
        self.removed.clear();
        true
    }
}

impl Translator for Context {
    fn translation(&self, group: &Group, iova: Iova) -> Result<Found, Miss> {
        let mut state = self.lock();
        let ioas = state.ioas_of(group).ok_or(Miss::NotAttached)?;
        let found = ioas.mappings.entry(iova).filter(|entry| entry.attributes.iommu_mapped());
        match found {
            Some(translation) => {
                let owner = Arc::clone(ioas.mappings.owner(translation.attributes.owner()));
                Ok(Found { translation, owner, generation: group.bus.generation() })
            }
            None => Err(ioas.history.why_unmapped(iova)),
        }
    }

    /// An iommufd does not remember refusals.
    fn refusal_of_other_memory(&self, _: &IovaRange, _: &Translation) -> Option<(Iova, Refusal)> {
        None
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Iommufd")
            .field("devices", &state.objects.devices().count())
            .field("compat", &state.compat)
            .finish_non_exhaustive()
    }
}
