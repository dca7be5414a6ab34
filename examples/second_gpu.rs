// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two GPUs whose BARs a VMM maps for each other's DMA, at overlapping addresses. The second MAP says
//! EEXIST; if that is passed over, what is sent to the second GPU ends up in the first one.
//! After cloud-hypervisor/cloud-hypervisor#6845 (kata-containers/kata-containers#10582), whose
//! reporter suspects the overlap; the addresses are chosen here. `cargo run --example second_gpu`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const GPUS: [&str; 2] = ["0000:41:00.0", "0000:61:00.0"];
const GIB: u64 = 1 << 30;
/// Where the VMM has the BARs of 64 GiB and 32 GiB; they are plain memory here.
const BAR_0: u64 = 0x7000_0000_0000;
const BAR_1: u64 = 0x7100_0000_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let vfio = common::host(Kernel::V6_12, &[(40, GPUS[0]), (60, GPUS[1])])?;
    vfio.set_watch(true);
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(BAR_0), 64 * GIB)?, true)?;
    memory.add(VaddrRange::from_size(Vaddr(BAR_1), 32 * GIB)?, true)?;
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let first = vfio.open_group(GroupId::Numbered(40), &process)?;
    let second = vfio.open_group(GroupId::Numbered(60), &process)?;
    first.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    second.set_container(&container, &process)?;

    let bar_0 = MapDma::new(256 * GIB, BAR_0, 64 * GIB, Access::ReadWrite);
    let bar_1 = MapDma::new(288 * GIB, BAR_1, 32 * GIB, Access::ReadWrite);
    container.map(&process, &bar_0)?;
    println!("BAR of GPU 0 mapped at 256 GiB, 64 GiB long");
    if let Err(refused) = container.map(&process, &bar_1) {
        println!("BAR of GPU 1 at 288 GiB: {}: {refused}", refused.errno());
    }

    // The VMM logs that and goes on. GPU 0 sends to its peer.
    let gpu = vfio.bus_master(GPUS[0]).ok_or("no such device")?;
    gpu.write(Iova(288 * GIB), b"tensor")?;
    println!("GPU 0 sends to GPU 1: no fault");
    println!("  BAR of GPU 1 holds            {:?}", bytes(&memory, BAR_1)?);
    println!("  BAR of GPU 0, 32 GiB into it, {:?}", bytes(&memory, BAR_0 + 32 * GIB)?);
    for finding in vfio.take_findings().kept {
        println!("watch: {finding}");
    }
    let wanted = IovaRange::from_size(Iova(288 * GIB), 32 * GIB)?;
    if let Some(free) = container.nearest_free(wanted) {
        println!("the nearest free place for the second BAR: {free}");
    }
    Ok(())
}

fn bytes(memory: &ModelMemory, at: u64) -> Result<String, Fault> {
    let mut bytes = [0; 6];
    memory.read(Vaddr(at), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}
