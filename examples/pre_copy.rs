// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pre-copy phase of a live migration: rounds of copying what was dirtied in the round before, with an
//! emulated device (mdev) that writes less and less. `cargo run --example pre_copy`.

use std::error::Error;
use std::sync::Arc;

use vfio_type1::*;

const PAGE: u64 = 4096;
const PAGES: u64 = 1024;
/// A bit for each page.
const BITMAP_BYTES: usize = 128;
/// Where guest memory lies in the process, and behind it the buffer for bitmaps.
const RAM: u64 = 0x7000_0000_0000;
const BITMAP: u64 = RAM + PAGES * PAGE;

fn main() -> Result<(), Box<dyn Error>> {
    let name = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    let device = DeviceDescription::new(name, Vec::new());
    let group = GroupDescription { number: 1, kind: GroupKind::Emulated, devices: vec![device] };
    let vfio = Vfio::new(Kernel::V6_12, [group])?;
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(RAM), (PAGES + 1) * PAGE)?, true)?;
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    container.map(&process, &MapDma::new(0_u64, RAM, PAGES * PAGE, Access::ReadWrite))?;
    let device = group.open_device(name, &process)?;

    container.dirty_pages(&process, &DirtyPages::Start)?;
    let mut writes = 300_u64;
    for round in 1.. {
        // While the pages are copied, the device goes on.
        for write in 0..writes {
            device.dma_write(Iova(write * 7 % PAGES * PAGE), b"dirt")?;
        }
        let dirty = dirty_pages(&container, &process, &memory)?;
        println!("round {round}: {dirty:4} of {PAGES} pages dirty");
        if dirty < 16 {
            break;
        }
        writes /= 3;
    }
    container.dirty_pages(&process, &DirtyPages::Stop)?;
    println!("few enough: stop the guest, copy these, go on over there");
    Ok(())
}

/// Asks for the dirty pages, which makes them clean, and counts them.
fn dirty_pages(
    container: &Container,
    process: &Process,
    memory: &ModelMemory,
) -> Result<u32, Box<dyn Error>> {
    let bitmap = UserBitmap::new(PAGE, PAGES, Vaddr(BITMAP));
    let request = DirtyPages::GetBitmap { iova: Iova(0), size: PAGES * PAGE, bitmap };
    memory.write(Vaddr(BITMAP), &[0; BITMAP_BYTES])?;
    container.dirty_pages(process, &request)?;
    let mut bytes = [0; BITMAP_BYTES];
    memory.read(Vaddr(BITMAP), &mut bytes)?;
    Ok(bytes.iter().map(|byte| byte.count_ones()).sum())
}
