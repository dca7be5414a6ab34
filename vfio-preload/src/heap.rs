// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The library's own heap.
//!
//! A store into a register is carried out wherever the program makes it: in a signal handler of its own too, which
//! may have interrupted `malloc`. So nothing here asks libc for memory, nor is anything given back to the system by
//! calls that this library stands in front of.
#![expect(unsafe_code, reason = "a global allocator, and the lock around it")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

use dlmalloc::{Allocator, Dlmalloc};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

#[global_allocator]
static HEAP: Heap = Heap {
    lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    memory: UnsafeCell::new(Dlmalloc::new_with_allocator(Pages)),
};

/// A lock that a fork can hold, and the memory that it guards.
struct Heap {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    memory: UnsafeCell<Dlmalloc<Pages>>,
}

// SAFETY: the memory is accessed with the lock alone.
unsafe impl Sync for Heap {}

impl Heap {
    fn locked<T>(&self, act: impl FnOnce(&mut Dlmalloc<Pages>) -> T) -> T {
        lock();
        // SAFETY: the lock is held, and `act` does not come back here: it calls the system alone.
        let result = act(unsafe { &mut *self.memory.get() });
        unlock();
        result
    }
}

// SAFETY: each request goes to one allocator, with the lock held.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        self.locked(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        self.locked(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        self.locked(|memory| unsafe { memory.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        self.locked(|memory| unsafe { memory.realloc(at, layout.size(), layout.align(), size) })
    }
}

/// Takes the heap, as a fork does: the child's must be whole.
pub(crate) fn lock() {
    // SAFETY: the lock is made, and stays.
    unsafe { libc::pthread_mutex_lock(HEAP.lock.get()) };
}

/// Lets it go.
pub(crate) fn unlock() {
    // SAFETY: this thread has taken it, or in a child of a fork the one that it is the copy of.
    unsafe { libc::pthread_mutex_unlock(HEAP.lock.get()) };
}

/// Memory of the system's. It is not given back: freed memory is used again.
struct Pages;

// SAFETY: what is returned is mapped, and nobody else's.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, which replaces nothing.
        match unsafe { mmap_anonymous(ptr::null_mut(), size, prot, flags) } {
            Ok(at) => (at.cast(), size, 0),
            Err(_) => (ptr::null_mut(), 0, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}
