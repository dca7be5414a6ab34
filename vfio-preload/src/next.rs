// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions that ours stand in front of: libc's, or another preloaded library's.
#![expect(
    unsafe_code,
    reason = "functions found by their names have the types that are written here"
)]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function, found when it is first called or when the library is loaded.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Its address; null if libc does not have it.
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name is a string; RTLD_NEXT looks behind this library.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

macro_rules! next {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            /// libc's.
            #[allow(non_snake_case, reason = "libc has its own names")]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "-1 is what each of them returns for an error, whatever its type"
            )]
            pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                static NEXT: Next = Next::new(unsafe {
                    CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes())
                });
                let address = NEXT.address();
                if address.is_null() {
                    // SAFETY: the address is that of this thread's errno.
                    unsafe { *libc::__errno_location() = libc::ENOSYS };
                    return -1_isize as $result;
                }
                // SAFETY: libc declares the function so; the caller has what it needs.
                unsafe {
                    let next: unsafe extern "C-unwind" fn($($type),*) -> $result = std::mem::transmute(address);
                    next($($argument),*)
                }
            }
        )*
    };
}

next! {
    open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    openat(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    openat64(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    __open_2(path: *const c_char, flags: c_int) -> c_int;
    __open64_2(path: *const c_char, flags: c_int) -> c_int;
    __openat_2(at: c_int, path: *const c_char, flags: c_int) -> c_int;
    __openat64_2(at: c_int, path: *const c_char, flags: c_int) -> c_int;
    close(fd: c_int) -> c_int;
    close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    dup(fd: c_int) -> c_int;
    dup2(fd: c_int, to: c_int) -> c_int;
    dup3(fd: c_int, to: c_int, flags: c_int) -> c_int;
    fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
    ioctl(fd: c_int, command: usize, argument: usize) -> c_int;
    read(fd: c_int, into: *mut c_void, bytes: usize) -> isize;
    write(fd: c_int, from: *const c_void, bytes: usize) -> isize;
    pread(fd: c_int, into: *mut c_void, bytes: usize, offset: i64) -> isize;
    pread64(fd: c_int, into: *mut c_void, bytes: usize, offset: i64) -> isize;
    __pread_chk(fd: c_int, into: *mut c_void, bytes: usize, offset: i64, room: usize) -> isize;
    __pread64_chk(fd: c_int, into: *mut c_void, bytes: usize, offset: i64, room: usize) -> isize;
    pwrite(fd: c_int, from: *const c_void, bytes: usize, offset: i64) -> isize;
    pwrite64(fd: c_int, from: *const c_void, bytes: usize, offset: i64) -> isize;
    readv(fd: c_int, list: *const libc::iovec, count: c_int) -> isize;
    writev(fd: c_int, list: *const libc::iovec, count: c_int) -> isize;
    preadv(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64) -> isize;
    preadv64(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64) -> isize;
    pwritev(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64) -> isize;
    pwritev64(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64) -> isize;
    preadv2(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64, flags: c_int) -> isize;
    preadv64v2(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64, flags: c_int) -> isize;
    pwritev2(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64, flags: c_int) -> isize;
    pwritev64v2(fd: c_int, list: *const libc::iovec, count: c_int, offset: i64, flags: c_int) -> isize;
    lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    lseek64(fd: c_int, offset: i64, whence: c_int) -> i64;
    mmap(at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    mmap64(at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    munmap(at: *mut c_void, bytes: usize) -> c_int;
    mremap(at: *mut c_void, bytes: usize, new: usize, flags: c_int, to: *mut c_void) -> *mut c_void;
    madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    mprotect(at: *mut c_void, bytes: usize, prot: c_int) -> c_int;
    pkey_mprotect(at: *mut c_void, bytes: usize, prot: c_int, key: c_int) -> c_int;
    sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    signal(signal: c_int, handler: usize) -> usize;
    bsd_signal(signal: c_int, handler: usize) -> usize;
    ssignal(signal: c_int, handler: usize) -> usize;
    sigset(signal: c_int, handler: usize) -> usize;
    fclose(stream: *mut libc::FILE) -> c_int;
    __sysv_signal(signal: c_int, handler: usize) -> usize;
    sysv_signal(signal: c_int, handler: usize) -> usize;
    sigprocmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int;
    pthread_sigmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int;
    _Fork() -> c_int;
    clone(
        function: Option<unsafe extern "C-unwind" fn(*mut c_void) -> c_int>,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
        parent_id: *mut c_void,
        tls: *mut c_void,
        child_id: *mut c_void
    ) -> c_int;
    __clone(
        function: Option<unsafe extern "C-unwind" fn(*mut c_void) -> c_int>,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
        parent_id: *mut c_void,
        tls: *mut c_void,
        child_id: *mut c_void
    ) -> c_int;
    setrlimit(resource: c_uint, new: *const libc::rlimit) -> c_int;
    setrlimit64(resource: c_uint, new: *const libc::rlimit) -> c_int;
    prlimit(process: c_int, resource: c_uint, new: *const libc::rlimit, old: *mut libc::rlimit) -> c_int;
    prlimit64(process: c_int, resource: c_uint, new: *const libc::rlimit, old: *mut libc::rlimit) -> c_int;
    stat(path: *const c_char, into: *mut libc::stat) -> c_int;
    stat64(path: *const c_char, into: *mut libc::stat) -> c_int;
    lstat(path: *const c_char, into: *mut libc::stat) -> c_int;
    lstat64(path: *const c_char, into: *mut libc::stat) -> c_int;
    fstat(fd: c_int, into: *mut libc::stat) -> c_int;
    fstat64(fd: c_int, into: *mut libc::stat) -> c_int;
    fstatat(at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    fstatat64(at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    statx(at: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut libc::statx) -> c_int;
    __xstat(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __xstat64(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __lxstat(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __lxstat64(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __fxstat(version: c_int, fd: c_int, into: *mut libc::stat) -> c_int;
    __fxstat64(version: c_int, fd: c_int, into: *mut libc::stat) -> c_int;
    __fxstatat(version: c_int, at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    __fxstatat64(version: c_int, at: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long;
}
