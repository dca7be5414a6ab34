// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program changes its limits: the one on locked memory holds from then on, for mappings that come.
//! Looking at it before each mapping would double what one costs.
#![expect(unsafe_code, reason = "functions that C calls, with what C gives them")]

use std::ffi::{c_int, c_uint};

use crate::inside;
use crate::next;
use crate::world::World;

/// After a call that sets a limit if it succeeds. Its result is handed on.
fn set(resource: c_uint, result: c_int) -> c_int {
    if result == 0
        && resource == libc::RLIMIT_MEMLOCK
        && let Some(world) = World::get().filter(|world| world.is_here())
    {
        let _inside = inside::enter();
        world.read_limits();
    }
    result
}

macro_rules! limits {
    ($($name:ident($($argument:ident: $type:ty),*) of $resource:ident;)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: as libc's.
            set($resource, unsafe { next::$name($($argument),*) })
        }
    )*};
}

limits! {
    setrlimit(resource: c_uint, new: *const libc::rlimit) of resource;
    setrlimit64(resource: c_uint, new: *const libc::rlimit) of resource;
    prlimit(process: c_int, resource: c_uint, new: *const libc::rlimit, old: *mut libc::rlimit) of resource;
    prlimit64(process: c_int, resource: c_uint, new: *const libc::rlimit, old: *mut libc::rlimit) of resource;
}
