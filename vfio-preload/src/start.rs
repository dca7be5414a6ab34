// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when the library is loaded: hardly anything.
#![expect(unsafe_code, reason = "functions that the linker and libc call")]

use std::ffi::c_long;

use crate::heap;
use crate::world::World;

extern "C" fn load() {
    // SAFETY: the functions are there for as long as the process.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(forked), Some(made_by_fork)) };
}

unsafe extern "C" fn before_fork() {
    heap::lock();
}

unsafe extern "C" fn forked() {
    heap::unlock();
}

unsafe extern "C" fn made_by_fork() {
    heap::unlock();
    World::forget();
}

/// After a system call that makes a process with memory of its own: libc does not tell the child of it.
pub(crate) fn forking(child: c_long) -> c_long {
    if child == 0 {
        World::forget();
    }
    child
}

#[used]
// SAFETY: the linker's table of functions that are called when the library is loaded.
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
