// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of ioctls, with any bytes, by two processes: nothing panics, what must hold holds,
//! and a refused MAP changes nothing.

use std::sync::Arc;

use vfio_type1::abi::{GroupReply, command};
use vfio_type1::{
    Container, FaultPlan, FdTarget, GroupId, Kernel, OpenDevice, OpenGroup, Point, Process, Vaddr,
    Vfio, extension,
};

use crate::input::Input;
use crate::machine::{self, END, RAM, ROM};

/// More calls than this find nothing new.
const MAX_CALLS: usize = 200;

const COMMANDS: [u32; 13] = [
    command::IOMMU_MAP_DMA,
    command::IOMMU_UNMAP_DMA,
    command::IOMMU_DIRTY_PAGES,
    command::IOMMU_GET_INFO,
    command::SET_IOMMU,
    command::CHECK_EXTENSION,
    command::GET_API_VERSION,
    command::GROUP_GET_STATUS,
    command::GROUP_SET_CONTAINER,
    command::GROUP_UNSET_CONTAINER,
    command::GROUP_GET_DEVICE_FD,
    0x3b73,
    0x5401,
];

struct Machine {
    vfio: Vfio,
    processes: [Arc<Process>; 2],
    containers: [Container; 2],
    groups: [Option<OpenGroup>; 2],
    devices: Vec<OpenDevice>,
}

/// The target.
pub fn ioctl_bytes(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut machine) = Machine::new(&mut input) else { return };
    for _ in 0..MAX_CALLS {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
        for container in &machine.containers {
            assert_eq!(container.check_invariants(), Ok(()));
        }
    }
    drop(machine.devices);
    machine.groups = [None, None];
    let locked = machine.processes.map(|process| process.locked_pages());
    assert_eq!(locked, [0, 0], "what was charged goes with the mappings");
}

impl Machine {
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let kernel = input.pick(&Kernel::ALL);
        let (host, settings) = (input.byte(), input.byte());
        let vfio = Vfio::new(kernel, machine::host(host)).ok()?;
        vfio.set_noiommu(true);
        vfio.set_watch(settings & 1 != 0);
        if settings & 2 != 0 {
            vfio.set_dma_entry_limit(3);
        }
        let containers = [vfio.open_container(), vfio.open_container()];
        let processes = machine::processes();
        let mut machine =
            Self { vfio, processes, containers, groups: [None, None], devices: Vec::new() };
        if settings & 4 == 0 {
            machine.set_up(settings);
        }
        Some(machine)
    }

    /// What most programs begin with, so that short inputs get far.
    fn set_up(&mut self, settings: u8) {
        let count = if settings & 8 == 0 { 1 } else { 2 };
        for at in 0..count {
            self.open_or_close_group(at, 0);
            if let Some(group) = &self.groups[at] {
                let _ = group.set_container(&self.containers[0], &self.processes[0]);
            }
        }
        let kind = if settings & 16 == 0 { extension::TYPE1V2 } else { extension::TYPE1 };
        let _ = self.containers[0].set_iommu(&self.processes[0], kind);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let who = input.byte();
        let at = usize::from(who & 1);
        let caller = Arc::clone(&self.processes[usize::from(who >> 1 & 1)]);
        match input.byte() {
            0..=207 => self.container_ioctl(at, &caller, input),
            208..=231 => self.group_ioctl(at, &caller, input),
            232..=239 => self.open_or_close_group(at, usize::from(who >> 1 & 1)),
            240..=247 => drop(self.devices.pop()),
            _ => self.inject(input),
        }
    }

    fn container_ioctl(&mut self, at: usize, caller: &Arc<Process>, input: &mut Input<'_>) {
        // The second container is seldom the one in use.
        let container = &self.containers[usize::from(input.byte() > 223 && at == 1)];
        let command = command(input);
        let arg = argument(caller, command, input);
        let state = || (container.mappings(), container.groups(), caller.locked_pages());
        let before = state();
        let result = container.ioctl(caller, command, arg);
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
            if command == command::IOMMU_MAP_DMA {
                assert_eq!(state(), before, "{error}");
            }
        }
    }

    fn group_ioctl(&mut self, at: usize, caller: &Process, input: &mut Input<'_>) {
        let command = command(input);
        let arg = argument(caller, command, input);
        let Some(group) = &self.groups[at] else { return };
        let containers = &self.containers;
        let resolve = |fd: i32| match fd {
            0 | 1 => FdTarget::Container(containers[usize::from(fd == 1)].clone()),
            2 => FdTarget::Other,
            _ => FdTarget::Closed,
        };
        match group.ioctl(caller, command, arg, resolve) {
            Ok(GroupReply::Device(device)) => self.devices.push(device),
            Ok(GroupReply::Done) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    fn open_or_close_group(&mut self, at: usize, process: usize) {
        if self.groups[at].take().is_some() {
            return;
        }
        let number = if at == 0 { 1 } else { 2 };
        let open = |id| self.vfio.open_group(id, &self.processes[process]).ok();
        let numbered = open(GroupId::Numbered(number));
        self.groups[at] = numbered.or_else(|| open(GroupId::NoIommu(number)));
    }

    fn inject(&self, input: &mut Input<'_>) {
        let (point, nth) = (input.pick(&Point::ALL), u64::from(input.byte()));
        self.vfio.inject(FaultPlan::default().fail(point, nth, None).unwrap_or_default());
    }
}

/// A command from the table, now and then any.
fn command(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        255 => input.u32(),
        choice => COMMANDS[usize::from(choice) % COMMANDS.len()],
    }
}

/// An argument: a number, or where the argument's bytes lie now.
fn argument(caller: &Process, command: u32, input: &mut Input<'_>) -> u64 {
    match command {
        command::SET_IOMMU | command::CHECK_EXTENSION => return u64::from(input.byte() % 12),
        command::GROUP_SET_CONTAINER => return put(caller, &[input.byte() % 4, 0, 0, 0], input),
        _ => {}
    }
    let bytes = match input.byte() {
        0..=7 => {
            let count = usize::from(input.byte() % 64);
            input.take(count).to_vec()
        }
        8..=15 => format!("{}\0", machine::device(u32::from(input.byte() % 4))).into_bytes(),
        words => {
            let argsz = input.pick(&[48u32, 32, 24, 128, 8, 16, 15, 0]).to_le_bytes();
            let flags = u32::from(input.byte() % 9).to_le_bytes();
            let words = (0..words % 6).flat_map(|_| input.word().to_le_bytes());
            [argsz.to_vec(), flags.to_vec(), words.collect()].concat()
        }
    };
    put(caller, &bytes, input)
}

/// Puts the argument's bytes somewhere and says where: mostly where memory ends behind them.
fn put(caller: &Process, bytes: &[u8], input: &mut Input<'_>) -> u64 {
    let at = match input.byte() {
        0..=191 => END - bytes.len() as u64,
        192..=223 => RAM,
        224..=239 => ROM,
        _ => input.word(),
    };
    // Memory that is not there or read-only stays as it is.
    let _ = caller.memory().write(Vaddr(at), bytes);
    at
}
