// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The emulator behind a trait of the VMM's own: the VMM's code stays as it is, its tests run on any
//! machine. `cargo run --example vmm_trait`.

use std::error::Error;
use std::io;
use std::sync::Arc;

use vfio_type1::*;

/// What the VMM maps guest memory with. Its other implementation calls ioctls.
trait DmaMapper {
    /// Lets devices reach `size` bytes of this process at `host` by the guest address `guest`.
    fn map(&self, guest: u64, host: u64, size: u64) -> io::Result<()>;
    fn unmap(&self, guest: u64, size: u64) -> io::Result<()>;
}

/// The VMM's code, which knows nothing of emulators. It has a bug: it takes any memory to be mappable.
fn add_memory(mapper: &dyn DmaMapper, guest: u64, host: u64, size: u64) -> io::Result<()> {
    mapper.map(guest, host, size)?;
    println!("memory at {guest:#x} is there");
    Ok(())
}

struct Emulated {
    container: Container,
    process: Arc<Process>,
    _group: OpenGroup,
}

impl DmaMapper for Emulated {
    fn map(&self, guest: u64, host: u64, size: u64) -> io::Result<()> {
        let request = MapDma::new(guest, host, size, Access::ReadWrite);
        let mapped = self.container.map(&self.process, &request);
        mapped.map_err(|error| io::Error::other(format!("{}: {error}", error.errno())))
    }

    fn unmap(&self, guest: u64, size: u64) -> io::Result<()> {
        let removed = self.container.unmap(&self.process, &UnmapDma::new(guest, size));
        removed.map(|_| ()).map_err(io::Error::other)
    }
}

/// A client machine: 39 bits.
fn client() -> Result<Emulated, Box<dyn Error>> {
    let iommu = Arc::new(FixedIommu {
        driver: IommuDriver::IntelVtd,
        aperture: IovaRange::from_size(Iova(0), 1 << 39)?,
        page_sizes: PageSizes(0x4020_1000),
        coherent: false,
        isolated_msi: true,
    });
    let msi = ReservedRegion::new(0xfee0_0000, 0xfeef_ffff, RegionKind::Msi);
    let nic = DeviceDescription::new("0000:00:03.0", vec![msi]);
    let vfio = Vfio::new(Kernel::V6_12, [GroupDescription::behind(iommu, 1, [nic])])?;
    let memory = ModelMemory::new();
    memory.add(VaddrRange::from_size(Vaddr(0x7000_0000_0000), 1 << 40)?, true)?;
    let process = Process::new(Arc::new(memory));
    let container = vfio.open_container();
    let group = vfio.open_group(GroupId::Numbered(1), &process)?;
    group.set_container(&container, &process)?;
    container.set_iommu(&process, extension::TYPE1V2)?;
    Ok(Emulated { container, process, _group: group })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mapper = client()?;
    add_memory(&mapper, 4 << 30, 0x7000_0000_0000, 64 << 30)?;
    match add_memory(&mapper, 0x3828_0000_0000, 0x7010_0000_0000, 16 << 30) {
        Err(error) => println!("memory at 0x382800000000 is not: {error}"),
        Ok(()) => println!("which no 39-bit machine would do"),
    }
    mapper.unmap(4 << 30, 64 << 30)?;
    Ok(())
}
