// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The calls of this process, written down as the lines of a recording (`vfio-sim/TRACES.md`).
//!
//! The process's memory is written down as far as calls name it: what is there is found out before each such
//! call. What devices did wrong stands between the calls, as remarks. `vfio-sim run` puts a header
//! in front when the program has ended, however it ended: each line is written at once.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use vfio_sim::run::line::{self, Line};
use vfio_sim::trace::MemoryKind;
use vfio_type1::abi::command;
use vfio_type1::{Access, Memory as _, Vaddr, VaddrRange};

use crate::calls::Answer;
use crate::guard::PAGE;
use crate::memory::ProcessMemory;
use crate::own::{self, Kept};
use crate::world::World;

/// The name of a file in the recording. If it was opened, it is closed there when this goes.
#[derive(Debug)]
pub(crate) struct Name {
    number: u64,
    open: bool,
}

impl Name {
    /// One that no other file has.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { number: LAST.fetch_add(1, Ordering::Relaxed) + 1, open: false }
    }

    /// The same, of a file that is open now.
    pub(crate) fn opened(mut self) -> Self {
        self.open = true;
        self
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.number)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let tape = World::get().and_then(|world| world.tape.as_ref());
        if let Some(tape) = tape.filter(|_| self.open) {
            tape.write(Line::Close(self), Ok(0));
        }
    }
}

/// The file that calls are written to.
#[derive(Debug)]
pub(crate) struct Tape {
    file: Kept,
    /// The memory that the lines so far describe: from, the first address behind it, and what it is.
    known: Mutex<BTreeMap<u64, (u64, MemoryKind)>>,
    /// Held from before a call until it is written: calls are written in the order in which they are made.
    order: Mutex<()>,
}

impl Tape {
    /// A file of this process's own in a directory.
    pub(crate) fn start(directory: &Path) -> io::Result<Self> {
        static ORDER: AtomicU64 = AtomicU64::new(0);
        let order = ORDER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{}-{order}", std::process::id()));
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let file = own::copy(&file)?;
        Ok(Self { file, known: Mutex::default(), order: Mutex::default() })
    }

    /// Makes a call and writes it down.
    pub(crate) fn call(&self, call: Line<'_>, make: impl FnOnce() -> Answer) -> Answer {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = make();
        self.write(call, answer);
        answer
    }

    /// Makes an ioctl and writes it down, with its argument before and after.
    pub(crate) fn ioctl(
        &self,
        world: &World,
        file: &Name,
        (command, arg): (u32, u64),
        make: impl FnOnce() -> Answer,
    ) -> Answer {
        let memory = &*world.memory;
        let Some(before) = argument(memory, command, arg) else {
            return self.call(Line::IoctlValue(file, command, arg), make);
        };
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = named(command, &before) {
            self.memory(memory, at, bytes);
        }
        let answer = make();
        let after = read(memory, arg, before.len());
        self.write(Line::Ioctl(file, command, &before, &after), answer);
        self.notes(world);
        answer
    }

    /// Writes a call and its answer.
    pub(crate) fn write(&self, call: Line<'_>, answer: Answer) {
        let (value, errno) = match answer {
            Ok(value) => (value, 0),
            Err(errno) => (-1, errno.0),
        };
        self.line(&format!("{}\n", call.answered(value, errno)));
    }

    /// Writes a remark.
    pub(crate) fn remark(&self, text: impl Display) {
        self.line(&format!("{}\n", line::remark(&text.to_string())));
    }

    fn line(&self, line: &str) {
        // A disk that is full ends the recording, not the program.
        let _ = rustix::io::write(&self.file, line.as_bytes());
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, MemoryKind)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what memory is in a range, as far as that is not known.
    pub(crate) fn memory(&self, memory: &ProcessMemory, at: u64, bytes: u64) {
        let first = at & !(PAGE - 1);
        let end = at.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE));
        let Some(end) = end.filter(|end| first < *end) else { return };
        let mut at = first;
        while at < end {
            let (next, kind) = run(memory, at, end);
            self.note(at, next, kind);
            // Nobody looks behind the first page that is not there.
            if kind.is_none() {
                return;
            }
            at = next;
        }
    }

    /// Whether the lines so far describe memory in a range.
    pub(crate) fn knows(&self, range: &VaddrRange) -> bool {
        let end = range.last().0.saturating_add(1);
        !covers(&self.known(), range.first().0, end, None)
    }

    /// Memory is about to go, or other pages are in its place.
    pub(crate) fn gone(&self, range: &VaddrRange) {
        let first = range.first().0;
        if let Some(end) = range.last().0.checked_add(1) {
            self.note(first, end, None);
        }
    }

    fn note(&self, first: u64, end: u64, kind: Option<MemoryKind>) {
        let mut known = self.known();
        if covers(&known, first, end, kind) {
            return;
        }
        cut(&mut known, first, end);
        if let Some(kind) = kind {
            known.insert(first, (end, kind));
        }
        drop(known);
        if let Ok(range) = VaddrRange::from_size(Vaddr(first), end - first) {
            self.line(&format!("{}\n", line::memory(range, kind)));
        }
    }

    /// What devices did wrong since the last time.
    pub(crate) fn notes(&self, world: &World) {
        for fault in world.vfio.take_faults().kept {
            self.remark(format_args!("{} {fault}", line::FAULT));
        }
        for finding in world.vfio.take_findings().kept {
            self.remark(format_args!("{} {finding}", line::MISTAKE));
        }
    }
}

/// How far memory is alike from `at` on, up to `end`.
fn run(memory: &ProcessMemory, at: u64, end: u64) -> (u64, Option<MemoryKind>) {
    let Some(range) = VaddrRange::new(Vaddr(at), Vaddr(end - 1)) else { return (end, None) };
    let kinds = [(Access::ReadWrite, MemoryKind::ReadWrite), (Access::Read, MemoryKind::ReadOnly)];
    for (access, kind) in kinds {
        if let Ok(pinned) = memory.pin(range, access) {
            let kind = if pinned.charged { kind } else { MemoryKind::Bar };
            return ((pinned.last.0 + 1).min(end), Some(kind));
        }
    }
    (at + PAGE, None)
}

/// Whether all of a range is known to be so.
fn covers(
    known: &BTreeMap<u64, (u64, MemoryKind)>,
    first: u64,
    end: u64,
    kind: Option<MemoryKind>,
) -> bool {
    let overlaps = |&(from, (to, _)): &(&u64, &(u64, MemoryKind))| *from < end && *to > first;
    let mut parts = known.range(..end).rev().take_while(overlaps).collect::<Vec<_>>();
    let Some(kind) = kind else { return parts.is_empty() };
    parts.reverse();
    let mut at = first;
    for (from, (to, is)) in parts {
        if *from > at || *is != kind {
            return false;
        }
        at = *to;
    }
    at >= end
}

/// Takes a range out of what is known.
fn cut(known: &mut BTreeMap<u64, (u64, MemoryKind)>, first: u64, end: u64) {
    let parts = known.range(..end).rev().take_while(|(_, (to, _))| *to > first);
    let parts: Vec<_> = parts.map(|(from, (to, can))| (*from, *to, *can)).collect();
    for (from, to, can) in parts {
        known.remove(&from);
        if from < first {
            known.insert(from, (first, can));
        }
        if to > end {
            known.insert(end, (to, can));
        }
    }
}

/// The bytes of an ioctl's argument, as far as they can be read; `None` if it is a number.
pub(crate) fn argument(memory: &ProcessMemory, command: u32, arg: u64) -> Option<Vec<u8>> {
    /// What is written down of an argument that claims to be longer than any is.
    const LONGEST: usize = 4096;
    let least = match command {
        command::IOMMU_MAP_DMA => 32,
        command::IOMMU_UNMAP_DMA => 24,
        command::IOMMU_GET_INFO => 16,
        command::IOMMU_DIRTY_PAGES | command::GROUP_GET_STATUS => 8,
        // All of iommufd's own begin with their size.
        command::IOMMU_DESTROY.. if command & !0xff == command::IOMMU_DESTROY & !0xff => 8,
        _ => return None,
    };
    let mut argsz = [0; 4];
    let stated = memory.read(Vaddr(arg), &mut argsz).map_or(0, |()| u32::from_le_bytes(argsz));
    let length = usize::try_from(stated).unwrap_or(LONGEST).clamp(least, LONGEST);
    Some(read(memory, arg, length))
}

/// As many bytes as can be read.
pub(crate) fn read(memory: &ProcessMemory, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Err(fault) = memory.read(Vaddr(at), &mut bytes) {
        bytes.truncate(usize::try_from(fault.at.0.saturating_sub(at)).unwrap_or(0));
    }
    bytes
}

/// A name that a program hands over, as one word.
pub(crate) fn text(memory: &ProcessMemory, at: u64) -> String {
    let bytes = read(memory, at, 256);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).replace(char::is_whitespace, "_")
}

/// The memory that a request names, beside its own bytes: address and length.
pub(crate) fn named(command: u32, request: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| request.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    match command {
        command::IOMMU_MAP_DMA => Some((word(8)?, word(24)?)),
        command::IOAS_MAP => Some((word(16)?, word(24)?)),
        // Where the ranges go.
        command::IOAS_IOVA_RANGES => Some((word(16)?, (word(8)? & 0xffff_ffff) * 16)),
        // Where the kernel tells of the IOMMU.
        command::GET_HW_INFO => Some((word(16)?, word(12)? & 0xffff_ffff)),
        // The bitmap, if there is one.
        command::IOMMU_UNMAP_DMA | command::IOMMU_DIRTY_PAGES => Some((word(40)?, word(32)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: MemoryKind = MemoryKind::ReadWrite;
    const RO: MemoryKind = MemoryKind::ReadOnly;

    #[test]
    fn what_is_known_of_memory_is_cut_and_covered() {
        let mut known = BTreeMap::from([(0x1000, (0x5000, RW)), (0x5000, (0x6000, RO))]);
        assert!(covers(&known, 0x2000, 0x5000, Some(RW)));
        assert!(!covers(&known, 0x2000, 0x6000, Some(RW)));
        assert!(covers(&known, 0x6000, 0x9000, None));
        assert!(!covers(&known, 0x5000, 0x9000, None));
        cut(&mut known, 0x2000, 0x3000);
        let left = [(0x1000, (0x2000, RW)), (0x3000, (0x5000, RW)), (0x5000, (0x6000, RO))];
        assert_eq!(known, BTreeMap::from(left));
        cut(&mut known, 0, u64::MAX);
        assert!(known.is_empty());
    }
}
