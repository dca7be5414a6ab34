// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a recording on the emulator and compares the answers.

use std::fmt::Write as _;
use std::sync::Arc;

use vfio_type1::abi::{GroupReply, command};
use vfio_type1::{
    Container, Errno, FdTarget, GroupId, HostError, Kernel, Memory as _, ModelMemory, OpenDevice,
    OpenGroup, Process, Vaddr, VaddrRange, Vfio,
};

use crate::host::Host;
use crate::trace::{Answer, Call, FileName, MAX_ARGUMENT, Recorded, TextRef, Trace};

/// Where the bytes of ioctl arguments end: what follows is not mapped, as in the recording
/// process. Far from the memory that recordings describe.
const ARGUMENT_END: u64 = 0x6f00_0000_0000;

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Calls made.
    pub calls: usize,
    /// Calls whose answer differs, in order.
    pub differences: Vec<Difference>,
    /// What the reader should know, such as a header that the recording itself contradicts.
    pub notes: Vec<String>,
}

/// A call that the emulator answers differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its line in the recording.
    pub line: usize,
    /// The call, decoded.
    pub call: String,
    /// What the kernel answered.
    pub kernel: String,
    /// What the emulator answered.
    pub emulator: String,
    /// The rule by which the emulator refused, if it did.
    pub rule: Option<String>,
}

/// Replays `trace` as `kernel`, on the host of its header.
///
/// A header can be wrong about MSI isolation, which no file of a running system states. If the
/// recording shows that the kernel refused a group for it (EPERM where this emulator attaches),
/// and believing that explains more of the recording, it is believed, and a note says so.
pub fn replay(trace: &Trace, kernel: Kernel) -> Result<Outcome, HostError> {
    let outcome = run(trace, &trace.host, kernel)?;
    let Some(line) = contradiction(trace, &outcome) else {
        return Ok(outcome);
    };
    let mut host = trace.host.clone();
    host.iommus.iter_mut().for_each(|iommu| iommu.isolated_msi = false);
    let mut corrected = run(trace, &host, kernel)?;
    if corrected.differences.len() >= outcome.differences.len() {
        return Ok(outcome);
    }
    corrected.notes.push(format!(
        "line {line}: the kernel refuses a group with EPERM, which only MSIs that are not isolated \
         explain; the header says isolated-msi 1; replayed with isolated-msi 0"
    ));
    Ok(corrected)
}

/// The line where the kernel attached no group for lack of MSI isolation although the header
/// claims it.
fn contradiction(trace: &Trace, outcome: &Outcome) -> Option<usize> {
    let claims = trace.host.iommus.iter().any(|iommu| iommu.isolated_msi);
    let first = outcome.differences.first().filter(|_| claims)?;
    let recorded = trace.calls.iter().find(|recorded| recorded.line == first.line)?;
    let attaches = match recorded.call {
        Call::SetContainer(..) => true,
        Call::IoctlValue(_, command, _) => command == command::SET_IOMMU,
        _ => false,
    };
    let refused = recorded.answer == Answer { value: -1, errno: Errno::EPERM.0 };
    (attaches && refused && first.rule.is_none()).then_some(first.line)
}

fn run(trace: &Trace, host: &Host, kernel: Kernel) -> Result<Outcome, HostError> {
    let mut machine = Machine::new(trace, host.boot(kernel)?);
    let mut outcome = Outcome::default();
    for recorded in &trace.calls {
        outcome.calls += 1;
        let got = machine.make(&recorded.call);
        if let Some(difference) = compare(trace, &machine, recorded, got) {
            outcome.differences.push(difference);
        }
    }
    Ok(outcome)
}

/// The recording process: its memory and its open files.
struct Machine<'a> {
    trace: &'a Trace,
    vfio: Vfio,
    memory: Arc<ModelMemory>,
    process: Arc<Process>,
    files: Vec<File>,
    /// The ioctl argument after the last call, or what was read.
    after: Vec<u8>,
}

enum File {
    Closed,
    Container(Container),
    Group(OpenGroup),
    Device(#[expect(dead_code, reason = "open for as long as it is held")] OpenDevice),
}

/// What the emulator answered: a value, or an errno and the rule behind it.
type Result1 = Result<i64, Refusal>;

struct Refusal {
    errno: Errno,
    rule: Box<dyn Fn() -> String>,
}

impl Refusal {
    fn new(errno: Errno, error: impl std::fmt::Display + 'static) -> Self {
        Self { errno, rule: Box::new(move || error.to_string()) }
    }
}

impl<'a> Machine<'a> {
    fn new(trace: &'a Trace, vfio: Vfio) -> Self {
        let memory = Arc::new(ModelMemory::new());
        // The parser has checked that the areas are apart.
        for area in &trace.memory {
            let _ = memory.add(area.range, area.writable);
        }
        let size = MAX_ARGUMENT as u64;
        if let Ok(range) = VaddrRange::from_size(Vaddr(ARGUMENT_END - size), size) {
            let _ = memory.add(range, true);
        }
        let process = Process::new(Arc::clone(&memory) as Arc<_>);
        let files = trace.files.iter().map(|_| File::Closed).collect();
        Self { trace, vfio, memory, process, files, after: Vec::new() }
    }

    fn make(&mut self, call: &Call) -> Result1 {
        self.after.clear();
        match call {
            Call::OpenContainer(file) => {
                self.files[*file] = File::Container(self.vfio.open_container());
                Ok(0)
            }
            Call::OpenGroup(file, device) => self.open_group(*file, *device),
            Call::OpenDevice(file, group, name) => self.open_device(*file, *group, *name),
            Call::SetContainer(group, container) => self.set_container(*group, *container),
            Call::Ioctl(file, command, before, _) => {
                self.ioctl(*file, *command, self.trace.bytes(before))
            }
            Call::IoctlValue(file, command, value) => self.ioctl_value(*file, *command, *value),
            Call::Poke(at, length, byte) => {
                let bytes = vec![*byte; *length];
                self.memory
                    .poke(*at, &bytes)
                    .map(|()| 0)
                    .map_err(|f| Refusal::new(Errno::EFAULT, f))
            }
            Call::Peek(at, length, _) => {
                self.after.resize(*length, 0);
                let read = self.memory.read(*at, &mut self.after);
                read.map(|()| 0).map_err(|fault| Refusal::new(Errno::EFAULT, fault))
            }
            Call::Sysfs(device, _) => self.sysfs(*device),
            Call::Close(file) => self.close(*file),
            Call::DropIpcLock => {
                self.process.set_cap_ipc_lock(false);
                Ok(0)
            }
            Call::SetMemlock(bytes) => {
                self.process.set_memlock(*bytes);
                Ok(0)
            }
        }
    }

    fn open_group(&mut self, file: FileName, device: TextRef) -> Result1 {
        let name = self.trace.text(device);
        let name = name.strip_prefix("noiommu:").unwrap_or(name);
        // Of a device without a group there is no node to open.
        let group = self.vfio.group_of(name).unwrap_or(GroupId::Numbered(u32::MAX));
        let opened = self.vfio.open_group(group, &self.process);
        self.files[file] = File::Group(opened.map_err(|e| Refusal::new(e.errno(), e))?);
        Ok(0)
    }

    fn open_device(&mut self, file: FileName, group: FileName, name: TextRef) -> Result1 {
        let File::Group(group) = &self.files[group] else {
            return Err(bad_fd());
        };
        let opened = group.open_device(self.trace.text(name), &self.process);
        self.files[file] = File::Device(opened.map_err(|e| Refusal::new(e.errno(), e))?);
        Ok(0)
    }

    fn set_container(&self, group: FileName, container: FileName) -> Result1 {
        let File::Group(group) = &self.files[group] else {
            return Err(bad_fd());
        };
        let target = match &self.files[container] {
            File::Container(container) => FdTarget::Container(container.clone()),
            File::Closed => FdTarget::Closed,
            File::Group(_) | File::Device(_) => FdTarget::Other,
        };
        group
            .set_container_fd(i32::try_from(container).unwrap_or(0), target, &self.process)
            .map(|()| 0)
            .map_err(|error| Refusal::new(error.errno(self.vfio.kernel()), error))
    }

    /// The argument's bytes are placed so that they end where memory ends.
    fn ioctl(&mut self, file: FileName, command: u32, before: &[u8]) -> Result1 {
        let arg = ARGUMENT_END - before.len() as u64;
        let placed = self.memory.write(Vaddr(arg), before);
        placed.map_err(|fault| Refusal::new(Errno::EFAULT, fault))?;
        let result = self.ioctl_value(file, command, arg);
        self.after.resize(before.len(), 0);
        let read = self.memory.read(Vaddr(arg), &mut self.after);
        read.map_err(|fault| Refusal::new(Errno::EFAULT, fault))?;
        result
    }

    fn ioctl_value(&self, file: FileName, command: u32, arg: u64) -> Result1 {
        let kernel = self.vfio.kernel();
        match &self.files[file] {
            File::Container(container) => container
                .ioctl(&self.process, command, arg)
                .map(i64::from)
                .map_err(|error| Refusal::new(error.errno(kernel), error)),
            File::Group(group) => group
                .ioctl(&self.process, command, arg, |_| FdTarget::Closed)
                .map(|reply| match reply {
                    GroupReply::Value(value) => i64::from(value),
                    GroupReply::Device(_) => 0,
                })
                .map_err(|error| Refusal::new(error.errno(kernel), error)),
            File::Device(_) => Err(Refusal::new(Errno::ENOTTY, "devices have no ioctls here")),
            File::Closed => Err(bad_fd()),
        }
    }

    fn sysfs(&mut self, device: TextRef) -> Result1 {
        let name = self.trace.text(device);
        let text = self.vfio.group_of(name).and_then(|group| self.vfio.reserved_regions(group));
        let text = text.ok_or_else(|| Refusal::new(Errno::ENOENT, "no such device"))?;
        self.after.extend(text.trim().bytes());
        Ok(0)
    }

    fn close(&mut self, file: FileName) -> Result1 {
        if matches!(self.files[file], File::Closed) {
            return Err(bad_fd());
        }
        self.files[file] = File::Closed;
        Ok(0)
    }
}

fn bad_fd() -> Refusal {
    Refusal::new(Errno::EBADF, "the file is not open, or not a file of the right kind")
}

fn compare(
    trace: &Trace,
    machine: &Machine<'_>,
    recorded: &Recorded,
    got: Result1,
) -> Option<Difference> {
    let answer = match &got {
        Ok(value) => Answer { value: *value, errno: 0 },
        Err(refusal) => Answer { value: -1, errno: refusal.errno.0 },
    };
    let expected: &[u8] = match &recorded.call {
        Call::Ioctl(_, _, _, after) | Call::Peek(_, _, after) => trace.bytes(after),
        Call::Sysfs(_, text) => trace.text(*text).trim().as_bytes(),
        _ => &[],
    };
    if answer == recorded.answer && machine.after == expected {
        return None;
    }
    let text = matches!(recorded.call, Call::Sysfs(..));
    Some(Difference {
        line: recorded.line,
        call: describe(trace, &recorded.call),
        kernel: show(recorded.answer, expected, &machine.after, text),
        emulator: show(answer, &machine.after, expected, text),
        rule: got.err().map(|refusal| (refusal.rule)()),
    })
}

/// An answer in words; of bytes, the part from the first that differs from `other`.
fn show(answer: Answer, bytes: &[u8], other: &[u8], text: bool) -> String {
    let mut words = match answer {
        Answer { value: -1, errno } => format!("-1 {}", Errno(errno)),
        Answer { value, .. } => value.to_string(),
    };
    if text && bytes != other {
        let _ = write!(words, ", \"{}\"", String::from_utf8_lossy(bytes).escape_debug());
    } else if bytes != other {
        let same = bytes.iter().zip(other).take_while(|(a, b)| a == b).count();
        let from = same.saturating_sub(same % 8).min(bytes.len());
        let _ = write!(words, ", bytes from {from}: ");
        for byte in bytes[from..].iter().take(24) {
            let _ = write!(words, "{byte:02x}");
        }
    }
    words
}

/// A call as a person reads it.
fn describe(trace: &Trace, call: &Call) -> String {
    match call {
        Call::OpenContainer(file) => format!("open container {}", trace.file(*file)),
        Call::OpenGroup(file, device) => {
            format!("open group of {} as {}", trace.text(*device), trace.file(*file))
        }
        Call::OpenDevice(_, group, name) => {
            format!("{}: VFIO_GROUP_GET_DEVICE_FD {}", trace.file(*group), trace.text(*name))
        }
        Call::SetContainer(group, container) => {
            format!("{}: VFIO_GROUP_SET_CONTAINER {}", trace.file(*group), trace.file(*container))
        }
        Call::Ioctl(file, command, before, _) => {
            let argument = describe_argument(*command, trace.bytes(before));
            format!("{}: {} {argument}", trace.file(*file), command_name(*command))
        }
        Call::IoctlValue(file, command, value) => {
            format!("{}: {} {value:#x}", trace.file(*file), command_name(*command))
        }
        Call::Poke(at, length, byte) => format!("fill {length:#x} bytes at {at} with {byte:#x}"),
        Call::Peek(at, length, _) => format!("read {length:#x} bytes at {at}"),
        Call::Sysfs(device, _) => format!("reserved_regions of {}", trace.text(*device)),
        Call::Close(file) => format!("close {}", trace.file(*file)),
        Call::DropIpcLock => "drop CAP_IPC_LOCK".to_owned(),
        Call::SetMemlock(bytes) => format!("set RLIMIT_MEMLOCK to {bytes:#x}"),
    }
}

fn command_name(command: u32) -> String {
    command::name(command).map_or_else(|| format!("ioctl {command:#x}"), str::to_owned)
}

/// The fields of a request, as far as its bytes go.
fn describe_argument(command: u32, bytes: &[u8]) -> String {
    let fields: &[(&str, usize, usize)] = match command {
        command::IOMMU_MAP_DMA => {
            &[("flags", 4, 4), ("iova", 16, 8), ("size", 24, 8), ("vaddr", 8, 8)]
        }
        command::IOMMU_UNMAP_DMA => &[("flags", 4, 4), ("iova", 8, 8), ("size", 16, 8)],
        command::IOMMU_DIRTY_PAGES => &[("flags", 4, 4), ("iova", 8, 8), ("size", 16, 8)],
        _ => &[],
    };
    let mut text = String::from("{");
    for (name, offset, size) in std::iter::once(&("argsz", 0, 4)).chain(fields) {
        let Some(field) = bytes.get(*offset..offset + size) else {
            continue;
        };
        let value = field.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        let separator = if text.len() > 1 { ", " } else { "" };
        let _ = write!(text, "{separator}{name} {value:#x}");
    }
    text + "}"
}
