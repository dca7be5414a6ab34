// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scripts of random calls, biased to where rules change: the borders of valid ranges, wrap-around,
//! alignment, `argsz`, flags, overlaps, bad addresses, groups that leave and come back.
//!
//! The same header, devices and seed give the same script. What a kernel answers by the shape of a tree
//! of its own is left out (see `Limits`): there is nothing to hold an emulator against.
//!
//! This module decides which call comes next and keeps a rough idea of what is mapped and attached, so
//! that calls are often near something. `edges` asks the emulator where the borders are, `request` makes
//! up the arguments, `rng` the numbers.

mod edges;
mod request;
mod rng;

use std::fmt::Write as _;

use vfio_type1::abi::command;

use crate::trace::Trace;
use edges::{edges, is_assignable};
use request::{Limits, Requests};
use rng::Rng;

/// What a random script is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The same seed gives the same script.
    pub seed: u64,
    /// How many calls it has, at least; a few more end what the last one began.
    pub calls: usize,
    /// The kernel is made to write past the end of memory, too. What it has written by then depends on
    /// the processor: on x86-64 all bytes up to the end, on arm64 whole words.
    pub torn_writes: bool,
}

/// Where a script's own memory is, and how much.
const WRITABLE: (u64, u64) = (0x1000_0000_0000, 0x100_0000);
const READ_ONLY: (u64, u64) = (0x2000_0000_0000, 0x10_0000);

/// The header lines for the memory of random scripts.
pub fn memory() -> String {
    let ((rw, rw_size), (ro, ro_size)) = (WRITABLE, READ_ONLY);
    format!("# memory rw {rw:x} {rw_size:x}\n# memory ro {ro:x} {ro_size:x}\n")
}

/// The calls of a random script for the host of `header`, a line each, and `# end`.
///
/// The script opens the groups of `devices`, which must be bound to a VFIO driver.
pub fn script(header: &Trace, devices: &[String], options: &Options) -> String {
    let mut rng = Rng::new(options.seed);
    let limits = Limits::of(&header.kernel, options);
    let kind = if limits.ordered_unmap && rng.one_in(3) { 1 } else { 3 };
    let groups = pick_groups(header, devices, &mut rng);
    let requests = Requests::new(edges(header, devices), limits);
    let state = Groups { kind, groups, device: None };
    let mut script = Script { rng, requests, state, calls: 0, text: String::new() };
    script.begin(options.seed);
    while script.calls < options.calls {
        script.step();
    }
    script.text + "# end\n"
}

/// A group of the script.
struct Group {
    /// What the script calls its file.
    name: String,
    device: String,
    /// Its file is open.
    open: bool,
    /// It was last told to join the container.
    inside: bool,
}

/// The groups, as far as the script knows.
struct Groups {
    /// The argument of `VFIO_SET_IOMMU`.
    kind: u32,
    groups: Vec<Group>,
    /// The group whose device is open.
    device: Option<usize>,
}

/// One to three groups, in any order. Two devices may be in the same one, which then cannot be opened twice.
fn pick_groups(header: &Trace, devices: &[String], rng: &mut Rng) -> Vec<Group> {
    let assignable = |device: &&String| is_assignable(header, device);
    // Without a group inside, a container answers little.
    let mut left: Vec<&String> =
        devices.iter().filter(|device| assignable(device) || rng.one_in(4)).collect();
    if !left.iter().any(assignable) {
        left = devices.iter().collect();
    }
    let mut groups: Vec<Group> = Vec::new();
    for _ in 0..rng.between(1, 3) {
        if left.is_empty() {
            break;
        }
        let device = left.swap_remove(rng.below(left.len()));
        let number = |name: &str| header.host.device(name).map(|(group, _)| group.number);
        if !rng.one_in(8) {
            left.retain(|other| number(other) != number(device));
        }
        let name = format!("g{}", groups.len());
        groups.push(Group { name, device: device.clone(), open: false, inside: false });
    }
    groups
}

struct Script {
    rng: Rng,
    requests: Requests,
    state: Groups,
    calls: usize,
    text: String,
}

impl Script {
    /// Writes a call.
    fn call(&mut self, line: &str) {
        self.calls += 1;
        let _ = writeln!(self.text, "{line}");
    }

    fn ioctl(&mut self, file: &str, command: u32, bytes: &[u8]) {
        let mut line = format!("ioctl {file} {command:x} ");
        for byte in bytes {
            let _ = write!(line, "{byte:02x}");
        }
        self.call(&line);
    }

    /// Opens everything; some scripts first set the IOMMU and then add the other groups.
    fn begin(&mut self, seed: u64) {
        self.call("container c");
        if self.requests.limits.counts_pages && seed % 8 == 7 {
            self.call("nocaplock");
            self.memlock();
        }
        let later = self.rng.one_in(2);
        for group in 0..self.state.groups.len() {
            self.join(group);
            if group == 0 && later {
                self.set_iommu();
            }
        }
        self.set_iommu();
    }

    /// A call, or several that belong together.
    fn step(&mut self) {
        match self.rng.below(1000) {
            0..380 => self.map(),
            380..640 => self.unmap(),
            640..690 => self.unmap_with_bitmap(),
            690..760 => self.dirty_bitmap(),
            760..800 => self.dirty_switch(),
            800..870 => self.info(),
            870..900 => self.extension(),
            900..920 => self.unusual(),
            920..960 => self.leave_or_return(),
            960..975 => self.status(),
            975..980 => self.reopen_group(),
            980..983 => self.reopen_container(),
            983..986 => self.device(),
            986..990 => self.sysfs(),
            990..993 if self.text.contains("nocaplock") => self.memlock(),
            _ => self.come_back(),
        }
    }

    fn map(&mut self) {
        let bytes = self.requests.map(&mut self.rng);
        self.ioctl("c", command::IOMMU_MAP_DMA, &bytes);
    }

    fn unmap(&mut self) {
        let bytes = self.requests.unmap(&mut self.rng);
        self.ioctl("c", command::IOMMU_UNMAP_DMA, &bytes);
    }

    fn unmap_with_bitmap(&mut self) {
        if !self.requests.limits.ordered_unmap {
            return self.unmap();
        }
        let bytes = self.requests.unmap_with_bitmap(&mut self.rng);
        self.around_bitmap(|script| script.ioctl("c", command::IOMMU_UNMAP_DMA, &bytes));
    }

    fn dirty_bitmap(&mut self) {
        let bytes = self.requests.dirty_bitmap(&mut self.rng);
        self.around_bitmap(|script| script.ioctl("c", command::IOMMU_DIRTY_PAGES, &bytes));
    }

    /// Fills the memory of the bitmap before a call and reads it back.
    fn around_bitmap(&mut self, call: impl FnOnce(&mut Self)) {
        self.call(&format!("poke {:x} 100 ee", request::BITMAP));
        call(self);
        self.call(&format!("peek {:x} 40", request::BITMAP));
    }

    fn dirty_switch(&mut self) {
        let bytes = self.requests.dirty_switch(&mut self.rng);
        self.ioctl("c", command::IOMMU_DIRTY_PAGES, &bytes);
    }

    fn info(&mut self) {
        let bytes = self.requests.info(&mut self.rng);
        self.ioctl("c", command::IOMMU_GET_INFO, &bytes);
    }

    fn extension(&mut self) {
        let id = if self.rng.one_in(20) { 1 << 32 | 1 } else { self.rng.below(14) as u64 };
        self.call(&format!("ioctlv c {:x} {id:x}", command::CHECK_EXTENSION));
    }

    /// Calls that programs do not make.
    fn unusual(&mut self) {
        match self.rng.below(8) {
            0 => self.call(&format!("ioctlv c {:x} 0", command::GET_API_VERSION)),
            // Unknown to type1, SPAPR's, a terminal's, and MAP with a direction.
            1 => {
                let odd = [0x3b76, 0x3b73, 0x5401, 0x4000_3b71][self.rng.below(4)];
                self.call(&format!("ioctlv c {odd:x} 0"));
            }
            // A container's, none at all, and GET_STATUS at address 0.
            2 => {
                let odd = [0x3b70, 0x3b76, 0x3b67][self.rng.below(3)];
                self.call(&format!("ioctlv g0 {odd:x} 0"));
            }
            3 | 4 => {
                // Those that no driver here answers to, and so never set one.
                let kind = [0_u64, 2, 5, 7, 8, 9, 10, 99, 1 << 32 | 3][self.rng.below(9)];
                self.call(&format!("ioctlv c {:x} {kind:x}", command::SET_IOMMU));
            }
            // Into something that is no container, or is not open.
            5 => {
                let target = ["g0", "nothing"][self.rng.below(2)];
                self.call(&format!("setc g0 {target}"));
            }
            6 => self.unknown_device(),
            _ => self.second_container(),
        }
    }

    /// Asks a group for a device that it does not have.
    fn unknown_device(&mut self) {
        let Group { name, device, .. } = &self.state.groups[0];
        let last = self.state.groups.last().map_or(device, |last| &last.device);
        let odd = match self.rng.below(3) {
            0 => format!("{device}x"),
            1 if last != device => last.clone(),
            _ => "0000:7f:1f.7".to_owned(),
        };
        let line = format!("device unknown {name} {odd}");
        self.call(&line);
        self.call("close unknown");
    }

    /// Asks a group that is in a container to join another.
    fn second_container(&mut self) {
        let at = self.rng.below(self.state.groups.len());
        let Group { name, inside, .. } = &self.state.groups[at];
        if *inside {
            let line = format!("setc {name} other");
            self.call("container other");
            self.call(&line);
            self.call("close other");
        }
    }

    fn memlock(&mut self) {
        let pages = [0, 1, 15, 64, 512, 0x1000, 0x10000];
        let bytes = pages[self.rng.below(pages.len())] << 12 | [0, 0xfff][self.rng.below(2)];
        self.call(&format!("memlock {bytes:#x}"));
    }

    fn sysfs(&mut self) {
        let at = self.rng.below(self.state.groups.len());
        self.call(&format!("sysfs {}", self.state.groups[at].device));
    }

    fn status(&mut self) {
        let at = self.rng.below(self.state.groups.len());
        self.group_status(at);
    }

    fn group_status(&mut self, at: usize) {
        let bytes = self.requests.status(&mut self.rng);
        let name = self.state.groups[at].name.clone();
        self.ioctl(&name, command::GROUP_GET_STATUS, &bytes);
    }
}

/// Groups that come and go.
impl Script {
    fn attached(&self) -> bool {
        self.state.groups.iter().any(|group| group.inside)
    }

    fn set_iommu(&mut self) {
        self.call(&format!("ioctlv c {:x} {:x}", command::SET_IOMMU, self.state.kind));
    }

    /// Lets a group into the container, and opens it first where that is needed.
    fn join(&mut self, at: usize) {
        let Group { name, device, open, .. } = &self.state.groups[at];
        let (name, open_line) = (name.clone(), format!("group {name} {device}"));
        if !*open {
            self.call(&open_line);
        }
        self.call(&format!("setc {name} c"));
        let group = &mut self.state.groups[at];
        (group.open, group.inside) = (true, true);
    }

    /// Takes a group out. One whose device is open stays.
    fn leave(&mut self, at: usize) {
        let name = self.state.groups[at].name.clone();
        self.ioctl(&name, command::GROUP_UNSET_CONTAINER, &[]);
        if self.state.device != Some(at) {
            self.state.groups[at].inside = false;
        }
        self.forget_if_empty();
    }

    /// With the last group the mappings go.
    fn forget_if_empty(&mut self) {
        if !self.attached() {
            self.requests.mapped.clear();
        }
    }

    fn leave_or_return(&mut self) {
        let at = self.rng.below(self.state.groups.len());
        if self.state.groups[at].inside && self.rng.one_in(2) {
            self.leave(at);
        } else {
            self.return_to_container(at);
        }
        if self.rng.one_in(3) {
            self.group_status(at);
        }
    }

    fn return_to_container(&mut self, at: usize) {
        let was_empty = !self.attached();
        self.join(at);
        if was_empty || self.rng.one_in(10) {
            self.set_iommu();
        }
    }

    /// Lets the first group that is outside return.
    fn come_back(&mut self) {
        match self.state.groups.iter().position(|group| !group.inside) {
            Some(at) => self.return_to_container(at),
            None => self.map(),
        }
    }

    fn reopen_group(&mut self) {
        let at = self.rng.below(self.state.groups.len());
        if self.rng.one_in(4) {
            let line = format!("group again {}", self.state.groups[at].device);
            self.call(&line);
            return self.call("close again");
        }
        self.close_device();
        let line = format!("close {}", self.state.groups[at].name);
        self.call(&line);
        let group = &mut self.state.groups[at];
        (group.open, group.inside) = (false, false);
        self.forget_if_empty();
    }

    /// The old container lives on in its groups, so they have to leave it.
    fn reopen_container(&mut self) {
        self.call("close c");
        self.call("container c");
        self.close_device();
        for at in 0..self.state.groups.len() {
            self.leave(at);
        }
        for at in 0..self.state.groups.len() {
            self.return_to_container(at);
        }
    }

    /// Opens a device, or closes the open one.
    fn device(&mut self) {
        if self.state.device.is_some() {
            return self.close_device();
        }
        let at = self.rng.below(self.state.groups.len());
        let Group { name, device, inside, .. } = &self.state.groups[at];
        if *inside {
            let line = format!("device d {name} {device}");
            self.call(&line);
            self.state.device = Some(at);
        }
    }

    fn close_device(&mut self) {
        if self.state.device.take().is_some() {
            self.call("close d");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    fn options(seed: u64, calls: usize) -> Options {
        Options { seed, calls, torn_writes: true }
    }

    fn header(kernel: &str, iommu: &str) -> Trace {
        let text = format!(
            "{}# kernel {kernel}\n# iommu {iommu}\n\
             # group 1: 0000:00:03.0\n#   0x00000000fee00000 0x00000000feefffff msi\n\
             # group 2: 0000:00:04.0 0000:00:05.0\n#   0x00000000fee00000 0x00000000feefffff msi\n\
             # end\n",
            memory()
        );
        Trace::parse("test", &text).unwrap()
    }

    const VTD: &str = "vtd aperture 0 ffffffffffff pgsizes 40201000 coherent 0 isolated-msi 1";
    const AMD: &str =
        "amd aperture 0 ffffffffffffffff pgsizes fff7ffffff000 coherent 1 isolated-msi 1";

    fn devices() -> Vec<String> {
        ["0000:00:03.0", "0000:00:04.0", "0000:00:05.0"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_seed_gives_one_script_and_another_a_different_one() {
        let script = |seed| script(&header("6.12", VTD), &devices(), &options(seed, 500));
        assert_eq!(script(1), script(1));
        assert_ne!(script(1), script(2));
    }

    #[test]
    fn every_script_can_be_read() {
        for (seed, kernel) in (0..40).zip(["5.10", "6.1", "6.12", "7.2"].into_iter().cycle()) {
            let text = script(&header(kernel, AMD), &devices(), &options(seed, 300));
            let script = Trace::parse_script("random", &text).unwrap();
            assert!(script.calls.len() >= 300);
        }
    }

    /// The bytes of GET_INFO requests.
    fn info_requests(text: &str) -> Vec<Vec<u8>> {
        use crate::trace::Call;
        let script = Trace::parse_script("random", text).unwrap();
        let request = |recorded: &crate::trace::Recorded| match &recorded.call {
            Call::Ioctl(_, command::IOMMU_GET_INFO, bytes, _) => Some(script.bytes(bytes).to_vec()),
            _ => None,
        };
        script.calls.iter().filter_map(request).collect()
    }

    #[test]
    fn torn_writes_can_be_left_out() {
        let header = header("6.12", VTD);
        let torn = |torn_writes| {
            let options = Options { torn_writes, ..options(1, 4000) };
            let requests = info_requests(&script(&header, &devices(), &options));
            let cut = |bytes: &&Vec<u8>| match bytes.get(..4) {
                Some(argsz) => {
                    let argsz = u32::from_le_bytes(argsz.try_into().unwrap());
                    bytes.len() >= 0x10 && argsz as usize > bytes.len()
                }
                None => false,
            };
            requests.iter().filter(cut).count()
        };
        assert!(torn(true) > 0);
        assert_eq!(torn(false), 0);
    }

    /// Scripts that are refused everywhere, or nowhere, would test nothing.
    #[test]
    fn calls_of_each_kind_succeed_and_fail() {
        let header = header("6.12", VTD);
        let kinds = [command::IOMMU_MAP_DMA, command::IOMMU_UNMAP_DMA, command::IOMMU_DIRTY_PAGES];
        let mut counts = kinds.map(|kind| (kind, 0, 0));
        for seed in 0..20 {
            let text = script(&header, &devices(), &options(seed, 500));
            for (command, succeeded) in on_emulator(&header, &text) {
                for (_, good, bad) in counts.iter_mut().filter(|(kind, ..)| *kind == command) {
                    *(if succeeded { good } else { bad }) += 1;
                }
            }
        }
        for (kind, good, bad) in counts {
            let all = good + bad;
            assert!(good * 6 > all && bad * 6 > all, "{kind:x}: {good} good, {bad} bad");
        }
    }

    /// The ioctls of a script, and whether the emulator carries them out.
    fn on_emulator(header: &Trace, text: &str) -> Vec<(u32, bool)> {
        use crate::trace::Call;
        let mut script = Trace::parse_script("random", text).unwrap();
        (script.host, script.memory) = (header.host.clone(), header.memory.clone());
        let outcome = replay(&script, header.kernel).unwrap();
        let failed: Vec<usize> = outcome
            .differences
            .iter()
            .filter(|difference| difference.emulator.starts_with("-1"))
            .map(|difference| difference.line)
            .collect();
        let ioctl = |recorded: &crate::trace::Recorded| match recorded.call {
            Call::Ioctl(_, command, ..) => Some((command, !failed.contains(&recorded.line))),
            _ => None,
        };
        script.calls.iter().filter_map(ioctl).collect()
    }

    #[test]
    fn old_kernels_are_asked_nothing_that_depends_on_their_tree() {
        let header = header("5.10", AMD);
        for seed in 0..50 {
            let text = script(&header, &devices(), &options(seed, 400));
            assert!(!text.contains("ioctlv c 3b66 1\n"), "type 1");
            let script = Trace::parse_script("random", &text).unwrap();
            for recorded in &script.calls {
                let crate::trace::Call::Ioctl(_, number, ref bytes, _) = recorded.call else {
                    continue;
                };
                let bytes = script.bytes(bytes);
                let field = |at: usize| {
                    bytes.get(at..at + 8).map(|field| u64::from_le_bytes(field.try_into().unwrap()))
                };
                if number == command::IOMMU_MAP_DMA
                    && let (Some(iova), Some(size)) = (field(16), field(24))
                {
                    assert!(!request::touches_last_byte(iova, size), "{iova:x}+{size:x}");
                }
            }
        }
    }
}
