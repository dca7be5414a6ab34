// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A library that makes system calls itself, as allocators do: in the place of libc's functions, through syscall().
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void *mmap(void *at, size_t size, int prot, int flags, int fd, long offset) {
    return (void *)syscall(SYS_mmap, at, size, prot, flags, fd, offset);
}

int munmap(void *at, size_t size) { return (int)syscall(SYS_munmap, at, size); }

int mprotect(void *at, size_t size, int prot) { return (int)syscall(SYS_mprotect, at, size, prot); }

int close(int fd) { return (int)syscall(SYS_close, fd); }

ssize_t pread(int fd, void *into, size_t size, long offset) { return syscall(SYS_pread64, fd, into, size, offset); }
