// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Registers of BAR 0 and of configuration space, and the bits in them. Names are those of Intel's
//! specification of the engine (Crystal Beach, version 3) and of Linux's `drivers/dma/ioat/registers.h`.

/// How many channels there are (8 bits, read only).
pub const CHANCNT: u64 = 0x00;
/// The largest length of a descriptor, as a power of two (8 bits, read only).
pub const XFERCAP: u64 = 0x01;
/// General control (8 bits). What is written is kept, and nothing comes of it.
pub const GENCTRL: u64 = 0x02;
/// Which interrupts are on (8 bits): [`INTRCTRL_MASTER`], [`INTRCTRL_MSIX`].
pub const INTRCTRL: u64 = 0x03;
/// Bit 0: the channel has sent an interrupt and was not re-armed (32 bits, read only).
pub const ATTNSTATUS: u64 = 0x04;
/// The version, such as 0x33 (8 bits, read only).
pub const CBVER: u64 = 0x08;
/// What else it can do (32 bits, read only): [`CAPABILITY_FILL`].
pub const DMACAPABILITY: u64 = 0x10;

/// Channel control (16 bits): the `CHANCTRL_` bits.
pub const CHANCTRL: u64 = 0x80;
/// Commands to the channel (8 bits): the `CHANCMD_` bits. Reads as 0.
pub const CHANCMD: u64 = 0x84;
/// How many descriptors there are to do since the chain's address was written, modulo 2^16 (16 bits).
pub const DMACOUNT: u64 = 0x86;
/// The address of the last descriptor done, and in the lowest three bits a `State` (64 bits, read only).
pub const CHANSTS: u64 = 0x88;
/// The first descriptor (64 bits). Writing it arms the channel, and sets the count to 0.
pub const CHAINADDR: u64 = 0x90;
/// Where CHANSTS is written to when a descriptor asks for it (64 bits).
pub const CHANCMP: u64 = 0x98;
/// The descriptor that was read last (64 bits, read only).
pub const CDAR: u64 = 0xa0;
/// What went wrong (32 bits, cleared by writing ones): the `ERROR_` bits.
pub const CHANERR: u64 = 0xa8;
/// Errors that are not told by interrupt, nor in [`CONFIG_CHANERR_INT`] (32 bits).
pub const CHANERRMSK: u64 = 0xac;

/// In configuration space: errors of the link (32 bits). There are none.
pub const CONFIG_DMAUNCERRSTS: u64 = 0x148;
/// In configuration space: the errors of the channel (32 bits, cleared by writing ones).
pub const CONFIG_CHANERR_INT: u64 = 0x180;
/// In configuration space: a mask of the former (32 bits). What is written is kept.
pub const CONFIG_CHANERRMSK_INT: u64 = 0x184;

/// Interrupts may be sent.
pub const INTRCTRL_MASTER: u8 = 0x01;
/// Read only: the channel asks for attention.
pub const INTRCTRL_STATUS: u8 = 0x02;
/// Read only: it does, and the master bit is set.
pub const INTRCTRL_INTERRUPT: u8 = 0x04;
/// Interrupts may be sent, each channel's by a vector of its own.
pub const INTRCTRL_MSIX: u8 = 0x08;

/// Fill descriptors.
pub const CAPABILITY_FILL: u32 = 0x40;

/// Set by an interrupt: the next one waits until this bit is written, which clears it.
pub const CHANCTRL_REARM: u16 = 0x0001;
/// An error writes the completion.
pub const CHANCTRL_ERROR_COMPLETION: u16 = 0x0004;
/// An error sends an interrupt.
pub const CHANCTRL_ERROR_INTERRUPT: u16 = 0x0010;

/// Stops after the descriptor at work. A new count, or chain, starts again.
pub const CHANCMD_SUSPEND: u8 = 0x04;
/// Stops and forgets the chain.
pub const CHANCMD_RESET: u8 = 0x20;

/// The source could not be read.
pub const ERROR_SOURCE: u32 = 0x0001;
/// The destination could not be written.
pub const ERROR_DESTINATION: u32 = 0x0002;
/// A descriptor could not be read.
pub const ERROR_NEXT: u32 = 0x0004;
/// The address of the next descriptor is no multiple of 64.
pub const ERROR_NEXT_ALIGNMENT: u32 = 0x0008;
/// The address of the chain is no multiple of 64.
pub const ERROR_CHAIN: u32 = 0x0010;
/// A descriptor asks for an operation that there is not.
pub const ERROR_CONTROL: u32 = 0x0400;
/// A descriptor has length 0, or is longer than XFERCAP says.
pub const ERROR_LENGTH: u32 = 0x0800;
/// The completion could not be written.
pub const ERROR_COMPLETION: u32 = 0x1000;
