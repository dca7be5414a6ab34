// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Instructions on mapped registers, of a channel of I/OAT, whose registers take accesses of any size.
#include "client.h"

static volatile uint8_t *bar;
static int device;

// Two registers of 64 bits, side by side, that keep what is written: CHAINADDR and CHANCMP.
#define FIRST 0x90
#define SECOND 0x98

static void open_channel(void) {
    device = open_device().device;
    bar = map_bar(device, 0, 4 * PAGE, PROT_READ | PROT_WRITE);
}

// What is in a register, by another way than the mapping.
static uint64_t kept(unsigned at) {
    uint64_t value;
    CHECK(pread(device, &value, 8, (off_t)region(device, 0).offset + at) == 8);
    return value;
}

static void keep(unsigned at, uint64_t value) {
    CHECK(pwrite(device, &value, 8, (off_t)region(device, 0).offset + at) == 8);
}

static void moves_of_every_width(void) {
    open_channel();
    CHECK(*(bar + 8) == 0x33);
    keep(SECOND, 0);
    *(volatile uint64_t *)(bar + SECOND) = 0x1122334455667788;
    CHECK(kept(SECOND) == 0x1122334455667788);
    *(volatile uint32_t *)(bar + SECOND) = 0xaabbccdd;
    CHECK(kept(SECOND) == 0x11223344aabbccdd);
    *(volatile uint16_t *)(bar + SECOND + 6) = 0x9988;
    CHECK(kept(SECOND) == 0x99883344aabbccdd);
    *(volatile uint8_t *)(bar + SECOND + 1) = 0xee;
    CHECK(kept(SECOND) == 0x99883344aabbeedd);
    CHECK(*(volatile uint64_t *)(bar + SECOND) == 0x99883344aabbeedd);
    CHECK(*(volatile uint32_t *)(bar + SECOND + 4) == 0x99883344);
    CHECK(*(volatile uint16_t *)(bar + SECOND + 2) == 0xaabb);
    CHECK(*(volatile int8_t *)(bar + SECOND) == (int8_t)0xdd);
}

static void vectors(void) {
    open_channel();
    uint64_t pair[2] = {0x1000, 0x2000}, loaded[2];
    asm volatile("movdqu %1, %%xmm3; movdqu %%xmm3, %0; movdqu %0, %%xmm4; movdqu %%xmm4, %2"
                 : "+m"(*(volatile uint64_t(*)[2])(bar + FIRST))
                 : "m"(pair), "m"(loaded)
                 : "xmm3", "xmm4", "memory");
    CHECK(kept(FIRST) == 0x1000 && kept(SECOND) == 0x2000);
    CHECK(loaded[0] == 0x1000 && loaded[1] == 0x2000);
}

static void wide_vectors(void) {
    if (!__builtin_cpu_supports("avx2"))
        return;
    open_channel();
    uint64_t four[4] = {0x3000, 0x4000, 0, 0}, loaded[4] = {1, 1, 1, 1};
    asm volatile("vmovdqu %1, %%ymm3; vmovdqu %%ymm3, %0; vmovdqu %0, %%ymm4; vmovdqu %%ymm4, %2; vzeroupper"
                 : "+m"(*(volatile uint64_t(*)[4])(bar + FIRST))
                 : "m"(four), "m"(loaded)
                 : "xmm3", "xmm4", "memory");
    CHECK(kept(FIRST) == 0x3000 && kept(SECOND) == 0x4000);
    CHECK(loaded[0] == 0x3000 && loaded[1] == 0x4000 && loaded[2] == kept(0xa0));
}

static void reads_and_writes_in_one(void) {
    open_channel();
    volatile uint64_t *word = (void *)(bar + SECOND);
    keep(SECOND, 0x1000);
    asm volatile("lock orq $0x34, %0" : "+m"(*word));
    CHECK(kept(SECOND) == 0x1034);
    uint64_t added = 6;
    asm volatile("lock xaddq %1, %0" : "+m"(*word), "+r"(added));
    CHECK(added == 0x1034 && kept(SECOND) == 0x103a);
    asm volatile("andl $0xff, %0" : "+m"(*(volatile uint32_t *)word));
    CHECK(kept(SECOND) == 0x3a);
    CHECK(__sync_val_compare_and_swap(word, 0x3a, 0x77) == 0x3a && kept(SECOND) == 0x77);
    CHECK(__sync_val_compare_and_swap(word, 0x3a, 0x88) == 0x77 && kept(SECOND) == 0x77);
    CHECK(__atomic_exchange_n(word, 5, __ATOMIC_SEQ_CST) == 0x77 && kept(SECOND) == 5);
    asm volatile("incq %0" : "+m"(*word));
    CHECK(kept(SECOND) == 6);
    unsigned char set;
    asm volatile("testb $4, %1; setnz %0" : "=q"(set) : "m"(*word));
    CHECK(set == 1);
    asm volatile("cmpq $6, %1; sete %0" : "=q"(set) : "m"(*word));
    CHECK(set == 1);
    // The register that the address was in takes the value.
    uint64_t address = (uintptr_t)word;
    asm volatile("imull $3, (%0), %k0" : "+r"(address) : : "memory");
    CHECK(address == 18);
    // The stack pointer is moved by what it also stores.
    asm volatile("pushq %0; popq %0" : "+m"(*word) : : "memory");
    CHECK(kept(SECOND) == 6);
}

static void strings_of_bytes(void) {
    open_channel();
    char text[17] = "0123456789abcdef", back[17] = "";
    void *to = (void *)(bar + FIRST);
    const void *from = text;
    size_t count = 16;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    CHECK(to == bar + FIRST + 16 && from == text + 16 && count == 0);
    CHECK(kept(SECOND) == *(uint64_t *)(text + 8));
    to = back, from = (void *)(bar + FIRST), count = 16;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    CHECK(to == back + 16 && !strcmp(back, text));
    to = (void *)(bar + FIRST), count = 16;
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x5a) : "memory");
    CHECK(kept(FIRST) == 0x5a5a5a5a5a5a5a5a && kept(SECOND) == 0x5a5a5a5a5a5a5a5a);
    keep(FIRST, 0x40);
    to = (void *)(bar + SECOND), from = (void *)(bar + FIRST);
    asm volatile("movsq" : "+D"(to), "+S"(from) : : "memory");
    CHECK(kept(SECOND) == 0x40);
}

static void functions_of_libc(void) {
    open_channel();
    uint64_t pair[2] = {0x5000, 0x6000}, back[2];
    memcpy((void *)(bar + FIRST), pair, 16);
    CHECK(kept(FIRST) == 0x5000 && kept(SECOND) == 0x6000);
    memcpy(back, (void *)(bar + FIRST), 16);
    CHECK(!memcmp(back, pair, 16));
    CHECK(!memcmp((void *)(bar + FIRST), pair, 16));
    memset((void *)(bar + FIRST), 0, 16);
    CHECK(kept(FIRST) == 0 && kept(SECOND) == 0);
    // A driver that shows all registers.
    static uint8_t all[4 * PAGE];
    memcpy(all, (void *)bar, sizeof all);
    CHECK(all[8] == 0x33);
}

static void accesses_across_registers(void) {
    open_channel();
    keep(FIRST, 0);
    keep(SECOND, 0);
    *(volatile uint64_t *)(bar + SECOND - 4) = 0x1122334455667780;
    CHECK(kept(FIRST) == 0x5566778000000000 && kept(SECOND) == 0x11223344);
    CHECK(*(volatile uint64_t *)(bar + SECOND - 4) == 0x1122334455667780);
    CHECK(*(volatile uint32_t *)(bar + SECOND - 1) == 0x22334455);
}

static void accesses_across_pages(void) {
    open_channel();
    CHECK(*(volatile uint64_t *)(bar + PAGE - 4) == 0);
    *(volatile uint32_t *)(bar + PAGE - 1) = 0;
    asm volatile("lock orq $0, %0" : "+m"(*(volatile uint64_t *)(bar + PAGE - 4)));
}

CASES(CASE(moves_of_every_width), CASE(vectors), CASE(wide_vectors), CASE(reads_and_writes_in_one),
      CASE(strings_of_bytes), CASE(functions_of_libc), CASE(accesses_across_registers),
      CASE(accesses_across_pages))
