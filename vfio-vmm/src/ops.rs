// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `VfioOps` of `vfio-ioctls` on the emulator.

use std::any::Any;
use std::sync::Arc;

use vfio_ioctls::{Result, VfioError, VfioOps};
use vfio_type1::{Access, Container, Errno, MapDma, Process, UnmapDma};
use vmm_sys_util::errno::Error;

/// A container of the emulator behind `VfioOps`: what code maps through `Arc<dyn VfioOps>` goes there.
///
/// `vfio-ioctls` has room for an errno, not for a reason. The last refusal's reason is in
/// [`Ops::last_refusal`].
#[derive(Debug)]
pub struct Ops {
    container: Container,
    process: Arc<Process>,
    last_refusal: std::sync::Mutex<Option<String>>,
}

impl Ops {
    /// The container, for calls by `process`. The memory of the process must know the addresses that
    /// are mapped; [`crate::OwnMemory`] knows all.
    pub fn new(container: Container, process: Arc<Process>) -> Arc<Self> {
        Arc::new(Self { container, process, last_refusal: std::sync::Mutex::default() })
    }

    /// The container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Why the last refused call was refused, and what to do.
    pub fn last_refusal(&self) -> Option<String> {
        self.last_refusal.lock().ok()?.clone()
    }

    fn refused(&self, errno: Errno, error: &dyn std::error::Error) -> Error {
        if let Ok(mut last) = self.last_refusal.lock() {
            *last = Some(error.to_string());
        }
        Error::new(errno.0)
    }
}

impl VfioOps for Ops {
    #[expect(unsafe_code, reason = "the trait's method is unsafe; its contract is OwnMemory's too")]
    unsafe fn vfio_dma_map(&self, iova: u64, size: usize, user_addr: *mut u8) -> Result<()> {
        let vaddr = user_addr.expose_provenance() as u64;
        let request = MapDma::new(iova, vaddr, size as u64, Access::ReadWrite);
        let mapped = self.container.map(&self.process, &request);
        mapped.map_err(|error| VfioError::IommuDmaMap(self.refused(error.errno(), &error)))
    }

    fn vfio_dma_unmap(&self, iova: u64, size: usize) -> Result<()> {
        let request = UnmapDma::new(iova, size as u64);
        let removed = self.container.unmap(&self.process, &request);
        match removed {
            Ok(removed) if removed == size as u64 => Ok(()),
            Ok(_) => Err(VfioError::InvalidDmaUnmapSize),
            Err(error) => Err(VfioError::IommuDmaUnmap(self.refused(error.errno(), &error))),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
