// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What calls and accesses cost a program under `vfio-sim run`, beside an empty system call.
//!
//! This file is such a program: started outside, it starts itself again under the tool, which lies with
//! its library where cargo puts them. `benches/run` builds both first.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]
#![expect(
    unsafe_code,
    reason = "libc's functions, which the library stands in front of; a mapped register"
)]

use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
};
use vfio_sim::run::SETTINGS_FILE;
use vfio_type1::abi::command;
use vfio_type1::extension;

const DEVICE: &str = "0000:07:00.0";
const PAGE: usize = 4096;

/// A container with a DMA engine in it.
struct Scene {
    container: File,
    /// Held open.
    _group: File,
    /// A register of the engine that may be written to no effect: the operation of its next job.
    register: *const AtomicU32,
    memory: *mut libc::c_void,
}

fn open(path: &str) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn ioctl<T>(file: &File, command: u32, argument: *mut T) -> i32 {
    // SAFETY: the argument is what the command takes.
    unsafe { libc::ioctl(file.as_raw_fd(), command.into(), argument) }
}

impl Scene {
    fn new() -> Self {
        let container = open("/dev/vfio/vfio");
        let link = format!("/sys/bus/pci/devices/{DEVICE}/iommu_group");
        let number = std::fs::read_link(link).unwrap();
        let group = open(&format!("/dev/vfio/{}", number.file_name().unwrap().display()));
        let mut fd = container.as_raw_fd();
        assert_eq!(ioctl(&group, command::GROUP_SET_CONTAINER, &raw mut fd), 0);
        // SAFETY: the argument is a number.
        let set = unsafe { libc::ioctl(fd, command::SET_IOMMU.into(), extension::TYPE1V2) };
        assert_eq!(set, 0);
        let name = CString::new(DEVICE).unwrap();
        let device = ioctl(&group, command::GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut());
        // SAFETY: nobody else has it.
        let device = unsafe { File::from_raw_fd(device) };
        let map = |fd, flags| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping, which replaces nothing.
            let at = unsafe { libc::mmap(null_mut(), PAGE, prot, flags, fd, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            at
        };
        let bar = map(device.as_raw_fd(), libc::MAP_SHARED);
        let memory = map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let register = bar.wrapping_byte_add(0x10).cast::<AtomicU32>();
        Self { container, _group: group, register, memory }
    }

    fn register(&self) -> &AtomicU32 {
        // SAFETY: the mapping stays, and holds registers of 32 bits.
        unsafe { &*self.register }
    }

    fn map(&self, iova: u64) {
        let mut request = vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio_iommu_type1_dma_map>().try_into().unwrap(),
            flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            vaddr: self.memory.expose_provenance() as u64,
            iova,
            size: PAGE as u64,
        };
        assert_eq!(ioctl(&self.container, command::IOMMU_MAP_DMA, black_box(&raw mut request)), 0);
    }

    fn unmap(&self, iova: u64, size: u64) {
        let mut request = vfio_iommu_type1_dma_unmap {
            argsz: size_of::<vfio_iommu_type1_dma_unmap>().try_into().unwrap(),
            iova,
            size,
            ..Default::default()
        };
        assert_eq!(
            ioctl(&self.container, command::IOMMU_UNMAP_DMA, black_box(&raw mut request)),
            0
        );
    }

    /// The time of so many MAPs, each of another page; that of taking them back does not count.
    fn maps(&self, count: u64) -> Duration {
        const MOST: u64 = 10_000;
        let (mut left, mut taken) = (count, Duration::ZERO);
        while left > 0 {
            let some = left.min(MOST);
            let start = Instant::now();
            (0..some).for_each(|page| self.map(page * PAGE as u64));
            taken += start.elapsed();
            self.unmap(0, some * PAGE as u64);
            left -= some;
        }
        taken
    }
}

fn benchmark(criterion: &mut Criterion) {
    let scene = Scene::new();
    let mut group = criterion.benchmark_group("program");
    group.bench_function("empty system call", |bencher| {
        // No libc in between, and nobody caches the answer.
        bencher.iter(rustix::process::getppid);
    });
    group.bench_function("MAP", |bencher| bencher.iter_custom(|count| scene.maps(count)));
    group.bench_function("store", |bencher| {
        bencher.iter(|| scene.register().store(black_box(1), Ordering::Relaxed));
    });
    group.bench_function("load", |bencher| {
        bencher.iter(|| scene.register().load(Ordering::Relaxed));
    });
    group.bench_function("any other instruction", |bencher| {
        bencher.iter(|| scene.register().fetch_or(black_box(1), Ordering::Relaxed));
    });
    group.finish();
}

/// Becomes this program under the tool.
fn start_again() -> ! {
    let own = std::env::current_exe().unwrap();
    // In `deps`, beside which cargo puts programs.
    let tool: PathBuf = own.parent().unwrap().join("../vfio-sim");
    let error = Command::new(&tool)
        .args(["run", "vtd48", "--device", &format!("dma-engine,bdf={DEVICE}"), "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .exec();
    eprintln!("{}: {error}; benches/run builds it", tool.display());
    std::process::exit(1);
}

fn start(criterion: &mut Criterion) {
    if !Path::new(SETTINGS_FILE).exists() {
        start_again();
    }
    benchmark(criterion);
}

criterion_group!(benches, start);
criterion_main!(benches);
