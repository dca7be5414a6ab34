// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Threads that use a device at once: its registers, its mappings, its container.
#include "client.h"

enum { THREADS = 4, ROUNDS = 2000 };

static struct vfio vfio;
static volatile struct engine *engine;
static volatile int stop;

static void at_once(void *(*first)(void *), void *(*others)(void *)) {
    vfio = open_device();
    engine = map_engine(vfio.device);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, i ? others : first, (void *)i));
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_join(threads[i], NULL));
}

static void *starts_jobs(void *unused) {
    engine->operation = FILL;
    engine->length = 0;
    for (int i = 0; i < ROUNDS; i++)
        engine->command = 1;
    stop = 1;
    CHECK(engine->ended == ROUNDS);
    return unused;
}

static void *changes_bits(void *unused) {
    while (!stop)
        asm volatile("lock orq $1, %0" : "+m"(engine->value));
    return unused;
}

// Instructions that only the processor can carry out do not hide the stores of other threads.
static void no_store_is_lost(void) { at_once(starts_jobs, changes_bits); }

static void *loads(void *unused) {
    while (!stop) {
        CHECK(engine->identification == 0x45414d44);
        CHECK(engine->status != 4);
    }
    return unused;
}

static void loads_meet_registers(void) { at_once(starts_jobs, loads); }

static void *loads_of_all_kinds(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t word = 0;
        asm volatile("orl %1, %0" : "+r"(word) : "m"(engine->identification));
        CHECK(word == 0x45414d44);
        char bytes[4];
        void *to = bytes;
        const void *from = (const void *)engine;
        size_t count = 1;
        asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        CHECK(!memcmp(bytes, "DMAE", 4));
    }
    return unused;
}

static void loads_of_all_kinds_meet_registers(void) { at_once(loads_of_all_kinds, loads_of_all_kinds); }

static void *maps_and_unmaps(void *number) {
    uint64_t iova = 0x1000000 * (uint64_t)(uintptr_t)number;
    for (int i = 0; !stop || i < 100; i++) {
        char *page = memory(PAGE, PROT_READ | PROT_WRITE);
        CHECK(!map_dma(vfio.container, page, iova, PAGE, READ_WRITE));
        CHECK(!unmap_dma(vfio.container, iova, PAGE));
        CHECK(!munmap(page, PAGE));
        volatile struct engine *window = map_engine(vfio.device);
        CHECK(window->identification == 0x45414d44);
        CHECK(!munmap((void *)window, PAGE));
        int copy = dup(vfio.device);
        CHECK(copy >= 0 && !close(copy));
    }
    return number;
}

static void others_map_and_unmap(void) { at_once(starts_jobs, maps_and_unmaps); }

static void *changes_protection(void *unused) {
    while (!stop)
        CHECK(!mprotect((void *)engine, PAGE, PROT_READ | PROT_WRITE));
    return unused;
}

static void *maps_in_its_place(void *unused) {
    off_t at = (off_t)region(vfio.device, 0).offset;
    while (!stop)
        CHECK(mmap((void *)engine, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, vfio.device, at) ==
              engine);
    return unused;
}

static void protection_is_changed_meanwhile(void) { at_once(starts_jobs, changes_protection); }

static void registers_are_mapped_in_their_own_place(void) { at_once(starts_jobs, maps_in_its_place); }

CASES(CASE(no_store_is_lost), CASE(loads_meet_registers), CASE(loads_of_all_kinds_meet_registers),
      CASE(others_map_and_unmap), CASE(protection_is_changed_meanwhile),
      CASE(registers_are_mapped_in_their_own_place))
