// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The library that `vfio-sim run` loads into a program: it answers the program's calls on VFIO's
//! files, in the program's own process.
//!
//! The program opens `/dev/vfio/vfio` and its groups; the files are there, empty, in a `/dev` of its own
//! (`vfio_sim::run::stage`). What it asks of them comes here instead of to the kernel:
//!
//! ```text
//!  open, ioctl, mmap, pread...  ─► hooks ─► calls ─► files ─► the emulator, a device
//!  a store into a mapped BAR    ─► trap  ─► access ─► windows ─► a device's registers
//!  a device's DMA               ─► the emulator ─► memory ─► guard ─► the program's memory
//! ```
//!
//! In the order in which they build on each other:
//!
//! - `heap`: memory of the library's own, since the program's `malloc` may have been interrupted;
//! - `inside`: whether a thread is in the middle of a call, or of a handler;
//! - `guard`: copies in this process that end, instead of faulting, where there is no memory;
//! - `windows`: the BARs that are mapped into the process;
//! - `memory`: the process's memory as the emulator sees it;
//! - `fd_set`, `own`: sets of file descriptors; those that are this library's own;
//! - `opened`: an open device: its file, its regions, its mappings;
//! - `world`: the host, made when the program first opens a file of VFIO's;
//! - `files`: which of the program's file descriptors are ours;
//! - `tape`: the recording of the calls, if one is wanted;
//! - `calls`, `transfer`, `mapping`: what each call does on them: ioctls, reads and writes, mappings;
//! - `kvm`: what programs ask of KVM that is about VFIO;
//! - `access`: the instruction that touched a BAR, carried out on a device instead;
//! - `context`: the registers of the thread that executes it;
//! - `step`: the instruction executed on memory instead, where it is not carried out;
//! - `trap`: the signals that it raises, and the program's own handlers of them;
//! - `next`, `hooks`: libc's functions, and those that stand in front of them;
//! - `signals`, `stat`, `limits`: those that set handlers; that say what kind of file a path leads to; that set
//!   limits.
//!
//! A process has a world of its own; a child has none until it opens files itself.
//! Nothing here may be changed by an unexpected call: what is not ours goes on to libc as it came.
#![deny(unsafe_code)]
#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]

mod access;
mod calls;
mod context;
mod fd_set;
mod files;
mod guard;
mod heap;
mod hooks;
mod inside;
mod kvm;
mod limits;
mod mapping;
mod memory;
mod next;
mod opened;
mod own;
mod say;
mod signals;
mod start;
mod stat;
mod step;
mod tape;
mod transfer;
mod trap;
mod windows;
mod world;
