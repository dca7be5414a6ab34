// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest RAM of `vm-memory` as the memory of a process: a VMM maps it by its host addresses.

use std::sync::Arc;

use vfio_type1::{
    Access, Errno, Fault, Memory, MemoryChange, MemoryChanges, PinFault, PinnedRun, Vaddr,
    VaddrRange,
};
use vm_memory::{
    Address as _, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress,
};

/// The memory behind a [`GuestMemoryBackend`], by host addresses.
///
/// There is nothing else in it: ioctl arguments that lie on the stack are out of its reach, so it goes
/// with the typed door. Writes mark the backend's dirty bitmap.
#[derive(Debug)]
pub struct GuestRam<M> {
    memory: M,
    /// The host addresses of each region, in the backend's order.
    hosts: Vec<VaddrRange>,
    changes: MemoryChanges,
}

/// A region of guest memory that has no address in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the guest memory at {guest:#x} has no host address; use a backend such as GuestMemoryMmap"
)]
pub struct NoHostAddress {
    /// Where the region starts in the guest.
    pub guest: u64,
}

impl<M: GuestMemoryBackend> GuestRam<M> {
    /// Takes the regions that the backend has now.
    pub fn new(memory: M) -> Result<Arc<Self>, NoHostAddress> {
        let host = |region: &M::R| {
            let none = NoHostAddress { guest: region.start_addr().raw_value() };
            let start = region.get_host_address(MemoryRegionAddress(0)).map_err(|_| none)?;
            let first = Vaddr(start.expose_provenance() as u64);
            VaddrRange::from_size(first, region.len()).map_err(|_| none)
        };
        let hosts = memory.iter().map(host).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { memory, hosts, changes: MemoryChanges::new() }))
    }

    /// Notes that the pages at host addresses are about to go or to be replaced, as a balloon does:
    /// see [`MemoryChanges::record`].
    pub fn record(&self, range: VaddrRange, change: MemoryChange) {
        self.changes.record(range, change);
    }

    /// The backend.
    pub fn backend(&self) -> &M {
        &self.memory
    }

    /// Where a guest address lies in this process: what a VMM maps.
    pub fn vaddr_of(&self, guest: GuestAddress) -> Option<Vaddr> {
        let host = self.memory.get_host_address(guest).ok()?;
        Some(Vaddr(host.expose_provenance() as u64))
    }

    /// The guest address that lies at a process address.
    pub fn guest_of(&self, vaddr: Vaddr) -> Option<GuestAddress> {
        let (region, offset, _) = self.find(vaddr)?;
        region.start_addr().checked_add(offset)
    }

    /// The region at `at`, the offset in it, and how many bytes follow in it.
    fn find(&self, at: Vaddr) -> Option<(&M::R, u64, u64)> {
        let index = self.hosts.iter().position(|host| host.contains(at))?;
        let host = self.hosts.get(index)?;
        let region = self.memory.iter().nth(index)?;
        Some((region, at.0 - host.first().0, host.last().0 - at.0 + 1))
    }

    /// Cuts an access into pieces that lie in one region each, in order.
    fn walk(
        &self,
        at: Vaddr,
        length: usize,
        mut piece: impl FnMut(&M::R, MemoryRegionAddress, usize, usize) -> Option<()>,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < length {
            let here = Vaddr(at.0.saturating_add(done as u64));
            let (region, offset, room) = self.find(here).ok_or(Fault { at: here })?;
            let left = length - done;
            let bytes = usize::try_from(room).map_or(left, |room| left.min(room));
            piece(region, MemoryRegionAddress(offset), done, bytes).ok_or(Fault { at: here })?;
            done += bytes;
        }
        Ok(())
    }
}

impl<M: GuestMemoryBackend + Send + Sync> Memory for GuestRam<M> {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.walk(from, into.len(), |region, offset, done, bytes| {
            let slice = region.get_slice(offset, bytes).ok()?;
            slice.copy_to(&mut into[done..done + bytes]);
            Some(())
        })
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.walk(to, bytes.len(), |region, offset, done, count| {
            let slice = region.get_slice(offset, count).ok()?;
            slice.copy_from(&bytes[done..done + count]);
            Some(())
        })
    }

    fn pin(&self, pages: VaddrRange, _access: Access) -> Result<PinnedRun, PinFault> {
        let holds = self.hosts.iter().find(|host| host.contains(pages.first()));
        let host = holds.ok_or(PinFault { at: pages.first(), errno: Errno::EFAULT })?;
        Ok(PinnedRun { last: host.last().min(pages.last()), charged: true })
    }

    fn changes(&self) -> Option<&MemoryChanges> {
        Some(&self.changes)
    }
}
