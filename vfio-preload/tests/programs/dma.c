// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Which memory may be mapped for a device, and what its DMA finds there.
#include "client.h"

static struct vfio vfio;
static volatile struct engine *engine;

static void open_engine(void) {
    vfio = open_device();
    engine = map_engine(vfio.device);
}

#define IOVA 0x100000

static int maps(const void *at, uint64_t size, uint32_t flags) {
    return map_dma(vfio.container, at, IOVA, size, flags);
}

static void memory_is_pinned_as_it_is_protected(void) {
    open_engine();
    CHECK_FAILS(maps(memory(PAGE, PROT_NONE), PAGE, VFIO_DMA_MAP_FLAG_READ), EFAULT);
    CHECK_FAILS(maps(memory(PAGE, PROT_READ), PAGE, READ_WRITE), EFAULT);
    CHECK(!maps(memory(PAGE, PROT_READ), PAGE, VFIO_DMA_MAP_FLAG_READ));
    CHECK(work(engine, FILL, 0, IOVA, 8) == FAULT && engine->fault == IOVA);
    CHECK(!unmap_dma(vfio.container, IOVA, PAGE));
    CHECK_FAILS(maps(NULL, PAGE, READ_WRITE), EFAULT);
    CHECK_FAILS(maps((void *)0x7ffffffff000, PAGE, READ_WRITE), EFAULT);
    CHECK_FAILS(maps((void *)0xffff800000000000, PAGE, READ_WRITE), EFAULT);
}

static void memory_that_ends_half_way_is_refused(void) {
    open_engine();
    char *pages = memory(8 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(!munmap(pages + 4 * PAGE, PAGE));
    CHECK_FAILS(maps(pages, 8 * PAGE, READ_WRITE), EFAULT);
    CHECK(!mprotect(pages + 2 * PAGE, PAGE, PROT_READ));
    CHECK_FAILS(maps(pages, 4 * PAGE, READ_WRITE), EFAULT);
    // Nothing of it is left.
    CHECK(!maps(pages, 2 * PAGE, READ_WRITE));
    CHECK(work(engine, FILL, 0, IOVA, 2 * PAGE) == DONE);
    CHECK(work(engine, FILL, 0, IOVA + 2 * PAGE, 8) == FAULT);
}

static void a_file_behind_its_end_is_refused(void) {
    open_engine();
    int file = memfd_create("short", 0);
    CHECK(!ftruncate(file, PAGE));
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK_FAILS(maps(pages, 2 * PAGE, READ_WRITE), EFAULT);
    CHECK(!maps(pages, PAGE, READ_WRITE));
    engine->value = 0x5a;
    CHECK(work(engine, FILL, 0, IOVA, 4) == DONE);
    uint32_t word;
    CHECK(pread(file, &word, 4, 0) == 4 && word == 0x5a5a5a5a);
}

static void memory_that_went_is_a_fault_of_the_device(void) {
    open_engine();
    char *pages = memory(2 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(!maps(pages, 2 * PAGE, READ_WRITE));
    CHECK(work(engine, FILL, 0, IOVA, 2 * PAGE) == DONE);
    CHECK(!munmap(pages + PAGE, PAGE));
    CHECK(work(engine, FILL, 0, IOVA, 2 * PAGE) == FAULT && engine->fault == IOVA + PAGE);
    CHECK(work(engine, COPY, IOVA + PAGE, IOVA, 8) == FAULT);
    CHECK(work(engine, FILL, 0, IOVA, PAGE) == DONE);
    CHECK(unmap_dma(vfio.container, IOVA, 2 * PAGE) == 0);
}

static void copies_of_any_length_arrive(void) {
    open_engine();
    enum { ROOM = 8 * PAGE };
    unsigned char *from = memory(ROOM, PROT_READ | PROT_WRITE), *to = memory(ROOM, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < ROOM; i++)
        from[i] = (unsigned char)(i * 7 + i / 251);
    CHECK(!map_dma(vfio.container, from, IOVA, ROOM, VFIO_DMA_MAP_FLAG_READ));
    CHECK(!map_dma(vfio.container, to, 2 * IOVA, ROOM, READ_WRITE));
    for (size_t length = 1; length <= 5 * PAGE; length += length < 80 ? 1 : 1021)
        for (size_t shift = 0; shift < 9; shift += 4) {
            memset(to, 0, length + 16);
            CHECK(work(engine, COPY, IOVA + shift, 2 * IOVA + shift / 2, length) == DONE);
            CHECK(!memcmp(to + shift / 2, from + shift, length) && !to[shift / 2 + length]);
        }
}

static void registers_take_no_dma(void) {
    open_engine();
    volatile struct engine *twice = map_engine(vfio.device);
    CHECK(!maps((void *)twice, PAGE, READ_WRITE));
    CHECK(work(engine, FILL, 0, IOVA + 0x30, 8) == FAULT && engine->fault == IOVA + 0x30);
    CHECK(work(engine, COPY, IOVA, IOVA + 0x30, 8) == FAULT);
    CHECK(engine->identification == 0x45414d44);
}

// The only other device is one with a BAR of memory, in a group of its own.
static void a_peer_s_memory_takes_dma(void) {
    open_engine();
    setenv("BDF", getenv("PEER"), 1);
    int group = open(group_path(), O_RDWR);
    CHECK(group >= 0 && !ioctl(group, VFIO_GROUP_SET_CONTAINER, &vfio.container));
    int peer = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address());
    uint16_t command = 6;
    CHECK(peer >= 0 && pwrite(peer, &command, 2, (7L << 40) + 4) == 2);
    volatile char *bar = map_bar(peer, 0, 2 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(!maps((void *)bar, 2 * PAGE, READ_WRITE));
    engine->value = 0x5a;
    CHECK(work(engine, FILL, 0, IOVA + PAGE - 4, 8) == DONE);
    CHECK(*(volatile uint64_t *)(bar + PAGE - 4) == 0x5a5a5a5a5a5a5a5a);
    uint32_t word;
    CHECK(pread(peer, &word, 4, (off_t)region(peer, 0).offset + (off_t)PAGE) == 4 && word == 0x5a5a5a5a);
    CHECK(!munmap((void *)bar, 2 * PAGE));
    CHECK(work(engine, FILL, 0, IOVA, 8) == FAULT);
}

static void interrupts_are_eventfds(void) {
    open_engine();
    int ended = eventfd(0, 0), failed = eventfd(0, 0);
    CHECK(!set_interrupt(vfio.device, 0, ended) && !set_interrupt(vfio.device, 1, failed));
    CHECK(!maps(memory(PAGE, PROT_READ | PROT_WRITE), PAGE, READ_WRITE));
    struct pollfd both[] = {{ended, POLLIN, 0}, {failed, POLLIN, 0}};
    CHECK(poll(both, 2, 0) == 0);
    CHECK(work(engine, FILL, 0, IOVA, 8) == DONE);
    CHECK(work(engine, FILL, 0, IOVA, 8) == DONE);
    CHECK(poll(both, 2, 0) == 1 && both[0].revents == POLLIN);
    uint64_t times;
    CHECK(read(ended, &times, 8) == 8 && times == 2);
    CHECK(work(engine, FILL, 0, 0, 8) == FAULT);
    CHECK(poll(both, 2, 0) == 1 && both[1].revents == POLLIN);
    // One that the program has closed is signalled all the same: the device has it open.
    int copy = dup(failed);
    CHECK(!close(failed));
    CHECK(work(engine, FILL, 0, 0, 8) == FAULT);
    CHECK(read(copy, &times, 8) == 8 && times == 2);
    CHECK(!set_interrupt(vfio.device, 0, -1));
    CHECK(work(engine, FILL, 0, IOVA, 8) == DONE);
    CHECK(poll(both, 1, 0) == 0);
    CHECK_FAILS(set_interrupt(vfio.device, 0, vfio.container), EINVAL);
    CHECK_FAILS(set_interrupt(vfio.device, 0, 500), EBADF);
}

// That two pages may be locked, or are more than the limit lets be.
static void two_pages(int fit) {
    char *pages = memory(2 * PAGE, PROT_READ | PROT_WRITE);
    if (!fit) {
        CHECK_FAILS(maps(pages, 2 * PAGE, READ_WRITE), ENOMEM);
        return;
    }
    CHECK(!maps(pages, 2 * PAGE, READ_WRITE) && !unmap_dma(vfio.container, IOVA, 2 * PAGE));
}

static void a_limit_holds_once_it_is_set(void) {
    open_engine();
    struct rlimit high, low, before;
    CHECK(!getrlimit(RLIMIT_MEMLOCK, &high));
    high.rlim_cur = high.rlim_max;
    low = high;
    low.rlim_cur = PAGE;
    two_pages(1);
    CHECK(!setrlimit(RLIMIT_MEMLOCK, &low));
    two_pages(0);
    CHECK(!prlimit(0, RLIMIT_MEMLOCK, &high, &before) && before.rlim_cur == PAGE);
    two_pages(1);
    CHECK(!prlimit64(getpid(), RLIMIT_MEMLOCK, (struct rlimit64 *)&low, NULL));
    two_pages(0);
    CHECK(!setrlimit64(RLIMIT_MEMLOCK, (struct rlimit64 *)&high));
    two_pages(1);
    CHECK(!syscall(SYS_prlimit64, 0, RLIMIT_MEMLOCK, &low, NULL));
    two_pages(0);
    CHECK(!syscall(SYS_setrlimit, RLIMIT_MEMLOCK, &high));
    two_pages(1);
}

CASES(CASE(memory_is_pinned_as_it_is_protected), CASE(memory_that_ends_half_way_is_refused),
      CASE(a_file_behind_its_end_is_refused), CASE(memory_that_went_is_a_fault_of_the_device),
      CASE(copies_of_any_length_arrive), CASE(registers_take_no_dma), CASE(a_peer_s_memory_takes_dma),
      CASE(interrupts_are_eventfds), CASE(a_limit_holds_once_it_is_set))
