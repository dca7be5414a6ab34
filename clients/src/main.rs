// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An ordinary VFIO program: it drives a DMA engine (1b36:10f0) through `vfio-ioctls` and says what it saw.
//!
//! It knows nothing of the emulator, and needs `/dev/vfio` and `/sys` as Linux has them:
//! `vfio-sim run vtd48 --device dma-engine,bdf=0000:01:00.0 -- vfio-client 0000:01:00.0`. Exit status: 0 if
//! the device did all that it should, 1 if not, 2 for bad usage.

mod engine;
mod vectors;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX;
use vfio_ioctls::{VfioContainer, VfioDevice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use engine::{Engine, Outcome};
use vectors::Vectors;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where memory is mapped for the device, and how much.
const MEMORY: u64 = 0x10_0000;
const MEMORY_SIZE: usize = 0x20_0000;
/// What is copied, and from where to where. The destination begins within a page and ends in the next.
const LENGTH: usize = 0x1000;
const SOURCE: u64 = MEMORY;
const DESTINATION: u64 = MEMORY + 0x10_0800;
/// An address that is not mapped.
const NOWHERE: u64 = 0x4000_0000;

/// The interrupt that says how a job ended.
const ENDED_WELL: usize = 0;
const ENDED_BADLY: usize = 1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address] = arguments.as_slice() else {
        eprintln!("usage: vfio-client SEGMENT:BUS:DEVICE.FUNCTION");
        return ExitCode::from(2);
    };
    match run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &str) -> Result<()> {
    let container = Arc::new(VfioContainer::new(None)?);
    let sysfs = Path::new("/sys/bus/pci/devices").join(address);
    let device = VfioDevice::new(&sysfs, Arc::clone(&container) as Arc<_>, false)?;
    drive(&container, &device)?;
    device.reset();
    // A container lets a group go once its devices are closed.
    drop(device);
    drop(container);
    println!("closed");
    Ok(())
}

fn drive(container: &VfioContainer, device: &VfioDevice) -> Result<()> {
    let engine = Engine::find(device)?;
    let interrupts = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
    println!("a DMA engine, registers of {:#x} bytes, {interrupts} interrupts", engine.size());
    let vectors = Vectors::new()?;
    device.enable_msix(vectors.events())?;

    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)])?;
    let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(LENGTH).collect();
    memory.write_slice(&pattern, GuestAddress(SOURCE))?;
    // SAFETY: the memory outlives its mapping, which goes below or, after an error, with the container at
    // the end of the program; Rust sees its bytes through `memory` alone, which takes them for volatile.
    #[expect(unsafe_code, reason = "mapping memory for a device is unsafe in vfio-ioctls")]
    unsafe {
        container.vfio_map_guest_memory(&memory)?;
    }
    println!("mapped {MEMORY_SIZE:#x} bytes at {MEMORY:#x}");

    copy(&engine, &vectors, SOURCE, Outcome::Done)?;
    let mut copied = vec![0; LENGTH];
    memory.read_slice(&mut copied, GuestAddress(DESTINATION))?;
    if copied != pattern {
        return Err("the copy differs from what was copied".into());
    }
    copy(&engine, &vectors, NOWHERE, Outcome::Fault(NOWHERE))?;
    container.vfio_unmap_guest_memory(&memory)?;
    println!("unmapped");
    copy(&engine, &vectors, SOURCE, Outcome::Fault(SOURCE))?;
    device.disable_msix()?;
    Ok(())
}

/// Copies from `source`, waits for the interrupt, and looks whether all went as it should.
fn copy(engine: &Engine<'_>, vectors: &Vectors, source: u64, expected: Outcome) -> Result<()> {
    engine.start_copy(source, DESTINATION, LENGTH as u64);
    let vector = vectors.wait()?;
    let outcome = engine.outcome();
    println!("copy from {source:#x}: {outcome}, interrupt {vector}");
    let expected_vector = if expected == Outcome::Done { ENDED_WELL } else { ENDED_BADLY };
    if (outcome, vector) == (expected, expected_vector) {
        return Ok(());
    }
    Err(format!("that should have been: {expected}, interrupt {expected_vector}").into())
}
