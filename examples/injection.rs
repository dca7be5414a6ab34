// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A program that cleans up after itself, tried against every failure it can meet, one at a time:
//! `cargo run --example injection`.

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

/// Guest memory below and above the hole for devices.
const RAM: [(u64, u64); 2] = [(0, 3 << 30), (4 << 30, 5 << 30)];
const RAM_VADDR: u64 = 0x7000_0000_0000;

/// What is under test: either a container with all of the guest's memory, or one without a mapping.
fn start(container: &Container, process: &Arc<Process>) -> Result<(), Box<dyn Error>> {
    container.set_iommu(process, extension::TYPE1V2)?;
    for (iova, size) in RAM {
        let request = MapDma::new(iova, RAM_VADDR + iova, size, Access::ReadWrite);
        if let Err(error) = container.map(process, &request) {
            container.unmap(process, &UnmapDma::all())?;
            return Err(error.into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    for point in Point::ALL {
        for nth in 1.. {
            let plan = FaultPlan::default().fail(point, nth, None)?;
            if !run(plan)? {
                println!("{point}: {} failures survived", nth - 1);
                break;
            }
        }
    }
    // A seed fails things at random, and tells what they were: each is a plan to look at by itself.
    run("seed:6/10".parse()?)?;
    Ok(())
}

/// Runs the program under a plan. Whether something failed.
fn run(plan: FaultPlan) -> Result<bool, Box<dyn Error>> {
    let iommu: Arc<dyn Iommu> = Arc::new(FixedIommu {
        driver: IommuDriver::IntelVtd,
        aperture: IovaRange::from_size(Iova(0), 1 << 39)?,
        page_sizes: PageSizes(0x4020_1000),
        coherent: false,
        isolated_msi: true,
    });
    let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let nic = DeviceDescription::new("0000:00:03.0", vec![msi]);
    let vfio = Vfio::new(Kernel::NEWEST, [GroupDescription::behind(iommu, 1, [nic])])?;
    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(RAM_VADDR), 16 << 30)?, true)?;
    let process = Process::new(Arc::new(memory));
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process)?;
    group.set_container(&container, &process)?;

    vfio.inject(plan);
    let result = start(&container, &process);
    let left = container.mappings().len();
    let clean = left == if result.is_ok() { RAM.len() } else { 0 };
    for failure in vfio.injected() {
        let end = if clean { "cleaned up" } else { "LEFT BEHIND" };
        println!("{:13} {:45} {end}: {left} mappings", failure.to_string(), failure.what);
    }
    Ok(!vfio.injected().is_empty())
}
