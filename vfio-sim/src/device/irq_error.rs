// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts that cannot be set up (`VFIO_DEVICE_SET_IRQS`; `vfio_set_irqs_validate_and_prepare` in the
//! kernel's `vfio_main.c`, and `vfio_pci_intrs.c`).

use vfio_type1::Errno;

use crate::device::interrupts::IrqIndex;

/// Interrupts that cannot be set up, in the order in which the kernel looks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IrqError {
    /// There are no interrupts of this index. EINVAL.
    #[error("no interrupts have the index {index}; they are INTx 0, MSI 1, MSI-X 2, ERR 3, REQ 4")]
    UnknownIndex {
        /// The index given.
        index: u32,
    },
    /// Flags that are not defined. EINVAL.
    #[error("flags {flags:#x} are not known; known are {known:#x}")]
    UnknownFlags {
        /// The unknown flags.
        flags: u32,
        /// All that are defined.
        known: u32,
    },
    /// The numbers of the vectors are too large for 32 bits. EINVAL.
    #[error("{count} vectors from {start} on do not fit into 32 bits")]
    Wraps {
        /// The first vector.
        start: u32,
        /// How many.
        count: u32,
    },
    /// The device has fewer vectors. EINVAL.
    #[error("the device has {known} {index} vectors; {count} from {start} on are asked for")]
    TooMany {
        /// The kind.
        index: IrqIndex,
        /// How many it has.
        known: u16,
        /// The first vector asked for.
        start: u32,
        /// How many are asked for.
        count: u32,
    },
    /// Not one kind of data. EINVAL.
    #[error("flags {flags:#x} must have one of DATA_NONE 1, DATA_BOOL 2 and DATA_EVENTFD 4")]
    DataKind {
        /// The flags given.
        flags: u32,
    },
    /// `argsz` does not cover the data. EINVAL.
    #[error("argsz is {argsz}; {count} vectors with their data take {needed}")]
    DataTooShort {
        /// The `argsz` given.
        argsz: u32,
        /// How many vectors.
        count: u32,
        /// The `argsz` that covers their data.
        needed: usize,
    },
    /// The kind does not know the action, or there is not one action. ENOTTY.
    #[error(
        "flags {flags:#x} must have one action: ACTION_TRIGGER 32, or for INTx ACTION_MASK 8 or \
         ACTION_UNMASK 16; this is {index}"
    )]
    Action {
        /// The kind.
        index: IrqIndex,
        /// The flags given.
        flags: u32,
    },
    /// The kind is off, so there is nothing to signal, mask or turn off. EINVAL.
    #[error("{index} is off; turn it on by giving it eventfds")]
    Off {
        /// The kind.
        index: IrqIndex,
    },
    /// Interrupts of another kind are on. EINVAL.
    #[error("{on} is on; turn it off before {wanted}")]
    OtherKind {
        /// What is on.
        on: IrqIndex,
        /// What is asked for.
        wanted: IrqIndex,
    },
    /// The count is 0 where it must be 1. EINVAL.
    #[error("{index} is one interrupt; the count must be 1")]
    NotOne {
        /// The kind.
        index: IrqIndex,
    },
    /// Masking by eventfd, which the kernel does not have. ENOTTY.
    #[error("INTx cannot be masked by eventfd; the kernel has no such thing")]
    MaskByEventfd,
    /// This process cannot have the thread that waits for the eventfd. ENOMEM.
    #[error("there is no thread to be had that waits for the eventfd; end others, or close files")]
    NoThread,
    /// A kind is turned on with no vectors. ERANGE.
    #[error("{index} cannot be turned on with 0 vectors")]
    NoVectors {
        /// The kind.
        index: IrqIndex,
    },
    /// The kind is on with fewer vectors, and cannot get more. EINVAL.
    #[error(
        "{index} is on with {on} vectors; to use vector {vector}, turn it off and on with more"
    )]
    BeyondOn {
        /// The kind.
        index: IrqIndex,
        /// How many vectors are on.
        on: usize,
        /// The vector asked for.
        vector: usize,
    },
    /// The file descriptor is not open. EBADF.
    #[error("file descriptor {fd} is not open")]
    ClosedFd {
        /// The file descriptor.
        fd: i32,
    },
    /// The file descriptor is no eventfd. EINVAL.
    #[error("file descriptor {fd} is no eventfd")]
    NoEventFd {
        /// The file descriptor.
        fd: i32,
    },
}

impl IrqError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownIndex { .. }
            | Self::UnknownFlags { .. }
            | Self::Wraps { .. }
            | Self::TooMany { .. }
            | Self::DataKind { .. }
            | Self::DataTooShort { .. }
            | Self::Off { .. }
            | Self::OtherKind { .. }
            | Self::NotOne { .. }
            | Self::BeyondOn { .. }
            | Self::NoEventFd { .. } => Errno::EINVAL,
            Self::Action { .. } | Self::MaskByEventfd => Errno::ENOTTY,
            Self::NoThread => Errno::ENOMEM,
            Self::NoVectors { .. } => Errno::ERANGE,
            Self::ClosedFd { .. } => Errno::EBADF,
        }
    }
}
