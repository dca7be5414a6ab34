// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the NVMe controller is a disk, whatever it is asked for: after each of many random commands
//! it holds what an array of bytes holds. And whatever is in its registers and queues, it comes to an
//! end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]
#![allow(clippy::cast_possible_truncation, reason = "sizes are small, and patterns may be cut")]

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vfio_sim::device::nvme::{
    Area, Command, Driver, DriverError, REGISTERS_BAR, Status, io_opcode, register,
};
use vfio_sim::device::{Pace, PciDevice};
use vfio_sim::hosts;
use vfio_type1::{
    Access, Container, Iova, Kernel, MapDma, Memory as _, ModelMemory, OpenGroup, Process, Vaddr,
    VaddrRange, extension,
};

const RAM: u64 = 0x7000_0000_0000;
const RAM_SIZE: u64 = 1 << 20;
const IOVA: u64 = 0x10_0000;
const QUEUES: u64 = 3 << 18;
const PAGE: u64 = 4096;
const BLOCK: usize = 512;
const BLOCKS: u64 = 300;

struct Rig {
    device: PciDevice,
    memory: Arc<ModelMemory>,
    _files: (Container, OpenGroup),
}

fn rig() -> Rig {
    let mut host = hosts::find("vtd39").unwrap();
    let disk = format!("nvme,size={}", BLOCKS * BLOCK as u64);
    let name = host.add_device(&disk.parse().unwrap()).unwrap();
    let vfio = host.boot(Kernel::NEWEST).unwrap();
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(RAM), RAM_SIZE).unwrap(), true).unwrap();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let group = vfio.open_group(vfio.group_of(&name).unwrap(), &process).unwrap();
    group.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    container.map(&process, &MapDma::new(IOVA, RAM, RAM_SIZE, Access::ReadWrite)).unwrap();
    let device = host.power_on(&vfio, &name, Pace::Immediate).unwrap();
    Rig { device, memory, _files: (container, group) }
}

/// What is done to the disk. Blocks may lie outside it.
#[derive(Clone, Debug)]
enum Operation {
    Write {
        first: u64,
        blocks: u32,
        offset: u64,
        seed: u8,
    },
    Read {
        first: u64,
        blocks: u32,
        offset: u64,
    },
    Compare {
        first: u64,
        blocks: u32,
    },
    Zero {
        first: u64,
        blocks: u32,
    },
    Deallocate(Vec<(u64, u32)>),
    Flush,
    Reset,
    /// An opcode that is not there.
    Unknown(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let first =
        prop_oneof![20 => 0..BLOCKS + 3, 1 => select(vec![u64::MAX, u64::MAX - 8, 1 << 55])];
    let span = (first, 1..70_u32);
    // Anywhere in a page, at a dword.
    let offset = (0..1024_u64).prop_map(|dword| 4 * dword);
    prop_oneof![
        4 => (span.clone(), offset.clone(), 1_u8..)
            .prop_map(|((first, blocks), offset, seed)| Write { first, blocks, offset, seed }),
        4 => (span.clone(), offset).prop_map(|((first, blocks), offset)| Read { first, blocks, offset }),
        1 => span.clone().prop_map(|(first, blocks)| Compare { first, blocks }),
        1 => span.clone().prop_map(|(first, blocks)| Zero { first, blocks }),
        1 => vec(span, 1..5).prop_map(Deallocate),
        1 => Just(Flush),
        1 => Just(Reset),
        1 => select(vec![3_u8, 4, 0x0d, 0x80, 0xff]).prop_map(Unknown),
    ]
}

/// The bytes of blocks, if they are all on the disk.
fn bytes(first: u64, blocks: u32) -> Result<std::ops::Range<usize>, Status> {
    let end = first.checked_add(u64::from(blocks)).filter(|end| *end <= BLOCKS);
    let end = end.ok_or(Status::LbaOutOfRange)?;
    Ok(first as usize * BLOCK..end as usize * BLOCK)
}

/// A disk that cannot be simpler.
struct Model(Vec<u8>);

impl Model {
    fn apply(&mut self, operation: &Operation) -> Result<(), Status> {
        match operation {
            Operation::Write { first, blocks, seed, .. } => {
                let bytes = bytes(*first, *blocks)?;
                let data = pattern(bytes.len(), *seed);
                self.0[bytes].copy_from_slice(&data);
            }
            Operation::Read { first, blocks, .. } => return bytes(*first, *blocks).map(|_| ()),
            Operation::Compare { first, blocks } => {
                // Memory is zero there.
                let zero = self.0[bytes(*first, *blocks)?].iter().all(|byte| *byte == 0);
                return if zero { Ok(()) } else { Err(Status::CompareFailure) };
            }
            Operation::Zero { first, blocks } => self.0[bytes(*first, *blocks)?].fill(0),
            Operation::Deallocate(spans) => {
                for (first, blocks) in spans {
                    bytes(*first, *blocks)?;
                }
                for (first, blocks) in spans {
                    self.0[bytes(*first, *blocks)?].fill(0);
                }
            }
            Operation::Flush | Operation::Reset => {}
            Operation::Unknown(_) => return Err(Status::InvalidOpcode),
        }
        Ok(())
    }
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ seed).collect()
}

fn start(rig: &Rig, entries: u16) -> Driver<'_, ModelMemory> {
    let area = Area { vaddr: Vaddr(RAM + QUEUES), iova: Iova(IOVA + QUEUES) };
    Driver::new(&rig.device, &*rig.memory, area, entries).unwrap()
}

fn apply<'a>(
    rig: &'a Rig,
    driver: &mut Driver<'a, ModelMemory>,
    operation: &Operation,
) -> Result<(), DriverError> {
    let size = |blocks: &u32| u64::from(*blocks) * BLOCK as u64;
    match operation {
        Operation::Write { first, blocks, offset, seed } => {
            let data = pattern(size(blocks) as usize, *seed);
            rig.memory.write(Vaddr(RAM + offset), &data).unwrap();
            driver.write(*first, Iova(IOVA + offset), size(blocks))
        }
        Operation::Read { first, blocks, offset } => {
            driver.read(*first, Iova(IOVA + offset), size(blocks))
        }
        Operation::Compare { first, blocks } => {
            rig.memory.write(Vaddr(RAM), &vec![0; size(blocks) as usize]).unwrap();
            let compare = Command::on_blocks(io_opcode::COMPARE, *first, *blocks);
            let compare = driver.with_data(compare, Iova(IOVA), size(blocks))?;
            driver.io(&compare).map(|_| ())
        }
        Operation::Zero { first, blocks } => {
            let zero = Command::on_blocks(io_opcode::WRITE_ZEROES, *first, *blocks);
            driver.io(&zero).map(|_| ())
        }
        Operation::Deallocate(spans) => {
            let list = spans.iter().flat_map(|(first, blocks)| [u64::from(*blocks) << 32, *first]);
            let list: Vec<u8> = list.flat_map(u64::to_le_bytes).collect();
            rig.memory.write(Vaddr(RAM), &list).unwrap();
            let words = [spans.len() as u32 - 1, 4, 0, 0, 0, 0];
            let opcode = io_opcode::DATASET_MANAGEMENT;
            let command = Command { opcode, words, namespace: 1, prp1: IOVA, ..Command::default() };
            driver.io(&command).map(|_| ())
        }
        Operation::Flush => driver.flush(),
        Operation::Reset => {
            *driver = start(rig, 5);
            Ok(())
        }
        Operation::Unknown(opcode) => {
            let command = Command { opcode: *opcode, namespace: 1, ..Command::default() };
            driver.io(&command).map(|_| ())
        }
    }
}

/// All of the disk, as it can be read.
fn contents(rig: &Rig, driver: &mut Driver<'_, ModelMemory>) -> Vec<u8> {
    let mut bytes = vec![0; BLOCKS as usize * BLOCK];
    driver.read(0, Iova(IOVA), bytes.len() as u64).unwrap();
    rig.memory.read(Vaddr(RAM), &mut bytes).unwrap();
    bytes
}

/// A write to a register: mostly ones that do something.
fn store() -> impl Strategy<Value = (u64, u32)> {
    let doorbell = (0..6_u64).prop_map(|index| register::DOORBELLS + 4 * index);
    let doorbell = (doorbell, 0..64_u32);
    let start = select(vec![0x46_0001, 0x46_0000, 0x46_4001, 0x46_0201]);
    let setup = prop_oneof![
        (Just(register::CC), start),
        (Just(register::AQA), any::<u32>()),
        (
            select(vec![register::ASQ, register::ACQ]),
            (0..64_u32).prop_map(|page| 0x10_0000 + 4096 * page)
        ),
    ];
    let anything = ((0..0x1000_u64).prop_map(|index| 4 * index), any::<u32>());
    prop_oneof![12 => doorbell, 1 => setup, 1 => anything]
}

/// Commands that are nearly right, and lists; their pointers lead to others of them.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let page = (0..260_u64).prop_map(|page| IOVA + PAGE * page);
    let pointer = (0..RAM_SIZE / 8).prop_map(|at| IOVA + 8 * at);
    let pointer = prop_oneof![8 => page, 2 => pointer, 1 => any::<u64>()];
    let both = (0..4_u32).prop_map(|half| half << 16 | half);
    let word = prop_oneof![6 => 0..4_u32, 2 => 0..300_u32, 2 => both, 1 => any::<u32>()];
    let list = vec(pointer.clone(), 8);
    let list = list.prop_map(|list| list.into_iter().flat_map(u64::to_le_bytes).collect());
    let words = [(); 6].map(|()| word.clone());
    let command = (
        0..16_u8,
        any::<u16>(),
        prop_oneof![5 => Just(1), 1 => 0..3_u32],
        [pointer.clone(), pointer],
        words,
    );
    let command = command.prop_map(|(opcode, id, namespace, [prp1, prp2], words)| {
        Command { opcode, flags: 0, id, namespace, prp1, prp2, words }.to_bytes().to_vec()
    });
    prop_oneof![3 => command, 1 => list]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_disk(operations in vec(operation(), 1..40)) {
        let rig = rig();
        let mut driver = start(&rig, 5);
        let mut model = Model(vec![0; BLOCKS as usize * BLOCK]);
        for operation in operations {
            let expected = model.apply(&operation).map_err(DriverError::Command);
            let done = apply(&rig, &mut driver, &operation);
            prop_assert_eq!(&done, &expected, "{:?}", operation);
            if let Operation::Read { first, blocks, offset } = operation && done.is_ok() {
                let mut data = vec![0; blocks as usize * BLOCK];
                rig.memory.read(Vaddr(RAM + offset), &mut data).unwrap();
                prop_assert!(data == model.0[bytes(first, blocks).unwrap()]);
            }
            prop_assert!(contents(&rig, &mut driver) == model.0);
        }
    }

    #[test]
    fn it_comes_to_an_end(entries in vec(entry(), 64), stores in vec(store(), 1..60)) {
        let rig = rig();
        // Queues that are good until memory is overwritten with what is in them.
        start(&rig, 64);
        for at in 0..RAM_SIZE / 64 {
            let entry = &entries[(at as usize * 7 + at as usize / 64) % entries.len()];
            rig.memory.write(Vaddr(RAM + 64 * at), entry).unwrap();
        }
        for (offset, value) in stores {
            rig.device.write_u32(REGISTERS_BAR, offset, value).unwrap();
            rig.device.read_u64(REGISTERS_BAR, offset & !7).unwrap();
        }
        // And it works again when it is set up well.
        let mut driver = start(&rig, 5);
        prop_assert_eq!(driver.flush(), Ok(()));
    }
}
