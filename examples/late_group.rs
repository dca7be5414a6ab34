// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory registered before the first group is in the container: MAP says EINVAL, the program goes on,
//! and the drive plugged in later finds nothing mapped. After spdk/spdk#2086.
//! `cargo run --example late_group`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const DRIVE: &str = "0000:5e:00.0";
/// Where the program's buffers lie, and where the drive is to see them.
const BUFFERS: u64 = 0x2000_0020_0000;
const IOVA: u64 = 0x900_0000;
const SIZE: u64 = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let vfio = common::host(Kernel::V6_12, &[(12, DRIVE)])?;
    vfio.set_watch(true);
    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(BUFFERS), SIZE)?, true)?;
    let process = Process::new(Arc::new(memory));
    let container = vfio.open_container();

    // At its start the program registers its memory. No drive is there yet.
    let register = MapDma::new(IOVA, BUFFERS, SIZE, Access::ReadWrite);
    match container.map(&process, &register) {
        Err(refused) => println!("start: MAP says {}: {refused}", refused.errno()),
        Ok(()) => println!("start: MAP works, which it should not"),
    }
    println!("start: the program takes that for \"no device, nothing to do\"");

    // Hours later a drive is plugged in. Nobody registers the memory again.
    let group = vfio.open_group(GroupId::Numbered(12), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    println!("later: a drive is plugged in; {} mappings", container.mappings().len());
    let drive = vfio.bus_master(DRIVE).ok_or("no such device")?;
    if let Err(fault) = drive.read(Iova(IOVA + 0x40), &mut [0; 64]) {
        println!("fault: {fault}");
    }
    for finding in vfio.take_findings().kept {
        println!("watch: {finding}");
    }

    // What helps: register what is there when the first group comes, and look at the answer.
    container.map(&process, &register)?;
    drive.read(Iova(IOVA + 0x40), &mut [0; 64])?;
    container.unmap(&process, &UnmapDma::all())?;
    println!("after MAP behind SET_IOMMU: {} findings", vfio.take_findings().kept.len());
    Ok(())
}
