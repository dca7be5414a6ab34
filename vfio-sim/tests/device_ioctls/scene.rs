// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device with something of everything, a process that has it open, and eventfds.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vfio_sim::device::ioctl::DeviceIoctlError;
use vfio_sim::device::{
    BarContent, BarLayout, Function, Link, Model, NotEventFd, Pace, PciDevice, Register,
};
use vfio_sim::pci::{Bar, BarKind, PciFunction};
use vfio_type1::{
    DeviceDescription, Errno, FixedIommu, GroupDescription, Iommu, IommuDriver, Iova, IovaRange,
    Kernel, Memory as _, ModelMemory, PageSizes, Process, Vaddr, VaddrRange, Vfio,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const NAME: &str = "0000:07:00.0";
/// Two pages with room for an argument, and nothing behind them.
const PAGES: u64 = 0x7000_0000_0000;
pub(crate) const ARGUMENT: u64 = PAGES + 0x800;
pub(crate) const END: u64 = PAGES + 0x2000;
/// What is in memory where nobody has written.
pub(crate) const CANARY: u8 = 0xa5;

/// Eventfds are open at this number and behind it.
pub(crate) const FIRST_FD: i32 = 10;
const FDS: i32 = 12;
/// A file that is no eventfd, and a number without a file.
pub(crate) const OTHER_FILE: i32 = 1;
pub(crate) const CLOSED: i32 = 9;

pub(crate) const MSI_VECTORS: u16 = 4;
pub(crate) const MSIX_VECTORS: u16 = 8;

/// A device whose line is asserted as its first register says, and counts its resets in the second.
struct Lines {
    function: Function,
    asserted: bool,
    resets: u64,
}

impl Model for Lines {
    fn function(&self) -> Function {
        self.function.clone()
    }

    fn read(&mut self, register: Register) -> u64 {
        if register.offset == 8 { self.resets } else { u64::from(self.asserted) }
    }

    fn write(&mut self, _register: Register, value: u64, _link: &Link<'_>) {
        self.asserted = value != 0;
    }

    fn step(&mut self, _link: &Link<'_>) -> bool {
        false
    }

    fn interrupt_line(&self) -> bool {
        self.asserted
    }

    fn reset(&mut self) {
        self.asserted = false;
        self.resets += 1;
    }
}

/// Two BARs of registers, the second one small; 64 KiB of memory; the MSI-X table; ports.
pub(crate) fn function() -> Function {
    let memory = |wide| BarKind::Memory { wide, prefetchable: false };
    let bar = |index, kind, size, content| BarLayout { index, kind, size, content };
    Function {
        ids: (0x1b36, 0x10ff),
        class: 0x08_80_00,
        revision: 0,
        bars: vec![
            bar(0, memory(false), 4096, BarContent::Registers),
            bar(1, memory(false), 2048, BarContent::Registers),
            bar(2, memory(true), 64 << 10, BarContent::Memory),
            bar(4, memory(false), 4096, BarContent::MsixTable),
            bar(5, BarKind::Io, 4096, BarContent::Registers),
        ],
        interrupt_line: true,
        msi_vectors: MSI_VECTORS,
        msix_vectors: MSIX_VECTORS,
        express: true,
        address_bits: 64,
    }
}

pub(crate) struct Scene {
    pub(crate) device: PciDevice,
    pub(crate) process: Arc<Process>,
    pub(crate) memory: Arc<ModelMemory>,
    eventfds: Vec<EventFd>,
}

impl Scene {
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self::with(kernel, function())
    }

    pub(crate) fn with(kernel: Kernel, function: Function) -> Self {
        let iommu: Arc<dyn Iommu> = Arc::new(FixedIommu {
            driver: IommuDriver::IntelVtd,
            aperture: IovaRange::from_size(Iova(0), 1 << 39).unwrap(),
            page_sizes: PageSizes(0x4020_1000),
            coherent: false,
            isolated_msi: true,
        });
        let description = DeviceDescription::new(NAME, Vec::new());
        let vfio = Vfio::new(kernel, [GroupDescription::behind(iommu, 1, [description])]).unwrap();
        let mut places = PciFunction::default();
        for bar in &function.bars {
            let first = Iova(0xc000_0000 + (u64::from(bar.index) << 20));
            let range = IovaRange::from_size(first, bar.size).unwrap();
            places.bars.insert(bar.index, Bar { range, kind: bar.kind });
        }
        let model = Box::new(Lines { function, asserted: false, resets: 0 });
        let bus = vfio.bus_master(NAME).unwrap();
        let device = PciDevice::new(bus, model, &places, Pace::Immediate).unwrap();
        let memory = Arc::new(ModelMemory::new());
        memory.add(VaddrRange::from_size(Vaddr(PAGES), 0x2000).unwrap(), true).unwrap();
        memory.write(Vaddr(PAGES), &[CANARY; 0x2000]).unwrap();
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let eventfds = (0..FDS).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        Self { device, process, memory, eventfds }
    }

    pub(crate) fn ioctl(&self, command: u32, arg: u64) -> Result<i32, DeviceIoctlError> {
        self.device.ioctl(&self.process, command, arg, |fd| match fd {
            OTHER_FILE => Err(NotEventFd::Other),
            fd => {
                let at = usize::try_from(fd - FIRST_FD).ok();
                let eventfd = at.and_then(|at| self.eventfds.get(at)).ok_or(NotEventFd::Closed)?;
                Ok(eventfd.try_clone().unwrap())
            }
        })
    }

    /// An ioctl on a structure of 32-bit integers at [`ARGUMENT`].
    pub(crate) fn call(&self, command: u32, words: &[u32]) -> Result<i32, DeviceIoctlError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write(Vaddr(ARGUMENT), &bytes).unwrap();
        self.ioctl(command, ARGUMENT)
    }

    /// What is in the structure at [`ARGUMENT`] now.
    pub(crate) fn words<const N: usize>(&self) -> [u32; N] {
        std::array::from_fn(|at| {
            let mut word = [0; 4];
            self.memory.read(Vaddr(ARGUMENT + 4 * at as u64), &mut word).unwrap();
            u32::from_le_bytes(word)
        })
    }

    /// SET_IRQS with data that are appended to the header, and room for just them.
    pub(crate) fn set_irqs(&self, header: [u32; 4], data: &[u8]) -> Result<i32, DeviceIoctlError> {
        let argsz = u32::try_from(20 + data.len()).unwrap();
        self.memory.write(Vaddr(ARGUMENT + 20), data).unwrap();
        let [flags, index, start, count] = header;
        self.call(0x3b6e, &[argsz, flags, index, start, count])
    }

    fn eventfd(&self, fd: i32) -> &EventFd {
        &self.eventfds[usize::try_from(fd - FIRST_FD).unwrap()]
    }

    /// Signals an eventfd.
    pub(crate) fn signal(&self, fd: i32) {
        self.eventfd(fd).write(1).unwrap();
    }

    /// Waits until an eventfd is signalled, once.
    pub(crate) fn wait_for(&self, fd: i32) {
        let start = Instant::now();
        loop {
            match self.eventfd(fd).read() {
                Ok(times) => return assert_eq!(times, 1),
                Err(_) => {
                    assert!(start.elapsed() < Duration::from_secs(60), "{fd} is not signalled")
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How often each eventfd was signalled since it was looked at last.
    pub(crate) fn signals(&self) -> Vec<u64> {
        self.eventfds.iter().map(|eventfd| eventfd.read().unwrap_or(0)).collect()
    }

    /// The eventfds that were signalled since they were looked at last, as often as they were.
    pub(crate) fn signalled(&self) -> Vec<i32> {
        let signals = (FIRST_FD..).zip(self.signals());
        signals.flat_map(|(fd, times)| (0..times).map(move |_| fd)).collect()
    }
}

/// The data of SET_IRQS with eventfds.
pub(crate) fn fds(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|fd| fd.to_le_bytes()).collect()
}

pub(crate) fn errno(result: Result<i32, DeviceIoctlError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}
