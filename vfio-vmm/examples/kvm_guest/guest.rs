// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest: a real-mode program that sets the device up by PCI configuration space, lets it copy a line
//! of text far away and back, waits for its interrupts, and prints what came back.

use std::arch::global_asm;

/// Where the program is loaded and starts.
pub(crate) const START: u64 = 0x8000;
/// Eight bytes: where the text travels to. The VMM writes them.
pub(crate) const FAR: u64 = 0x7f00;
/// Where the guest puts the device's registers.
pub(crate) const REGISTERS: u64 = 0xd_0000;
/// The device's place on bus 0, as the guest's configuration space has it.
pub(crate) const SLOT: u32 = 1;
/// The interrupt line that the device's interrupts arrive on.
pub(crate) const LINE: u32 = 5;
/// Ports: the two of configuration space, one for characters, one to stop with the device's status.
pub(crate) const CONFIG_ADDRESS: u16 = 0xcf8;
pub(crate) const CONFIG_DATA: u16 = 0xcfc;
pub(crate) const PRINT: u16 = 0xe9;
pub(crate) const STOP: u16 = 0xf4;

/// The program.
pub(crate) fn program() -> &'static [u8] {
    unsafe extern "C" {
        static guest_program: u8;
        static guest_program_end: u8;
    }
    let (first, end) = (&raw const guest_program, &raw const guest_program_end);
    // SAFETY: both symbols are below, in this order, in one section that is never written.
    unsafe { std::slice::from_raw_parts(first, end.offset_from_unsigned(first)) }
}

global_asm!(
    ".pushsection .rodata.guest_program, \"a\"",
    ".code16",
    ".globl guest_program, guest_program_end",
    "guest_program:",
    "    cli",
    "    xorw %ax, %ax",
    "    movw %ax, %ds",
    "    movw %ax, %ss",
    "    movw $0x7000, %sp",
    // The vector of the line, from 0x20 on, leads to the handler.
    "    movw $(.Lhandler - guest_program + {start}), (0x20 + {line}) * 4",
    "    movw %ax, (0x20 + {line}) * 4 + 2",
    // The interrupt controller: vectors from 0x20 on, all lines masked but this one.
    "    movb $0x11, %al",
    "    outb %al, $0x20",
    "    movb $0x20, %al",
    "    outb %al, $0x21",
    "    movb $0x04, %al",
    "    outb %al, $0x21",
    "    movb $0x01, %al",
    "    outb %al, $0x21",
    "    movb $(0xff - (1 << {line})), %al",
    "    outb %al, $0x21",
    // BAR 0 of the device, then memory decoding and bus mastering.
    "    movl $(0x80000010 + ({slot} << 11)), %eax",
    "    movl ${registers}, %ecx",
    "    call .Lconfigure",
    "    movl $(0x80000004 + ({slot} << 11)), %eax",
    "    movl $0x6, %ecx",
    "    call .Lconfigure",
    "    movw $({registers} >> 4), %ax",
    "    movw %ax, %es",
    // A job: copy the text far away.
    "    movl $0x1, %es:0x10",
    "    movl $(.Ltext_end - .Ltext), %es:0x28",
    "    movl $(.Ltext - guest_program + {start}), %es:0x18",
    "    movl $0x0, %es:0x1c",
    "    movl {far}, %eax",
    "    movl %eax, %es:0x20",
    "    movl {far} + 4, %eax",
    "    movl %eax, %es:0x24",
    "    call .Lwork",
    // Another: copy it back, to 0x9000.
    "    movl {far}, %eax",
    "    movl %eax, %es:0x18",
    "    movl {far} + 4, %eax",
    "    movl %eax, %es:0x1c",
    "    movl $0x9000, %es:0x20",
    "    movl $0x0, %es:0x24",
    "    call .Lwork",
    // Print what came back, and stop.
    "    movw $0x9000, %si",
    "    movw $(.Ltext_end - .Ltext), %cx",
    ".Lnext: lodsb",
    "    outb %al, ${print}",
    "    loop .Lnext",
    "    movl %es:0xc, %eax",
    ".Lstop: outb %al, ${stop}",
    "    hlt",
    // Writes ecx into configuration space at eax.
    ".Lconfigure: movw ${config_address}, %dx",
    "    outl %eax, %dx",
    "    movw ${config_data}, %dx",
    "    movl %ecx, %eax",
    "    outl %eax, %dx",
    "    ret",
    // Starts the job and sleeps until its interrupt has come. If it ended badly, stops with the status.
    ".Lwork: movb $0x0, 0x7e00",
    "    movl $0x1, %es:0x8",
    ".Lsleep: cli",
    "    cmpb $0x0, 0x7e00",
    "    jne .Lawake",
    "    sti",
    "    hlt",
    "    jmp .Lsleep",
    ".Lawake: movl %es:0xc, %eax",
    "    cmpb $0x2, %al",
    "    jne .Lstop",
    "    ret",
    // The interrupt has come: note it, and tell the controller.
    ".Lhandler: pushw %ax",
    "    movb $0x1, 0x7e00",
    "    movb $0x20, %al",
    "    outb %al, $0x20",
    "    popw %ax",
    "    iretw",
    ".Ltext: .ascii \"  guest: this line went through the device twice\\n\"",
    ".Ltext_end:",
    "guest_program_end:",
    ".code64",
    ".popsection",
    line = const LINE,
    slot = const SLOT,
    start = const START,
    far = const FAR,
    registers = const REGISTERS,
    config_address = const CONFIG_ADDRESS,
    config_data = const CONFIG_DATA,
    print = const PRINT,
    stop = const STOP,
    options(att_syntax),
);
