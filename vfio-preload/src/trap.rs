// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals: accesses to mapped registers, faults of our own copies, and the program's handlers.
//!
//! Registers lie in pages that may not be accessed, so an access raises SIGSEGV in the thread that makes
//! it. The handler finds the device, carries the instruction out on it (`access`), and returns
//! behind it: a store has done its work when the next instruction runs. An instruction that cannot be
//! carried out is executed, alone, on memory that stands in for the registers, and SIGTRAP behind
//! it puts everything back.
//!
//! The program's own handlers of these signals are kept here and called for all else. The signals are never
//! blocked: a fault while they are would end the program.
//!
//! Our handler runs on the thread's own stack: alternate stacks are often too small for a device model.
#![expect(unsafe_code, reason = "signal handlers read and change the registers of a thread")]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{MprotectFlags, mprotect};
use vfio_type1::{Vaddr, VaddrRange};

use crate::access::{Access, MAX_CODE, MAX_OPERAND, Operand, Registers, Target};
use crate::guard::{self, PAGE};
use crate::next;
use crate::opened::Place;
use crate::say::say;
use crate::windows::Window;
use crate::world::World;

/// The signals that are ours.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];

/// The trap flag, in the flags register: SIGTRAP behind the next instruction.
const TRAP_FLAG: i64 = 1 << 8;

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// What the program has set for our signals, in their order. Only a signal handler reads it without the lock.
static PROGRAMS: Mutex<[Option<Action>; 3]> = Mutex::new([None; 3]);

#[derive(Clone, Copy)]
struct Action(libc::sigaction);

// SAFETY: it is a value; the address in it is that of a function.
unsafe impl Send for Action {}

fn place_of(signal: c_int) -> Option<usize> {
    SIGNALS.iter().position(|ours| *ours == signal)
}

/// Installs our handlers, once.
pub(crate) fn install() {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, before) in SIGNALS.into_iter().zip(programs.iter_mut()) {
        // SAFETY: all bits 0 are a sigaction: the default one, with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        let mut old = action;
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        // SAFETY: both are actions.
        if unsafe { next::sigaction(signal, &raw const action, &raw mut old) } == 0 {
            *before = Some(Action(old));
        }
    }
}

/// A mask without our signals.
pub(crate) fn kept_open(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut open = *mask;
    for signal in SIGNALS {
        // SAFETY: it is a set.
        unsafe { libc::sigdelset(&raw mut open, signal) };
    }
    open
}

/// `sigaction`: the program's actions for our signals are kept, once our own are in their place.
///
/// # Safety
///
/// As libc's: the pointers are null or those of actions.
pub(crate) unsafe fn set_action(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: the caller's.
    let given = unsafe { new.as_ref() }.copied();
    let given =
        given.map(|action| libc::sigaction { sa_mask: kept_open(&action.sa_mask), ..action });
    let Some(at) = place_of(signal).filter(|_| INSTALLED.load(Ordering::Acquire)) else {
        let new = given.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the caller's.
        return unsafe { next::sigaction(signal, new, old) };
    };
    let before = {
        let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        match given {
            Some(given) => programs[at].replace(Action(given)),
            None => programs[at],
        }
    };
    // Without the lock: where the program's pointer leads nowhere, a handler looks for the actions.
    // SAFETY: the caller's.
    if let (Some(old), Some(Action(before))) = (unsafe { old.as_mut() }, before) {
        *old = before;
    }
    0
}

/// `signal`, likewise.
///
/// # Safety
///
/// As libc's.
pub(crate) unsafe fn set_handler(signal: c_int, handler: usize) -> usize {
    if place_of(signal).is_none() || !INSTALLED.load(Ordering::Acquire) {
        // SAFETY: the caller's.
        return unsafe { next::signal(signal, handler) };
    }
    // SAFETY: all bits 0 are an action.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both are actions.
    unsafe { set_action(signal, &raw const new, &raw mut old) };
    old.sa_sigaction
}

/// The registers of the interrupted thread.
struct Thread<'a>(&'a mut libc::ucontext_t);

/// Where the general registers are in the kernel's order, by their numbers in instructions.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

impl Thread<'_> {
    fn register(&mut self, index: c_int) -> &mut i64 {
        &mut self.0.uc_mcontext.gregs[usize::try_from(index).unwrap_or(0)]
    }

    fn at(&mut self) -> u64 {
        self.register(libc::REG_RIP).cast_unsigned()
    }

    fn go_on_at(&mut self, at: u64) {
        *self.register(libc::REG_RIP) = at.cast_signed();
    }

    fn set_single_step(&mut self, on: bool) {
        let flags = self.register(libc::REG_EFL);
        *flags = if on { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
    }
}

impl Registers for Thread<'_> {
    fn general(&self, number: usize) -> u64 {
        let index = usize::try_from(GENERAL[number]).unwrap_or(0);
        self.0.uc_mcontext.gregs[index].cast_unsigned()
    }

    fn set_general(&mut self, number: usize, value: u64) {
        *self.register(GENERAL[number]) = value.cast_signed();
    }

    fn vector(&self, number: usize) -> [u8; 16] {
        // SAFETY: the kernel always saves these registers on x86-64.
        let words = unsafe { (*self.0.uc_mcontext.fpregs)._xmm[number].element };
        let mut bytes = [0; 16];
        for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn set_vector(&mut self, number: usize, value: [u8; 16]) {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| value[4 * at + byte]));
        // SAFETY: as above; the handler's return puts them back into the registers.
        unsafe { (*self.0.uc_mcontext.fpregs)._xmm[number].element = std::array::from_fn(word) };
    }
}

/// The registers behind a window.
struct Bar<'a> {
    window: &'a Window,
    /// Whether the device has answered so far.
    answers: bool,
}

impl Bar<'_> {
    fn place(&self, at: u64) -> Place {
        Place { region: self.window.region, offset: self.window.offset_of(Vaddr(at)) }
    }
}

impl Target for Bar<'_> {
    fn load(&mut self, at: u64, into: &mut [u8]) {
        self.answers &= self.window.device.read(self.place(at), into) == Ok(into.len());
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.answers &= self.window.device.write(self.place(at), bytes) == Ok(bytes.len());
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both to a handler with SA_SIGINFO.
    let (fault, thread) =
        unsafe { ((*info).si_addr().expose_provenance() as u64, &mut *context.cast()) };
    let mut thread = Thread(thread);
    let at = thread.at();
    if let Some(landing) = guard::landing(at) {
        thread.go_on_at(landing);
        return;
    }
    // SAFETY: the address is that of this thread's errno, which calls in here may change.
    let errno = unsafe { *libc::__errno_location() };
    let handled = match signal {
        libc::SIGTRAP => STEP.finish(&mut thread),
        _ => touched(&mut thread, at, Vaddr(fault)),
    };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if let Err(signal) = handled.ok_or(signal).and_then(|handled| handled) {
        hand_on(signal, info, context);
    }
}

/// Carries out an access to registers. `None` if it was none; the error is the signal that the program
/// gets for it.
fn touched(thread: &mut Thread<'_>, at: u64, fault: Vaddr) -> Option<Result<(), c_int>> {
    let window = World::get()?.windows.find(fault)?;
    let mut code = [0; MAX_CODE];
    let length = guard::read(at, &mut code)
        .map_or_else(|read| usize::try_from(read).unwrap_or(0), |()| MAX_CODE);
    let access = Access::decode(&code[..length], at, thread)?;
    let operand = access.operand;
    let last = Vaddr(operand.at.checked_add(operand.size as u64 - 1)?);
    if !(Vaddr(operand.at)..=last).contains(&fault) || !window.trapped {
        return None;
    }
    if !window.range.contains(Vaddr(operand.at)) || !window.range.contains(last) {
        say(format!(
            "an access at {fault} runs over the end of a mapped BAR; that is not emulated"
        ));
        return None;
    }
    if operand.reads && !window.readable && !window.writable || operand.writes && !window.writable {
        return None;
    }
    let mut bar = Bar { window: &window, answers: true };
    if access.carry_out(thread, &mut bar) {
        if bar.answers {
            thread.go_on_at(access.next());
        }
    } else {
        STEP.begin(thread, &window, operand);
    }
    // Of a BAR that does not decode there is no page.
    Some(if bar.answers { Ok(()) } else { Err(libc::SIGBUS) })
}

/// An instruction that is executed on memory that stands in for registers. There is one at a time, in all
/// threads: the memory can be accessed by all of them.
struct Step {
    /// The thread whose instruction it is, or 0.
    thread: AtomicI32,
    state: UnsafeCell<Option<StepState>>,
}

struct StepState {
    window: Window,
    operand: Operand,
    mask: libc::sigset_t,
}

// SAFETY: the state is accessed by the thread alone whose number is there.
unsafe impl Sync for Step {}

static STEP: Step = Step { thread: AtomicI32::new(0), state: UnsafeCell::new(None) };

/// The pages that an operand lies in.
fn pages(operand: &Operand) -> (u64, u64) {
    let first = operand.at & !(PAGE - 1);
    let end = (operand.at + operand.size as u64).next_multiple_of(PAGE);
    (first, end - first)
}

/// Lets accesses to the pages of a window trap.
pub(crate) fn put_out_of_reach(range: &VaddrRange) {
    let first = range.first().0;
    protect((first, range.last().0 - first + 1), MprotectFlags::empty());
}

fn protect((first, bytes): (u64, u64), flags: MprotectFlags) {
    let at = ptr::with_exposed_provenance_mut(usize::try_from(first).unwrap_or(0));
    // SAFETY: the pages are those of a window, which the program accesses through us alone.
    let done = unsafe { mprotect(at, usize::try_from(bytes).unwrap_or(0), flags) };
    debug_assert!(done.is_ok(), "a window's pages can be protected");
}

impl Step {
    fn begin(&self, thread: &mut Thread<'_>, window: &Window, operand: Operand) {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        while self.thread.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::hint::spin_loop();
        }
        let mut bytes = [0; MAX_OPERAND];
        let bytes = &mut bytes[..operand.size];
        let mut bar = Bar { window, answers: true };
        if operand.reads {
            bar.load(operand.at, bytes);
        }
        protect(pages(&operand), MprotectFlags::READ | MprotectFlags::WRITE);
        // What is not ours must wait, or its handler would be executed step by step.
        let mask = thread.0.uc_sigmask;
        // SAFETY: a set of all signals is made in place.
        thread.0.uc_sigmask = unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            kept_open(&all.assume_init())
        };
        let _ = guard::write(operand.at, bytes);
        thread.set_single_step(true);
        // SAFETY: this thread's number is there.
        unsafe { *self.state.get() = Some(StepState { window: window.clone(), operand, mask }) };
    }

    /// Ends it. `None` if SIGTRAP is not for us.
    fn finish(&self, thread: &mut Thread<'_>) -> Option<Result<(), c_int>> {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        if self.thread.load(Ordering::Relaxed) != own {
            return None;
        }
        // SAFETY: this thread's number is there.
        let StepState { window, operand, mask } = unsafe { (*self.state.get()).take() }?;
        let mut bytes = [0; MAX_OPERAND];
        let bytes = &mut bytes[..operand.size];
        let _ = guard::read(operand.at, bytes);
        protect(pages(&operand), MprotectFlags::empty());
        thread.set_single_step(false);
        thread.0.uc_sigmask = mask;
        self.thread.store(0, Ordering::Release);
        let mut bar = Bar { window: &window, answers: true };
        if operand.writes {
            bar.store(operand.at, bytes);
        }
        Some(if bar.answers { Ok(()) } else { Err(libc::SIGBUS) })
    }
}

/// Lets the program have a signal that is not ours.
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let action = place_of(signal).and_then(|at| programs[at]);
    drop(programs);
    match action.map(|Action(action)| (action.sa_sigaction, action.sa_flags)) {
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => {
            // SAFETY: all bits 0 are the default action. The instruction is executed again, and ends the
            // program as it would have without us.
            unsafe {
                let default: libc::sigaction = mem::zeroed();
                next::sigaction(signal, &raw const default, ptr::null_mut());
                libc::raise(signal);
            }
        }
        Some((handler, flags)) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with this flag it is the address of such a function.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { mem::transmute(handler) };
            handler(signal, info, context);
        }
        Some((handler, _)) => {
            // SAFETY: it is the address of such a function.
            let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
            handler(signal);
        }
    }
}
