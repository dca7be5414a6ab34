// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals: accesses to mapped registers, faults of our own copies, and the program's handlers.
//!
//! Registers lie in pages that may not be accessed, so an access raises SIGSEGV in the thread that makes
//! it. The handler finds the device, carries the instruction out on it (`access`), and returns
//! behind it: a store has done its work when the next instruction runs. An instruction that cannot be
//! carried out is executed on other memory (`step`).
//!
//! The program's own handlers of these signals are kept here and called for all else. The signals are never
//! blocked: a fault while they are would end the program.
//!
//! A thread that is in a call of ours, which may hold locks, cannot come back in: a handler of the program's that
//! touches registers then is told so.
//!
//! Our handler runs on the thread's own stack, since alternate stacks are often too small for a device model;
//! and so do the program's handlers of these signals. Nobody handles the end of a stack.
#![expect(unsafe_code, reason = "signal handlers read and change the registers of a thread")]

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use vfio_type1::Vaddr;

use crate::access::{Access, MAX_CODE, Target};
use crate::context::Thread;
use crate::guard;
use crate::inside::{self, Mark};
use crate::next;
use crate::opened::Place;
use crate::say::{say, say_plainly};
use crate::step;
use crate::windows::Window;
use crate::world::World;

/// The signals that are ours.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// What the program has set for our signals, in their order: one of [`KNOWN`], or null if it could not be read.
/// Handlers read it, which may interrupt each other.
static PROGRAMS: [AtomicPtr<libc::sigaction>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

/// The default action, which is one of them.
static DEFAULT: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// All actions that the program has ever set. They stay, since a handler may be reading one.
static KNOWN: Mutex<Vec<Action>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Action(*mut libc::sigaction);

// SAFETY: what it leads to stays, and does not change.
unsafe impl Send for Action {}

impl Action {
    /// The one that is like this, made if there is none yet.
    fn like(action: libc::sigaction) -> Self {
        let bytes = |action: &libc::sigaction| {
            (action.sa_sigaction, action.sa_flags, action.sa_mask, action.sa_restorer)
        };
        let made = || Self(Box::into_raw(Box::new(action)));
        // A handler that sets an action may have interrupted the same.
        let Ok(mut known) = KNOWN.try_lock() else { return made() };
        // SAFETY: they stay.
        let found =
            known.iter().find(|known| bytes(unsafe { &*known.0 }) == bytes(&action)).copied();
        found.unwrap_or_else(|| {
            let made = made();
            known.push(made);
            made
        })
    }
}

fn place_of(signal: c_int) -> Option<usize> {
    SIGNALS.iter().position(|ours| *ours == signal)
}

/// Installs our handlers, once.
pub(crate) fn install() {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: all bits 0 are the default action.
    DEFAULT.store(Action::like(unsafe { mem::zeroed() }).0, Ordering::Release);
    for (signal, before) in SIGNALS.into_iter().zip(&PROGRAMS) {
        // SAFETY: all bits 0 are a sigaction: the default one, with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        let mut old = action;
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        // Others wait: their handlers may use the device that is at work.
        action.sa_mask = all_but_ours();
        // SAFETY: both are actions.
        if unsafe { next::sigaction(signal, &raw const action, &raw mut old) } == 0 {
            before.store(Action::like(old).0, Ordering::Release);
        }
    }
    unblock();
}

/// Unblocks our signals in this thread: whoever has started the program may have blocked them.
fn unblock() {
    // SAFETY: a set is made in place.
    unsafe {
        let mut set = mem::zeroed();
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        next::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// All signals but ours.
pub(crate) fn all_but_ours() -> libc::sigset_t {
    // SAFETY: a set is made in place.
    let all = unsafe {
        let mut all = mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    };
    without(&all, &SIGNALS)
}

/// A mask without the signals of faults. SIGTRAP a program may block and wait for; it is let in for a step.
pub(crate) fn kept_open(mask: &libc::sigset_t) -> libc::sigset_t {
    without(mask, &[libc::SIGSEGV, libc::SIGBUS])
}

fn without(mask: &libc::sigset_t, signals: &[c_int]) -> libc::sigset_t {
    let mut open = *mask;
    for &signal in signals {
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
    let before = match given {
        Some(given) => PROGRAMS[at].swap(Action::like(given).0, Ordering::AcqRel),
        None => PROGRAMS[at].load(Ordering::Acquire),
    };
    // SAFETY: the caller's; what the other one leads to stays.
    if let (Some(old), Some(before)) = (unsafe { old.as_mut() }, unsafe { before.as_ref() }) {
        *old = *before;
    }
    0
}

/// `signal`, likewise, with these flags of an action. `None` if the signal is not ours.
pub(crate) fn set_handler(signal: c_int, handler: usize, flags: c_int) -> Option<usize> {
    place_of(signal).filter(|_| INSTALLED.load(Ordering::Acquire))?;
    // SAFETY: all bits 0 are an action.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: both are actions.
    unsafe { set_action(signal, &raw const new, &raw mut old) };
    Some(old.sa_sigaction)
}

/// The registers behind a window.
pub(crate) struct Bar<'a> {
    pub(crate) window: &'a Window,
    /// Whether the device has answered so far.
    pub(crate) answers: bool,
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
    // SAFETY: as above. Whatever a process has sent is the program's, wherever it arrives.
    if unsafe { (*info).si_code } <= 0 {
        hand_on(signal, info, context);
        return;
    }
    if let Some(landing) = guard::landing(at) {
        thread.go_on_at(landing);
        return;
    }
    // SAFETY: the address is that of this thread's errno, which calls in here may change.
    let errno = unsafe { *libc::__errno_location() };
    let handled = match signal {
        libc::SIGTRAP => step::finish(&mut thread),
        _ => {
            step::give_up(&mut thread);
            let handled = touched(&mut thread, at, Vaddr(fault));
            if handled.is_none() {
                World::tell_of_parents(Vaddr(fault));
            }
            handled
        }
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
    let world = World::get()?;
    if inside::was_interrupted(thread.stack()) {
        if let Some(window) = world.windows.find_at_once(fault) {
            // Without the heap, which may be what has been interrupted.
            say_plainly(&[
                window.device.device().name(),
                ": a signal handler accesses a mapped BAR in the middle of another call of its thread's on VFIO's \
                 files; that is not emulated: block the signal around the calls",
            ]);
        }
        return None;
    }
    let window = world.windows.find(fault)?;
    let mut code = [0; MAX_CODE];
    let length = guard::read(at, &mut code)
        .map_or_else(|read| usize::try_from(read).unwrap_or(0), |()| MAX_CODE);
    let Some(access) = Access::decode(&code[..length], at, thread) else {
        let bytes = &code[..length];
        say(format!(
            "the instruction at {at:#x} ({bytes:02x?}) accesses a mapped BAR in a way that is not \
             emulated; use plain loads and stores, or vfio-sim run --no-mmap"
        ));
        return None;
    };
    let operand = access.operands.iter().find(|operand| operand.contains(fault.0))?;
    if window.trapped && !window.holds(operand) {
        say(format!(
            "an access at {fault} runs over the end of a mapped BAR; that is not emulated"
        ));
    }
    if !window.takes(operand) {
        return None;
    }
    let mut bar = Bar { window: &window, answers: true };
    if !access.carry_out(thread, &mut bar) {
        if operand.base.is_none() {
            say(format!("the instruction at {at:#x} on a mapped BAR is not emulated"));
            return None;
        }
        return Some(step::begin(thread, world, &access));
    }
    if bar.answers {
        thread.go_on_at(access.next());
    }
    // Of a BAR that does not decode there is no page.
    Some(if bar.answers { Ok(()) } else { Err(libc::SIGBUS) })
}

/// What the program has set for a signal. An action that is for once is taken away.
fn action_of(signal: c_int) -> Option<libc::sigaction> {
    let place = &PROGRAMS[place_of(signal)?];
    let at = place.load(Ordering::Acquire);
    // SAFETY: it is null, or stays.
    let action = unsafe { at.as_ref() }?;
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        // Who has set another one meanwhile keeps it.
        let default = DEFAULT.load(Ordering::Acquire);
        let _ = place.compare_exchange(at, default, Ordering::AcqRel, Ordering::Relaxed);
    }
    Some(*action)
}

/// Lets the program have a signal that is not ours.
fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both to a handler with SA_SIGINFO.
    let (sent, interrupted) =
        unsafe { ((*info).si_code <= 0, (*context.cast::<libc::ucontext_t>()).uc_sigmask) };
    match action_of(signal).map(|action| (action.sa_sigaction, action)) {
        Some((libc::SIG_IGN, _)) if sent => {}
        None | Some((libc::SIG_DFL | libc::SIG_IGN, _)) => {
            end_by(signal);
        }
        Some((_, action)) if !sent && is_handled(signal, &action, context) => {
            end_by(signal);
        }
        Some((handler, action)) => {
            // SAFETY: sets of signals; the return from our handler puts the thread's mask back.
            unsafe {
                next::pthread_sigmask(libc::SIG_SETMASK, &raw const interrupted, ptr::null_mut());
                next::pthread_sigmask(libc::SIG_BLOCK, &raw const action.sa_mask, ptr::null_mut());
            }
            // A fault of ours may be another signal for the program: nothing answers at an address.
            // SAFETY: the kernel's, which is ours as long as the handler runs.
            unsafe {
                if (*info).si_signo != signal {
                    (*info).si_signo = signal;
                    (*info).si_code = libc::BUS_ADRERR;
                }
            }
            HANDLED.with(|handled| {
                let mark = &handled[place_of(signal).unwrap_or(0)];
                let before = mark.begin();
                call(handler, action.sa_flags, signal, info, context);
                mark.end(before);
            });
        }
    }
}

thread_local! {
    /// The program's handlers that are at work, by signal. The signal would be blocked there.
    static HANDLED: [Mark; 3] = const { [const { Mark::new() }; 3] };
}

/// Whether a fault is one of the program's handler for such faults. Where that has the signal blocked, which is the
/// rule, the fault ends the program.
fn is_handled(signal: c_int, action: &libc::sigaction, context: *mut c_void) -> bool {
    // SAFETY: the kernel gives it to a handler with SA_SIGINFO.
    let stack = Thread(unsafe { &mut *context.cast() }).stack();
    let at = place_of(signal).unwrap_or(0);
    action.sa_flags & libc::SA_NODEFER == 0 && HANDLED.with(|handled| handled[at].holds(stack))
}

/// Ends the program by a signal, as it would have ended without us.
fn end_by(signal: c_int) {
    // SAFETY: all bits 0 are the default action.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        next::sigaction(signal, &raw const default, ptr::null_mut());
        libc::raise(signal);
    }
}

/// Calls the program's handler.
fn call(
    handler: usize,
    flags: c_int,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with this flag it is the address of such a function.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: it is the address of such a function.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(signal);
    }
}
