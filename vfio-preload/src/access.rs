// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The instruction that touched a BAR, carried out on a device instead of on memory.
//!
//! Moves between a register, or a constant, and memory are carried out here: what compilers make of
//! volatile accesses. Of all others is told what memory they touch; the processor carries them out, on
//! memory that stands in (`trap`).

use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register, UsedMemory,
};

/// Bytes of the longest instruction.
pub(crate) const MAX_CODE: usize = 15;

/// Bytes of the largest operand: a cache line.
pub(crate) const MAX_OPERAND: usize = 64;

/// The registers of the thread that executes the instruction.
pub(crate) trait Registers {
    /// A general register of 64 bits, by its number: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8...
    fn general(&self, number: usize) -> u64;
    fn set_general(&mut self, number: usize, value: u64);
    /// The lowest 16 bytes of a vector register.
    fn vector(&self, number: usize) -> [u8; 16];
    fn set_vector(&mut self, number: usize, value: [u8; 16]);
}

/// What is behind an address.
pub(crate) trait Target {
    fn load(&mut self, at: u64, into: &mut [u8]);
    fn store(&mut self, at: u64, bytes: &[u8]);
}

/// Memory that an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    pub(crate) at: u64,
    pub(crate) size: usize,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// `None` if the address does not depend on one register alone that can be changed.
    pub(crate) base: Option<Base>,
}

impl Operand {
    /// Whether an address is in it.
    pub(crate) fn contains(&self, at: u64) -> bool {
        at.checked_sub(self.at).is_some_and(|offset| offset < self.size as u64)
    }

    fn is_same_place(&self, other: &Self) -> bool {
        (self.at, self.size, self.base) == (other.at, other.size, other.base)
    }
}

/// The register that an operand's address begins with: with another value in it, the operand is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) number: usize,
    /// Whether it still leads to the operand behind the instruction, or to the next one. If not, the instruction
    /// has put something else there.
    pub(crate) kept: bool,
}

/// An instruction that touches memory.
#[derive(Debug)]
pub(crate) struct Access {
    instruction: Instruction,
    /// What it touches; of a repeated instruction what the next round does.
    pub(crate) operands: Vec<Operand>,
}

impl Access {
    /// The instruction at `at`, of which `code` is the beginning. `None` if it touches no memory that can be
    /// told, or too much.
    pub(crate) fn decode(code: &[u8], at: u64, registers: &impl Registers) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.code() == Code::INVALID {
            return None;
        }
        let operands = match moved(&instruction, registers) {
            Some(operand) => vec![operand],
            None => used(&instruction, registers)?,
        };
        let sizes_fit = |operand: &Operand| (1..=MAX_OPERAND).contains(&operand.size);
        let fit = !operands.is_empty() && operands.iter().all(sizes_fit);
        fit.then_some(Self { instruction, operands })
    }

    /// Where the next instruction is.
    pub(crate) fn next(&self) -> u64 {
        self.instruction.next_ip()
    }

    /// Carries it out; false if it is none that can be.
    pub(crate) fn carry_out(
        &self,
        registers: &mut impl Registers,
        target: &mut impl Target,
    ) -> bool {
        let (Some(kind), [operand]) = (Move::of(&self.instruction), &self.operands[..]) else {
            return false;
        };
        let Operand { at, size, writes, .. } = *operand;
        if writes {
            let Some(bytes) = source(&self.instruction, registers) else { return false };
            target.store(at, &bytes[..size]);
            return true;
        }
        let into = self.instruction.op0_register();
        if !is_general(into) && !into.is_xmm() {
            return false;
        }
        let mut bytes = [0; 16];
        target.load(at, &mut bytes[..size]);
        if into.is_xmm() {
            registers.set_vector(into.number(), bytes);
            return true;
        }
        let value = u64::from_le_bytes(first(&bytes));
        set_general(
            registers,
            into,
            match kind {
                Move::SignExtending => sign_extend(value, size),
                Move::Plain => value,
            },
        );
        true
    }
}

/// An instruction that moves a value and does nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    Plain,
    SignExtending,
}

impl Move {
    fn of(instruction: &Instruction) -> Option<Self> {
        use Mnemonic as M;
        // These may have masks, and registers that are out of reach here.
        if instruction.code().encoding() == EncodingKind::EVEX {
            return None;
        }
        match instruction.mnemonic() {
            // As instructions on strings they have no operand for a register.
            M::Movsd if instruction.is_string_instruction() => None,
            M::Movsx | M::Movsxd => Some(Self::SignExtending),
            M::Mov | M::Movzx | M::Movnti | M::Movdiri => Some(Self::Plain),
            M::Movd
            | M::Movq
            | M::Movss
            | M::Movsd
            | M::Movdqa
            | M::Movdqu
            | M::Movaps
            | M::Movups
            | M::Movapd
            | M::Movupd
            | M::Movntdq
            | M::Movntdqa
            | M::Movntps
            | M::Movntpd
            | M::Lddqu => Some(Self::Plain),
            // Stores alone: loads clear what is above, which is out of reach here.
            M::Vmovd
            | M::Vmovq
            | M::Vmovss
            | M::Vmovsd
            | M::Vmovdqa
            | M::Vmovdqu
            | M::Vmovaps
            | M::Vmovups
            | M::Vmovntdq
                if instruction.op0_kind() == OpKind::Memory =>
            {
                Some(Self::Plain)
            }
            _ => None,
        }
    }
}

/// The memory of a move.
fn moved(instruction: &Instruction, registers: &impl Registers) -> Option<Operand> {
    Move::of(instruction)?;
    let writes = instruction.op0_kind() == OpKind::Memory;
    let operand = if writes { 0 } else { 1 };
    if instruction.op_kind(operand) != OpKind::Memory {
        return None;
    }
    let size = instruction.memory_size().size();
    // Vectors of more than 16 bytes are not in reach as a whole.
    if size > 16 {
        return None;
    }
    let at =
        instruction.virtual_address(operand, 0, |register, _, _| value(registers, register))?;
    // It is not needed: moves are carried out here.
    Some(Operand { at, size, reads: !writes, writes, base: None })
}

/// The memory of any other instruction.
fn used(instruction: &Instruction, registers: &impl Registers) -> Option<Vec<Operand>> {
    let mut once = *instruction;
    if once.is_string_instruction() {
        once.set_has_rep_prefix(false);
        once.set_has_repne_prefix(false);
    }
    let mut factory = InstructionInfoFactory::new();
    let mut found: Vec<Operand> = Vec::new();
    for memory in factory.info(&once).used_memory() {
        let at = memory.virtual_address(0, |register, _, _| value(registers, register))?;
        let (reads, writes) = directions(memory.access());
        let operand = Operand {
            at,
            size: memory.memory_size().size(),
            reads,
            writes,
            base: base(instruction, memory),
        };
        match found.iter_mut().find(|one| one.is_same_place(&operand)) {
            Some(one) => {
                one.reads |= reads;
                one.writes |= writes;
            }
            None => found.push(operand),
        }
    }
    (!found.is_empty()).then_some(found)
}

/// The base register of an operand.
fn base(instruction: &Instruction, memory: &UsedMemory) -> Option<Base> {
    let register = memory.base();
    if !register.is_gpr64() || memory.index().full_register() == register {
        return None;
    }
    let number = register.number();
    if instruction.memory_base() != register {
        // Those of strings, and the stack pointer, are moved along.
        return Some(Base { number, kept: true });
    }
    // What the instruction does with the register beside that shows when its address is in another one.
    let mut elsewhere = *instruction;
    elsewhere.set_memory_base(if register == Register::R15 {
        Register::R14
    } else {
        Register::R15
    });
    let mut factory = InstructionInfoFactory::new();
    let uses = factory.info(&elsewhere).used_registers();
    let mut uses = uses.iter().filter(|used| used.register().full_register() == register);
    match uses.next() {
        None => Some(Base { number, kept: true }),
        // Shorter registers leave a part of the address.
        Some(only) if only.access() == OpAccess::Write && only.register().size() >= 4 => {
            uses.next().is_none().then_some(Base { number, kept: false })
        }
        Some(_) => None,
    }
}

fn directions(access: OpAccess) -> (bool, bool) {
    match access {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write | OpAccess::CondWrite => (false, true),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        OpAccess::None | OpAccess::NoMemAccess => (false, false),
    }
}

/// What a store stores.
fn source(instruction: &Instruction, registers: &impl Registers) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    match instruction.op1_kind() {
        OpKind::Register if instruction.op1_register().is_xmm() => {
            bytes = registers.vector(instruction.op1_register().number());
        }
        OpKind::Register if is_general(instruction.op1_register()) => {
            let value = value(registers, instruction.op1_register())?;
            bytes[..8].copy_from_slice(&value.to_le_bytes());
        }
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => {
            bytes[..8].copy_from_slice(&instruction.immediate(1).to_le_bytes());
        }
        _ => return None,
    }
    Some(bytes)
}

fn is_general(register: Register) -> bool {
    register.is_gpr()
}

/// Whether it is AH, CH, DH or BH: the second byte of a register.
fn is_second_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// The value of a register, as wide as it is.
fn value(registers: &impl Registers, register: Register) -> Option<u64> {
    // Nobody keeps a BAR in thread-local storage, which is what FS and GS lead to.
    if register.is_segment_register() {
        return (!matches!(register, Register::FS | Register::GS)).then_some(0);
    }
    if !is_general(register) {
        return None;
    }
    let whole = registers.general(register.full_register().number());
    let value = if is_second_byte(register) { whole >> 8 } else { whole };
    Some(value & mask(register.size()))
}

/// The bits of a value of some bytes.
fn mask(size: usize) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}

/// Writes a register: one of 32 bits clears what is above, shorter ones leave it.
fn set_general(registers: &mut impl Registers, register: Register, value: u64) {
    let number = register.full_register().number();
    let whole = registers.general(number);
    let bits = mask(register.size());
    let value = match register.size() {
        8 => value,
        4 => value & bits,
        _ if is_second_byte(register) => whole & !(bits << 8) | (value & bits) << 8,
        _ => whole & !bits | value & bits,
    };
    registers.set_general(number, value);
}

fn sign_extend(value: u64, size: usize) -> u64 {
    let sign = 1 << (8 * size - 1);
    if value & sign == 0 { value } else { value | !mask(size) }
}

fn first(bytes: &[u8; 16]) -> [u8; 8] {
    std::array::from_fn(|at| bytes[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Model {
        general: [u64; 16],
        vector: [[u8; 16]; 16],
    }

    impl Registers for Model {
        fn general(&self, number: usize) -> u64 {
            self.general[number]
        }
        fn set_general(&mut self, number: usize, value: u64) {
            self.general[number] = value;
        }
        fn vector(&self, number: usize) -> [u8; 16] {
            self.vector[number]
        }
        fn set_vector(&mut self, number: usize, value: [u8; 16]) {
            self.vector[number] = value;
        }
    }

    /// Answers loads with 0x80, 0x81... and keeps the last store.
    #[derive(Default)]
    struct Device(Option<(u64, Vec<u8>)>);

    impl Target for Device {
        fn load(&mut self, _: u64, into: &mut [u8]) {
            into.iter_mut().zip(0x80..).for_each(|(byte, value)| *byte = value);
        }
        fn store(&mut self, at: u64, bytes: &[u8]) {
            self.0 = Some((at, bytes.to_vec()));
        }
    }

    const AT: u64 = 0x7000;

    /// Carries out an instruction with rdi = 0x7000, rax = 0x1122334455667788, xmm1 = 1, 2, 3...
    fn run(code: &[u8]) -> (Model, Device, Operand, bool) {
        let mut model = Model::default();
        model.general[7] = AT;
        model.general[0] = 0x1122_3344_5566_7788;
        model.vector[1] = std::array::from_fn(|at| u8::try_from(at).unwrap() + 1);
        let access = Access::decode(code, 0x40_0000, &model).unwrap();
        assert_eq!(access.next(), 0x40_0000 + code.len() as u64);
        let mut device = Device::default();
        let done = access.carry_out(&mut model, &mut device);
        let [operand] = access.operands[..] else { panic!("{access:?}") };
        (model, device, operand, done)
    }

    #[track_caller]
    fn stores(code: &[u8], expected: &[u8]) {
        let (_, device, operand, done) = run(code);
        assert!(done);
        assert_eq!(device.0, Some((operand.at, expected.to_vec())));
    }

    #[track_caller]
    fn loads(code: &[u8], expected: u64) {
        let (model, device, operand, done) = run(code);
        assert!(done && device.0.is_none() && operand.reads && !operand.writes);
        assert_eq!(model.general[0], expected, "{:#x}", model.general[0]);
    }

    #[test]
    fn stores_of_every_width() {
        stores(&[0x88, 0x07], &[0x88]); // mov [rdi], al
        stores(&[0x88, 0x27], &[0x77]); // mov [rdi], ah
        stores(&[0x66, 0x89, 0x07], &[0x88, 0x77]); // mov [rdi], ax
        stores(&[0x89, 0x47, 0x10], &[0x88, 0x77, 0x66, 0x55]); // mov [rdi+0x10], eax
        stores(&[0x48, 0x89, 0x07], &0x1122_3344_5566_7788_u64.to_le_bytes()); // mov [rdi], rax
        stores(&[0xc6, 0x07, 0x05], &[5]); // mov byte [rdi], 5
        stores(&[0xc7, 0x07, 1, 0, 0, 0x80], &[1, 0, 0, 0x80]); // mov dword [rdi], 0x80000001
        // mov qword [rdi], -1: a constant of 32 bits, sign extended
        stores(&[0x48, 0xc7, 0x07, 0xff, 0xff, 0xff, 0xff], &[0xff; 8]);
        stores(&[0x0f, 0xc3, 0x07], &[0x88, 0x77, 0x66, 0x55]); // movnti [rdi], eax
        stores(&[0x66, 0x0f, 0x7e, 0x0f], &[1, 2, 3, 4]); // movd [rdi], xmm1
        let all: Vec<u8> = (1..=16).collect();
        stores(&[0xf3, 0x0f, 0x7f, 0x0f], &all); // movdqu [rdi], xmm1
        stores(&[0xc5, 0xfa, 0x7f, 0x0f], &all); // vmovdqu [rdi], xmm1
    }

    #[test]
    fn loads_of_every_width() {
        loads(&[0x8a, 0x07], 0x1122_3344_5566_7780); // mov al, [rdi]
        loads(&[0x8a, 0x27], 0x1122_3344_5566_8088); // mov ah, [rdi]
        loads(&[0x66, 0x8b, 0x07], 0x1122_3344_5566_8180); // mov ax, [rdi]
        loads(&[0x8b, 0x07], 0x8382_8180); // mov eax, [rdi]
        loads(&[0x48, 0x8b, 0x07], 0x8786_8584_8382_8180); // mov rax, [rdi]
        loads(&[0x0f, 0xb6, 0x07], 0x80); // movzx eax, byte [rdi]
        loads(&[0x48, 0x0f, 0xb7, 0x07], 0x8180); // movzx rax, word [rdi]
        loads(&[0x0f, 0xbe, 0x07], 0xffff_ff80); // movsx eax, byte [rdi]
        loads(&[0x48, 0x63, 0x07], 0xffff_ffff_8382_8180); // movsxd rax, dword [rdi]
        let (model, ..) = run(&[0xf3, 0x0f, 0x7e, 0x0f]); // movq xmm1, [rdi]
        assert_eq!(model.vector[1][..8], [0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87]);
        assert_eq!(model.vector[1][8..], [0; 8]);
    }

    #[test]
    fn addresses_are_those_of_the_operand() {
        let at = |code: &[u8]| run(code).2.at;
        assert_eq!(at(&[0x89, 0x47, 0xfc]), AT - 4); // mov [rdi-4], eax
        assert_eq!(at(&[0x89, 0x05, 0, 1, 0, 0]), 0x40_0106); // mov [rip+0x100], eax
        assert_eq!(at(&[0x41, 0x89, 0x04, 0x3c]), AT); // mov [r12+rdi], eax
    }

    fn access(code: &[u8]) -> Access {
        Access::decode(code, 0x40_0000, &Model::default()).unwrap()
    }

    #[test]
    fn base_registers_are_those_that_may_lead_elsewhere() {
        let base = |code: &[u8]| access(code).operands[0].base.map(|base| (base.number, base.kept));
        assert_eq!(base(&[0x09, 0x07]), Some((7, true))); // or [rdi], eax
        assert_eq!(base(&[0x6b, 0x07, 0x03]), Some((7, true))); // imul eax, [rdi], 3
        assert_eq!(base(&[0x6b, 0x3f, 0x03]), Some((7, false))); // imul edi, [rdi], 3
        assert_eq!(base(&[0x66, 0x6b, 0x3f, 0x03]), None); // imul di, [rdi], 3
        assert_eq!(base(&[0x03, 0x3f]), None); // add edi, [rdi]
        assert_eq!(base(&[0x0f, 0xb1, 0x18]), None); // cmpxchg [rax], ebx
        assert_eq!(base(&[0x0f, 0xb1, 0x1f]), Some((7, true))); // cmpxchg [rdi], ebx
        assert_eq!(base(&[0x0b, 0x04, 0x3f]), None); // or eax, [rdi+rdi]
        assert_eq!(base(&[0x0b, 0x05, 0, 1, 0, 0]), None); // or eax, [rip+0x100]
    }

    #[test]
    fn strings_have_an_operand_at_each_end() {
        let code = [0xf3, 0xa4]; // rep movsb
        let operands = access(&code).operands;
        let told: Vec<_> =
            operands.iter().map(|one| (one.size, one.reads, one.writes, one.base)).collect();
        let base = |number| Some(Base { number, kept: true });
        assert_eq!(told, [(1, false, true, base(7)), (1, true, false, base(6))]);
    }

    #[test]
    fn other_instructions_are_left_to_the_processor() {
        let touched = |code: &[u8]| {
            let (_, device, operand, done) = run(code);
            assert!(!done && device.0.is_none());
            (operand.size, operand.reads, operand.writes)
        };
        assert_eq!(touched(&[0x09, 0x07]), (4, true, true)); // or [rdi], eax
        assert_eq!(touched(&[0xf0, 0x48, 0x0f, 0xc1, 0x07]), (8, true, true)); // lock xadd
        assert_eq!(touched(&[0xf6, 0x07, 0x01]), (1, true, false)); // test byte [rdi], 1
        assert_eq!(touched(&[0xc5, 0xfe, 0x7f, 0x0f]), (32, false, true)); // vmovdqu [rdi], ymm1
        // vmovaps [rdi], xmm16: a register that is out of reach
        assert_eq!(touched(&[0x62, 0xe1, 0x7c, 0x08, 0x29, 0x07]), (16, false, true));
        assert!(Access::decode(&[0x90], 0, &Model::default()).is_none(), "nop");
        assert!(Access::decode(&[0x06], 0, &Model::default()).is_none(), "invalid");
        assert!(Access::decode(&[0x89], 0, &Model::default()).is_none(), "cut short");
    }
}
