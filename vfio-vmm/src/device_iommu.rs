// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's domain as `vm_memory::Iommu`, so that a device model written against `vm-memory` sees
//! guest memory as its device would: through `IommuMemory`.

use std::sync::Arc;

use vfio_type1::{BusMaster, DmaAccess, Iova};
use vm_memory::iommu::{Error, Iommu, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, GuestMemoryBackend, Iotlb, Permissions};

use crate::guest_ram::GuestRam;

/// The domain that a device's group is attached to, in the terms of `vm-memory`: I/O virtual addresses
/// to guest addresses.
///
/// A translation is made anew for each access, and holds for that access. Slices that a program keeps
/// outlive UNMAP: only [`BusMaster::read`] and [`BusMaster::write`] are waited for.
///
/// `vm-memory` states ranges by their end, which the last byte of the address space does not have:
/// an access that includes it fails with an error instead of wrapping around.
#[derive(Debug)]
pub struct DeviceIommu<M> {
    master: BusMaster,
    ram: Arc<GuestRam<M>>,
}

impl<M: GuestMemoryBackend> DeviceIommu<M> {
    /// The domain of `master`'s group. `ram` is the memory that its container's mappings are made of.
    pub fn new(master: BusMaster, ram: Arc<GuestRam<M>>) -> Self {
        Self { master, ram }
    }

    /// The translation of a range that allows every one of `accesses`.
    fn resolve(
        &self,
        iova: GuestAddress,
        length: usize,
        accesses: &[DmaAccess],
        permissions: Permissions,
    ) -> Result<Iotlb, String> {
        let mut pieces = Vec::new();
        for access in accesses {
            let found = self.master.translate(Iova(iova.0), length, *access);
            pieces = found.map_err(|fault| fault.to_string())?;
        }
        let (mut iotlb, mut at) = (Iotlb::new(), iova);
        for (vaddr, bytes) in pieces {
            let guest = self.ram.guest_of(vaddr);
            let guest = guest.ok_or_else(|| format!("{vaddr} is no guest memory"))?;
            let set = iotlb.set_mapping(at, guest, bytes, permissions);
            set.map_err(|error| error.to_string())?;
            at = GuestAddress(at.0.saturating_add(bytes as u64));
        }
        Ok(iotlb)
    }
}

/// What must be allowed. Without permissions there is nothing to do but to be mapped, for reading.
fn accesses(permissions: Permissions) -> &'static [DmaAccess] {
    match permissions {
        Permissions::No | Permissions::Read => &[DmaAccess::Read],
        Permissions::Write => &[DmaAccess::Write],
        Permissions::ReadWrite => &[DmaAccess::Read, DmaAccess::Write],
    }
}

impl<M> Iommu for DeviceIommu<M>
where
    M: GuestMemoryBackend + std::fmt::Debug + Send + Sync,
{
    type IotlbGuard<'a>
        = Box<Iotlb>
    where
        Self: 'a;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Box<Iotlb>>, Error> {
        let cannot = |reason: String| Error::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason,
        };
        if iova.0.checked_add(length as u64).is_none() {
            return Err(cannot("vm-memory cannot state the last byte of the space".to_owned()));
        }
        let iotlb = self.resolve(iova, length, accesses(access), access).map_err(cannot)?;
        Iotlb::lookup(Box::new(iotlb), iova, length, access)
            .map_err(|_| cannot("it changed while it was looked up".to_owned()))
    }
}
