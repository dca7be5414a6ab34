// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when the library is loaded, hardly anything; and when a process is made.
#![expect(unsafe_code, reason = "functions that the linker, libc and the program call")]

use std::ffi::{c_int, c_long, c_void};

use crate::next;
use crate::world::World;

extern "C" fn load() {
    // SAFETY: the function is there for as long as the process.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
}

unsafe extern "C" fn forked() {
    World::forget();
}

/// Whether a process that is made with these flags has memory of its own.
pub(crate) fn has_memory(flags: u64) -> bool {
    flags & u64::from(libc::CLONE_VM.unsigned_abs()) == 0
}

/// After a call that makes a process with memory of its own: libc does not tell the child of it.
pub(crate) fn forking(child: c_long) -> c_long {
    if child == 0 {
        World::forget();
    }
    child
}

/// `clone3` without libc.
///
/// # Safety
///
/// As the system call's.
pub(crate) unsafe fn clone3(arguments: *const u64, bytes: usize) -> c_long {
    let (number, at) = (libc::SYS_clone3, arguments.expose_provenance());
    // SAFETY: the caller's.
    let child = unsafe { next::syscall(number, at, bytes, 0, 0, 0, 0) };
    // SAFETY: the kernel has read the arguments, which begin with the flags: they are there.
    if child == 0 && has_memory(unsafe { arguments.read_unaligned() }) {
        World::forget();
    }
    child
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Fork() -> c_int {
    // SAFETY: as libc's.
    let child = unsafe { next::_Fork() };
    if child == 0 {
        World::forget();
    }
    child
}

/// What a child of `clone` begins with, and its argument.
struct Beginning {
    function: unsafe extern "C-unwind" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

unsafe extern "C-unwind" fn begin(beginning: *mut c_void) -> c_int {
    World::forget();
    // SAFETY: it is the child's copy of what `clone` has put there, the program's function and its argument.
    unsafe {
        let Beginning { function, argument } = beginning.cast::<Beginning>().read();
        function(argument)
    }
}

macro_rules! clones {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(
            function: Option<unsafe extern "C-unwind" fn(*mut c_void) -> c_int>,
            stack: *mut c_void,
            flags: c_int,
            argument: *mut c_void,
            parent_id: *mut c_void,
            tls: *mut c_void,
            child_id: *mut c_void,
        ) -> c_int {
            let forks = has_memory(flags.unsigned_abs().into());
            let Some(function) = function.filter(|_| forks) else {
                // SAFETY: as libc's.
                return unsafe { next::$name(function, stack, flags, argument, parent_id, tls, child_id) };
            };
            let mut beginning = Beginning { function, argument };
            let argument = (&raw mut beginning).cast();
            // SAFETY: as libc's; the child's memory is as it is now.
            unsafe { next::$name(Some(begin), stack, flags, argument, parent_id, tls, child_id) }
        }
    )*};
}

clones! { clone __clone }

#[used]
// SAFETY: the linker's table of functions that are called when the library is loaded.
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
