// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the ioctls MAP and UNMAP cost as a program issues them, beside the least that two ioctls of a
//! kernel could cost: two system calls that do nothing, on the same machine.
//!
//! The requests are the structures of `vfio.h`, in this process's memory. Pinning accepts every page, as
//! it would for guest memory.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vfio_benches::pages::{FULL, Order, PAGE, Picks, gap, vaddr};
use vfio_benches::{Scene, accept};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
};
use vfio_type1::abi::command;
use vfio_type1::{Access, Fault, Memory, PinFault, PinnedRun, Vaddr, VaddrRange};
use vfio_vmm::OwnMemory;

/// This process's memory, but pinning does not read `/proc/self/maps`, which would take longer than all
/// the rest.
struct Process(Arc<OwnMemory>);

impl Memory for Process {
    fn read(&self, from: Vaddr, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read(from, into)
    }

    fn write(&self, to: Vaddr, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write(to, bytes)
    }

    fn pin(&self, pages: VaddrRange, _: Access) -> Result<PinnedRun, PinFault> {
        Ok(accept(pages))
    }
}

/// A program's requests, which the driver reads and writes by their addresses.
struct Requests {
    map: *mut vfio_iommu_type1_dma_map,
    unmap: *mut vfio_iommu_type1_dma_unmap,
}

impl Requests {
    /// They stay to the end of the program.
    fn new() -> Self {
        let map = vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio_iommu_type1_dma_map>().try_into().unwrap(),
            flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            size: PAGE,
            ..Default::default()
        };
        let unmap = vfio_iommu_type1_dma_unmap {
            argsz: size_of::<vfio_iommu_type1_dma_unmap>().try_into().unwrap(),
            ..Default::default()
        };
        Self { map: Box::into_raw(Box::new(map)), unmap: Box::into_raw(Box::new(unmap)) }
    }

    #[expect(unsafe_code, reason = "what the driver reaches is reached by raw pointers alone")]
    fn state(&self, iova: u64) {
        // SAFETY: both were boxes and are never freed, and no reference to them is left.
        unsafe {
            (*self.map).iova = iova;
            (*self.map).vaddr = vaddr(iova);
            (*self.unmap).iova = iova;
            (*self.unmap).size = PAGE;
        }
    }

    fn addresses(&self) -> [u64; 2] {
        [self.map.expose_provenance() as u64, self.unmap.expose_provenance() as u64]
    }
}

#[expect(unsafe_code, reason = "the memory that the driver reaches is raw memory")]
fn scene(live: u64) -> Scene {
    // SAFETY: of the process's memory the driver reaches the requests alone, which `Requests` touches
    // by raw pointers. No device does DMA.
    let memory = Process(unsafe { OwnMemory::direct() });
    let scene = Scene::new(Arc::new(memory), 1);
    scene.fill(live - 1, Order::Ascending);
    scene
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("byte door");
    for live in [1, FULL] {
        let scene = scene(live);
        // It makes UNMAP look for a device that must forget.
        let _nic = scene.nic(0);
        let requests = Requests::new();
        let [map, unmap] = requests.addresses();
        let ioctl = |command, at| scene.container.ioctl(&scene.process, command, at).unwrap();
        let mut gaps = Picks::new(gap, live - 1, 5);
        group.bench_function(BenchmarkId::new("vfio-type1", live), |bencher| {
            bencher.iter(|| {
                requests.state(black_box(gaps.draw()));
                ioctl(command::IOMMU_MAP_DMA, black_box(map));
                ioctl(command::IOMMU_UNMAP_DMA, black_box(unmap));
            });
        });
        // No libc in between, and nobody caches the answer.
        group.bench_function(BenchmarkId::new("two empty system calls", live), |bencher| {
            bencher.iter(|| (rustix::process::getppid(), rustix::process::getppid()));
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
