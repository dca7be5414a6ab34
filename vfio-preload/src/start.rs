// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens when the library is loaded, hardly anything; and when a process is made.
#![expect(unsafe_code, reason = "functions that the linker, libc and the program call")]

use std::ffi::{c_int, c_long, c_void};

use crate::world::World;
use crate::{guard, heap, inside, next};

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

/// Whether a process that is made with these flags has memory of its own.
pub(crate) fn has_memory(flags: u64) -> bool {
    flags & u64::from(libc::CLONE_VM.unsigned_abs()) == 0
}

/// Makes a process with memory of its own by a call that libc does not tell the child of. The child's heap is whole.
pub(crate) fn forking<T: PartialEq + From<u8>>(make: impl FnOnce() -> T) -> T {
    let _inside = inside::enter();
    heap::lock();
    let child = make();
    heap::unlock();
    if child == T::from(0) {
        World::forget();
    }
    child
}

/// `clone3` without libc.
///
/// # Safety
///
/// As the system call's.
pub(crate) unsafe fn clone3(arguments: usize, bytes: usize) -> c_long {
    // SAFETY: the caller's.
    let make = || unsafe { next::syscall(libc::SYS_clone3, arguments, bytes, 0, 0, 0, 0) };
    let mut flags = [0; 8];
    // They come first. Where they are not, the kernel says so.
    let known = guard::read(arguments as u64, &mut flags).is_ok();
    if known && has_memory(u64::from_le_bytes(flags)) { forking(make) } else { make() }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Fork() -> c_int {
    // SAFETY: as libc's.
    forking(|| unsafe { next::_Fork() })
}

/// What a child of `clone` begins with, and its argument.
struct Beginning {
    function: unsafe extern "C-unwind" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

unsafe extern "C-unwind" fn begin(beginning: *mut c_void) -> c_int {
    heap::unlock();
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
            heap::lock();
            // SAFETY: as libc's; the child's memory is as it is now.
            let child = unsafe {
                next::$name(Some(begin), stack, flags, argument, parent_id, tls, child_id)
            };
            heap::unlock();
            child
        }
    )*};
}

clones! { clone __clone }

#[used]
// SAFETY: the linker's table of functions that are called when the library is loaded.
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
