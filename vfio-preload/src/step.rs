// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An instruction that touches registers and cannot be carried out here: the processor executes it, alone, on
//! memory that stands in for the registers.
//!
//! The thread's base register is changed, so that the address of the operand is that of the memory. The
//! trap flag stops the thread behind the instruction; then what it has stored goes to the device, and the
//! base register leads to the BAR again. Other threads see nothing of it.
#![expect(unsafe_code, reason = "memory that belongs to the thread whose number is beside it")]

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::hint;
use std::sync::atomic::{AtomicI32, Ordering};

use vfio_type1::Vaddr;

use crate::access::{Access, MAX_OPERAND, Operand, Registers as _, Target as _};
use crate::context::Thread;
use crate::trap::{Bar, all_but_ours};
use crate::windows::Window;
use crate::world::World;

/// How many threads can be at it at a time; more wait.
const SLOTS: usize = 16;

/// Operands of an instruction that can be registers: a move between two strings has two.
const OPERANDS: usize = 2;

/// Room for an operand, however it is aligned in its cache line.
#[repr(align(64))]
struct Room(UnsafeCell<[u8; 2 * MAX_OPERAND]>);

/// A thread's instruction.
struct Slot {
    /// The thread's number, or 0.
    thread: AtomicI32,
    rooms: [Room; OPERANDS],
    state: UnsafeCell<Option<State>>,
}

// SAFETY: the thread alone whose number is there accesses the rest.
unsafe impl Sync for Slot {}

struct State {
    stand_ins: [Option<StandIn>; OPERANDS],
    /// The signals that the thread had blocked.
    mask: libc::sigset_t,
}

/// An operand that is elsewhere for the time of the instruction.
struct StandIn {
    window: Window,
    operand: Operand,
    /// How far away it is, modulo 2^64.
    distance: u64,
}

static STEPS: [Slot; SLOTS] = [const {
    Slot {
        thread: AtomicI32::new(0),
        rooms: [const { Room(UnsafeCell::new([0; 2 * MAX_OPERAND])) }; OPERANDS],
        state: UnsafeCell::new(None),
    }
}; SLOTS];

fn own_number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Has the thread execute the instruction on memory when the handler returns. The error is the signal that
/// the program gets instead.
pub(crate) fn begin(thread: &mut Thread<'_>, world: &World, access: &Access) -> Result<(), c_int> {
    let slot = Slot::take();
    let mut state = State { stand_ins: [None, None], mask: thread.0.uc_sigmask };
    let mut rooms = state.stand_ins.iter_mut().zip(&slot.rooms);
    for operand in &access.operands {
        let window = world.windows.find(Vaddr(operand.at)).filter(|window| window.takes(operand));
        let Some(window) = window else { continue };
        let stand_in = rooms.next().and_then(|(place, room)| {
            *place = StandIn::load(thread, room, window, *operand);
            place.as_ref()
        });
        if stand_in.is_none() {
            state.go_back(thread);
            slot.leave();
            return Err(libc::SIGBUS);
        }
    }
    // What is not ours must wait, or its handler would be executed step by step.
    thread.0.uc_sigmask = all_but_ours();
    thread.set_single_step(true);
    // SAFETY: this thread's number is there.
    unsafe { *slot.state.get() = Some(state) };
    Ok(())
}

/// Ends the instruction, behind it. `None` if the thread is at none; the error is the signal that the
/// program gets for it.
pub(crate) fn finish(thread: &mut Thread<'_>) -> Option<Result<(), c_int>> {
    let (slot, mut state) = Slot::own(thread)?;
    let mut answers = true;
    state.go_back(thread);
    for (stand_in, room) in state.stand_ins.iter().flatten().zip(&slot.rooms) {
        answers &= stand_in.store(room);
    }
    slot.leave();
    Some(if answers { Ok(()) } else { Err(libc::SIGBUS) })
}

/// Gives it up, since the instruction has faulted: at another operand, which is the program's.
pub(crate) fn give_up(thread: &mut Thread<'_>) {
    if let Some((slot, mut state)) = Slot::own(thread) {
        // It did not write the registers that it would have.
        state.stand_ins.iter_mut().flatten().for_each(StandIn::keep_base);
        state.go_back(thread);
        slot.leave();
    }
}

impl Slot {
    fn take() -> &'static Self {
        let own = own_number();
        loop {
            let free = STEPS.iter().find(|slot| {
                let taken =
                    slot.thread.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed);
                taken.is_ok()
            });
            match free {
                Some(slot) => return slot,
                None => hint::spin_loop(),
            }
        }
    }

    /// The one of this thread, which is done with stepping.
    fn own(thread: &mut Thread<'_>) -> Option<(&'static Self, State)> {
        if !thread.is_single_step() {
            return None;
        }
        let own = own_number();
        let slot = STEPS.iter().find(|slot| slot.thread.load(Ordering::Relaxed) == own)?;
        // SAFETY: this thread's number is there.
        let state = unsafe { (*slot.state.get()).take() }?;
        thread.set_single_step(false);
        thread.0.uc_sigmask = state.mask;
        Some((slot, state))
    }

    fn leave(&self) {
        self.thread.store(0, Ordering::Release);
    }
}

impl State {
    /// Has the base registers lead to the BAR again.
    fn go_back(&mut self, thread: &mut Thread<'_>) {
        for StandIn { operand, distance, .. } in self.stand_ins.iter().flatten() {
            if let Some(base) = operand.base.filter(|base| base.kept) {
                let moved = thread.general(base.number);
                thread.set_general(base.number, moved.wrapping_sub(*distance));
            }
        }
    }
}

impl StandIn {
    /// Takes an operand to a room. `None` if the device does not answer.
    fn load(
        thread: &mut Thread<'_>,
        room: &Room,
        window: Window,
        operand: Operand,
    ) -> Option<Self> {
        let base = operand.base?;
        let mut bar = Bar { window: &window, answers: true };
        let bytes = room.bytes(&operand);
        if operand.reads {
            bar.load(operand.at, bytes);
        }
        let there = bytes.as_ptr().expose_provenance() as u64;
        let distance = there.wrapping_sub(operand.at);
        if !bar.answers {
            return None;
        }
        thread.set_general(base.number, thread.general(base.number).wrapping_add(distance));
        Some(Self { window, operand, distance })
    }

    /// Gives the device what was stored; false if it does not answer.
    fn store(&self, room: &Room) -> bool {
        let mut bar = Bar { window: &self.window, answers: true };
        if self.operand.writes {
            bar.store(self.operand.at, room.bytes(&self.operand));
        }
        bar.answers
    }

    fn keep_base(&mut self) {
        self.operand.base.iter_mut().for_each(|base| base.kept = true);
    }
}

impl Room {
    /// The operand's bytes, aligned as they are in the BAR.
    #[expect(clippy::mut_from_ref, reason = "the room is the thread's")]
    fn bytes(&self, operand: &Operand) -> &mut [u8] {
        let from = usize::try_from(operand.at % MAX_OPERAND as u64).unwrap_or(0);
        // SAFETY: this thread has taken the slot, and lets go of each slice before it asks for another one.
        let all = unsafe { &mut *self.0.get() };
        &mut all[from..from + operand.size]
    }
}
