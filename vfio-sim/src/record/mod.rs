// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recording: the calls of a script are made, and a recording of the answers is written.
//!
//! [`Recorder`] plays scripts on the kernel that it runs on. `local` reads this machine, `player` makes
//! the calls, `raw` owns the memory that they are about and is the one place with unsafe code; `random`
//! makes scripts up, and `shrink` finds the fewest calls of one that are still answered differently.
//!
//! A script is trusted like a program: its ioctls carry addresses at which the kernel reads and writes.

mod local;
mod player;
pub mod random;
mod raw;
pub mod shrink;

use std::io;

use vfio_type1::{FixedIommu, UnknownKernel, VaddrRange};

use crate::host::Host;
use crate::trace::write::{AnswerText, CallLine, Header};
use crate::trace::{Answer, Call, Trace, TraceError};
use local::LocalMachine;
use player::LocalPlayer;

/// Why nothing, or not everything, was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// `/dev/vfio/vfio` is not there.
    #[error("there is no /dev/vfio/vfio; load the driver with \"modprobe vfio-pci\"")]
    NoVfio,
    /// A file of the driver may not be opened.
    #[error("{path}: permission denied; run this as root")]
    NotPermitted {
        /// The file.
        path: String,
    },
    /// The kernel has no groups.
    #[error(
        "the kernel has no IOMMU groups; switch the IOMMU on in the firmware and with \
         intel_iommu=on or its like on the kernel's command line"
    )]
    NoGroups,
    /// The script names a device that is in no group.
    #[error(
        "line {line}: no group has a device {device}; \"vfio-sim capture\" lists what there is"
    )]
    NoSuchDevice {
        /// The line of the script.
        line: usize,
        /// The device.
        device: String,
    },
    /// The group of a device has no file, since no device of it is bound to a VFIO driver.
    #[error(
        "line {line}: no device of {device}'s group is bound to vfio-pci; write vfio-pci to its \
         driver_override, unbind it from {driver}, and write its name to drivers_probe"
    )]
    NotBound {
        /// The line of the script.
        line: usize,
        /// The device.
        device: String,
        /// What it is bound to.
        driver: String,
    },
    /// No device at all is bound to a VFIO driver.
    #[error("no device is bound to vfio-pci, so random calls have nothing to call")]
    NothingBound,
    /// Nothing tells what sysfs does not show of the IOMMU.
    #[error(
        "sysfs does not show the IOMMU's aperture, page sizes, coherency and MSI isolation; give \
         --host, or an \"# iommu\" line in the script"
    )]
    UnknownIommu,
    /// A host with several IOMMUs does not tell which one is meant.
    #[error(
        "host {host} has {count} IOMMUs, and a recording describes one; write an \"# iommu\" line \
         into the script"
    )]
    SeveralIommus {
        /// The host.
        host: String,
        /// How many it has.
        count: usize,
    },
    /// A host's IOMMU depends on the kernel, and this one is not known.
    #[error("{0}; or write an \"# iommu\" line into the script")]
    Kernel(#[from] UnknownKernel),
    /// Memory cannot be had where the script wants it.
    #[error("memory {range}: {error}")]
    Memory {
        /// The memory.
        range: VaddrRange,
        /// What the system says.
        error: io::Error,
    },
    /// A `poke` or `peek` leaves the memory that the script describes.
    #[error("line {line}: {range} is not memory that the script describes and may {verb}")]
    OutsideMemory {
        /// The line of the script.
        line: usize,
        /// What the call touches.
        range: String,
        /// `read` or `write`.
        verb: &'static str,
    },
    /// The script's memory changes on the way.
    #[error(
        "line {line}: memory {range} changes between calls, and a recorder's memory stays as the \
         header describes it; write the memory into the header"
    )]
    MemoryChanges {
        /// The line of the script.
        line: usize,
        /// The memory.
        range: VaddrRange,
    },
    /// A call that is no ioctl failed: a limit or a capability could not be changed.
    #[error("line {line}: {error}")]
    Call {
        /// The line of the script.
        line: usize,
        /// What the system says.
        error: io::Error,
    },
    /// A file of this machine cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The recording cannot be written.
    #[error("cannot write the recording: {0}")]
    Output(io::Error),
    /// This machine's own description is not one that a recording can hold.
    #[error("this machine cannot be described: {0}")]
    Description(#[from] TraceError),
}

/// Records on the machine that it runs on.
#[derive(Debug)]
pub struct Recorder {
    machine: LocalMachine,
}

impl Recorder {
    /// Looks at this machine: its kernel, its groups, its VFIO files.
    pub fn new() -> Result<Self, RecordError> {
        Ok(Self { machine: LocalMachine::new()? })
    }

    /// Plays a script and writes the recording.
    ///
    /// What sysfs does not show of the IOMMU is the `# iommu` line of the script, or else what this
    /// kernel makes of the IOMMU of `host`. The process must have nothing mapped where the script has
    /// its memory; limits and capabilities that the script gives up stay given up.
    pub fn record(
        &self,
        script: &Trace,
        host: Option<&Host>,
        out: &mut impl io::Write,
    ) -> Result<(), RecordError> {
        let header = self.header(script, host)?;
        self.machine.check(script)?;
        header.write(out).map_err(RecordError::Output)?;
        let mut player = LocalPlayer::new(script, &self.machine)?;
        play(script, &mut player, out)
    }

    /// A script of random calls for this machine; see [`random::script`].
    pub fn random_script(
        &self,
        host: Option<&Host>,
        options: &random::Options,
    ) -> Result<Trace, RecordError> {
        let empty = Trace::parse_script("random", &random::memory())?;
        let header = self.header(&empty, host)?;
        let devices = self.machine.usable_devices();
        if devices.is_empty() {
            return Err(RecordError::NothingBound);
        }
        let mut text = Vec::new();
        header.write(&mut text).map_err(RecordError::Output)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let described = Trace::parse("random", &format!("{text}# end\n"))?;
        let calls = random::script(&described, &devices, options);
        Ok(Trace::parse_script("random", &format!("{text}{calls}"))?)
    }

    /// What a recording of a script begins with.
    fn header<'a>(
        &'a self,
        script: &'a Trace,
        host: Option<&Host>,
    ) -> Result<Header<'a>, RecordError> {
        let (iommu, allow_unsafe_interrupts) = self.iommu(script, host)?;
        Ok(Header {
            memory: &script.memory,
            release: &self.machine.release,
            iommu,
            allow_unsafe_interrupts,
            groups: &self.machine.groups,
        })
    }

    fn iommu(
        &self,
        script: &Trace,
        host: Option<&Host>,
    ) -> Result<(Option<FixedIommu>, bool), RecordError> {
        let stated = Some(&script.host).filter(|_| script.states_iommu);
        let host = host.or(stated).ok_or(RecordError::UnknownIommu)?;
        let iommu = match host.iommus.as_slice() {
            [] => None,
            // What a script states holds for every kernel.
            [only] if std::ptr::eq(host, &script.host) => {
                Some(only.platform.iommu(&vfio_type1::Kernel::NEWEST, host.page_size))
            }
            [only] => Some(only.platform.iommu(&self.machine.release.parse()?, host.page_size)),
            several => {
                let (host, count) = (host.name.clone(), several.len());
                return Err(RecordError::SeveralIommus { host, count });
            }
        };
        Ok((iommu, host.allow_unsafe_interrupts))
    }
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Played {
    value: i64,
    errno: i32,
    /// The ioctl argument afterwards, or what was read.
    after: Vec<u8>,
}

/// Something that makes calls.
trait Player {
    /// Makes the call of a script, which stands in `line`.
    fn play(&mut self, line: usize, call: &Call) -> Result<Played, RecordError>;
}

/// Plays all calls and writes them with their answers, and the line that ends a recording.
fn play(
    script: &Trace,
    player: &mut impl Player,
    out: &mut impl io::Write,
) -> Result<(), RecordError> {
    for recorded in &script.calls {
        let call = &recorded.call;
        let Played { value, errno, after } = player.play(recorded.line, call)?;
        let answer = AnswerText(call, Answer { value, errno }, &after);
        writeln!(out, "{}{answer}", CallLine(script, call)).map_err(RecordError::Output)?;
    }
    writeln!(out, "# end").and_then(|()| out.flush()).map_err(RecordError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::trace::write::header;
    use std::path::Path;
    use vfio_type1::Kernel;

    /// The emulator in the part of a kernel.
    impl Player for Machine<'_> {
        fn play(&mut self, _: usize, call: &Call) -> Result<Played, RecordError> {
            let (value, errno) = match self.call(call) {
                Ok(value) => (value, 0),
                Err(refused) => (-1, refused.errno.0),
            };
            Ok(Played { value, errno, after: self.after.clone() })
        }
    }

    /// A recording of a script on its own host, made by the emulator.
    pub(super) fn recorded_on_emulator(script: &Trace, kernel: Kernel) -> Trace {
        let host = &script.host;
        let mut text = header(host, kernel, &script.memory).unwrap().into_bytes();
        play(script, &mut Machine::new(script, host.boot(kernel).unwrap()), &mut text).unwrap();
        Trace::parse("emulator", &String::from_utf8(text).unwrap()).unwrap()
    }

    /// Of a recording that the emulator answers without a difference, a recording of the same calls is the
    /// same: nothing is lost between the text, the script and the text.
    #[test]
    fn a_recording_recorded_again_is_the_same() {
        let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
        for name in [
            "6.12-igd-v3-1",
            "6.1-vtd48-v1-3",
            "6.12-arm64-viommu-v3-12",
            "7.2-vtd48-memlock-v3-41",
        ] {
            let path = traces.join(format!("{name}.trace.xz"));
            let original = Trace::load(&path).unwrap();
            let mut script = Trace::load_script(&path).unwrap();
            script.host = original.host.clone();
            let again = recorded_on_emulator(&script, original.kernel);
            assert_eq!(again.memory, original.memory);
            assert_eq!(again.host.groups, original.host.groups);
            assert_eq!(again.host.iommus, original.host.iommus);
            assert_eq!(again.calls.len(), original.calls.len());
            for (again_at, original_at) in again.calls.iter().zip(&original.calls) {
                let line = |trace: &Trace, at: &crate::trace::Recorded| {
                    let after: &[u8] = match &at.call {
                        Call::Ioctl(_, _, _, after) | Call::Peek(_, _, after) => trace.bytes(after),
                        Call::Sysfs(_, text) => trace.text(*text).as_bytes(),
                        _ => &[],
                    };
                    let answer = AnswerText(&at.call, at.answer, after).to_string();
                    format!("{}{answer}", CallLine(trace, &at.call))
                };
                assert_eq!(line(&again, again_at), line(&original, original_at), "{name}");
            }
        }
    }

    /// What `tests/kernels` gives to its guests.
    #[test]
    fn corners_and_hosts_of_the_guests_can_be_read() {
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kernels");
        crate::hosts::find(kernels.join("hosts/viommu.toml").to_str().unwrap()).unwrap();
        let corners = std::fs::read_dir(kernels.join("corners")).unwrap();
        let corners: Vec<_> = corners.map(|entry| entry.unwrap().path()).collect();
        assert!(!corners.is_empty());
        for corner in corners {
            let script = Trace::load_script(&corner).unwrap();
            assert!(!script.calls.is_empty(), "{}", corner.display());
        }
    }

    #[test]
    fn a_machine_without_vfio_says_what_to_do() {
        if Path::new(local::CONTAINER).exists() {
            return;
        }
        let error = Recorder::new().unwrap_err();
        assert!(error.to_string().contains("modprobe vfio-pci"), "{error}");
    }
}
