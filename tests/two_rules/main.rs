// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Promise: if a request breaks two rules, the one that the kernel looks at first answers it: its
//! errno, and its error here.
//!
//! Each module states the rules of some ioctls in the order of `docs/type1.md`, with the knobs that
//! break them. Every rule is broken alone and every two together, unless both turn one knob.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod dirty;
mod files;
mod map;
mod unmap;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::bytes::{Door, Place, Refusal};
use vfio_type1::{Errno, Kernel, Process};

/// What a rule is broken by. Unless it is turned, everything is as a request needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Knob {
    /// 0: the container has no driver.
    Driver,
    /// The type of the container; or the type asked for.
    Type,
    /// How many bytes of the argument there are, or [`READ_ONLY`].
    Bytes,
    Argsz,
    Flags,
    Iova,
    Vaddr,
    Size,
    BitmapPage,
    BitmapBytes,
    BitmapData,
    /// What is mapped; each module has its own numbers.
    Mapped,
    /// 0: tracking is off, 1: it is on.
    Tracking,
    /// 1: all mappings that the limit allows are in use.
    Full,
    /// 1: no page may be locked.
    Memlock,
    /// The allocation to fail, counted from the request on.
    Allocation,
    /// 1: an emulated group is in the container.
    Emulated,
    /// The descriptor given to SET_CONTAINER.
    Fd,
    /// Where the group is.
    Member,
    /// 1: the group has no IOMMU.
    NoIommu,
    /// 1: a device of the group belongs to a kernel driver.
    Owned,
    /// 1: the firmware uses memory through a device of the group.
    Direct,
    /// The last address of a region that is reserved from 0 on.
    Reserved,
    /// Address bits of the group's IOMMU.
    Width,
    /// 0: the MSIs of the group's devices are not isolated.
    MsiIsolated,
    /// 0: CAP_SYS_RAWIO is missing.
    RawIo,
    /// The name given to GET_DEVICE_FD.
    Name,
}

/// The argument lies in memory that can only be read.
const READ_ONLY: u64 = u64::MAX;
/// So long that every range wraps around.
const WRAPS: u64 = 0u64.wrapping_sub(0x1000);
/// An address where the caller has no memory.
const NOWHERE: u64 = 0x5000_0000_0000;

/// So that tables of rules are short enough to be read.
mod errno {
    use vfio_type1::Errno;

    pub(crate) const ENOENT: Errno = Errno::ENOENT;
    pub(crate) const EIO: Errno = Errno::EIO;
    pub(crate) const EBADF: Errno = Errno::EBADF;
    pub(crate) const ENOMEM: Errno = Errno::ENOMEM;
    pub(crate) const EACCES: Errno = Errno::EACCES;
    pub(crate) const EFAULT: Errno = Errno::EFAULT;
    pub(crate) const EBUSY: Errno = Errno::EBUSY;
    pub(crate) const EEXIST: Errno = Errno::EEXIST;
    pub(crate) const ENODEV: Errno = Errno::ENODEV;
    pub(crate) const EINVAL: Errno = Errno::EINVAL;
    pub(crate) const ENOTTY: Errno = Errno::ENOTTY;
    pub(crate) const ENOSPC: Errno = Errno::ENOSPC;
    pub(crate) const EOVERFLOW: Errno = Errno::EOVERFLOW;
    pub(crate) const EBADFD: Errno = Errno::EBADFD;
    pub(crate) const EPERM: Errno = Errno::EPERM;
}

#[derive(Clone, Debug, Default)]
struct Settings(BTreeMap<Knob, u64>);

impl Settings {
    fn get(&self, knob: Knob) -> Option<u64> {
        self.0.get(&knob).copied()
    }

    fn or(&self, knob: Knob, default: u64) -> u64 {
        self.get(knob).unwrap_or(default)
    }

    fn is(&self, knob: Knob, value: u64) -> bool {
        self.get(knob) == Some(value)
    }

    /// `None` if both turn a knob, to different values.
    fn of(one: &Rule, other: &Rule) -> Option<Self> {
        let mut settings = Self::default();
        for (knob, value) in one.breaks.iter().chain(&other.breaks) {
            if *settings.0.entry(*knob).or_insert(*value) != *value {
                return None;
            }
        }
        Some(settings)
    }
}

/// A rule, and what breaks it.
#[derive(Debug)]
struct Rule {
    /// Its place in the order. The documents leave open which of two rules at one step comes first.
    step: u32,
    /// The error's variant.
    name: &'static str,
    errno: Errno,
    breaks: Vec<(Knob, u64)>,
}

fn rule(step: u32, name: &'static str, errno: Errno, breaks: &[(Knob, u64)]) -> Rule {
    Rule { step, name, errno, breaks: breaks.to_vec() }
}

impl Rule {
    fn is_broken(&self, settings: &Settings) -> bool {
        self.breaks.iter().all(|(knob, value)| settings.is(*knob, *value))
    }
}

/// The variant of the innermost error: `Pin` of `Map(Pin { .. })`. Why a group cannot be attached
/// stands in a field.
fn variant(refusal: &Refusal) -> &str {
    let text = refusal.rule.as_str();
    let error = match text.split_once("error: ") {
        Some((outer, inner)) if outer.contains("Attach {") => inner,
        _ => text,
    };
    let end = error.find(|c: char| !c.is_ascii_alphanumeric() && c != '(');
    let path = &error[..end.unwrap_or(error.len())];
    path.split('(').rfind(|word| !word.is_empty()).unwrap_or_default()
}

/// Breaks each rule alone and every two together. Returns how many pairs were broken.
fn check(
    kernel: Kernel,
    rules: &[Rule],
    issue: fn(Kernel, &Settings) -> Result<i32, Refusal>,
) -> usize {
    let mut pairs = 0;
    for (place, one) in rules.iter().enumerate() {
        for other in &rules[place..] {
            let Some(settings) = Settings::of(one, other) else { continue };
            let broken: Vec<&Rule> =
                rules.iter().filter(|rule| rule.is_broken(&settings)).collect();
            let first = broken.iter().map(|rule| rule.step).min().unwrap();
            let context = format!("{kernel}: {one:?} and {other:?}");
            let Err(refusal) = issue(kernel, &settings) else { panic!("{context} go through") };
            let answers = (variant(&refusal), refusal.errno);
            let mut wins = broken.iter().filter(|rule| rule.step == first);
            assert!(
                wins.any(|rule| (rule.name, rule.errno) == answers),
                "{answers:?} is not the first of {broken:#?}\n{context}\n{refusal:?}"
            );
            pairs += 1;
        }
    }
    pairs
}

/// Issues a request where and by whom the settings want it.
fn issue(mut door: Door, settings: &Settings, command: u32, bytes: &[u8]) -> Result<i32, Refusal> {
    if settings.is(Knob::Memlock, 1) {
        // Another process than the one that made the mappings, as only that one can be too poor to
        // take them over.
        door.rig.process = Process::new(Arc::clone(&door.memory) as Arc<_>);
        door.rig.process.set_memlock(0);
        door.rig.process.set_cap_ipc_lock(false);
    }
    if let Some(nth) = settings.get(Knob::Allocation) {
        door.rig.vfio.inject(format!("allocation:{nth}").parse().unwrap());
    }
    let place = match settings.get(Knob::Bytes) {
        Some(READ_ONLY) => Place::ReadOnly,
        Some(_) => Place::AtEnd,
        None => Place::Inside,
    };
    let length = usize::try_from(settings.or(Knob::Bytes, READ_ONLY)).unwrap();
    door.call(command, place, &bytes[..length.min(bytes.len())]).result
}

/// What a field of 32 bits is set to.
fn low(settings: &Settings, knob: Knob, default: u32) -> u32 {
    u32::try_from(settings.or(knob, u64::from(default))).unwrap()
}
