// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How commands fail: the status field of a completion (NVMe Base 1.4, 4.6.1).

/// Why a command failed. The number is the status code type, 3 bits, above the status code, 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u16)]
pub enum Status {
    /// The controller does not have the command.
    #[error("invalid opcode")]
    InvalidOpcode = 0x001,
    /// A field of the command has a value that the controller does not take.
    #[error("invalid field in command")]
    InvalidField = 0x002,
    /// Memory could not be read or written; the driver of the host has more about it in its log.
    #[error("data transfer error")]
    DataTransfer = 0x004,
    /// An Abort command ended the command.
    #[error("command abort requested")]
    Aborted = 0x007,
    /// There is no such namespace.
    #[error("invalid namespace or format")]
    InvalidNamespace = 0x00b,
    /// The command comes too late.
    #[error("command sequence error")]
    Sequence = 0x00c,
    /// A data pointer does not begin where it has to.
    #[error("PRP offset invalid")]
    PrpOffset = 0x013,
    /// The file behind the namespace cannot be written.
    #[error("namespace is write protected")]
    WriteProtected = 0x020,
    /// The blocks are not all in the namespace.
    #[error("LBA out of range")]
    LbaOutOfRange = 0x080,
    /// Where the file is there is no room for what was written.
    #[error("capacity exceeded")]
    CapacityExceeded = 0x081,
    /// The completion queue of a submission queue is not there.
    #[error("completion queue invalid")]
    NoCompletionQueue = 0x100,
    /// The queue is there already, or cannot be, or is not there.
    #[error("invalid queue identifier")]
    QueueIdentifier = 0x101,
    /// The queue has too many entries, too few, or entries of another size.
    #[error("invalid queue size")]
    QueueSize = 0x102,
    /// The controller holds no more requests for events.
    #[error("asynchronous event request limit exceeded")]
    EventRequestLimit = 0x105,
    /// The device does not have the vector.
    #[error("invalid interrupt vector")]
    InterruptVector = 0x108,
    /// There is no such log page.
    #[error("invalid log page")]
    LogPage = 0x109,
    /// The completion queue is in use.
    #[error("invalid queue deletion")]
    QueueDeletion = 0x10c,
    /// Features are not saved here.
    #[error("feature identifier not saveable")]
    NotSaveable = 0x10d,
    /// The file could not be written.
    #[error("write fault")]
    WriteFault = 0x280,
    /// The file could not be read.
    #[error("unrecovered read error")]
    ReadError = 0x281,
    /// Memory and blocks differ.
    #[error("compare failure")]
    CompareFailure = 0x285,
}

/// The error log has more about it.
const MORE: u16 = 1 << 13;
/// The same command will fail again.
const DO_NOT_RETRY: u16 = 1 << 14;
const CODE: u16 = 0x7ff;

impl Status {
    const ALL: [Self; 21] = [
        Self::InvalidOpcode,
        Self::InvalidField,
        Self::DataTransfer,
        Self::Aborted,
        Self::InvalidNamespace,
        Self::Sequence,
        Self::PrpOffset,
        Self::WriteProtected,
        Self::LbaOutOfRange,
        Self::CapacityExceeded,
        Self::NoCompletionQueue,
        Self::QueueIdentifier,
        Self::QueueSize,
        Self::EventRequestLimit,
        Self::InterruptVector,
        Self::LogPage,
        Self::QueueDeletion,
        Self::NotSaveable,
        Self::WriteFault,
        Self::ReadError,
        Self::CompareFailure,
    ];

    /// The status field, without the phase below it.
    pub(super) fn field(self) -> u16 {
        match self {
            // It did not fail.
            Self::Aborted => self as u16,
            _ => self as u16 | MORE | DO_NOT_RETRY,
        }
    }

    /// Why the command failed, if it did and this controller can say so.
    pub(super) fn from_field(field: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u16 == field & CODE)
    }
}
