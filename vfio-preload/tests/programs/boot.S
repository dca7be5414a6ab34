// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The first sector of a disk that firmware starts: it prints the text of the second one on port 0xe9, writes it to
// the third, and ends the machine through port 0xf4, with 1 if all went well and 2 if not.
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    cld
    mov $packet, %si
    mov $0x42, %ah
    int $0x13
    jc failed
    mov $0x8000, %si
next:
    lodsb
    test %al, %al
    jz printed
    out %al, $0xe9
    jmp next
printed:
    movb $2, sector
    mov $packet, %si
    mov $0x4300, %ax
    int $0x13
    jc failed
    mov $1, %al
    out %al, $0xf4
failed:
    mov $2, %al
    out %al, $0xf4
    hlt

// What the firmware is asked for: one sector, to or from 0x8000.
packet:
    .byte 16, 0
    .word 1, 0x8000, 0
sector:
    .quad 1

    .org 510
    .word 0xaa55
