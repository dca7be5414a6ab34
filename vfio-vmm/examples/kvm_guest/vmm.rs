// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM does with VFIO: assign a device, lay guest RAM out, map it, run.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use kvm_ioctls::Kvm;
use vfio_sim::device::engine::{REGISTERS_BAR, register};
use vfio_sim::device::{DeviceSpec, Pace, PciDevice};
use vfio_sim::{hosts, number};
use vfio_type1::*;
use vfio_vmm::GuestRam;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::{guest, machine};

/// Where PCs have RAM: around the window of old devices below 1 MiB, and that of PCI below 4 GiB.
const PLACES: [(u64, u64); 3] =
    [(0, 0x9_ffff), (0x10_0000, 0xbfff_ffff), (0x1_0000_0000, 0xf_ffff_ffff_ffff)];
/// Parts of RAM start and end at multiples of the largest page of a CPU that the hosts have.
const GRANULE: u64 = 0x1_0000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or(default.to_owned());
    let mut host = hosts::find(&argument("amd"))?;
    let kernel = argument("7.3").parse()?;
    let size = number::parse_number(&argument("1T"))?;

    let name = host.add_device(&"dma-engine".parse::<DeviceSpec>()?)?;
    let vfio = host.boot(kernel)?;
    let device = host.power_on(&vfio, &name, Pace::Threaded)?;
    println!("host {}, kernel {kernel}; a DMA engine at {name}", host.name);

    println!("guest RAM where a PC has it:");
    let mut vm = Guest::new(&vfio, &name, lay_out(size, &[IovaRange::full()]))?;
    if let Err(refused) = vm.map() {
        println!("  {}: {refused}", refused.errno());
        println!("guest RAM around what the host reserves:");
        let valid = vm.container.mappable();
        // A group is open once only.
        drop(vm);
        vm = Guest::new(&vfio, &name, lay_out(size, &valid))?;
        vm.map()?;
    }
    let room: u64 = vm.layout.iter().map(|part| part.span() + 1).sum();
    if room < size {
        println!("  that is {room:#x} of {size:#x} bytes: the host has no room for more");
    }
    run(&vm, &device)?;
    for fault in vfio.take_faults().kept {
        println!("{fault}");
    }
    Ok(())
}

/// Parts of RAM, `size` bytes in all if there is room, where PCs have it and the host maps it.
fn lay_out(size: u64, valid: &[IovaRange]) -> Vec<IovaRange> {
    let mut left = size;
    let mut parts = Vec::new();
    for (first, last) in PLACES {
        for range in valid {
            let first = range.first().0.max(first).checked_next_multiple_of(GRANULE);
            let Some(first) = first else { continue };
            let room = range.last().0.min(last).saturating_add(1).saturating_sub(first);
            let part = room.min(left) / GRANULE * GRANULE;
            if let Ok(part) = IovaRange::from_size(Iova(first), part) {
                left -= part.span() + 1;
                parts.push(part);
            }
        }
    }
    parts
}

/// RAM for the parts of a guest, each at a process address that is a multiple of [`GRANULE`]. Pages that
/// nobody touches take no memory, so a terabyte is no trouble.
fn allocate(layout: &[IovaRange]) -> Result<GuestMemoryMmap, Box<dyn Error>> {
    if layout.is_empty() {
        return Err(format!("a guest has {GRANULE:#x} bytes of RAM or more").into());
    }
    let region = |part: &IovaRange| {
        let (size, granule) = (usize::try_from(part.span() + 1)?, usize::try_from(GRANULE)?);
        let no_room = |error| format!("no address space for RAM of {size:#x} bytes: {error}");
        // It stays for as long as the program runs.
        let room: MmapRegion = MmapRegion::new(size + granule).map_err(no_room)?;
        let start = room.as_ptr().wrapping_add(room.as_ptr().align_offset(granule));
        let (protection, flags) = (room.prot(), room.flags());
        std::mem::forget(room);
        // SAFETY: `start` and the bytes behind it lie in a mapping that is never unmapped.
        let region = unsafe { MmapRegion::build_raw(start, size, protection, flags)? };
        let region = GuestRegionMmap::new(region, GuestAddress(part.first().0));
        Ok(region.ok_or("RAM runs past the end of the guest's addresses")?)
    };
    let regions = layout.iter().map(region).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    Ok(GuestMemoryMmap::from_regions(regions)?)
}

/// A guest's memory, and the container that its device is in. I/O virtual addresses are guest addresses.
struct Guest {
    layout: Vec<IovaRange>,
    ram: GuestMemoryMmap,
    memory: Arc<GuestRam<GuestMemoryMmap>>,
    process: Arc<Process>,
    container: Container,
    _group: OpenGroup,
}

impl Guest {
    fn new(vfio: &Vfio, device: &str, layout: Vec<IovaRange>) -> Result<Self, Box<dyn Error>> {
        let ram = allocate(&layout)?;
        let memory = GuestRam::new(ram.clone())?;
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let container = vfio.open_container();
        let group = vfio.group_of(device).ok_or("the device has no group")?;
        let group = vfio.open_group(group, &process)?;
        group.set_container(&container, &process)?;
        let set = container.set_iommu(&process, extension::TYPE1V2);
        set.map_err(|error| format!("{error}; choose a host with an IOMMU"))?;
        Ok(Self { layout, ram, memory, process, container, _group: group })
    }

    fn map(&self) -> Result<(), MapError> {
        for part in &self.layout {
            println!("  {part}");
            let vaddr = self.memory.vaddr_of(GuestAddress(part.first().0)).unwrap_or_default();
            let request = MapDma::new(part.first(), vaddr, part.span() + 1, Access::ReadWrite);
            self.container.map(&self.process, &request)?;
        }
        Ok(())
    }
}

fn run(vm: &Guest, device: &PciDevice) -> Result<(), Box<dyn Error>> {
    let far = vm.layout.last().ok_or("there is no RAM")?.last().0 - 0xfff;
    println!("the guest lets the device copy a line to {far:#x}, and back:");
    let program = vm.ram.write_slice(guest::program(), GuestAddress(guest::START));
    if program.is_err() {
        println!("  not run: the host keeps devices away from the guest's first page of code");
        return Ok(());
    }
    vm.ram.write_obj(far, GuestAddress(guest::FAR))?;
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            let there =
                if Path::new("/dev/kvm").exists() { "cannot be opened" } else { "is not there" };
            println!("  not run, since /dev/kvm {there}: {error}");
            return Ok(());
        }
    };
    let status = machine::run(&kvm, &vm.ram, device)?;
    let jobs = device.read_u64(REGISTERS_BAR, register::ENDED)?;
    println!("the guest stopped with device status {status} after {jobs} jobs");
    Ok(())
}
