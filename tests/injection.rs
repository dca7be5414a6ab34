// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: the nth thing fails, the state is unchanged, the rest goes on; and the same plan gives the
//! same failures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod common;

use std::sync::Arc;

use common::{RAM, device_name, emulated, group, iommu, msi, process, vtd};
use vfio_type1::abi::command;
use vfio_type1::{
    Access, Allocation, Container, DirtyPages, FaultPlan, GroupId, Info, Injected, Iommu,
    IommuDriver, Iova, Kernel, MAX_INJECTED, MapDma, MappingInfo, NoType1, OpenDevice, OpenGroup,
    Point, Process, UnmapDma, UserBitmap, Vaddr, VaddrRange, Vfio, extension,
};

/// Where bitmaps and arguments of ioctls go.
const SCRATCH: u64 = RAM + (64 << 20);

/// A program with two groups behind different IOMMUs, and an emulated one.
struct Program {
    vfio: Vfio,
    process: Arc<Process>,
    container: Container,
    groups: Vec<OpenGroup>,
    mdev: Option<OpenDevice>,
}

/// What must be the same after a call that failed.
#[derive(Debug, PartialEq)]
struct State {
    groups: Vec<GroupId>,
    info: Result<Info, NoType1>,
    mappings: Vec<MappingInfo>,
    locked_pages: u64,
    /// Whether dirty tracking is on, as far as a program can tell.
    tracked: bool,
}

type Step = (&'static str, fn(&mut Program) -> Result<(), String>);

/// What the program does, in order. Every allocation of a kernel comes up.
const SCRIPT: [Step; 13] = [
    ("first group", |p| text(p.groups[0].set_container(&p.container, &p.process))),
    ("emulated group", |p| text(p.groups[2].set_container(&p.container, &p.process))),
    ("SET_IOMMU", |p| text(p.container.set_iommu(&p.process, extension::TYPE1V2))),
    ("MAP", |p| p.map(0x10_0000, RAM, 0x4000)),
    ("MAP of two runs", |p| p.map(0x20_0000, RAM + (1 << 30) - 0x2000, 0x4000)),
    ("pin_pages", |p| text(p.mdev().pin_pages(Iova(0x10_0000), 2, Access::ReadWrite))),
    ("START", |p| p.dirty(DirtyPages::Start)),
    ("second group", |p| text(p.groups[1].set_container(&p.container, &p.process))),
    ("MAP while tracking", |p| p.map(0x30_0000, RAM, 0x1000)),
    ("GET_BITMAP", |p| p.dirty(get_bitmap())),
    ("GET_INFO", |p| text(p.container.ioctl(&p.process, command::IOMMU_GET_INFO, SCRATCH))),
    ("second group leaves", |p| text(p.groups[1].unset_container())),
    ("UNMAP", |p| text(p.container.unmap(&p.process, &UnmapDma::new(0x20_0000, 0x4000)))),
];

fn get_bitmap() -> DirtyPages {
    let bitmap = UserBitmap::new(0x1000, 4, SCRATCH + 0x1000);
    DirtyPages::GetBitmap { iova: Iova(0x10_0000), size: 0x4000, bitmap }
}

fn text<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

impl Program {
    fn new(kernel: Kernel) -> Self {
        let other: Arc<dyn Iommu> = Arc::new(iommu(IommuDriver::AmdVi, 48));
        let groups = [group(&vtd(39), 1, vec![msi()]), group(&other, 2, vec![msi()]), emulated(3)];
        let vfio = Vfio::new(kernel, groups).unwrap();
        // A second area behind the first: a mapping across the seam is pinned in two runs.
        let memory = common::memory();
        memory.add(VaddrRange::from_size(Vaddr(RAM + (1 << 30)), 1 << 20).unwrap(), true).unwrap();
        memory.poke(Vaddr(SCRATCH), &[0, 1, 0, 0]).unwrap();
        let process = Process::new(memory);
        let open = |number| vfio.open_group(GroupId::Numbered(number), &process).unwrap();
        let groups = (1..=3).map(open).collect();
        Self { container: vfio.open_container(), process, groups, vfio, mdev: None }
    }

    fn map(&self, iova: u64, vaddr: u64, size: u64) -> Result<(), String> {
        let request = MapDma::new(iova, vaddr, size, Access::ReadWrite);
        text(self.container.map(&self.process, &request))
    }

    /// Kernels before 5.8 know no dirty tracking, so there is nothing to do.
    fn dirty(&self, request: DirtyPages) -> Result<(), String> {
        match self.vfio.kernel().behaviours().dirty_tracking {
            true => text(self.container.dirty_pages(&self.process, &request)),
            false => Ok(()),
        }
    }

    fn mdev(&mut self) -> &OpenDevice {
        self.mdev.get_or_insert_with(|| {
            let device = self.groups[2].open_device(&device_name(3), &self.process).unwrap();
            device.on_unmap(|unpinner, iova| unpinner.unpin(iova));
            device
        })
    }

    fn state(&self) -> State {
        assert_eq!(self.container.check_invariants(), Ok(()));
        let wrong_page = UserBitmap { page_size: 1 << 13, ..UserBitmap::new(1, 1 << 20, SCRATCH) };
        let (iova, size) = (Iova(0), 0x2000);
        let probe = DirtyPages::GetBitmap { iova, size, bitmap: wrong_page };
        let answer = self.container.dirty_pages(&self.process, &probe);
        State {
            groups: self.container.groups(),
            info: self.container.info(),
            mappings: self.container.mappings(),
            locked_pages: self.process.locked_pages(),
            tracked: text(answer).unwrap_err().contains("page size"),
        }
    }

    /// Runs the script; what fails is tried again at once. Returns the steps that failed.
    fn run(&mut self) -> Vec<&'static str> {
        let mut failed = Vec::new();
        for (name, step) in SCRIPT {
            let mut before = self.state();
            while let Err(error) = step(self) {
                assert!(error.contains("injected as "), "{name}: {error}");
                assert_eq!(self.state(), before, "{name}: {error}");
                failed.push(name);
                before = self.state();
            }
        }
        failed
    }
}

/// The state in which the script ends if nothing fails.
fn undisturbed(kernel: Kernel) -> State {
    let mut program = Program::new(kernel);
    assert_eq!(program.run(), Vec::<&str>::new());
    program.state()
}

/// Lets each passage of `point` fail, one a run, until there are no more. Returns what failed.
fn sweep(kernel: Kernel, point: Point) -> Vec<(Vec<&'static str>, Injected)> {
    let end = undisturbed(kernel);
    let one = |nth| {
        let mut program = Program::new(kernel);
        program.vfio.inject(FaultPlan::default().fail(point, nth, None).unwrap());
        let failed = program.run();
        let injected = program.vfio.injected().pop()?;
        assert_eq!((injected.point, injected.nth), (point, nth));
        let silent = failed.is_empty();
        match silent {
            true => assert!(injected.what.contains("IOVA list"), "{injected:?} failed nothing"),
            false => assert_eq!(program.state(), end, "{injected:?} in {failed:?}"),
        }
        Some((failed, injected))
    };
    (1..).map_while(one).collect()
}

#[test]
fn each_failure_leaves_the_state_as_it_was() {
    for kernel in Kernel::ALL {
        for point in Point::ALL {
            let failures = sweep(kernel, point);
            assert!(failures.iter().all(|(failed, _)| failed.len() <= 1), "{failures:?}");
            let count = failures.len();
            match point {
                Point::Map => assert_eq!(count, 3, "{kernel}"),
                // Two runs of the second mapping, two pages of the device.
                Point::Pin => assert_eq!(count, 6, "{kernel}"),
                Point::Allocation => assert!(count >= 15, "{kernel}: {count}"),
            }
        }
    }
}

#[test]
fn every_allocation_of_the_newest_kernel_is_swept() {
    let failures = sweep(Kernel::NEWEST, Point::Allocation);
    let failing = |step: &str| -> Vec<&str> {
        let failing = failures.iter().filter(|(failed, _)| failed[..] == [step]);
        failing.map(|(_, injected)| injected.what.strip_prefix("allocating ").unwrap()).collect()
    };
    let attach = ["the group", "an IOMMU domain", "the list of reserved regions"];
    let list = "the valid IOVA list";
    let set_iommu = [&["the state of the driver", "the group"], &attach[..], &[list]].concat();
    assert_eq!(failing("SET_IOMMU"), set_iommu);
    assert_eq!(failing("MAP"), ["the mapping", "IOMMU page tables"]);
    let two_runs = ["the mapping", "IOMMU page tables", "IOMMU page tables"];
    assert_eq!(failing("MAP of two runs"), two_runs);
    assert_eq!(failing("pin_pages"), ["a pinned page", "a pinned page"]);
    assert_eq!(failing("START"), ["a dirty bitmap", "a dirty bitmap"]);
    let tables = ["IOMMU page tables", "IOMMU page tables"];
    assert_eq!(failing("second group"), [&attach[..], &[list], &tables].concat());
    let tracking = [&["the mapping"], &tables[..], &["a dirty bitmap"]].concat();
    assert_eq!(failing("MAP while tracking"), tracking);
    assert_eq!(failing("GET_INFO"), ["the capability chain"]);
    let silent: Vec<_> = failures.iter().filter(|(failed, _)| failed.is_empty()).collect();
    assert_eq!(silent.len(), 1, "the detach that keeps its old list");
    let total = silent.len() + SCRIPT.iter().map(|(step, _)| failing(step).len()).sum::<usize>();
    assert_eq!(total, failures.len());
}

#[test]
fn the_same_plan_gives_the_same_failures() {
    let run = |plan: &FaultPlan| {
        let mut program = Program::new(Kernel::V7_3);
        program.vfio.inject(plan.clone());
        (program.run(), program.vfio.injected())
    };
    let seeded: FaultPlan = "seed:42/4".parse().unwrap();
    let (failed, injected) = run(&seeded);
    assert!(injected.len() > 5, "{injected:?}");
    assert_eq!(run(&seeded), (failed.clone(), injected.clone()));
    assert_ne!(run(&"seed:43/4".parse().unwrap()), (failed.clone(), injected.clone()));
    // What a seed has found is stated as a plan of its own, and as a shorter one.
    let stated: FaultPlan = injected.iter().collect();
    assert_eq!(run(&stated), (failed, injected.clone()));
    assert_eq!(stated.to_string().parse(), Ok(stated));
    let (last, all) = (injected.last().unwrap(), FaultPlan::default());
    let reduced: FaultPlan = last.to_string().parse().unwrap();
    assert_eq!(reduced, all.fail(last.point, last.nth, Some(last.errno)).unwrap());
}

#[test]
fn a_plan_takes_the_place_of_the_last_one() {
    let rig = common::Rig::plain(Kernel::V7_3);
    let plan = |text: &str| rig.vfio.inject(text.parse().unwrap());
    plan("map:1=ENOSPC,map:2=EINVAL,pin:1,pin:2=EOPNOTSUPP,allocation:3");
    let refused = || rig.map(0, 0x1000).unwrap_err();
    assert_eq!(refused().to_string(), "iova 0x0..0xfff is refused: ENOSPC, injected as map:1");
    assert_eq!(refused().errno(), vfio_type1::Errno::EINVAL);
    let pin = refused().to_string();
    assert_eq!(
        pin,
        format!(
            "iova 0x0..0xfff: the page at {} cannot be pinned: EFAULT, injected as pin:1",
            Vaddr(RAM)
        )
    );
    assert_eq!(refused().errno(), vfio_type1::Errno::EOPNOTSUPP);
    let memory = "iova 0x0..0xfff: no memory for the mapping; injected as allocation:3";
    assert_eq!(refused().to_string(), memory);
    rig.map(0, 0x1000).unwrap();
    assert_eq!(rig.vfio.injected().len(), 5);
    // A MAP that breaks a rule is not counted.
    plan("map:2");
    assert!(rig.map(0, 0x1000).is_err() && rig.map(0x800, 0x1000).is_err());
    rig.map(0x1000, 0x1000).unwrap();
    assert_eq!(rig.map(0x2000, 0x1000).unwrap_err().errno(), vfio_type1::Errno::ENOMEM);
    plan("");
    assert!(rig.vfio.injected().is_empty());
    rig.map(0x2000, 0x1000).unwrap();
    // The newest failures are kept.
    plan("seed:1/1@map");
    (0..MAX_INJECTED + 3).for_each(|_| assert!(rig.map(0x3000, 0x1000).is_err()));
    let injected = rig.vfio.injected();
    assert_eq!((injected.len(), injected[0].nth), (MAX_INJECTED, 4));
}

#[test]
fn up_to_6_1_a_domain_without_memory_is_an_io_error() {
    for (kernel, errno) in [(Kernel::V6_1, "EIO"), (Kernel::V6_12, "ENOMEM")] {
        let program = Program::new(kernel);
        program.groups[0].set_container(&program.container, &program.process).unwrap();
        program.vfio.inject("allocation:3".parse().unwrap());
        let refused = program.container.set_iommu(&process(), extension::TYPE1V2).unwrap_err();
        assert_eq!(refused.errno().to_string(), errno);
        assert!(refused.to_string().contains(&Allocation::Domain.to_string()), "{refused}");
    }
}
