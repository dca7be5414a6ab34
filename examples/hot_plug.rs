// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device plugged into a running VM shrinks the valid list, unless guest memory is in the way:
//! `cargo run --example hot_plug`.

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

fn main() -> Result<(), Box<dyn Error>> {
    let iommu: Arc<dyn Iommu> = Arc::new(FixedIommu {
        driver: IommuDriver::AmdVi,
        aperture: IovaRange::from_size(Iova(0), 1 << 48)?,
        page_sizes: PageSizes(0x4020_1000),
        coherent: true,
        isolated_msi: true,
    });
    let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let hole = ReservedRegion::new(0xfd_0000_0000, 0xff_ffff_ffff, RegionKind::Reserved);
    let group = |number, name: &str, regions: &[ReservedRegion]| {
        let device = DeviceDescription::new(name, regions.to_vec());
        GroupDescription::behind(Arc::clone(&iommu), number, [device])
    };
    // The drive's group reserves only the MSI window here, the GPU's the HyperTransport hole too.
    let vfio = Vfio::new(
        Kernel::V6_12,
        [group(1, "0000:01:00.0", &[msi]), group(2, "0000:41:00.0", &[msi, hole])],
    )?;

    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(0x7000_0000_0000), 1100 << 30)?, true)?;
    let process = Process::new(Arc::new(memory));
    let container = vfio.open_container();
    let drive = vfio.open_group(GroupId::Numbered(1), &process)?;
    drive.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    println!("with the drive:     {}", list(&container)?);

    // A guest with 1020 GiB above 4 GiB reaches into what the GPU will reserve.
    let ram = MapDma::new(4_u64 << 30, 0x7000_0000_0000, 1020 << 30, Access::ReadWrite);
    container.map(&process, &ram)?;
    let gpu = vfio.open_group(GroupId::Numbered(2), &process)?;
    match gpu.set_container(&container, &process) {
        Err(refused) => println!("plugging the GPU:   {}: {refused}", refused.errno()),
        Ok(()) => println!("plugging the GPU:   works, which it should not"),
    }

    // With the hole left free it works, and the list shrinks.
    container.unmap(&process, &UnmapDma::new(4_u64 << 30, 1020 << 30))?;
    let below = MapDma::new(4_u64 << 30, 0x7000_0000_0000, 1000 << 30, Access::ReadWrite);
    container.map(&process, &below)?;
    gpu.set_container(&container, &process)?;
    println!("with the GPU:       {}", list(&container)?);
    drop(gpu);
    println!("GPU unplugged:      {}", list(&container)?);
    Ok(())
}

fn list(container: &Container) -> Result<String, NoType1> {
    let ranges = container.info()?.iova_ranges;
    Ok(ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
