// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions that set handlers of signals, and block signals: those that `trap` needs stay its own.
#![expect(unsafe_code, reason = "functions that C calls, with what C gives them")]

use std::ffi::{c_int, c_long};
use std::{mem, ptr};

use crate::world::World;
use crate::{guard, next, trap};

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the pointers are null or those of what they say, as libc's.
    unsafe { trap::set_action(signal, new, old) }
}

macro_rules! signals {
    ($($name:ident: $flags:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(signal: c_int, handler: usize) -> usize {
            // SAFETY: as libc's.
            trap::set_handler(signal, handler, $flags).unwrap_or_else(|| unsafe { next::$name(signal, handler) })
        }
    )*};
}

signals! {
    signal: libc::SA_RESTART;
    bsd_signal: libc::SA_RESTART;
    ssignal: libc::SA_RESTART;
    // What `signal` is in programs that are compiled for System V, or for C alone.
    __sysv_signal: libc::SA_RESETHAND;
    sysv_signal: libc::SA_RESETHAND;
}

macro_rules! masks {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(
            how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t,
        ) -> c_int {
            // SAFETY: a set is there or the pointer is null, as libc's.
            let open = unsafe { set.as_ref() }.filter(|_| how != libc::SIG_UNBLOCK).map(trap::kept_open);
            let set = open.as_ref().map_or(set, std::ptr::from_ref);
            // SAFETY: as libc's.
            unsafe { next::$name(how, set, old) }
        }
    )*};
}

masks! { sigprocmask pthread_sigmask }

/// System V's later one, which also blocks the signal, or unblocks it.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sigset(signal: c_int, handler: usize) -> usize {
    /// In the place of a handler: block it.
    const HOLD: usize = 2;
    // SAFETY: all bits 0 are an action, and empty sets; the pointers are theirs.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        let (mut this, mut blocked): (libc::sigset_t, libc::sigset_t) = mem::zeroed();
        let (how, before) = if handler == HOLD {
            if sigaction(signal, ptr::null(), &raw mut action) != 0 {
                return libc::SIG_ERR;
            }
            (libc::SIG_BLOCK, action.sa_sigaction)
        } else if let Some(before) = trap::set_handler(signal, handler, 0) {
            (libc::SIG_UNBLOCK, before)
        } else {
            return next::sigset(signal, handler);
        };
        libc::sigaddset(&raw mut this, signal);
        pthread_sigmask(how, &raw const this, &raw mut blocked);
        if libc::sigismember(&raw const blocked, signal) == 1 { HOLD } else { before }
    }
}

/// `rt_sigprocmask` without libc.
pub(crate) fn set_mask(how: c_int, set: usize, old: usize, bytes: usize) -> c_long {
    #![expect(clippy::cast_sign_loss, reason = "the kernel takes the lower half")]
    // Of the kernel's sets: the beginning of libc's.
    let mut given = [0; 8];
    let blocks = set != 0 && how != libc::SIG_UNBLOCK && bytes == given.len();
    // Before there is a world nobody looks after faults of copies.
    let blocks = blocks && World::get().is_some() && guard::read(set as u64, &mut given).is_ok();
    let open = blocks.then(|| {
        // SAFETY: all bits 0 are a set, which is longer.
        let mut all: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: as above.
        unsafe { (&raw mut all).cast::<[u8; 8]>().write(given) };
        trap::kept_open(&all)
    });
    let set = open.as_ref().map_or(set, |open| ptr::from_ref(open).expose_provenance());
    // SAFETY: as the system call's.
    unsafe { next::syscall(libc::SYS_rt_sigprocmask, how as usize, set, old, bytes, 0, 0) }
}
