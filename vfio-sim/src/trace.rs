// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings of VFIO calls and what a real kernel answered: the text form, parsed.
//!
//! A recording is lines of text: comments that describe kernel, memory and host, then one call a
//! line, `CALL ARGUMENTS => RESULT ERRNO [BYTES]`. Numbers are hexadecimal without `0x`, results
//! are decimal. The format is described in `vfio-sim/TRACES.md`.
//!
//! This file owns the text. It keeps all bytes of a recording in one buffer, since recordings are
//! long and their arguments short. What a call does is `replay`'s business.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::path::Path;

use vfio_type1::{Binding, Iova, IovaRange, Kernel, PageSize, PageSizes, Vaddr, VaddrRange, sysfs};

use crate::host::{Host, HostDevice, HostGroup, HostGroupKind, HostIommu, HostRegion, Widths};
use crate::names::{iommu_driver, is_uuid};
use crate::words::{Words, digit, plain_answer};

/// The longest ioctl argument, in bytes.
pub(crate) const MAX_ARGUMENT: usize = 0x10000;

/// Where the bytes of ioctl arguments end in a replay: what follows is not mapped, as in the
/// recording process. Recordings describe no memory here.
pub(crate) const ARGUMENT_END: u64 = 0x6f00_0000_0000;

/// The longest recording, unpacked, in bytes.
const MAX_TEXT: u64 = 1 << 30;

/// The most bytes that the pokes of a recording may fill together.
const MAX_POKED: usize = 1 << 28;

/// The most areas of memory a recording may describe.
const MAX_AREAS: usize = 64;

/// A recording.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The kernel that it was recorded on.
    pub kernel: Kernel,
    /// The host, as the header describes it.
    pub host: Host,
    /// The caller's memory.
    pub memory: Vec<Area>,
    /// The calls, in order.
    pub calls: Vec<Recorded>,
    /// Names of files, by the index that calls use.
    pub files: Vec<String>,
    /// Texts: device names and sysfs contents.
    texts: Vec<String>,
    /// Argument bytes of all calls.
    bytes: Vec<u8>,
}

/// Memory of the calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where it is, inclusive.
    pub range: VaddrRange,
    /// Whether it can be written.
    pub writable: bool,
}

/// A call, where it stands, and what the kernel answered.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its line, from 1.
    pub line: usize,
    /// The call.
    pub call: Call,
    /// What it returned.
    pub answer: Answer,
}

/// What a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The return value; -1 for an error.
    pub value: i64,
    /// The errno; 0 unless the value is -1.
    pub errno: i32,
}

/// The place of a name in [`Trace::files`].
pub type FileName = usize;

/// A call. Texts and bytes are looked up in the trace.
#[derive(Clone, Debug)]
pub enum Call {
    /// Open `/dev/vfio/vfio`.
    OpenContainer(FileName),
    /// Open the group of a device.
    OpenGroup(FileName, TextRef),
    /// `VFIO_GROUP_GET_DEVICE_FD`: the new file, the group, the device's name.
    OpenDevice(FileName, FileName, TextRef),
    /// `VFIO_GROUP_SET_CONTAINER`: group, container.
    SetContainer(FileName, FileName),
    /// An ioctl whose argument points to bytes; and the bytes afterwards.
    Ioctl(FileName, u32, Range<usize>, Range<usize>),
    /// An ioctl whose argument is a number.
    IoctlValue(FileName, u32, u64),
    /// Fill memory with a byte.
    Poke(Vaddr, usize, u8),
    /// Read memory back; the bytes that were there.
    Peek(Vaddr, usize, Range<usize>),
    /// Read the `reserved_regions` of a device's group; the text that was there.
    Sysfs(TextRef, TextRef),
    /// Close a file.
    Close(FileName),
    /// Drop CAP_IPC_LOCK.
    DropIpcLock,
    /// Set RLIMIT_MEMLOCK, in bytes.
    SetMemlock(u64),
}

/// A text of a trace; see [`Trace::text`].
#[derive(Clone, Copy, Debug)]
pub struct TextRef(usize);

/// A recording that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read or unpacked.
    #[error("cannot read: {error}")]
    Unreadable {
        /// What the system says.
        error: String,
    },
    /// A line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The header lacks something.
    #[error("the header has no line \"{missing}\"")]
    Incomplete {
        /// How the missing line starts.
        missing: &'static str,
    },
    /// The recording ends before its last line.
    #[error("line {line}: cut off: the last line of a recording is \"# end\"")]
    CutOff {
        /// The line where it ends.
        line: usize,
    },
}

impl Trace {
    /// Reads a recording, plain or compressed with xz, which its first bytes tell.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        let text = unpacked(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text)
    }

    /// Parses the text of a recording called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, TraceError> {
        let mut parser = Parser::new(name);
        let mut line = 0;
        for content in text.split_inclusive('\n') {
            line += 1;
            let Some(content) = content.strip_suffix('\n') else {
                return Err(TraceError::CutOff { line });
            };
            parser.line(line, content).map_err(|problem| TraceError::Line { line, problem })?;
        }
        parser.finish(line)
    }

    /// A text of this trace.
    pub fn text(&self, text: TextRef) -> &str {
        &self.texts[text.0]
    }

    /// Bytes of this trace.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// The name of a file.
    pub fn file(&self, file: FileName) -> &str {
        &self.files[file]
    }
}

/// The text of a file, unpacked if it begins as xz files do.
fn unpacked(path: &Path) -> Result<String, TraceError> {
    const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
    let unreadable = |error: std::io::Error| TraceError::Unreadable { error: error.to_string() };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let packed = file.fill_buf().map_err(unreadable)?.starts_with(&XZ);
    let mut bytes = Vec::new();
    let read = if packed {
        lzma_rust2::XzReader::new(file, true).take(MAX_TEXT + 1).read_to_end(&mut bytes)
    } else {
        file.take(MAX_TEXT + 1).read_to_end(&mut bytes)
    };
    let line = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    match read {
        Ok(size) if size as u64 > MAX_TEXT => {
            return Err(TraceError::Unreadable { error: format!("more than {MAX_TEXT} bytes") });
        }
        Ok(_) => {}
        Err(error) if packed => {
            let problem = format!("the compressed data are cut off or damaged here ({error})");
            return Err(TraceError::Line { line: line(&bytes), problem });
        }
        Err(error) => return Err(unreadable(error)),
    }
    String::from_utf8(bytes).map_err(|error| TraceError::Line {
        line: line(&error.as_bytes()[..error.utf8_error().valid_up_to()]),
        problem: "not a text in UTF-8".to_owned(),
    })
}

struct Parser {
    kernel: Option<Kernel>,
    has_iommu_line: bool,
    ended: bool,
    file_names: HashMap<String, FileName>,
    poked: usize,
    trace: Trace,
}

impl Parser {
    fn new(name: &str) -> Self {
        let host = Host {
            name: name.to_owned(),
            description: "the host of a recording".to_owned(),
            page_size: PageSize::P4K,
            allow_unsafe_interrupts: false,
            iommus: Vec::new(),
            groups: Vec::new(),
        };
        let trace = Trace {
            kernel: Kernel::NEWEST,
            host,
            memory: Vec::new(),
            calls: Vec::new(),
            files: Vec::new(),
            texts: Vec::new(),
            bytes: Vec::new(),
        };
        Self {
            kernel: None,
            has_iommu_line: false,
            ended: false,
            file_names: HashMap::new(),
            poked: 0,
            trace,
        }
    }

    fn line(&mut self, number: usize, content: &str) -> Result<(), String> {
        if self.ended {
            return Err("a line follows \"# end\"".to_owned());
        }
        if let Some(comment) = content.strip_prefix('#') {
            return self.comment(comment);
        }
        if content.is_empty() {
            return Ok(());
        }
        if let Some(missing) = self.missing() {
            return Err(format!("a call stands before the header's line \"{missing}\""));
        }
        let (call, answer) = self.call(content)?;
        self.trace.calls.push(Recorded { line: number, call, answer });
        Ok(())
    }

    /// The line that the header still lacks.
    fn missing(&self) -> Option<&'static str> {
        match (self.kernel, self.has_iommu_line) {
            (None, _) => Some("# kernel"),
            (_, false) => Some("# iommu"),
            _ => None,
        }
    }

    fn finish(mut self, line: usize) -> Result<Trace, TraceError> {
        if let Some(missing) = self.missing() {
            return Err(TraceError::Incomplete { missing });
        }
        if !self.ended {
            return Err(TraceError::CutOff { line });
        }
        self.trace.kernel = self.kernel.unwrap_or_default();
        Ok(self.trace)
    }

    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let mut words = Words::new(comment);
        let word = words.next();
        if word != Some("end") && !self.trace.calls.is_empty() {
            return Err("a line of the header stands behind a call".to_owned());
        }
        match word {
            Some("memory") => self.memory(&mut words),
            Some("kernel") => {
                let kernel: Kernel = words
                    .word("the kernel release")?
                    .parse()
                    .map_err(|error| format!("{error}"))?;
                self.kernel = Some(kernel);
                words.end()
            }
            Some("iommu") => self.iommu(&mut words),
            Some("group") => self.group(&mut words),
            Some(word) if word.starts_with("0x") => self.region(comment.trim_start()),
            Some("end") => {
                self.ended = true;
                words.end()
            }
            _ => Err(format!("unknown header line \"#{comment}\"")),
        }
    }

    fn memory(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let writable = match words.word("rw or ro")? {
            "rw" => true,
            "ro" => false,
            word => return Err(format!("memory is rw or ro, not \"{word}\"")),
        };
        let range = VaddrRange::from_size(Vaddr(words.hex()?), words.hex()?);
        let range = range.map_err(|error| format!("memory: {error}"))?;
        if !range.is_aligned(PageSize::P4K) {
            return Err(format!("memory {range} does not start and end at page boundaries"));
        }
        if let Some(area) = self.trace.memory.iter().find(|area| area.range.overlaps(&range)) {
            return Err(format!("memory {range} overlaps memory {}", area.range));
        }
        let arguments =
            VaddrRange::from_size(Vaddr(ARGUMENT_END - MAX_ARGUMENT as u64), MAX_ARGUMENT as u64);
        if arguments.is_ok_and(|arguments| arguments.overlaps(&range)) {
            return Err(format!("memory {range} is where a replay places ioctl arguments"));
        }
        if self.trace.memory.len() == MAX_AREAS {
            return Err(format!("more than {MAX_AREAS} areas of memory"));
        }
        self.trace.memory.push(Area { range, writable });
        words.end()
    }

    fn iommu(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if !self.trace.host.groups.is_empty() || self.has_iommu_line {
            return Err("one \"# iommu\" line stands before the groups".to_owned());
        }
        self.has_iommu_line = true;
        let kind = words.word("the kind of IOMMU")?;
        if kind == "none" {
            return Ok(());
        }
        let driver = iommu_driver(kind)?;
        words.keyword("aperture")?;
        let (first, last) = (words.hex()?, words.hex()?);
        let aperture =
            IovaRange::new(Iova(first), Iova(last)).ok_or("the aperture is backwards")?;
        words.keyword("pgsizes")?;
        let page_sizes = PageSizes(words.hex()?);
        let coherent = words.flag("coherent")?;
        let isolated_msi = words.flag("isolated-msi")?;
        self.trace.host.allow_unsafe_interrupts = match words.next() {
            None => false,
            Some("allow-unsafe-interrupts") => true,
            Some(word) => return Err(format!("unknown word \"{word}\"")),
        };
        self.trace.host.iommus.push(HostIommu {
            name: kind.to_owned(),
            driver,
            coherent,
            isolated_msi,
            widths: Widths { aperture, page_sizes },
            newer: Vec::new(),
        });
        words.end()
    }

    fn group(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        if !self.has_iommu_line {
            return Err("the \"# iommu\" line must stand before the groups".to_owned());
        }
        let number = words.word("the group's number")?.strip_suffix(':');
        let number = number.and_then(|number| number.parse().ok());
        let number: u32 = number.ok_or("a group starts with \"# group NUMBER:\"")?;
        let devices: Vec<HostDevice> =
            std::iter::from_fn(|| words.next()).map(recorded_device).collect();
        let first = devices.first().ok_or("the group has no device")?;
        let kind = match self.trace.host.iommus.first() {
            _ if is_uuid(&first.name) => HostGroupKind::Emulated,
            Some(_) => HostGroupKind::Iommu(0),
            None => HostGroupKind::NoIommu,
        };
        let known = |device: &HostDevice| self.trace.host.device(&device.name).is_some();
        if let Some(twice) = devices.iter().find(|device| known(device)) {
            return Err(format!("device {} is in two groups", twice.name));
        }
        let mut names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("device {} is named twice", twice[0]));
        }
        if self.trace.host.groups.iter().any(|group| group.number == number) {
            return Err(format!("group {number} is described twice"));
        }
        self.trace.host.groups.push(HostGroup { number, kind, devices });
        Ok(())
    }

    /// A line of sysfs text: a region of the group's merged list. It goes to the group's first
    /// device, so that the list comes out as it was.
    fn region(&mut self, line: &str) -> Result<(), String> {
        let regions = sysfs::parse(&format!("{line}\n")).map_err(|error| {
            format!("region, column {}: expected {}", error.column, error.expected)
        })?;
        let group = self.trace.host.groups.last_mut().ok_or("a region stands before any group")?;
        let device = group.devices.first_mut().ok_or("the group has no device")?;
        device.regions.extend(regions.into_iter().map(HostRegion::always));
        Ok(())
    }

    fn call(&mut self, content: &str) -> Result<(Call, Answer), String> {
        let (call, answer) = match content.split_once("=>") {
            Some((call, answer)) => (call, Some(answer)),
            None => (content, None),
        };
        let mut words = Words::new(call);
        let name = words.word("a call")?;
        if name == "poke" {
            let (at, length) = (Vaddr(words.hex()?), words.length()?);
            self.poked += length;
            if self.poked > MAX_POKED {
                return Err(format!("the recording pokes more than {MAX_POKED:#x} bytes"));
            }
            let call = Call::Poke(at, length, words.byte()?);
            words.end()?;
            if answer.is_some() {
                return Err("poke has no answer".to_owned());
            }
            return Ok((call, Answer { value: 0, errno: 0 }));
        }
        let answer = answer.ok_or("no \"=>\", and so no answer")?;
        let (call, answer) = match name {
            "sysfs" => self.sysfs(&mut words, answer)?,
            "peek" => self.peek(&mut words, answer)?,
            "ioctl" => self.ioctl(&mut words, answer)?,
            _ => (self.plain_call(name, &mut words)?, plain_answer(answer)?),
        };
        words.end()?;
        Ok((call, answer))
    }

    fn plain_call(&mut self, name: &str, words: &mut Words<'_>) -> Result<Call, String> {
        Ok(match name {
            "container" => Call::OpenContainer(self.file(words)?),
            "group" => Call::OpenGroup(self.file(words)?, self.word(words, "a device")?),
            "device" => {
                let (device, group) = (self.file(words)?, self.file(words)?);
                Call::OpenDevice(device, group, self.word(words, "a device")?)
            }
            "setc" => Call::SetContainer(self.file(words)?, self.file(words)?),
            "ioctlv" => Call::IoctlValue(self.file(words)?, words.command()?, words.hex()?),
            "close" => Call::Close(self.file(words)?),
            "nocaplock" => Call::DropIpcLock,
            "memlock" => Call::SetMemlock(words.hex()?),
            "iommufd" => return Err("iommufd is not emulated yet".to_owned()),
            _ => return Err(format!("unknown call \"{name}\"")),
        })
    }

    fn ioctl(&mut self, words: &mut Words<'_>, answer: &str) -> Result<(Call, Answer), String> {
        let (file, command) = (self.file(words)?, words.command()?);
        let before = self.hex_bytes(words.next().unwrap_or_default())?;
        let mut results = Words::new(answer);
        let answer = results.answer()?;
        let after = self.hex_bytes(results.next().unwrap_or_default())?;
        results.end()?;
        if before.len() != after.len() {
            let (before, after) = (before.len(), after.len());
            return Err(format!("the argument has {before} bytes before and {after} after"));
        }
        if before.len() > MAX_ARGUMENT {
            return Err(format!("the argument is longer than {MAX_ARGUMENT} bytes"));
        }
        Ok((Call::Ioctl(file, command, before, after), answer))
    }

    fn peek(&mut self, words: &mut Words<'_>, answer: &str) -> Result<(Call, Answer), String> {
        let (at, length) = (Vaddr(words.hex()?), words.length()?);
        let bytes = self.hex_bytes(answer.trim())?;
        if bytes.len() != length {
            return Err(format!("peek of {length} bytes shows {}", bytes.len()));
        }
        Ok((Call::Peek(at, length, bytes), Answer { value: 0, errno: 0 }))
    }

    fn sysfs(&mut self, words: &mut Words<'_>, answer: &str) -> Result<(Call, Answer), String> {
        let device = self.word(words, "a device")?;
        let text = answer.trim().replace(';', "\n");
        Ok((Call::Sysfs(device, self.text(text)), Answer { value: 0, errno: 0 }))
    }

    fn file(&mut self, words: &mut Words<'_>) -> Result<FileName, String> {
        let name = words.word("the name of a file")?;
        if let Some(known) = self.file_names.get(name) {
            return Ok(*known);
        }
        let file = self.trace.files.len();
        self.file_names.insert(name.to_owned(), file);
        self.trace.files.push(name.to_owned());
        Ok(file)
    }

    fn word(&mut self, words: &mut Words<'_>, what: &str) -> Result<TextRef, String> {
        let word = words.word(what)?.to_owned();
        Ok(self.text(word))
    }

    fn text(&mut self, text: String) -> TextRef {
        self.trace.texts.push(text);
        TextRef(self.trace.texts.len() - 1)
    }

    fn hex_bytes(&mut self, digits: &str) -> Result<Range<usize>, String> {
        let start = self.trace.bytes.len();
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err("an odd number of hexadecimal digits".to_owned());
        }
        for [high, low] in pairs {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Err(format!("\"{}\" are not hexadecimal digits", digits.escape_debug()));
            };
            self.trace.bytes.push(high << 4 | low);
        }
        Ok(start..self.trace.bytes.len())
    }
}

fn recorded_device(name: &str) -> HostDevice {
    HostDevice {
        name: name.to_owned(),
        description: String::new(),
        binding: Binding::Vfio,
        regions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "# memory rw 1000 2000\n# kernel 6.12.1\n\
        # iommu vtd aperture 0 ffff pgsizes 1000 coherent 0 isolated-msi 1\n\
        # group 3: 0000:00:03.0 \n#   0x0000000000001000 0x0000000000001fff msi\n";

    fn parse(calls: &str) -> Result<Trace, String> {
        Trace::parse("test", &format!("{HEADER}{calls}# end\n")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_recording_is_read() {
        let trace = parse("container c => 0 0\nioctl c 3b70 0a0b => -1 22 0a0b\n").unwrap();
        assert_eq!(trace.kernel, Kernel::V6_12);
        assert_eq!(trace.host.groups[0].devices[0].regions.len(), 1);
        assert_eq!(trace.calls.len(), 2);
        assert_eq!(trace.calls[1].answer, Answer { value: -1, errno: 22 });
        assert!(matches!(&trace.calls[1].call,
            Call::Ioctl(0, 0x3b70, before, _) if trace.bytes(before) == [0x0a, 0x0b]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error = |calls: &str| parse(calls).unwrap_err();
        assert_eq!(error("container c\n"), "line 6: no \"=>\", and so no answer");
        assert_eq!(
            error("ioctl c 3b70 0a0 => 0 0 0a0\n"),
            "line 6: an odd number of hexadecimal digits"
        );
        assert_eq!(
            error("ioctl c 3b70 0x => 0 0 00\n"),
            "line 6: \"0x\" are not hexadecimal digits"
        );
        assert_eq!(
            error("ioctl c 3b70 00 => 0 0\n"),
            "line 6: the argument has 1 bytes before and 0 after"
        );
        assert_eq!(error("frobnicate => 0 0\n"), "line 6: unknown call \"frobnicate\"");
        assert_eq!(error("close c => 0 0 0\n"), "line 6: unexpected \"0\"");
        assert_eq!(error("iommufd i => 3 0\n"), "line 6: iommufd is not emulated yet");
        assert_eq!(
            error("# kernel 6.6.1\n").split(';').next(),
            Some("line 6: unknown kernel \"6.6.1\"")
        );
    }

    #[test]
    fn a_cut_off_recording_is_refused() {
        let error = Trace::parse("test", HEADER).unwrap_err();
        assert_eq!(error, TraceError::CutOff { line: 5 });
        let error = Trace::parse("test", "# kernel 6.1.0\n# end\n").unwrap_err();
        assert_eq!(error, TraceError::Incomplete { missing: "# iommu" });
    }
}
