// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a recording on the emulator and compares the answers.

use vfio_type1::abi::command;
use vfio_type1::{Errno, Kernel, extension};

use crate::describe::{answer_in_words, call_in_words};
use crate::host::{BootError, Host};
use crate::machine::{CallResult, Machine};
use crate::trace::{Answer, Call, Recorded, Trace};

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
pub fn replay(trace: &Trace, kernel: Kernel) -> Result<Outcome, BootError> {
    let outcome = run(trace, &trace.host, kernel)?;
    // Only on the recorded kernel does a difference say something about the header.
    if kernel != trace.kernel {
        return Ok(outcome);
    }
    match denied_isolation(trace, &outcome) {
        Some(line) => replay_without_isolation(trace, outcome, line),
        None => Ok(outcome),
    }
}

/// The line where the kernel refused a group for MSIs that are not isolated although the header
/// claims that they are.
///
/// No file of a running system states MSI isolation, so a header can be wrong about it. Where this
/// emulator does not answer EPERM itself, no other rule is left that the kernel could mean.
fn denied_isolation(trace: &Trace, outcome: &Outcome) -> Option<usize> {
    let claims = trace
        .host
        .iommus
        .iter()
        .any(|iommu| iommu.platform.iommu(&trace.kernel, trace.host.page_size).isolated_msi);
    let first = outcome.differences.first().filter(|_| claims)?;
    let recorded = trace.calls.iter().find(|recorded| recorded.line == first.line)?;
    let attaches = match recorded.call {
        Call::SetContainer(..) | Call::OpenDevice(..) => true,
        // The drivers have refusals of their own for nested domains.
        Call::IoctlValue(_, command::SET_IOMMU, kind) => kind != extension::NESTING,
        _ => false,
    };
    let refused = recorded.answer == Answer { value: -1, errno: Errno::EPERM.0 };
    (attaches && refused).then_some(first.line)
}

/// Replays with the header corrected, if that explains more of the recording, and says so.
fn replay_without_isolation(
    trace: &Trace,
    outcome: Outcome,
    line: usize,
) -> Result<Outcome, BootError> {
    let mut host = trace.host.clone();
    host.iommus.iter_mut().for_each(|iommu| iommu.platform.forget_isolation());
    let mut corrected = run(trace, &host, trace.kernel)?;
    if corrected.differences.len() >= outcome.differences.len() {
        return Ok(outcome);
    }
    corrected.notes.push(format!(
        "line {line}: the kernel refuses a group with EPERM, which only MSIs that are not isolated \
         explain; the header says isolated-msi 1; replayed with isolated-msi 0"
    ));
    Ok(corrected)
}

fn run(trace: &Trace, host: &Host, kernel: Kernel) -> Result<Outcome, BootError> {
    let mut machine = Machine::new(trace, host.boot(kernel)?);
    let mut outcome = Outcome::default();
    for recorded in &trace.calls {
        outcome.calls += 1;
        let got = machine.call(&recorded.call);
        if let Some(difference) = compare(trace, &machine, recorded, got) {
            outcome.differences.push(difference);
        }
    }
    Ok(outcome)
}

fn compare(
    trace: &Trace,
    machine: &Machine<'_>,
    recorded: &Recorded,
    got: CallResult,
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
        call: call_in_words(trace, &recorded.call),
        kernel: answer_in_words(recorded.answer, expected, &machine.after, text),
        emulator: answer_in_words(answer, &machine.after, expected, text),
        rule: got.err().map(|refusal| refusal.rule.to_string()),
    })
}
