// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: code that maps through `Arc<dyn VfioOps>` runs on the emulator, and meets the kernel's
//! errnos.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{NIC, rig};
use vfio_ioctls::{VfioError, VfioOps};
use vfio_type1::Iova;
use vfio_vmm::{Ops, OwnMemory};

#[test]
#[expect(unsafe_code, reason = "mapping memory for a device is unsafe in vfio-ioctls")]
fn vfio_ops_map_into_the_emulator() {
    // SAFETY: the buffer is looked at through raw pointers only while it is mapped.
    let rig = rig(unsafe { OwnMemory::direct() });
    let ops = Ops::new(rig.container.clone(), Arc::clone(&rig.process));
    let mut buffer = vec![0_u8; 3 * 4096];
    let start = buffer.as_mut_ptr();
    let page = start.wrapping_add(start.align_offset(4096));
    let ops: Arc<dyn VfioOps> = ops;
    // SAFETY: as above; the buffer lives to the end.
    unsafe { ops.vfio_dma_map(0x10000, 4096, page) }.unwrap();
    let nic = rig.vfio.bus_master(NIC).unwrap();
    nic.write(Iova(0x10000), b"hello").unwrap();
    // SAFETY: the page is mapped memory of this test.
    assert_eq!(unsafe { page.cast::<[u8; 5]>().read_volatile() }, *b"hello");

    // SAFETY: refused, so nothing is mapped.
    let refused = unsafe { ops.vfio_dma_map(0xfee0_0000, 4096, page) }.unwrap_err();
    assert!(matches!(refused, VfioError::IommuDmaMap(error) if error.errno() == 22));
    let ops_again = ops.as_any().downcast_ref::<Ops>().unwrap();
    assert!(ops_again.last_refusal().unwrap().contains("MSI window"));
    ops.vfio_dma_unmap(0x10000, 4096).unwrap();
    assert!(matches!(ops.vfio_dma_unmap(0x10000, 4096), Err(VfioError::InvalidDmaUnmapSize)));
    assert!(nic.write(Iova(0x10000), b"late").is_err());
    drop(buffer);
}
