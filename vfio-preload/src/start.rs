// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when the library is loaded: hardly anything.
#![expect(unsafe_code, reason = "functions that the linker and libc call")]

use crate::world::World;

extern "C" fn load() {
    // SAFETY: the function is there for as long as the process.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
}

unsafe extern "C" fn forked() {
    World::forget();
}

#[used]
// SAFETY: the linker's table of functions that are called when the library is loaded.
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
