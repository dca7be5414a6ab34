// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The valid IOVA ranges of a device with a reserved region, under each kernel:
//! `cargo run --example valid_ranges`.

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

fn main() -> Result<(), Box<dyn Error>> {
    for kernel in Kernel::ALL {
        let ranges: Vec<String> = valid_ranges(kernel)?.iter().map(ToString::to_string).collect();
        println!(
            "{kernel:8} {}",
            if ranges.is_empty() { "no list".into() } else { ranges.join(", ") }
        );
    }
    Ok(())
}

/// A display whose memory the firmware uses, behind a 48-bit VT-d.
fn valid_ranges(kernel: Kernel) -> Result<Vec<IovaRange>, Box<dyn Error>> {
    let iommu = Arc::new(FixedIommu {
        driver: IommuDriver::IntelVtd,
        aperture: IovaRange::from_size(Iova(0), 1 << 48)?,
        page_sizes: PageSizes(0x4020_1000),
        coherent: false,
        isolated_msi: true,
    });
    let regions = vec![
        ReservedRegion::new(0xbf80_0000, 0xcf9f_ffff, RegionKind::DirectRelaxable),
        ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi),
    ];
    let display = DeviceDescription::new("0000:00:02.0", regions);
    let vfio = Vfio::new(kernel, [GroupDescription::behind(iommu, 1, [display])])?;

    let process = Process::new(Arc::new(ModelMemory::new()));
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    Ok(container.info()?.iova_ranges)
}
