// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The boot log: what drivers print and sysfs does not tell.
//!
//! Lines may have any beginning (a time, a host's name), as `dmesg` and `journalctl` give them.

use std::path::Path;

use vfio_type1::{Iova, IovaRange, PageSize};

use super::CaptureError;
use super::source::{Source, hexadecimal, read};

/// The largest log that is read, in bytes.
const MAX_LOG: u64 = 64 << 20;

/// A boot log, or none: then it has no line.
pub(super) struct Log {
    text: String,
}

impl Log {
    /// The log in `file`; without, that of the tree or of this machine.
    pub(super) fn find(file: Option<&Path>, source: &mut Source) -> Result<Self, CaptureError> {
        let text = match file {
            Some(file) => {
                let refused = |error| CaptureError::Log { path: file.display().to_string(), error };
                let bytes = read(file, MAX_LOG).map_err(refused)?;
                bytes.ok_or_else(|| refused("there is no such file".to_owned()))?
            }
            None if source.live => kernel_messages().unwrap_or_default(),
            None => source.bytes("dmesg").unwrap_or_default(),
        };
        let log = Self { text: String::from_utf8_lossy(&text).into_owned() };
        if log.text.is_empty() {
            source.note("no boot log: give one with --log (dmesg, or journalctl -k -b, as root)");
        } else if !log.is_complete() {
            source.note("the log does not begin with the boot; what its beginning said is missing");
        }
        Ok(log)
    }

    /// It begins with the boot, so what it does not say was not printed.
    pub(super) fn is_complete(&self) -> bool {
        self.has("Linux version ")
    }

    pub(super) fn has(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// What follows `head` in each line that has it.
    pub(super) fn after<'a>(&'a self, head: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| Some(line.split_once(head)?.1))
    }

    /// What `uname -r` says.
    pub(super) fn release(&self) -> Option<String> {
        Some(self.after("Linux version ").next()?.split_whitespace().next()?.to_owned())
    }

    /// The CPU's page, by the size of a table and its order of pages.
    pub(super) fn page_size(&self) -> Option<PageSize> {
        let table = self.after("Mount-cache hash table entries: ").next()?;
        let (order, rest) = table.split_once("(order: ")?.1.split_once(", ")?;
        let bytes: u64 = rest.split_once(" bytes")?.0.parse().ok()?;
        let page = bytes.checked_shr(order.parse().ok()?)?;
        PageSize::new(page).filter(|page| *page >= PageSize::P4K)
    }

    /// The memory of RMRRs, in the order of the table.
    pub(super) fn rmrrs(&self) -> Vec<IovaRange> {
        let range = |rest: &str| {
            let (first, last) = rest.split_once(" end: ")?;
            let last = last.split_whitespace().next()?;
            IovaRange::new(Iova(hexadecimal(first)?), Iova(hexadecimal(last)?))
        };
        self.after("RMRR base: ").filter_map(range).collect()
    }

    /// Capability and extended capability of the VT-d unit `name`.
    pub(super) fn vtd_registers(&self, name: &str) -> Option<(u64, u64)> {
        let line =
            self.after("DMAR: ").find_map(|rest| rest.strip_prefix(name)?.strip_prefix(": "));
        let (cap, ecap) = line?.split_once(" cap ")?.1.split_once(" ecap ")?;
        Some((hexadecimal(cap)?, hexadecimal(ecap.split_whitespace().next()?)?))
    }

    /// Interrupts are remapped (x86) or go through an ITS (Arm).
    pub(super) fn isolates_msis(&self) -> bool {
        let lines =
            ["Enabled IRQ remapping in ", "AMD-Vi: Interrupt remapping enabled", "ITS [mem 0x"];
        lines.iter().any(|line| self.has(line))
    }
}

/// The kernel's ring of messages, as far as one may read it.
#[cfg(target_os = "linux")]
fn kernel_messages() -> Option<Vec<u8>> {
    use std::io::{ErrorKind, Read as _};
    use std::os::unix::fs::OpenOptionsExt as _;

    // O_NONBLOCK, the same on all architectures with type1: the end of the ring shall not wait.
    const NONBLOCK: i32 = 0o4000;
    let mut ring =
        std::fs::OpenOptions::new().read(true).custom_flags(NONBLOCK).open("/dev/kmsg").ok()?;
    let (mut text, mut record) = (Vec::new(), [0; 8192]);
    while (text.len() as u64) < MAX_LOG {
        // A record at a time: numbers, `;`, the message, and lines of a dictionary that do no harm.
        match ring.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&record[..length]),
            // EPIPE: a record was overwritten; the next read goes on behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Some(text)
}

#[cfg(not(target_os = "linux"))]
fn kernel_messages() -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_posted_logs_are_understood() {
        let log = Log {
            text: "[    0.103453] DMAR: dmar0: reg_base_addr fed90000 ver 4:0 cap 1c0000c40660462 ecap 29a00f0505e\n\
                   Aug  7 20:13:45 box kernel: DMAR: RMRR base: 0x00000064000000 end: 0x000000687fffff\n\
                   [    0.002] Mount-cache hash table entries: 4096 (order: 3, 32768 bytes, linear)\n"
                .to_owned(),
        };
        assert_eq!(log.vtd_registers("dmar0"), Some((0x1c0_000c_4066_0462, 0x29a_00f0_505e)));
        assert_eq!(log.vtd_registers("dmar1"), None);
        let rmrr = IovaRange::new(Iova(0x6400_0000), Iova(0x687f_ffff)).unwrap();
        assert_eq!(log.rmrrs(), [rmrr]);
        assert_eq!(log.page_size(), Some(PageSize::P4K));
        assert!(!log.is_complete());
    }

    #[test]
    fn nonsense_is_passed_over() {
        let log = Log {
            text: "RMRR base: 0x5 end: 0x4\nRMRR base: x\nRMRR base: 0x end: 0x\n\
                   Mount-cache hash table entries: 1 (order: 99, 4096 bytes, linear)\n\
                   DMAR: dmar0: cap  ecap \n"
                .to_owned(),
        };
        assert_eq!(log.rmrrs(), []);
        assert_eq!(log.page_size(), None);
        assert_eq!(log.vtd_registers("dmar0"), None);
    }
}
