// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading an ioctl's argument: fixed parts of a structure, and the rule on `argsz`.

use crate::addr::Vaddr;
use crate::errno::Errno;
use crate::memory::{Fault, Memory};

/// Why an ioctl's argument was refused before its request was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The argument, or a part of it, cannot be read or written. EFAULT.
    #[error("the ioctl's argument: {0}")]
    Fault(Fault),
    /// `argsz` is smaller than the structure. EINVAL.
    #[error("argsz is {argsz}; set it to {minimum} or more")]
    TooShort {
        /// The `argsz` given.
        argsz: u32,
        /// The least that is accepted, in bytes.
        minimum: usize,
    },
}

impl ArgumentError {
    /// What the kernel answers.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Fault(_) => Errno::EFAULT,
            Self::TooShort { .. } => Errno::EINVAL,
        }
    }
}

/// Bytes of a request, read from the caller. Integers are little-endian; one that is asked for past the `N`
/// bytes is a panic, since it is the code that names offsets.
#[derive(Clone, Debug)]
pub struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> From<[u8; N]> for Bytes<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> Bytes<N> {
    /// An answer that owes nothing to the request.
    pub fn zeroed() -> Self {
        Self([0; N])
    }

    /// Reads `N` bytes at `offset` behind the argument.
    pub fn read(memory: &dyn Memory, arg: u64, offset: usize) -> Result<Self, ArgumentError> {
        let mut bytes = [0; N];
        memory.read(behind(arg, offset), &mut bytes).map_err(ArgumentError::Fault)?;
        Ok(Self(bytes))
    }

    /// Reads the first `N` bytes of a structure, whose `argsz` must cover them.
    pub fn read_sized(memory: &dyn Memory, arg: u64) -> Result<Self, ArgumentError> {
        let bytes = Self::read(memory, arg, 0)?;
        bytes.require(N)?;
        Ok(bytes)
    }

    /// Refuses an `argsz` below `minimum`.
    pub fn require(&self, minimum: usize) -> Result<(), ArgumentError> {
        let argsz = self.argsz();
        if (argsz as usize) < minimum {
            return Err(ArgumentError::TooShort { argsz, minimum });
        }
        Ok(())
    }

    /// The first integer, which says how much room there is at the argument, in bytes.
    pub fn argsz(&self) -> u32 {
        self.u32_at(0)
    }

    pub(super) fn u16_at(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(&self.0[offset..offset + 2]);
        u16::from_le_bytes(bytes)
    }

    /// The integer of 32 bits at `offset`.
    pub fn u32_at(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_le_bytes(bytes)
    }

    /// The integer of 64 bits at `offset`.
    pub fn u64_at(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Sets the integer of 32 bits at `offset`.
    pub fn set_u32(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets the integer of 64 bits at `offset`.
    pub fn set_u64(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Writes the bytes back to where the structure starts.
    pub fn write(&self, memory: &dyn Memory, arg: u64) -> Result<(), ArgumentError> {
        self.write_first(N, memory, arg)
    }

    /// Writes the first `count` bytes back, or all of them if there are not so many.
    pub fn write_first(
        &self,
        count: usize,
        memory: &dyn Memory,
        arg: u64,
    ) -> Result<(), ArgumentError> {
        memory.write(Vaddr(arg), &self.0[..count.min(N)]).map_err(ArgumentError::Fault)
    }
}

/// The address `offset` bytes behind the argument. An argument at the very end of the space wraps
/// to addresses that hold no structure either.
pub fn behind(arg: u64, offset: usize) -> Vaddr {
    Vaddr(arg.wrapping_add(offset as u64))
}
