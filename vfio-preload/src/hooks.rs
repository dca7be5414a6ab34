// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The functions that stand in front of libc's. Each asks `calls` whether the call is ours, and hands it
//! on if not.
//!
//! libc declares some of them with `...`. On x86-64 a function with fixed arguments takes such a call as
//! well: arguments that were not given are garbage, and are not looked at where the call has none.
//!
//! A thread that is cancelled while libc waits in one of them is unwound through it.
#![expect(unsafe_code, reason = "functions that C calls, with what C gives them")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};

use vfio_type1::Errno;
use vfio_type1::abi::FileOperation;

use crate::calls::{self, Answer};
use crate::files::File;
use crate::mapping::{self, MapRequest};
use crate::say::say_once;
use crate::world::World;
use crate::{inside, kvm, limits, next, own, signals, start, stat, transfer};

/// Leaves an errno for the program.
fn set_errno(errno: Errno) {
    // SAFETY: the address is that of this thread's errno.
    unsafe { *libc::__errno_location() = errno.0 };
}

/// A value as libc returns it.
fn value(answer: Answer) -> i64 {
    answer.unwrap_or_else(|errno| {
        set_errno(errno);
        -1
    })
}

/// The lower half of a value: what `int` holds.
#[expect(clippy::cast_possible_truncation, reason = "answers of calls that return int fit")]
fn int(answer: Answer) -> c_int {
    value(answer) as c_int
}

/// A value as `ssize_t` holds it.
#[expect(clippy::cast_possible_truncation, reason = "targets have 64 bits")]
fn size(answer: Answer) -> isize {
    value(answer) as isize
}

#[expect(clippy::cast_possible_truncation, reason = "targets have 64 bits")]
fn pointer(at: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(at as usize)
}

fn address(at: *const c_void) -> u64 {
    at.expose_provenance() as u64
}

/// What to return for a descriptor that libc has opened, or has not.
///
/// # Safety
///
/// libc has read the path.
unsafe fn opened(fd: c_int, path: *const c_char) -> c_int {
    if fd < 0 {
        // SAFETY: the address is that of this thread's errno.
        let errno = unsafe { *libc::__errno_location() };
        if errno == libc::ENOENT {
            // SAFETY: libc has found a string there.
            calls::not_there(unsafe { CStr::from_ptr(path) });
            set_errno(Errno(errno));
        }
        return fd;
    }
    match calls::opened(fd) {
        Ok(()) => fd,
        Err(errno) => {
            calls::discard(fd);
            set_errno(errno);
            -1
        }
    }
}

macro_rules! opens {
    ($($name:ident($($argument:ident: $type:ty),*) of $path:ident;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: as libc's: the arguments are the caller's.
            unsafe { opened(next::$name($($argument),*), $path) }
        }
    )*};
}

opens! {
    open(path: *const c_char, flags: c_int, mode: c_uint) of path;
    open64(path: *const c_char, flags: c_int, mode: c_uint) of path;
    openat(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) of path;
    openat64(at: c_int, path: *const c_char, flags: c_int, mode: c_uint) of path;
    __open_2(path: *const c_char, flags: c_int) of path;
    __open64_2(path: *const c_char, flags: c_int) of path;
    __openat_2(at: c_int, path: *const c_char, flags: c_int) of path;
    __openat64_2(at: c_int, path: *const c_char, flags: c_int) of path;
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    if own::keeps(fd) {
        set_errno(Errno::EBADF);
        return -1;
    }
    calls::closing(fd);
    // SAFETY: as libc's.
    unsafe { next::close(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    /// Only gives a thread a table of descriptors of its own before.
    const UNSHARE: c_int = 2;
    let end = |fd: c_uint| c_int::try_from(fd).unwrap_or(c_int::MAX);
    // With any other flag nothing is closed.
    if flags & !UNSHARE == 0 && first <= last {
        calls::closing_all(end(first), end(last));
        for (first, last) in own::others(end(first), end(last)) {
            let (first, last) = (first.unsigned_abs(), last.unsigned_abs());
            // SAFETY: as libc's.
            let result = unsafe { next::close_range(first, last, flags) };
            if result != 0 {
                return result;
            }
        }
        return 0;
    }
    // SAFETY: as libc's.
    unsafe { next::close_range(first, last, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn closefrom(first: c_int) {
    // SAFETY: as libc's, which does the same.
    unsafe { close_range(first.max(0).unsigned_abs(), c_uint::MAX, 0) };
}

/// What to return for a copy of a descriptor.
fn duplicated(from: c_int, to: c_int) -> c_int {
    if to >= 0 {
        calls::duplicated(from, to);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    // SAFETY: as libc's.
    duplicated(fd, unsafe { next::dup(fd) })
}

/// Whether a descriptor is in the way of a copy. It cannot make room: a device is at work with it.
fn is_taken(to: c_int) -> bool {
    if own::keeps(to) {
        say_once(format!(
            "descriptor {to}, which the program copies another one to, belongs to vfio-sim: EBUSY; \
             copy it to a number that is free, or a low one"
        ));
        set_errno(Errno::EBUSY);
    }
    own::keeps(to)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup2(fd: c_int, to: c_int) -> c_int {
    if is_taken(to) {
        return -1;
    }
    // SAFETY: as libc's.
    duplicated(fd, unsafe { next::dup2(fd, to) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    if is_taken(to) {
        return -1;
    }
    // SAFETY: as libc's.
    duplicated(fd, unsafe { next::dup3(fd, to, flags) })
}

macro_rules! fcntls {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(fd: c_int, command: c_int, argument: usize) -> c_int {
            // SAFETY: as libc's.
            let result = unsafe { next::$name(fd, command, argument) };
            match command {
                libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicated(fd, result),
                _ => result,
            }
        }
    )*};
}

fcntls! { fcntl fcntl64 }

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, command: usize, argument: usize) -> c_int {
    match calls::ioctl(fd, command as u64, argument as u64) {
        Some(answer) => int(answer),
        None => {
            // SAFETY: as libc's.
            let result = unsafe { next::ioctl(fd, command, argument) };
            if result == 0 {
                kvm::succeeded(command as u64, argument as u64);
            }
            result
        }
    }
}

macro_rules! reads {
    ($($name:ident($($room:ident)?);)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(
            fd: c_int, into: *mut c_void, bytes: usize, offset: i64 $(, $room: usize)?
        ) -> isize {
            match calls::checked(fd) {
                Some((world, file, _inside)) => {
                    size(transfer::read(world, &file, address(into), bytes, offset))
                }
                // SAFETY: as libc's.
                None => unsafe { next::$name(fd, into, bytes, offset $(, $room)?) },
            }
        }
    )*};
}

reads! {
    pread();
    pread64();
    __pread_chk(room);
    __pread64_chk(room);
}

macro_rules! writes {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(fd: c_int, from: *const c_void, bytes: usize, offset: i64) -> isize {
            match calls::checked(fd) {
                Some((world, file, _inside)) => {
                    size(transfer::write(world, &file, address(from), bytes, offset))
                }
                // SAFETY: as libc's.
                None => unsafe { next::$name(fd, from, bytes, offset) },
            }
        }
    )*};
}

writes! { pwrite pwrite64 }

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn read(fd: c_int, into: *mut c_void, bytes: usize) -> isize {
    match calls::checked(fd) {
        Some((world, file, _inside)) => size(transfer::at(world, &file, None, |offset| {
            transfer::read(world, &file, address(into), bytes, offset)
        })),
        // SAFETY: as libc's.
        None => unsafe { next::read(fd, into, bytes) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn write(fd: c_int, from: *const c_void, bytes: usize) -> isize {
    match calls::checked(fd) {
        Some((world, file, _inside)) => size(transfer::at(world, &file, None, |offset| {
            transfer::write(world, &file, address(from), bytes, offset)
        })),
        // SAFETY: as libc's.
        None => unsafe { next::write(fd, from, bytes) },
    }
}

macro_rules! vectors {
    ($($name:ident($transfer:ident $(, $argument:ident: $type:ty)*) at $offset:expr $(, if $flags:ident)?;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(
            fd: c_int, list: *const libc::iovec, count: c_int $(, $argument: $type)*
        ) -> isize {
            let Some((world, file, _inside)) = calls::checked(fd) else {
                // SAFETY: as libc's.
                return unsafe { next::$name(fd, list, count $(, $argument)*) };
            };
            $(
                if let Err(errno) = plain(world, &file, $flags) {
                    return size(Err(errno));
                }
            )?
            size(transfer::at(world, &file, $offset, |offset| {
                let list = address(list.cast());
                transfer::in_pieces(world, list, count, offset, |at, bytes, offset| {
                    transfer::$transfer(world, &file, at, bytes, offset)
                })
            }))
        }
    )*};
}

/// The offset that a call gives, unless it asks for the file's position.
fn given(offset: i64) -> Option<i64> {
    Some(offset).filter(|offset| *offset != -1)
}

/// That a transfer has no flags, but for one that asks for speed: a device's files know no others
/// (`do_loop_readv_writev`).
fn plain(world: &World, file: &File, flags: c_int) -> Result<(), Errno> {
    calls::device(world, file, FileOperation::ReadOrWrite)?;
    if flags & !libc::RWF_HIPRI == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

vectors! {
    readv(read) at None;
    writev(write) at None;
    preadv(read, offset: i64) at Some(offset);
    preadv64(read, offset: i64) at Some(offset);
    pwritev(write, offset: i64) at Some(offset);
    pwritev64(write, offset: i64) at Some(offset);
    preadv2(read, offset: i64, flags: c_int) at given(offset), if flags;
    preadv64v2(read, offset: i64, flags: c_int) at given(offset), if flags;
    pwritev2(write, offset: i64, flags: c_int) at given(offset), if flags;
    pwritev64v2(write, offset: i64, flags: c_int) at given(offset), if flags;
}

macro_rules! seeks {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(fd: c_int, offset: i64, whence: c_int) -> i64 {
            match calls::checked(fd) {
                Some((world, file, _inside)) => value(calls::seek(world, &file)),
                // SAFETY: as libc's.
                None => unsafe { next::$name(fd, offset, whence) },
            }
        }
    )*};
}

seeks! { lseek lseek64 }

/// What `mmap` returns when it fails.
const FAILED: *mut c_void = libc::MAP_FAILED;

macro_rules! mmaps {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(
            at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64,
        ) -> *mut c_void {
            if flags & libc::MAP_ANONYMOUS == 0 && let Some((world, file, _inside)) = calls::checked(fd) {
                let request = MapRequest { at: address(at), bytes, prot, flags, offset };
                return match mapping::mmap(world, &file, request) {
                    Ok(at) => pointer(at),
                    Err(errno) => {
                        set_errno(errno);
                        FAILED
                    }
                };
            }
            // SAFETY: as libc's.
            let mapped = unsafe { next::$name(at, bytes, prot, flags, fd, offset) };
            if mapped != FAILED && flags & libc::MAP_FIXED != 0 {
                mapping::unmapped(address(mapped), bytes);
            }
            mapped
        }
    )*};
}

mmaps! { mmap mmap64 }

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn munmap(at: *mut c_void, bytes: usize) -> c_int {
    // Before the addresses can be anything else.
    mapping::unmapped(address(at), bytes);
    // SAFETY: as libc's.
    unsafe { next::munmap(at, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mremap(
    at: *mut c_void,
    bytes: usize,
    new: usize,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    if mapping::grows(address(at), bytes, new) {
        set_errno(Errno::EFAULT);
        return FAILED;
    }
    // SAFETY: as libc's.
    let moved = unsafe { next::mremap(at, bytes, new, flags, to) };
    if moved != FAILED {
        mapping::moved(address(at), bytes, address(moved), new);
    }
    moved
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    // SAFETY: as libc's.
    let result = unsafe { next::madvise(at, bytes, advice) };
    if result == 0 {
        mapping::advised(address(at), bytes, advice);
    }
    result
}

/// Changes the protection of a range: of registers here, of all else by `protect`.
fn protect_around(
    at: *mut c_void,
    bytes: usize,
    prot: c_int,
    protect: impl Fn(*mut c_void, usize) -> c_int,
) -> c_int {
    #![expect(clippy::cast_possible_truncation, reason = "targets have 64 bits")]
    let (mut from, mut left) = (at, bytes);
    for registers in mapping::protected(address(at), bytes, prot) {
        let before = (registers.first().0 - address(from)) as usize;
        if before > 0 && protect(from, before) != 0 {
            return -1;
        }
        let past = before + (registers.last().0 - registers.first().0) as usize + 1;
        (from, left) = (from.wrapping_byte_add(past), left.saturating_sub(past));
    }
    match left {
        0 if bytes > 0 => 0,
        _ => protect(from, left),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn mprotect(at: *mut c_void, bytes: usize, prot: c_int) -> c_int {
    // SAFETY: as libc's.
    protect_around(at, bytes, prot, |at, bytes| unsafe { next::mprotect(at, bytes, prot) })
}

/// Keys are not for registers: their pages stay without access.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn pkey_mprotect(
    at: *mut c_void,
    bytes: usize,
    prot: c_int,
    key: c_int,
) -> c_int {
    // SAFETY: as libc's.
    protect_around(at, bytes, prot, |at, bytes| unsafe {
        next::pkey_mprotect(at, bytes, prot, key)
    })
}

/// `fclose` closes its descriptor without `close`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fclose(stream: *mut libc::FILE) -> c_int {
    // SAFETY: the stream is open, as libc's has to be.
    calls::closing(unsafe { libc::fileno(stream) });
    // SAFETY: as libc's.
    unsafe { next::fclose(stream) }
}

/// The calls that some programs make without libc's function for them.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: as the system call's.
    let first = || unsafe { system_call(number, [a, b, c, d, e, f]) };
    // SAFETY: likewise.
    inside::system_call(first, || unsafe { next::syscall(number, a, b, c, d, e, f) })
}

unsafe fn system_call(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    #![expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the kernel takes the lower halves of arguments that are ints"
    )]
    let path = std::ptr::with_exposed_provenance::<c_char>;
    let at = std::ptr::with_exposed_provenance_mut::<c_void>;
    // SAFETY: as the system call's.
    unsafe {
        match number {
            libc::SYS_open => c_long::from(open(path(a), b as c_int, c as c_uint)),
            libc::SYS_openat => c_long::from(openat(a as c_int, path(b), c as c_int, d as c_uint)),
            libc::SYS_close => c_long::from(close(a as c_int)),
            libc::SYS_close_range => {
                c_long::from(close_range(a as c_uint, b as c_uint, c as c_int))
            }
            libc::SYS_dup => c_long::from(dup(a as c_int)),
            libc::SYS_dup2 => c_long::from(dup2(a as c_int, b as c_int)),
            libc::SYS_dup3 => c_long::from(dup3(a as c_int, b as c_int, c as c_int)),
            libc::SYS_ioctl => c_long::from(ioctl(a as c_int, b, c)),
            libc::SYS_read => read(a as c_int, at(b), c) as c_long,
            libc::SYS_write => write(a as c_int, at(b), c) as c_long,
            libc::SYS_lseek => lseek(a as c_int, b as i64, c as c_int),
            libc::SYS_fcntl => c_long::from(fcntl(a as c_int, b as c_int, c)),
            libc::SYS_mprotect => c_long::from(mprotect(at(a), b, c as c_int)),
            libc::SYS_pkey_mprotect => {
                c_long::from(pkey_mprotect(at(a), b, c as c_int, d as c_int))
            }
            libc::SYS_madvise => c_long::from(madvise(at(a), b, c as c_int)),
            libc::SYS_mremap => {
                mremap(at(a), b, c, d as c_int, at(e)).expose_provenance() as c_long
            }
            libc::SYS_pread64 => pread(a as c_int, at(b), c, d as i64) as c_long,
            libc::SYS_pwrite64 => pwrite(a as c_int, at(b), c, d as i64) as c_long,
            libc::SYS_mmap => {
                let mapped = mmap(at(a), b, c as c_int, d as c_int, e as c_int, f as i64);
                mapped.expose_provenance() as c_long
            }
            libc::SYS_munmap => c_long::from(munmap(at(a), b)),
            libc::SYS_stat => c_long::from(stat::stat(path(a), at(b).cast())),
            libc::SYS_lstat => c_long::from(stat::lstat(path(a), at(b).cast())),
            libc::SYS_fstat => c_long::from(stat::fstat(a as c_int, at(b).cast())),
            libc::SYS_newfstatat => {
                c_long::from(stat::fstatat(a as c_int, path(b), at(c).cast(), d as c_int))
            }
            libc::SYS_statx => {
                let (flags, mask) = (c as c_int, d as c_uint);
                c_long::from(stat::statx(a as c_int, path(b), flags, mask, at(e).cast()))
            }
            libc::SYS_rt_sigprocmask => signals::set_mask(a as c_int, b, c, d),
            libc::SYS_setrlimit => c_long::from(limits::setrlimit(a as c_uint, at(b).cast())),
            libc::SYS_prlimit64 => {
                let (process, resource) = (a as c_int, b as c_uint);
                c_long::from(limits::prlimit(process, resource, at(c).cast(), at(d).cast()))
            }
            libc::SYS_fork => start::forking(|| next::syscall(number, a, b, c, d, e, f)),
            libc::SYS_clone if start::has_memory(a as u64) => {
                start::forking(|| next::syscall(number, a, b, c, d, e, f))
            }
            libc::SYS_clone3 => start::clone3(a, b),
            _ => next::syscall(number, a, b, c, d, e, f),
        }
    }
}
