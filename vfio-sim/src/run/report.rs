// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process did, from the recording of its calls: what it mapped, what was refused and why, what it
//! did not notice, what it left behind.
//!
//! The recording is played on the emulator again, where each refusal has a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use vfio_type1::{Errno, IovaRange, Kernel, MappingInfo, Vaddr, VaddrRange};

use super::line::{FAULT, MISTAKE};
use super::mapping_call::MappingCall;
use crate::describe::call_in_words;
use crate::host::{BootError, Host};
use crate::machine::{Machine, Refused, Space};
use crate::trace::{Call, Recorded, Trace};

/// What a process did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// MAPs that were accepted.
    pub maps: u64,
    /// Their bytes.
    pub bytes: u64,
    /// UNMAPs that were accepted.
    pub unmaps: u64,
    /// The most mappings that were live at a time in one container or address space.
    pub peak: usize,
    /// The refusals, in the order in which they came first.
    pub refusals: Vec<Refusal>,
    /// Mappings whose memory went while they were live.
    pub stale: BTreeSet<IovaRange>,
    /// Faults of devices, and mistakes that the emulator saw, and how often.
    pub remarks: Vec<(String, u64)>,
    /// Mappings that were live at the end in open containers and iommufds, and their bytes.
    pub left: (usize, u64),
    /// Calls that the emulator answers otherwise than it did in the program: an error of its own.
    pub unlike: u64,
}

/// A call that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The call, the first time.
    pub call: String,
    /// What the kernel answers.
    pub errno: Errno,
    /// The rule that it broke.
    pub rule: String,
    /// How often it was broken.
    pub times: u64,
    /// How often the program went on mapping, but never mapped that memory.
    pub ignored: u64,
}

/// A MAP that was refused and has not been made good.
struct Pending {
    space: Space,
    vaddr: u64,
    refusal: usize,
    /// Whether other memory has been mapped since.
    went_on: bool,
}

struct Player<'a> {
    trace: &'a Trace,
    machine: Machine<'a>,
    report: Report,
    /// Places in `report.refusals`, by rule.
    known: BTreeMap<String, usize>,
    pending: Vec<Pending>,
    /// Memory that has been described so far, by its first address: what is new cannot have changed.
    described: BTreeMap<Vaddr, Vaddr>,
}

/// Plays the calls of a process on its host.
pub fn report(trace: &Trace, host: &Host, kernel: Kernel) -> Result<Report, BootError> {
    let machine = Machine::new(trace, host.boot(kernel)?);
    let mut player = Player {
        trace,
        machine,
        report: Report::default(),
        known: BTreeMap::new(),
        pending: Vec::new(),
        described: BTreeMap::new(),
    };
    trace.calls.iter().for_each(|recorded| player.play(recorded));
    Ok(player.finish())
}

impl Player<'_> {
    fn play(&mut self, recorded: &Recorded) {
        if let Call::SetMemory(range, _) = &recorded.call {
            self.memory_changes(range);
        }
        let answer = self.machine.call(&recorded.call);
        let errno = answer.as_ref().map_or_else(|refused| refused.errno.0, |_| 0);
        if errno != recorded.answer.errno {
            self.report.unlike += 1;
        }
        // Who asks for ranges learns first how many there are.
        let refused = answer.err().filter(|refused| refused.errno != Errno::EMSGSIZE);
        let refusal = refused.map(|refused| self.refused(recorded, &refused));
        if let Call::Ioctl(file, command, before, _) = &recorded.call {
            match (MappingCall::of(*command, self.trace.bytes(before)), refusal) {
                (Some(MappingCall::Map { ioas, vaddr, bytes }), refusal) => {
                    self.map(self.machine.space(*file, ioas), vaddr, bytes, refusal);
                }
                (Some(MappingCall::Unmap), None) => self.report.unmaps += 1,
                _ => {}
            }
        }
    }

    /// Memory goes, or is another one from now on.
    fn memory_changes(&mut self, range: &VaddrRange) {
        let below = self.described.range(..=range.last()).next_back();
        let is_new = below.is_none_or(|(_, last)| *last < range.first());
        let last = self.described.entry(range.first()).or_insert(range.last());
        *last = range.last().max(*last);
        if is_new {
            return;
        }
        let behind = |mapping: &MappingInfo| {
            let memory = mapping.iova.size().map(|size| VaddrRange::from_size(mapping.vaddr, size));
            memory.is_some_and(|memory| memory.is_ok_and(|memory| memory.overlaps(range)))
        };
        let stale = self.machine.mappings().into_iter().filter(behind);
        self.report.stale.extend(stale.map(|mapping| mapping.iova));
    }

    /// Notes a refusal, and returns its place in the report.
    fn refused(&mut self, recorded: &Recorded, refused: &Refused) -> usize {
        let rule = refused.rule.to_string();
        let refusals = &mut self.report.refusals;
        let at = *self.known.entry(rule.clone()).or_insert(refusals.len());
        if at == refusals.len() {
            let call = call_in_words(self.trace, &recorded.call);
            let errno = refused.errno;
            refusals.push(Refusal { call, errno, rule, times: 0, ignored: 0 });
        }
        refusals[at].times += 1;
        at
    }

    fn map(&mut self, space: Space, vaddr: u64, bytes: u64, refusal: Option<usize>) {
        if let Some(refusal) = refusal {
            self.pending.push(Pending { space, vaddr, refusal, went_on: false });
            return;
        }
        self.report.maps += 1;
        self.report.bytes = self.report.bytes.saturating_add(bytes);
        let serves = |pending: &Pending| pending.space.is_served_by(&space);
        self.pending.retain(|pending| pending.vaddr != vaddr || !serves(pending));
        self.pending.iter_mut().for_each(|pending| pending.went_on |= serves(pending));
        self.report.peak = self.report.peak.max(self.machine.mapping_count(space));
    }

    fn finish(mut self) -> Report {
        for pending in self.pending.iter().filter(|pending| pending.went_on) {
            self.report.refusals[pending.refusal].ignored += 1;
        }
        let mappings = self.machine.mappings();
        let sizes = mappings.iter().filter_map(|mapping| mapping.iova.size());
        self.report.left = (mappings.len(), sizes.fold(0, u64::saturating_add));
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut order = Vec::new();
        for (_, remark) in &self.trace.remarks {
            if remark.starts_with(FAULT) || remark.starts_with(MISTAKE) {
                let count = counts.entry(remark).or_insert_with(|| {
                    order.push(remark.as_str());
                    0
                });
                *count += 1;
            }
        }
        let remarks = order.into_iter().map(|remark| (remark.to_owned(), counts[remark]));
        self.report.remarks = remarks.collect();
        self.report
    }
}

/// How many lines of a kind are printed.
const SHOWN: usize = 10;

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { maps, bytes, unmaps, peak, .. } = self;
        let (maps, unmaps) = (Count(*maps, "MAP"), Count(*unmaps, "UNMAP"));
        let peak = Count(*peak as u64, "mapping");
        writeln!(f, "mapped {bytes:#x} bytes in {maps}, {unmaps}; at most {peak} at a time")?;
        for Refusal { call, errno, rule, times, ignored } in self.refusals.iter().take(SHOWN) {
            writeln!(f, "refused{}: {call}: {errno}: {rule}", Times(*times))?;
            if *ignored > 0 {
                let times = Times(*ignored);
                writeln!(f, "ignored{times}: the program went on, and never mapped that memory")?;
            }
        }
        more(f, self.refusals.len(), "refusals")?;
        for iova in self.stale.iter().take(SHOWN) {
            writeln!(f, "stale: the memory behind {iova} went while it was mapped; UNMAP first")?;
        }
        more(f, self.stale.len(), "stale mappings")?;
        for (remark, times) in self.remarks.iter().take(SHOWN) {
            writeln!(f, "{remark}{}", Times(*times))?;
        }
        more(f, self.remarks.len(), "faults and mistakes")?;
        if self.left.0 > 0 {
            let (count, bytes) = self.left;
            let count = Count(count as u64, "mapping");
            writeln!(
                f,
                "left: {count}, {bytes:#x} bytes, when the program ended; UNMAP and close"
            )?;
        }
        match self.unlike {
            0 => Ok(()),
            calls => writeln!(
                f,
                "unlike: {} got other answers when replayed: an error of vfio-sim; please report it",
                Count(calls, "call")
            ),
        }
    }
}

fn more(f: &mut fmt::Formatter<'_>, count: usize, what: &str) -> fmt::Result {
    match count.checked_sub(SHOWN) {
        Some(more) if more > 0 => writeln!(f, "and {more} more {what}"),
        _ => Ok(()),
    }
}

/// A number of things.
struct Count(u64, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

/// ` N times`, unless it was once.
struct Times(u64);

impl Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { Ok(()) } else { write!(f, " {} times", self.0) }
    }
}
