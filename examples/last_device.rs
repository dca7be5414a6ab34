// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The last device of a VM is unplugged, and with it go the container's driver and all mappings of
//! guest memory. The VMM plugs another device in and maps nothing.
//! After cloud-hypervisor/cloud-hypervisor#7328. `cargo run --example last_device`.

mod common;

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const NIC: &str = "0000:31:00.0";
const RAM: u64 = 0x7000_0000_0000;
const RAM_SIZE: u64 = 2 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let vfio = common::host(Kernel::V6_12, &[(20, NIC)])?;
    vfio.set_watch(true);
    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(RAM), RAM_SIZE)?, true)?;
    let process = Process::new(Arc::new(memory));
    let container = vfio.open_container();
    let nic = vfio.bus_master(NIC).ok_or("no such device")?;
    let ram = MapDma::new(0_u64, RAM, RAM_SIZE, Access::ReadWrite);

    let group = plug(&vfio, &container, &process)?;
    container.map(&process, &ram)?;
    nic.write(Iova(0x1000), b"packet")?;
    println!("boot:     guest RAM mapped, the NIC receives");

    // The VMM keeps the container open and believes that it keeps the mappings too.
    drop(group);
    println!("unplug:   {} mappings left", container.mappings().len());
    report(&vfio);

    let group = plug(&vfio, &container, &process)?;
    println!("plug in:  no call was refused");
    if let Err(fault) = nic.write(Iova(0x1000), b"packet") {
        println!("fault:    {fault}");
    }

    // What helps: map all of the guest for the first device that comes, not just at boot.
    container.map(&process, &ram)?;
    nic.write(Iova(0x1000), b"packet")?;
    println!("MAP anew: the NIC receives");
    // Closing in good order: nothing live is left.
    container.unmap(&process, &UnmapDma::all())?;
    drop((group, container));
    report(&vfio);
    Ok(())
}

fn report(vfio: &Vfio) {
    let findings = vfio.take_findings().kept;
    findings.iter().for_each(|finding| println!("watch:    {finding}"));
    if findings.is_empty() {
        println!("watch:    nothing to say");
    }
}

fn plug(
    vfio: &Vfio,
    container: &Container,
    process: &Process,
) -> Result<OpenGroup, Box<dyn Error>> {
    let group = vfio.open_group(GroupId::Numbered(20), process)?;
    group.set_container(container, process)?;
    container.set_iommu(process, extension::TYPE1V2)?;
    Ok(group)
}
