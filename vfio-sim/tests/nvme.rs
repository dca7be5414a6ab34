// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the NVMe controller keeps what is written to it, does what its specification says, and ends
//! what cannot be done with the status for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]
#![allow(clippy::cast_possible_truncation, reason = "sizes are small, and patterns may be cut")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use vfio_sim::device::nvme::{
    Answer, Area, Command, Driver, DriverError, REGISTERS_BAR, Status, admin_opcode, io_opcode,
    register,
};
use vfio_sim::device::{CONFIG_REGION, DeviceSpec, IrqIndex, Pace, PciDevice};
use vfio_sim::host::Host;
use vfio_sim::hosts;
use vfio_type1::{
    Access, Container, Iova, Kernel, MapDma, Memory as _, ModelMemory, OpenGroup, Process,
    UnmapDma, Vaddr, VaddrRange, Vfio, extension,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Process memory, where it is mapped, and where in it the driver has its queues.
const RAM: u64 = 0x7000_0000_0000;
const RAM_SIZE: u64 = 8 << 20;
const IOVA: u64 = 0x10_0000;
const QUEUES: u64 = 6 << 20;
const PAGE: u64 = 4096;

/// A host with a controller placed on it, and 8 MiB mapped for it.
struct Rig {
    host: Host,
    vfio: Vfio,
    name: String,
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    container: Container,
    _group: OpenGroup,
}

fn rig(device: &str) -> Rig {
    let mut host = hosts::find("vtd39").unwrap();
    let name = host.add_device(&device.parse::<DeviceSpec>().unwrap()).unwrap();
    let vfio = host.boot(Kernel::NEWEST).unwrap();
    let memory = Arc::new(ModelMemory::new());
    memory.add(VaddrRange::from_size(Vaddr(RAM), RAM_SIZE).unwrap(), true).unwrap();
    let process = Process::new(Arc::clone(&memory) as Arc<_>);
    let container = vfio.open_container();
    let group = vfio.open_group(vfio.group_of(&name).unwrap(), &process).unwrap();
    group.set_container(&container, &process).unwrap();
    container.set_iommu(&process, extension::TYPE1V2).unwrap();
    container.map(&process, &MapDma::new(IOVA, RAM, RAM_SIZE, Access::ReadWrite)).unwrap();
    Rig { host, vfio, name, memory, process, container, _group: group }
}

impl Rig {
    fn device(&self, pace: Pace) -> PciDevice {
        self.host.power_on(&self.vfio, &self.name, pace).unwrap()
    }

    fn driver<'a>(&'a self, device: &'a PciDevice, entries: u16) -> Driver<'a, ModelMemory> {
        let area = Area { vaddr: Vaddr(RAM + QUEUES), iova: Iova(IOVA + QUEUES) };
        Driver::new(device, &*self.memory, area, entries).unwrap()
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.memory.write(Vaddr(RAM + offset), bytes).unwrap();
    }

    fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read(Vaddr(RAM + offset), &mut bytes).unwrap();
        bytes
    }
}

/// Bytes that are not the same in any two blocks.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at / 509)) as u8).collect()
}

fn status(result: Result<u32, DriverError>) -> Result<u32, Status> {
    result.map_err(|error| match error {
        DriverError::Command(status) => status,
        error => panic!("{error}"),
    })
}

fn answer(id: u16, result: Result<u32, Status>) -> Option<Answer> {
    Some(Answer { id, result })
}

/// A command about blocks whose data lie within a page at the start of memory.
fn block_command(opcode: u8, first: u64, blocks: u32) -> Command {
    Command { prp1: IOVA, ..Command::on_blocks(opcode, first, blocks) }
}

fn admin(opcode: u8, words: [u32; 6]) -> Command {
    Command { opcode, prp1: IOVA, words, ..Command::default() }
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
}

#[test]
fn data_come_back_at_every_pace_and_block_size() {
    for pace in [Pace::Immediate, Pace::Stepped, Pace::Threaded] {
        for block in [512, 4096] {
            let rig = rig(&format!("nvme,size=8M,block={block}"));
            let device = rig.device(pace);
            let mut driver = rig.driver(&device, 16);
            // One page, two, a list; from the start of a page and from within.
            for (bytes, offset) in
                [(block, 0), (4096, 64), (8192, 0), (1 << 20, 0), (1 << 20, 4092)]
            {
                let data = pattern(bytes as usize);
                rig.put(offset, &data);
                driver.write(7, Iova(IOVA + offset), bytes).unwrap();
                driver.flush().unwrap();
                driver.read(7, Iova(IOVA + (2 << 20) + offset), bytes).unwrap();
                let case = format!("{pace:?}, {block}, {bytes} bytes at {offset}");
                assert!(rig.get((2 << 20) + offset, data.len()) == data, "{case}");
                assert_eq!(rig.get((2 << 20) + offset + bytes, 1), [0], "{case}");
                rig.put(2 << 20, &vec![0; 2 << 20]);
            }
            // Below it and behind it nothing was written.
            driver.read(6, Iova(IOVA), block).unwrap();
            assert!(rig.get(0, block as usize).iter().all(|byte| *byte == 0));
            driver.read(7 + (1 << 20) / block, Iova(IOVA), block).unwrap();
            assert!(rig.get(0, block as usize).iter().all(|byte| *byte == 0));
            assert!(rig.vfio.take_faults().kept.is_empty());
        }
    }
}

#[test]
fn lists_lead_to_lists() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let data = pattern(12 * 4096);
    rig.put(0, &data);
    driver.write(0, Iova(IOVA), 12 * PAGE).unwrap();

    // Pages in descending order; the first list has two places left in its page, the second one all.
    let page = |number: u64| IOVA + (1 << 20) + (20 - number) * PAGE;
    let words = |words: Vec<u64>| words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    rig.put(3 * PAGE - 16, &words(vec![page(1), IOVA + 5 * PAGE]));
    rig.put(5 * PAGE, &words((2..12).map(page).collect()));
    let read = Command {
        prp1: page(0),
        prp2: IOVA + 3 * PAGE - 16,
        ..Command::on_blocks(io_opcode::READ, 0, 96)
    };
    driver.io(&read).unwrap();
    for (number, expected) in (0..12).zip(data.chunks(4096)) {
        assert!(rig.get(page(number) - IOVA, 4096) == expected, "page {number}");
    }

    // One that ends with its page, and names all that is left, leads nowhere.
    rig.put(3 * PAGE - 16, &words(vec![page(14), page(15)]));
    driver.io(&Command { words: [0, 0, 23, 0, 0, 0], ..read }).unwrap();
    assert!(rig.get(page(15) - IOVA, 4096) == data[2 * 4096..3 * 4096]);

    // All lists but the first begin a page, so that none leads to itself for ever.
    rig.put(3 * PAGE - 8, &words(vec![IOVA + 3 * PAGE - 8]));
    let circle = Command { prp2: IOVA + 3 * PAGE - 8, ..read };
    assert_eq!(status(driver.io(&circle)), Err(Status::PrpOffset));
    for (prp1, prp2, why) in [
        (page(0) + 2, 0, "data not at a dword"),
        (page(0), IOVA + 3 * PAGE - 12, "a list not at a pointer"),
        (page(0), IOVA, "a list of data"),
    ] {
        let bad = Command { prp1, prp2, ..read };
        assert_eq!(status(driver.io(&bad)), Err(Status::PrpOffset), "{why}");
    }
    let two_pages = Command::on_blocks(io_opcode::READ, 0, 16);
    let bad = Command { prp1: IOVA, prp2: IOVA + PAGE + 8, ..two_pages };
    assert_eq!(status(driver.io(&bad)), Err(Status::PrpOffset), "a second page from within");
}

#[test]
fn rings_wrap() {
    let rig = rig("nvme,size=1M");
    for pace in [Pace::Immediate, Pace::Threaded] {
        for entries in [2, 3, 64] {
            let device = rig.device(pace);
            let mut driver = rig.driver(&device, entries);
            for number in 0..200_u64 {
                rig.put(0, &number.to_le_bytes());
                driver.write(number, Iova(IOVA), 512).unwrap();
            }
            for number in 0..200 {
                driver.read(number, Iova(IOVA + PAGE), 512).unwrap();
                assert_eq!(rig.get(PAGE, 8), number.to_le_bytes());
            }
        }
    }
}

#[test]
fn a_full_completion_queue_stops_the_device_until_it_is_read() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Stepped);
    let mut driver = rig.driver(&device, 4);
    let flush = |id| Command { opcode: io_opcode::FLUSH, id, namespace: 1, ..Command::default() };
    (0..3).for_each(|id| driver.submit_io(&flush(id)).unwrap());
    assert!(device.step() && device.step() && device.step());
    // The third answer says that three commands of queue 1 have been read.
    assert_eq!(rig.get(QUEUES + 3 * PAGE + 2 * 16 + 8, 4), [3, 0, 1, 0]);
    (3..6).for_each(|id| driver.submit_io(&flush(id)).unwrap());
    assert!(!device.step(), "there is no room for an answer");
    for id in 0..6 {
        assert_eq!(driver.io_answer().unwrap(), answer(id, Ok(0)));
        assert_eq!(device.step(), id < 3);
        assert!(!device.step());
    }
    assert_eq!(driver.io_answer().unwrap(), None);
}

#[test]
fn what_cannot_be_done_ends_with_its_status() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let on = |namespace, command: Command| Command { namespace, ..command };
    let read = |first, blocks| block_command(io_opcode::READ, first, blocks);
    for (command, expected) in [
        (on(1, admin(0x7f, [0; 6])), Status::InvalidOpcode),
        (on(0, read(0, 1)), Status::InvalidNamespace),
        (on(2, read(0, 1)), Status::InvalidNamespace),
        (on(u32::MAX, read(0, 1)), Status::InvalidNamespace),
        (read(2048, 1), Status::LbaOutOfRange),
        (read(2047, 2), Status::LbaOutOfRange),
        (read(u64::MAX, 1), Status::LbaOutOfRange),
        (block_command(io_opcode::WRITE, 2047, 2), Status::LbaOutOfRange),
        (block_command(io_opcode::WRITE_ZEROES, 0, 65536), Status::LbaOutOfRange),
        (Command { flags: 1, ..read(0, 1) }, Status::InvalidField),
        (Command { flags: 0x40, ..read(0, 1) }, Status::InvalidField),
    ] {
        assert_eq!(status(driver.io(&command)), Err(expected), "{command:?}");
    }
    assert_eq!(status(driver.io(&read(2047, 1))), Ok(0));
    let flush_all = Command { opcode: io_opcode::FLUSH, namespace: u32::MAX, ..Command::default() };
    assert_eq!(status(driver.io(&flush_all)), Ok(0));

    use admin_opcode::*;
    for (opcode, words, expected) in [
        (0x10, [0; 6], Status::InvalidOpcode),
        (IDENTIFY, [0, 0, 0, 0, 0, 0], Status::InvalidNamespace),
        (IDENTIFY, [5, 0, 0, 0, 0, 0], Status::InvalidField),
        (GET_LOG_PAGE, [0x7f_0007, 0, 0, 0, 0, 0], Status::LogPage),
        (GET_LOG_PAGE, [0x7f_0002, 0, 516, 0, 0, 0], Status::InvalidField),
        (GET_LOG_PAGE, [0xffff_0002, 0xffff, 0, 0, 0, 0], Status::InvalidField),
        (GET_FEATURES, [0x7f, 0, 0, 0, 0, 0], Status::InvalidField),
        (GET_FEATURES, [0x106, 0, 0, 0, 0, 0], Status::InvalidField),
        (SET_FEATURES, [1 << 31 | 6, 0, 0, 0, 0, 0], Status::NotSaveable),
        (SET_FEATURES, [7, 0, 0, 0, 0, 0], Status::Sequence),
        (CREATE_COMPLETION_QUEUE, [15 << 16, 1, 0, 0, 0, 0], Status::QueueIdentifier),
        (CREATE_COMPLETION_QUEUE, [15 << 16 | 1, 1, 0, 0, 0, 0], Status::QueueIdentifier),
        (CREATE_COMPLETION_QUEUE, [15 << 16 | 65, 1, 0, 0, 0, 0], Status::QueueIdentifier),
        (CREATE_COMPLETION_QUEUE, [2, 1, 0, 0, 0, 0], Status::QueueSize),
        (CREATE_COMPLETION_QUEUE, [1024 << 16 | 2, 1, 0, 0, 0, 0], Status::QueueSize),
        (CREATE_COMPLETION_QUEUE, [15 << 16 | 2, 0, 0, 0, 0, 0], Status::InvalidField),
        (
            CREATE_COMPLETION_QUEUE,
            [15 << 16 | 2, 32 << 16 | 3, 0, 0, 0, 0],
            Status::InterruptVector,
        ),
        (CREATE_SUBMISSION_QUEUE, [15 << 16 | 1, 1 << 16 | 1, 0, 0, 0, 0], Status::QueueIdentifier),
        (CREATE_SUBMISSION_QUEUE, [15 << 16 | 2, 1, 0, 0, 0, 0], Status::QueueIdentifier),
        (
            CREATE_SUBMISSION_QUEUE,
            [15 << 16 | 2, 2 << 16 | 1, 0, 0, 0, 0],
            Status::NoCompletionQueue,
        ),
        (CREATE_SUBMISSION_QUEUE, [15 << 16 | 2, 1 << 16, 0, 0, 0, 0], Status::InvalidField),
        (DELETE_COMPLETION_QUEUE, [1, 0, 0, 0, 0, 0], Status::QueueDeletion),
        (DELETE_COMPLETION_QUEUE, [0, 0, 0, 0, 0, 0], Status::QueueIdentifier),
        (DELETE_SUBMISSION_QUEUE, [2, 0, 0, 0, 0, 0], Status::QueueIdentifier),
    ] {
        let command = admin(opcode, words);
        assert_eq!(status(driver.admin(&command)), Err(expected), "{command:x?}");
    }
    let askew = Command {
        prp1: IOVA + 512,
        ..admin(CREATE_COMPLETION_QUEUE, [15 << 16 | 2, 1, 0, 0, 0, 0])
    };
    assert_eq!(status(driver.admin(&askew)), Err(Status::PrpOffset));
    assert_eq!(status(driver.admin(&admin(ABORT, [1, 0, 0, 0, 0, 0]))), Ok(1), "nothing to abort");

    // The log has them, the newest first; and deleting the queues in the right order is possible.
    driver.admin(&admin(GET_LOG_PAGE, [0xf_0001, 0, 0, 0, 0, 0])).unwrap();
    let newest = rig.get(0, 64);
    assert_eq!((word(&newest, 0), word(&newest, 12) & 0xfff), (36, 2 * Status::PrpOffset as u32));
    driver.admin(&admin(DELETE_SUBMISSION_QUEUE, [1, 0, 0, 0, 0, 0])).unwrap();
    driver.admin(&admin(DELETE_COMPLETION_QUEUE, [1, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!(driver.admin(&admin(SET_FEATURES, [7, 0, 0, 0, 0, 0])), Ok(0x3f_003f));
}

#[test]
fn transfers_have_a_limit() {
    let rig = rig("nvme,size=4M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    driver.read(0, Iova(IOVA), 1 << 20).unwrap();
    let large = driver.read(0, Iova(IOVA), (1 << 20) + 512);
    assert_eq!(large, Err(DriverError::Command(Status::InvalidField)));
    let controller = driver.identify(1, 0).unwrap();
    assert_eq!(PAGE << controller[77], 1 << 20);
}

#[test]
fn a_device_says_what_it_is() {
    let rig = rig("nvme,size=1G,block=4096");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let controller = driver.identify(1, 0).unwrap();
    assert_eq!(word(&controller, 0), 0x1b36, "vendor");
    assert_eq!(controller[4..24].trim_ascii_end(), rig.name.as_bytes(), "the serial number");
    assert_eq!((controller[512], controller[513], word(&controller, 516)), (0x66, 0x44, 1));
    let namespace = driver.identify(0, 1).unwrap();
    assert_eq!((word(&namespace, 0), word(&namespace, 128) >> 16 & 0xff), (1 << 18, 12));
    assert_eq!(word(&driver.identify(2, 0).unwrap(), 0), 1);
    assert_eq!(word(&driver.identify(2, 1).unwrap(), 0), 0);
    // EUI64 and NGUID, as in the namespace.
    let descriptors = driver.identify(3, 1).unwrap();
    assert_eq!((descriptors[0], &descriptors[4..12]), (1, &namespace[120..128]));
    assert_eq!((descriptors[12], &descriptors[16..32]), (2, &namespace[104..120]));
    assert_eq!(descriptors[32..36], [0; 4]);
    driver.read(0, Iova(IOVA), 4096).unwrap();
    driver.admin(&admin(admin_opcode::GET_LOG_PAGE, [127 << 16 | 2, 0, 0, 0, 0, 0])).unwrap();
    let health = rig.get(0, 512);
    assert_eq!((word(&health, 32), word(&health, 64), word(&health, 80)), (1, 1, 0));
}

#[test]
fn zeroed_and_deallocated_blocks_read_as_zero() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xff; 1 << 20]).unwrap();
    let rig = rig(&format!("nvme,file={}", file.path().display()));
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let before = file.as_file().metadata().unwrap().blocks();
    driver.io(&block_command(io_opcode::WRITE_ZEROES, 3, 1000)).unwrap();
    let ranges: Vec<u8> = [(1100_u64, 20_u64), (2040, 8), (0, 0)]
        .into_iter()
        .flat_map(|(first, blocks)| [blocks << 32, first])
        .flat_map(u64::to_le_bytes)
        .collect();
    rig.put(PAGE - 16, &ranges);
    let manage = |count: u32, how| Command {
        opcode: io_opcode::DATASET_MANAGEMENT,
        namespace: 1,
        prp1: IOVA + PAGE - 16,
        prp2: IOVA + PAGE,
        words: [count - 1, how, 0, 0, 0, 0],
        ..Command::default()
    };
    driver.io(&manage(3, 2)).unwrap();
    let all_ones = |from: usize, to| {
        std::fs::read(file.path()).unwrap()[from * 512..to * 512] == vec![0xff; (to - from) * 512]
    };
    assert!(all_ones(1003, 2048), "a hint changes nothing");
    driver.io(&manage(3, 4)).unwrap();
    let now = std::fs::read(file.path()).unwrap();
    for (block, bytes) in now.chunks(512).enumerate() {
        let zero = (3..1003).contains(&block) || (1100..1120).contains(&block) || block >= 2040;
        let expected = if zero { 0 } else { 0xff };
        assert!(bytes.iter().all(|byte| *byte == expected), "block {block}");
    }
    let after = file.as_file().metadata().unwrap().blocks();
    assert!(after < before, "space was given back: {before} {after}");
    // One range of three is not there: none is deallocated.
    rig.put(PAGE, &(2041_u64).to_le_bytes().repeat(2));
    rig.put(PAGE, &[0, 0, 0, 0, 8, 0, 0, 0]);
    rig.put(PAGE - 16, &[0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(status(driver.io(&manage(2, 4))), Err(Status::LbaOutOfRange));
    assert!(all_ones(0, 3));
}

#[test]
fn blocks_are_compared() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let data = pattern(4096);
    rig.put(0, &data);
    driver.write(0, Iova(IOVA), 4096).unwrap();
    let compare = block_command(io_opcode::COMPARE, 0, 8);
    assert_eq!(status(driver.io(&compare)), Ok(0));
    rig.put(4095, &[!data[4095]]);
    assert_eq!(status(driver.io(&compare)), Err(Status::CompareFailure));
}

#[test]
fn a_file_keeps_what_was_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let spec = format!("nvme,file={}", file.path().display());
    let data = pattern(8192);
    {
        let rig = rig(&spec);
        let device = rig.device(Pace::Immediate);
        let mut driver = rig.driver(&device, 16);
        rig.put(0, &data);
        driver.write(100, Iova(IOVA), 8192).unwrap();
        let written = block_command(io_opcode::WRITE, 0, 1);
        let force = Command { words: [0, 0, 1 << 30, 0, 0, 0], ..written };
        assert_eq!(status(driver.io(&force)), Ok(0));
        assert_eq!(driver.shut_down(), Ok(true));
    }
    assert!(std::fs::read(file.path()).unwrap()[51200..][..8192] == data);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o444)).unwrap();
    let rig = rig(&spec);
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    driver.read(100, Iova(IOVA), 8192).unwrap();
    assert!(rig.get(0, 8192) == data);
    for opcode in [io_opcode::WRITE, io_opcode::WRITE_ZEROES] {
        let refused = status(driver.io(&block_command(opcode, 0, 1)));
        assert_eq!(refused, Err(Status::WriteProtected));
    }
    driver.flush().unwrap();
    assert_eq!(driver.identify(0, 1).unwrap()[99], 1, "write protected");
    assert!(std::fs::read(file.path()).unwrap()[51200..][..8192] == data);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let rig = rig("nvme,file=/nowhere/disk.img");
    let refused = rig.host.power_on(&rig.vfio, &rig.name, Pace::Immediate).unwrap_err();
    assert!(refused.to_string().starts_with("there is no file /nowhere/disk.img; make one"));
}

#[test]
fn dma_to_an_unmapped_address_is_a_status_and_a_fault() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let nowhere = IOVA + RAM_SIZE;
    for command in [
        Command { prp1: nowhere, ..Command::on_blocks(io_opcode::READ, 0, 1) },
        Command { prp1: nowhere, ..Command::on_blocks(io_opcode::WRITE, 0, 1) },
        // The second page; the list.
        Command {
            prp1: nowhere - PAGE,
            prp2: nowhere,
            ..Command::on_blocks(io_opcode::READ, 0, 9)
        },
        Command { prp1: IOVA, prp2: nowhere, ..Command::on_blocks(io_opcode::READ, 0, 17) },
    ] {
        assert_eq!(status(driver.io(&command)), Err(Status::DataTransfer), "{command:x?}");
        let faults = rig.vfio.take_faults().kept;
        assert_eq!((faults.len(), faults[0].iova), (1, Iova(nowhere)), "{command:x?}");
    }
    driver.read(0, Iova(IOVA), 512).unwrap();

    // Without its queues a controller can do nothing, until it is set up anew.
    rig.container.unmap(&rig.process, &UnmapDma::new(IOVA, RAM_SIZE)).unwrap();
    let failed = driver.read(0, Iova(IOVA), 512).unwrap_err();
    assert_eq!(failed, DriverError::NotReady { csts: 3 });
    assert_eq!(rig.vfio.take_faults().kept[0].iova, Iova(IOVA + QUEUES + 2 * PAGE + 5 * 64));
    let map = MapDma::new(IOVA, RAM, RAM_SIZE, Access::ReadWrite);
    rig.container.map(&rig.process, &map).unwrap();
    assert!(driver.flush().is_err());
    rig.driver(&device, 16).read(0, Iova(IOVA), 512).unwrap();
}

#[test]
fn a_controller_that_is_shut_down_does_nothing_until_it_is_reset() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    rig.put(0, b"still there");
    driver.write(9, Iova(IOVA), 512).unwrap();
    assert_eq!(driver.shut_down(), Ok(true));
    assert_eq!(driver.flush(), Err(DriverError::NotReady { csts: 0b1001 }));
    // By its own reset, and by the function's, each of which forgets the queues.
    for reset in [false, true] {
        if reset {
            device.reset();
            assert_eq!(device.read_u32(REGISTERS_BAR, register::CC), Ok(0));
        }
        let mut driver = rig.driver(&device, 16);
        driver.read(9, Iova(IOVA + PAGE), 512).unwrap();
        assert_eq!(rig.get(PAGE, 11), b"still there");
        rig.put(PAGE, &[0; 11]);
    }
}

#[test]
fn completions_interrupt_by_vector_or_by_the_line() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let eventfds: Vec<EventFd> = (0..2).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
    let ours = |at: usize| Some(eventfds[at].try_clone().unwrap());
    let fired = |at: usize| eventfds[at].read().is_ok();
    device.set_irqs(IrqIndex::Msix, vec![ours(0), ours(1)]).unwrap();
    let mut driver = rig.driver(&device, 16);
    assert!(fired(0) && !fired(1), "the queues were created");
    driver.flush().unwrap();
    assert!(!fired(0) && fired(1));

    device.set_irqs(IrqIndex::Msix, Vec::new()).unwrap();
    device.set_irqs(IrqIndex::Line, vec![ours(0)]).unwrap();
    let flush = Command { opcode: io_opcode::FLUSH, namespace: 1, ..Command::default() };
    driver.submit_io(&flush).unwrap();
    assert!(fired(0));
    // It stays asserted until the completion has been taken.
    device.unmask_line();
    assert!(fired(0));
    assert!(driver.io_answer().unwrap().is_some());
    device.unmask_line();
    assert!(!fired(0));
    device.write_u32(REGISTERS_BAR, register::INTMS, 1 << 1).unwrap();
    driver.submit_io(&flush).unwrap();
    assert!(!fired(0), "vector 1 is masked");
    device.write_u32(REGISTERS_BAR, register::INTMC, 1 << 1).unwrap();
    assert!(fired(0));
}

#[test]
fn a_wrong_doorbell_is_told_by_an_event() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let mut driver = rig.driver(&device, 16);
    let request = |id| Command { id, ..admin(admin_opcode::EVENT_REQUEST, [0; 6]) };
    (0..4).for_each(|id| driver.submit_admin(&request(id)).unwrap());
    assert_eq!(driver.admin_answer().unwrap(), None);
    driver.submit_admin(&request(4)).unwrap();
    assert_eq!(driver.admin_answer().unwrap(), answer(4, Err(Status::EventRequestLimit)));
    let ring = |offset: u64, value| {
        device.write_u32(REGISTERS_BAR, register::DOORBELLS + offset, value).unwrap();
    };
    ring(8, 16);
    assert_eq!(driver.admin_answer().unwrap(), answer(0, Ok(0x1_0100)));
    ring(16, 0);
    ring(0x2ffc, 0);
    assert_eq!(driver.admin_answer().unwrap(), None, "the log has not been read");
    driver.submit_admin(&admin(admin_opcode::GET_LOG_PAGE, [0xf_0001, 0, 0, 0, 0, 0])).unwrap();
    let first = driver.admin_answer().unwrap();
    let second = driver.admin_answer().unwrap();
    assert_eq!((first, second), (answer(0, Ok(0)), answer(1, Ok(0x1_0000))));
    // The queue is as it was.
    driver.flush().unwrap();
}

#[test]
fn requests_for_events_are_aborted() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    // Its completion queues have room for one answer.
    let mut driver = rig.driver(&device, 2);
    let request = |id| Command { id, ..admin(admin_opcode::EVENT_REQUEST, [0; 6]) };
    let abort = |id: u32, queue: u32| Command {
        id: 9,
        ..admin(admin_opcode::ABORT, [id << 16 | queue, 0, 0, 0, 0, 0])
    };
    (4..6).for_each(|id| driver.submit_admin(&request(id)).unwrap());
    assert_eq!(driver.admin_answer().unwrap(), None);
    for (id, queue) in [(6, 0), (4, 1)] {
        assert_eq!(driver.admin(&abort(id, queue)), Ok(1), "{id} of {queue} is not there");
    }
    driver.submit_admin(&abort(4, 0)).unwrap();
    // The request first, and then who aborted it.
    assert_eq!(driver.admin_answer().unwrap(), answer(4, Err(Status::Aborted)));
    assert_eq!(driver.admin_answer().unwrap(), answer(9, Ok(0)));
    assert_eq!(driver.admin(&abort(4, 0)), Ok(1), "it is over");
    // It did not fail; and the other one is told as before.
    driver.admin(&admin(admin_opcode::GET_LOG_PAGE, [0xf_0001, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!(rig.get(0, 8), [0; 8]);
    device.write_u32(REGISTERS_BAR, register::DOORBELLS + 8, 16).unwrap();
    assert_eq!(driver.admin_answer().unwrap(), answer(5, Ok(0x1_0100)));
}

#[test]
fn what_is_counted_stays_over_resets() {
    let rig = rig("nvme,size=1M");
    let device = rig.device(Pace::Immediate);
    let log = |driver: &mut Driver<'_, _>, page: u32| {
        driver
            .admin(&admin(admin_opcode::GET_LOG_PAGE, [0x7f_0000 | page, 0, 0, 0, 0, 0]))
            .unwrap();
        rig.get(0, 512)
    };
    let mut driver = rig.driver(&device, 16);
    driver.write(9, Iova(IOVA), 512).unwrap();
    driver.io(&block_command(io_opcode::READ, 2048, 1)).unwrap_err();
    let health = log(&mut driver, 2);
    // Commands that wrote; errors.
    assert_eq!((health[80], health[176]), (1, 1));
    assert_eq!(log(&mut driver, 1)[0], 1);
    for reset in [false, true] {
        if reset {
            device.reset();
        }
        // A driver begins with a reset of the controller's own.
        let mut driver = rig.driver(&device, 16);
        assert_eq!(log(&mut driver, 2), health);
        assert_eq!(log(&mut driver, 1), [0; 512], "entries go");
    }
    let mut driver = rig.driver(&device, 16);
    driver.io(&block_command(io_opcode::READ, 2048, 1)).unwrap_err();
    assert_eq!(log(&mut driver, 1)[0], 2, "numbers go on");
}

#[test]
fn registers_are_read_in_any_part() {
    let rig = rig("nvme");
    let device = rig.device(Pace::Immediate);
    let capabilities = device.read_u64(REGISTERS_BAR, register::CAP).unwrap();
    assert_eq!(capabilities & 0xffff, 1023);
    assert_eq!(capabilities >> 37 & 1, 1, "the NVM command set");
    for (offset, byte) in (0..8).zip(capabilities.to_le_bytes()) {
        let mut part = [0];
        device.read(REGISTERS_BAR, offset, &mut part).unwrap();
        assert_eq!(part, [byte]);
    }
    assert_eq!(device.read_u32(REGISTERS_BAR, 4), Ok((capabilities >> 32) as u32));
    assert_eq!(device.read_u32(REGISTERS_BAR, register::VS), Ok(0x1_0400));
    // Two registers by one access, as by two.
    device.write_u64(REGISTERS_BAR, register::INTMC, 1 << 52).unwrap();
    assert_eq!(device.read_u32(REGISTERS_BAR, register::CC), Ok(1 << 20));
    device.write(REGISTERS_BAR, register::CC, &[0]).unwrap();
    assert_eq!(device.read_u32(REGISTERS_BAR, register::CC), Ok(1 << 20), "bytes are not written");
    let mut class = [0; 3];
    device.read(CONFIG_REGION, 9, &mut class).unwrap();
    assert_eq!(class, [0x02, 0x08, 0x01]);
}
