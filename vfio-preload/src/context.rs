// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a thread that a signal has interrupted. What a handler writes there, the thread has when
//! the handler returns.
#![expect(unsafe_code, reason = "what the kernel gives a handler are pointers")]

use std::ffi::c_int;

use crate::access::Registers;

/// The trap flag, in the flags register: SIGTRAP behind the next instruction.
const TRAP_FLAG: i64 = 1 << 8;

/// The registers of the interrupted thread.
pub(crate) struct Thread<'a>(pub(crate) &'a mut libc::ucontext_t);

/// Where the general registers are in the kernel's order, by their numbers in instructions.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// The number of the stack pointer among them.
const GENERAL_STACK: usize = 4;

impl Thread<'_> {
    fn register(&mut self, index: c_int) -> &mut i64 {
        &mut self.0.uc_mcontext.gregs[usize::try_from(index).unwrap_or(0)]
    }

    pub(crate) fn at(&mut self) -> u64 {
        self.register(libc::REG_RIP).cast_unsigned()
    }

    /// How far down the stack reaches.
    pub(crate) fn stack(&self) -> u64 {
        self.general(GENERAL_STACK)
    }

    pub(crate) fn go_on_at(&mut self, at: u64) {
        *self.register(libc::REG_RIP) = at.cast_signed();
    }

    pub(crate) fn is_single_step(&mut self) -> bool {
        *self.register(libc::REG_EFL) & TRAP_FLAG != 0
    }

    pub(crate) fn set_single_step(&mut self, on: bool) {
        let flags = self.register(libc::REG_EFL);
        *flags = if on { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
    }
}

impl Registers for Thread<'_> {
    fn general(&self, number: usize) -> u64 {
        let index = usize::try_from(GENERAL[number]).unwrap_or(0);
        self.0.uc_mcontext.gregs[index].cast_unsigned()
    }

    fn set_general(&mut self, number: usize, value: u64) {
        *self.register(GENERAL[number]) = value.cast_signed();
    }

    fn vector(&self, number: usize) -> [u8; 16] {
        // SAFETY: the kernel always saves these registers on x86-64.
        let words = unsafe { (*self.0.uc_mcontext.fpregs)._xmm[number].element };
        let mut bytes = [0; 16];
        for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn set_vector(&mut self, number: usize, value: [u8; 16]) {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| value[4 * at + byte]));
        // SAFETY: as above; the handler's return puts them back into the registers.
        unsafe { (*self.0.uc_mcontext.fpregs)._xmm[number].element = std::array::from_fn(word) };
    }
}
