// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest moves a BAR. The VMM moves what the CPU sees, and forgets the IOMMU: the new place is not
//! mapped, and the old one still is, in the way of the next BAR and pointing to memory that goes.
//! After cloud-hypervisor/cloud-hypervisor#7027; the addresses are chosen here.
//! `cargo run --example bar_move`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const NIC: &str = "0000:21:00.0";
const MIB: u64 = 1 << 20;
/// Where the VMM has the BARs of two drives; they are plain memory here.
const BAR_A: u64 = 0x7000_0000_0000;
const BAR_B: u64 = 0x7001_0000_0000;
/// Where the guest puts them.
const OLD: u64 = 0xe000_0000;
const NEW: u64 = 0xe200_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let vfio = common::host(Kernel::V6_12, &[(8, NIC)])?;
    vfio.set_watch(true);
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(BAR_A), 16 * MIB)?, true)?;
    memory.add(VaddrRange::from_size(Vaddr(BAR_B), 32 * MIB)?, true)?;
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(8), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    let nic = vfio.bus_master(NIC).ok_or("no such device")?;

    container.map(&process, &MapDma::new(OLD, BAR_A, 16 * MIB, Access::ReadWrite))?;
    println!("BAR of drive A mapped at {OLD:#x}");
    println!("the guest moves it to {NEW:#x}; the VMM moves the CPU's view of it, no more");
    if let Err(fault) = nic.write(Iova(NEW), b"block") {
        println!("  a NIC that sends to the new place: {fault}");
    }

    println!("the guest puts the BAR of drive B at {OLD:#x}");
    let second = MapDma::new(OLD, BAR_B, 32 * MIB, Access::ReadWrite);
    if let Err(refused) = container.map(&process, &second) {
        println!("  MAP says {}, logged and passed over", refused.errno());
    }
    nic.write(Iova(OLD), b"block")?;
    let mut bytes = [0; 5];
    memory.read(Vaddr(BAR_A), &mut bytes)?;
    println!("  the NIC sends to drive B, and drive A has {:?}", String::from_utf8_lossy(&bytes));
    report(&vfio);

    println!("drive A is unplugged, its BAR goes");
    memory.remove(VaddrRange::from_size(Vaddr(BAR_A), 16 * MIB)?)?;
    if let Err(fault) = nic.write(Iova(OLD), b"block") {
        println!("  {fault}");
    }
    report(&vfio);

    // What helps: the IOMMU follows each move, first away from the old place.
    container.unmap(&process, &UnmapDma::new(OLD, 16 * MIB))?;
    container.map(&process, &second)?;
    nic.write(Iova(OLD), b"block")?;
    println!(
        "UNMAP of the old place, MAP of the new BAR: {} findings",
        vfio.take_findings().kept.len()
    );
    Ok(())
}

fn report(vfio: &Vfio) {
    for finding in vfio.take_findings().kept {
        println!("  watch: {finding}");
    }
}
