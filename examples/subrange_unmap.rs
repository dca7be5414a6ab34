// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Silent corruption: in a v1 container an UNMAP of a part of a mapping succeeds and removes nothing.
//! The program frees the memory, maps a new buffer there and ignores EEXIST; the drive goes on writing
//! into what was freed. After spdk/spdk#1705. `cargo run --example subrange_unmap`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const DRIVE: &str = "0000:5e:00.0";
/// The heap, 4 MiB, and where the drive sees it.
const HEAP: u64 = 0x2000_0000_0000;
const IOVA: u64 = 0x900_0000;
/// The upper half of the heap is freed; the buffer in its place lies elsewhere.
const HALF: u64 = 2 << 20;
const BUFFER: u64 = 0x2000_4000_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let vfio = common::host(Kernel::V5_10, &[(12, DRIVE)])?;
    vfio.set_watch(true);
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(HEAP), 2 * HALF)?, true)?;
    memory.add(VaddrRange::from_size(Vaddr(BUFFER), HALF)?, true)?;
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(12), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1)?;
    container.map(&process, &MapDma::new(IOVA, HEAP, 2 * HALF, Access::ReadWrite))?;

    let removed = container.unmap(&process, &UnmapDma::new(IOVA + HALF, HALF))?;
    println!("UNMAP of the upper half: success, {removed} bytes unmapped");
    // The program does not look at the number. Something else gets the memory.
    memory.free(VaddrRange::from_size(Vaddr(HEAP + HALF), HALF)?);
    memory.write(Vaddr(HEAP + HALF), b"balance: 1000")?;
    println!("the freed memory now holds  \"{}\"", text(&memory, HEAP + HALF)?);

    let replace = MapDma::new(IOVA + HALF, BUFFER, HALF, Access::ReadWrite);
    if let Err(refused) = container.map(&process, &replace) {
        println!("MAP of a new buffer there: {}, ignored", refused.errno());
    }
    let drive = vfio.bus_master(DRIVE).ok_or("no such device")?;
    drive.write(Iova(IOVA + HALF), b"sector 4711 ..")?;
    println!("the drive completes a read without a fault");
    println!("the new buffer holds        \"{}\"", text(&memory, BUFFER)?);
    println!("the freed memory now holds  \"{}\"", text(&memory, HEAP + HALF)?);
    for finding in vfio.take_findings().kept {
        println!("watch: {finding}");
    }
    Ok(())
}

fn text(memory: &ModelMemory, at: u64) -> Result<String, Fault> {
    let mut bytes = [0; 14];
    memory.read(Vaddr(at), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}
