// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings of VFIO calls and what a real kernel answered: the text form, parsed.
//!
//! A recording is lines of text: comments that describe kernel, memory and host, then one call a
//! line, `CALL ARGUMENTS => RESULT ERRNO [BYTES]`. Numbers are hexadecimal without `0x`, results
//! are decimal. The format is described in `vfio-sim/TRACES.md`.
//!
//! This module owns the text: `parser` reads the calls, `header` what stands before them, `words`
//! the words of a line; `write` is the other direction. All bytes of a recording are kept in one
//! buffer, since recordings are long and their arguments short. What a call does is `replay`'s business.

mod header;
mod parser;
mod words;
pub(crate) mod write;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::path::Path;

use vfio_type1::{Kernel, Vaddr, VaddrRange};

use crate::host::Host;
use parser::{Form, Parser};

/// The longest ioctl argument, in bytes.
pub(crate) const MAX_ARGUMENT: usize = 0x10000;

/// Where the bytes of ioctl arguments end in a replay: what follows is not mapped, as in the
/// recording process. Recordings describe no memory here.
pub(crate) const ARGUMENT_END: u64 = 0x6f00_0000_0000;

/// The longest recording, unpacked, in bytes.
const MAX_TEXT: u64 = 1 << 30;

/// A recording.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The kernel that it was recorded on.
    pub kernel: Kernel,
    /// The host, as the header describes it.
    pub host: Host,
    /// Whether a line describes the IOMMU. A script can do without.
    pub(crate) states_iommu: bool,
    /// The caller's memory.
    pub memory: Vec<Area>,
    /// The calls, in order.
    pub calls: Vec<Recorded>,
    /// What stands between the calls for people, and where: the number of calls before it.
    pub remarks: Vec<(usize, String)>,
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

/// What is at addresses of the calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that can be written.
    ReadWrite,
    /// Memory that can only be read.
    ReadOnly,
    /// A device's BAR that is mapped: its pages are not the process's own.
    Bar,
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
pub type FileIndex = usize;

/// A call. Texts and bytes are looked up in the trace.
#[derive(Clone, Debug)]
pub enum Call {
    /// Open `/dev/vfio/vfio`.
    OpenContainer(FileIndex),
    /// Open `/dev/iommu`.
    OpenIommufd(FileIndex),
    /// Open the group of a device.
    OpenGroup(FileIndex, TextRef),
    /// `VFIO_GROUP_GET_DEVICE_FD`: the new file, the group, the device's name.
    OpenDevice(FileIndex, FileIndex, TextRef),
    /// Open a device by its own node: the new file, the device's name.
    OpenCdev(FileIndex, TextRef),
    /// `VFIO_DEVICE_BIND_IOMMUFD`: device, iommufd.
    Bind(FileIndex, FileIndex),
    /// `VFIO_GROUP_SET_CONTAINER`: group, and container or iommufd.
    SetContainer(FileIndex, FileIndex),
    /// An ioctl whose argument points to bytes; and the bytes afterwards.
    Ioctl(FileIndex, u32, Range<usize>, Range<usize>),
    /// An ioctl whose argument is a number.
    IoctlValue(FileIndex, u32, u64),
    /// Fill memory with a byte.
    Poke(Vaddr, usize, u8),
    /// Other memory is there from now on, or none.
    SetMemory(VaddrRange, Option<MemoryKind>),
    /// Read memory back; the bytes that were there.
    Peek(Vaddr, usize, Range<usize>),
    /// Read the `reserved_regions` of a device's group; the text that was there.
    Sysfs(TextRef, TextRef),
    /// Close a file.
    Close(FileIndex),
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
        Self::read(&file_name(path), &unpacked(path)?, Form::Recording)
    }

    /// Parses the text of a recording called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, TraceError> {
        Self::read(name, text, Form::Recording)
    }

    /// Reads a script: calls as in a recording, without answers. Those of a recording are passed over,
    /// so every recording is a script. Its header may lack anything.
    pub fn load_script(path: &Path) -> Result<Self, TraceError> {
        Self::read(&file_name(path), &unpacked(path)?, Form::Script)
    }

    /// Parses the text of a script called `name`; see [`Self::load_script`].
    pub fn parse_script(name: &str, text: &str) -> Result<Self, TraceError> {
        Self::read(name, text, Form::Script)
    }

    fn read(name: &str, text: &str, form: Form) -> Result<Self, TraceError> {
        let mut parser = Parser::new(name, form);
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

    /// The same with other calls, which are some of its own.
    pub(crate) fn with_calls(&self, calls: Vec<Recorded>) -> Self {
        Self { calls, ..self.clone() }
    }

    /// Its calls and what it states of memory and IOMMU, as the text of a script.
    pub fn to_script(&self) -> String {
        write::script(self)
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
    pub fn file(&self, file: FileIndex) -> &str {
        &self.files[file]
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
    fn user_addresses_end_where_the_cpu_ends_them() {
        let limit = |text: &str| Trace::parse("test", text).unwrap().kernel.behaviours().user_limit;
        let x86 = format!("{HEADER}# end\n");
        let arm = x86.replace("6.12.1\n", "6.12.107+deb13-arm64\n");
        assert_eq!((limit(&x86).0, limit(&arm).0), (0xff_ffff_ffff_f000, 1 << 52));
    }

    #[test]
    fn remarks_stand_anywhere() {
        let trace = parse("## one\ncontainer c => 0 0\n## another\n").unwrap();
        assert_eq!(trace.calls.len(), 1);
        assert_eq!(trace.calls[0].line, 7);
    }

    #[test]
    fn memory_comes_and_goes_between_calls() {
        let trace = parse("memory rw 9000 2000\n## why\nmemory none 9000 1000\n").unwrap();
        let memory = |at: usize| match trace.calls[at].call {
            Call::SetMemory(range, writable) => (range.first().0, range.last().0, writable),
            ref call => panic!("{call:?}"),
        };
        assert_eq!(memory(0), (0x9000, 0xafff, Some(MemoryKind::ReadWrite)));
        assert_eq!(memory(1), (0x9000, 0x9fff, None));
        assert_eq!(trace.remarks, [(1, "why".to_owned())]);
        let script = trace.to_script();
        assert!(script.contains("memory rw 9000 2000\nmemory none 9000 1000\n"), "{script}");
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
        assert_eq!(
            error("memory rx 1000 1000\n"),
            "line 6: memory is rw, ro, bar or none, not \"rx\""
        );
        assert_eq!(error("memory rw 1000 1000 => 0 0\n"), "line 6: memory has no answer");
        assert_eq!(error("iommufd\n"), "line 6: no \"=>\", and so no answer");
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
