// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a store costs that raises a signal whose handler does nothing but go on behind it: the least that an access to
//! a trapped register can cost. Beside `program`, which measures such accesses.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]
#![expect(unsafe_code, reason = "a signal handler, and a store that faults")]

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr::null_mut;

use criterion::{Criterion, criterion_group, criterion_main};

/// The bytes of the store below.
const LENGTH: i64 = 2;

extern "C" fn go_on(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives it to a handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[usize::try_from(libc::REG_RIP).unwrap_or(0)] += LENGTH;
}

fn benchmark(criterion: &mut Criterion) {
    // SAFETY: all bits 0 are an action; the handler has the type that the flag asks for.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = go_on as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()), 0);
    }
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which replaces nothing.
    let page = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    criterion.benchmark_group("program").bench_function("a handler that does nothing", |bencher| {
        // SAFETY: the store never takes place.
        bencher.iter(|| unsafe {
            asm!("mov dword ptr [rdi], eax", in("rdi") page, in("eax") 1_u32);
        });
    });
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
