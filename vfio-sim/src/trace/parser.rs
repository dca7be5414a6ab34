// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads the lines of a recording: calls and their answers. The header's lines are in `header`.

use std::collections::HashMap;
use std::ops::Range;

use vfio_type1::{DEFAULT_DMA_ENTRY_LIMIT, Kernel, PageSize, Vaddr};

use super::words::{Words, digit, plain_answer};
use super::{Answer, Call, FileIndex, MAX_ARGUMENT, Recorded, TextRef, Trace, TraceError};
use crate::host::Host;

/// The most bytes that the pokes of a recording may fill together.
const MAX_POKED: usize = 1 << 28;

/// What a text claims to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A whole recording.
    Recording,
    /// Calls to make. Answers are passed over, and nothing of the header must be there.
    Script,
}

/// A recording, as far as it has been read.
pub(super) struct Parser {
    pub(super) form: Form,
    pub(super) kernel: Option<Kernel>,
    pub(super) ended: bool,
    pub(super) file_names: HashMap<String, FileIndex>,
    pub(super) poked: usize,
    pub(super) trace: Trace,
}

impl Parser {
    pub(super) fn new(name: &str, form: Form) -> Self {
        let host = Host {
            name: name.to_owned(),
            description: "the host of a recording".to_owned(),
            source: "its header".to_owned(),
            page_size: PageSize::P4K,
            allow_unsafe_interrupts: false,
            dma_entry_limit: DEFAULT_DMA_ENTRY_LIMIT,
            reserve_dma_masks: false,
            iommus: Vec::new(),
            groups: Vec::new(),
            bridges: Vec::new(),
        };
        let trace = Trace {
            kernel: Kernel::NEWEST,
            host,
            states_iommu: false,
            memory: Vec::new(),
            calls: Vec::new(),
            remarks: Vec::new(),
            files: Vec::new(),
            texts: Vec::new(),
            bytes: Vec::new(),
        };
        Self { form, kernel: None, ended: false, file_names: HashMap::new(), poked: 0, trace }
    }

    pub(super) fn line(&mut self, number: usize, content: &str) -> Result<(), String> {
        if self.ended {
            return Err("a line follows \"# end\"".to_owned());
        }
        if content.is_empty() {
            return Ok(());
        }
        if let Some(remark) = content.strip_prefix("##") {
            self.trace.remarks.push((self.trace.calls.len(), remark.trim().to_owned()));
            return Ok(());
        }
        if let Some(comment) = content.strip_prefix('#') {
            return self.comment(comment);
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
        match (self.kernel, self.trace.states_iommu) {
            _ if self.form == Form::Script => None,
            (None, _) => Some("# kernel"),
            (_, false) => Some("# iommu"),
            _ => None,
        }
    }

    pub(super) fn finish(mut self, line: usize) -> Result<Trace, TraceError> {
        if let Some(missing) = self.missing() {
            return Err(TraceError::Incomplete { missing });
        }
        if !self.ended && self.form == Form::Recording {
            return Err(TraceError::CutOff { line });
        }
        self.trace.kernel = self.kernel.unwrap_or_default();
        Ok(self.trace)
    }

    fn call(&mut self, content: &str) -> Result<(Call, Answer), String> {
        let (call, answer) = match content.split_once("=>") {
            Some((call, answer)) => (call, Some(answer)),
            None => (content, None),
        };
        let answer = answer.filter(|_| self.form == Form::Recording);
        let mut words = Words::new(call);
        let name = words.word("a call")?;
        if let Some(call) = self.silent(name, &mut words)? {
            words.end()?;
            if answer.is_some() {
                return Err(format!("{name} has no answer"));
            }
            return Ok((call, Answer { value: 0, errno: 0 }));
        }
        if self.form == Form::Script {
            let call = self.unanswered(name, &mut words)?;
            words.end()?;
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

    /// What happens to memory without a call to the driver.
    fn silent(&mut self, name: &str, words: &mut Words<'_>) -> Result<Option<Call>, String> {
        Ok(match name {
            "memory" => {
                let (range, kind) = Self::area(words)?;
                Some(Call::SetMemory(range, kind))
            }
            "poke" => {
                let (at, length) = (Vaddr(words.hex()?), words.length()?);
                self.poked += length;
                if self.poked > MAX_POKED {
                    return Err(format!("the recording pokes more than {MAX_POKED:#x} bytes"));
                }
                Some(Call::Poke(at, length, words.byte()?))
            }
            _ => None,
        })
    }

    /// A call of a script, as if it left everything as it was.
    fn unanswered(&mut self, name: &str, words: &mut Words<'_>) -> Result<Call, String> {
        match name {
            "sysfs" => Ok(self.sysfs(words, "")?.0),
            "peek" => Ok(Call::Peek(Vaddr(words.hex()?), words.length()?, 0..0)),
            "ioctl" => {
                let (file, command) = (self.file(words)?, words.command()?);
                let argument = self.argument(words)?;
                Ok(Call::Ioctl(file, command, argument.clone(), argument))
            }
            _ => self.plain_call(name, words),
        }
    }

    /// The bytes that an ioctl is given.
    fn argument(&mut self, words: &mut Words<'_>) -> Result<Range<usize>, String> {
        let bytes = self.hex_bytes(words.next().unwrap_or_default())?;
        if bytes.len() > MAX_ARGUMENT {
            return Err(format!("the argument is longer than {MAX_ARGUMENT} bytes"));
        }
        Ok(bytes)
    }

    fn plain_call(&mut self, name: &str, words: &mut Words<'_>) -> Result<Call, String> {
        Ok(match name {
            "container" => Call::OpenContainer(self.file(words)?),
            "iommufd" => Call::OpenIommufd(self.file(words)?),
            "group" => Call::OpenGroup(self.file(words)?, self.word(words, "a device")?),
            "device" => {
                let (device, group) = (self.file(words)?, self.file(words)?);
                Call::OpenDevice(device, group, self.word(words, "a device")?)
            }
            "cdev" => Call::OpenCdev(self.file(words)?, self.word(words, "a device")?),
            "bind" => Call::Bind(self.file(words)?, self.file(words)?),
            "setc" => Call::SetContainer(self.file(words)?, self.file(words)?),
            "ioctlv" => Call::IoctlValue(self.file(words)?, words.command()?, words.hex()?),
            "close" => Call::Close(self.file(words)?),
            "nocaplock" => Call::DropIpcLock,
            "memlock" => Call::SetMemlock(words.hex()?),
            _ => return Err(format!("unknown call \"{name}\"")),
        })
    }

    fn ioctl(&mut self, words: &mut Words<'_>, answer: &str) -> Result<(Call, Answer), String> {
        let (file, command) = (self.file(words)?, words.command()?);
        let before = self.argument(words)?;
        let mut results = Words::new(answer);
        let answer = results.answer()?;
        let after = self.hex_bytes(results.next().unwrap_or_default())?;
        results.end()?;
        if before.len() != after.len() {
            let (before, after) = (before.len(), after.len());
            return Err(format!("the argument has {before} bytes before and {after} after"));
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

    fn file(&mut self, words: &mut Words<'_>) -> Result<FileIndex, String> {
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
