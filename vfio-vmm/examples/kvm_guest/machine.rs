// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtual machine: memory, one CPU, and the device on its PCI bus.

use std::error::Error;
use std::io::Write as _;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vfio_sim::device::{CONFIG_REGION, IrqIndex, PciDevice};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest;

/// Runs the guest until it stops; returns the device's status as the guest saw it last.
pub(crate) fn run(
    kvm: &Kvm,
    ram: &GuestMemoryMmap,
    device: &PciDevice,
) -> Result<u8, Box<dyn Error>> {
    let vm = kvm.create_vm()?;
    vm.create_irq_chip()?;
    add_memory(&vm, ram)?;
    connect(&vm, device)?;
    let mut cpu = vm.create_vcpu(0)?;
    start_in_real_mode(&cpu)?;
    let mut config_address = 0;
    loop {
        match cpu.run()? {
            VcpuExit::MmioRead(address, data) => {
                data.fill(0xff);
                if let Some((bar, offset)) = device.decode(address) {
                    device.read(bar, offset, data)?;
                }
            }
            VcpuExit::MmioWrite(address, data) => {
                if let Some((bar, offset)) = device.decode(address) {
                    device.write(bar, offset, data)?;
                }
            }
            VcpuExit::IoOut(guest::CONFIG_ADDRESS, data) => config_address = word(data),
            VcpuExit::IoOut(guest::CONFIG_DATA, data) if selects_device(config_address) => {
                device.write(CONFIG_REGION, u64::from(config_address & 0xfc), data)?;
            }
            VcpuExit::IoOut(guest::PRINT, data) => std::io::stdout().write_all(data)?,
            VcpuExit::IoOut(guest::STOP, data) => return Ok(data[0]),
            VcpuExit::IoOut(..) => {}
            VcpuExit::IoIn(_, data) => data.fill(0xff),
            unexpected => return Err(format!("the guest stopped: {unexpected:?}").into()),
        }
    }
}

fn word(data: &[u8]) -> u32 {
    data.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// Enabled, bus 0, the device's slot, function 0.
fn selects_device(config_address: u32) -> bool {
    config_address & 0xffff_ff00 == 0x8000_0000 | guest::SLOT << 11
}

fn add_memory(vm: &VmFd, ram: &GuestMemoryMmap) -> Result<(), Box<dyn Error>> {
    // KVM takes 2^31 - 1 pages at a time.
    const LARGEST: usize = 4 << 40;
    let mut slots = 0..;
    for region in ram.iter() {
        let GuestAddress(guest) = region.start_addr();
        let (host, size) = (region.as_ptr() as u64, region.len());
        for (offset, slot) in (0..size).step_by(LARGEST).zip(&mut slots) {
            let part = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: guest + offset,
                memory_size: (size - offset).min(LARGEST as u64),
                userspace_addr: host + offset,
                flags: 0,
            };
            // SAFETY: the part is memory of `ram`, which outlives the machine.
            unsafe { vm.set_user_memory_region(part) }
                .map_err(|error| format!("KVM does not take RAM at {guest:#x}: {error}"))?;
        }
    }
    Ok(())
}

/// Both vectors of the device, done and fault, go to one interrupt line.
fn connect(vm: &VmFd, device: &PciDevice) -> Result<(), Box<dyn Error>> {
    let interrupt = EventFd::new(EFD_NONBLOCK)?;
    vm.register_irqfd(&interrupt, guest::LINE)?;
    let vectors = vec![Some(interrupt.try_clone()?), Some(interrupt)];
    Ok(device.set_irqs(IrqIndex::Msix, vectors)?)
}

fn start_in_real_mode(cpu: &VcpuFd) -> Result<(), Box<dyn Error>> {
    let mut segments = cpu.get_sregs()?;
    segments.cs.base = 0;
    segments.cs.selector = 0;
    cpu.set_sregs(&segments)?;
    let mut registers = cpu.get_regs()?;
    registers.rip = guest::START;
    registers.rflags = 2;
    Ok(cpu.set_regs(&registers)?)
}
