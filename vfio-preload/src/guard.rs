// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies between any two addresses of this process that end where there is no memory, as
//! `copy_from_user` does in the kernel.
//!
//! Each of the routines below is one loop over memory with an end to go to. Where an access raises a
//! signal, the handler (`trap`) asks [`landing`] and goes on there; a register says how much is left.
#![expect(unsafe_code, reason = "the one place that accesses memory by number")]

use std::arch::global_asm;

/// The page that memory is mapped in.
pub(crate) const PAGE: u64 = 4096;

// Up to 64 bytes go in steps of 8, upwards: who polls the end of a record sees its beginning too. String
// instructions promise no order.
global_asm!(
    ".pushsection .text",
    ".p2align 4",
    // rdi: to, rsi: from, rdx: bytes; rax: bytes left.
    ".globl vfio_preload_copy",
    ".hidden vfio_preload_copy",
    "vfio_preload_copy:",
    "mov rcx, rdx",
    "cmp rcx, 64",
    "ja 3f",
    "2:",
    "cmp rcx, 8",
    "jb 3f",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 2b",
    "3:",
    "rep movsb",
    ".globl vfio_preload_copied",
    ".hidden vfio_preload_copied",
    "vfio_preload_copied:",
    "mov rax, rcx",
    "ret",
    // rdi: an address in the first page, rsi: pages; rax: pages left.
    ".globl vfio_preload_load",
    ".hidden vfio_preload_load",
    "vfio_preload_load:",
    "mov rax, rsi",
    "4:",
    "mov cl, [rdi]",
    "add rdi, 4096",
    "dec rax",
    "jnz 4b",
    ".globl vfio_preload_loaded",
    ".hidden vfio_preload_loaded",
    "vfio_preload_loaded:",
    "ret",
    // The same, with a store that changes nothing.
    ".globl vfio_preload_store",
    ".hidden vfio_preload_store",
    "vfio_preload_store:",
    "mov rax, rsi",
    "5:",
    "lock or byte ptr [rdi], 0",
    "add rdi, 4096",
    "dec rax",
    "jnz 5b",
    ".globl vfio_preload_stored",
    ".hidden vfio_preload_stored",
    "vfio_preload_stored:",
    "ret",
    ".popsection",
);

unsafe extern "sysv64" {
    fn vfio_preload_copy(to: u64, from: u64, bytes: u64) -> u64;
    fn vfio_preload_copied();
    fn vfio_preload_load(at: u64, pages: u64) -> u64;
    fn vfio_preload_loaded();
    fn vfio_preload_store(at: u64, pages: u64) -> u64;
    fn vfio_preload_stored();
}

/// Where to go on after a fault at the instruction at `at`, if it is one of the routines here.
pub(crate) fn landing(at: u64) -> Option<u64> {
    let routines: [(u64, u64); 3] = [
        (vfio_preload_copy as *const () as u64, vfio_preload_copied as *const () as u64),
        (vfio_preload_load as *const () as u64, vfio_preload_loaded as *const () as u64),
        (vfio_preload_store as *const () as u64, vfio_preload_stored as *const () as u64),
    ];
    routines.into_iter().find(|(first, end)| (*first..*end).contains(&at)).map(|(_, end)| end)
}

/// Copies out of the process. The error is how many bytes were copied before the one that could not be.
pub(crate) fn read(from: u64, into: &mut [u8]) -> Result<(), u64> {
    copy(into.as_mut_ptr().expose_provenance() as u64, from, into.len() as u64)
}

/// Copies into the process, likewise.
pub(crate) fn write(to: u64, bytes: &[u8]) -> Result<(), u64> {
    copy(to, bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64)
}

fn copy(to: u64, from: u64, bytes: u64) -> Result<(), u64> {
    // SAFETY: one side is a slice of the caller's. The other one is whatever the program has there: memory
    // that it gave to a device or to a call, which it must expect to be accessed; or nothing, which
    // the handler makes a shorter copy of. It is ours only if the program has broken its own memory.
    match unsafe { vfio_preload_copy(to, from, bytes) } {
        0 => Ok(()),
        left => Err(bytes - left),
    }
}

/// Brings in `pages` pages from `first` on, for reading or for writing too, as pinning them does.
/// The error is how many are there before the one that is not.
pub(crate) fn touch(first: u64, pages: u64, write: bool) -> Result<(), u64> {
    if pages == 0 {
        return Ok(());
    }
    // SAFETY: as with copies; what is stored is what is there.
    let left = unsafe {
        match write {
            true => vfio_preload_store(first, pages),
            false => vfio_preload_load(first, pages),
        }
    };
    if left == 0 { Ok(()) } else { Err(pages - left) }
}
