// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watch catches a bug: a pool of DMA buffers that frees a buffer when its request is complete, and
//! unmaps it when it is needed again. A device that is late writes into memory of somebody else.
//! `cargo run --example detector`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const NIC: &str = "0000:31:00.0";
const HEAP: u64 = 0x2000_0000_0000;
const IOVA: u64 = 0x1_0000_0000;
const SIZE: u64 = 0x4000;

/// Buffers that are mapped while they are in use.
struct Pool {
    container: Container,
    process: Arc<Process>,
    memory: Arc<ModelMemory>,
    /// Unmap a buffer before it is freed.
    unmap_first: bool,
}

impl Pool {
    /// A buffer for a request: its number stands for its addresses.
    fn get(&self, number: u64) -> Result<Iova, Box<dyn Error>> {
        let (iova, vaddr) = (IOVA + number * SIZE, HEAP + number * SIZE);
        self.container.unmap(&self.process, &UnmapDma::new(iova, SIZE))?;
        self.container.map(&self.process, &MapDma::new(iova, vaddr, SIZE, Access::ReadWrite))?;
        Ok(Iova(iova))
    }

    /// The request is complete.
    fn put(&self, number: u64) -> Result<(), Box<dyn Error>> {
        if self.unmap_first {
            self.container.unmap(&self.process, &UnmapDma::new(IOVA + number * SIZE, SIZE))?;
        }
        self.memory.free(VaddrRange::from_size(Vaddr(HEAP + number * SIZE), SIZE)?);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    for unmap_first in [false, true] {
        println!("a pool that {} first:", if unmap_first { "unmaps" } else { "frees" });
        let vfio = common::host(Kernel::V6_12, &[(20, NIC)])?;
        vfio.set_watch(true);
        let memory = Arc::new(ModelMemory::new());
        memory.add(VaddrRange::from_size(Vaddr(HEAP), 1 << 20)?, true)?;
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let container = vfio.open_container();
        let group = vfio.open_group(GroupId::Numbered(20), &process)?;
        group.set_container(&container, &process)?;
        container.set_iommu(&process, extension::TYPE1V2)?;
        let nic = vfio.bus_master(NIC).ok_or("no such device")?;
        let pool = Pool { container, process, memory, unmap_first };

        let step = |what: &str| {
            println!("  {what}");
            for finding in vfio.take_findings().kept {
                println!("    watch: {finding}");
            }
        };
        let buffer = pool.get(3)?;
        nic.write(buffer, b"packet 1")?;
        step("a packet arrives in buffer 3");
        pool.put(3)?;
        step("it is handed up, and the buffer put back");
        match nic.write(buffer, b"packet 2") {
            Ok(()) => step("a late packet arrives in buffer 3"),
            Err(fault) => step(&format!("a late packet is stopped: {fault}")),
        }
        nic.write(pool.get(3)?, b"packet 3")?;
        step("buffer 3 is taken again, and a packet arrives in it");
    }
    Ok(())
}
