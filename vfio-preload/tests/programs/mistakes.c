// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Programs with the mistakes that reports are made for.
#include "client.h"

static struct vfio vfio;

static void *map_page(uint64_t iova, size_t size) {
    void *at = memory(size, PROT_READ | PROT_WRITE);
    map_dma(vfio.container, at, iova, size, READ_WRITE);
    return at;
}

static void ignores_a_refusal(void) {
    vfio = open_device();
    map_page(0xfee01000, PAGE);
    map_page(0x100000, PAGE);
    work(map_engine(vfio.device), FILL, 0, 0xfee01000, 8);
    CHECK(!unmap_dma(vfio.container, 0x100000, PAGE));
}

static void leaves_mappings(void) {
    vfio = open_device();
    map_page(0x100000, PAGE);
    map_page(0x200000, 2 * PAGE);
}

static void is_killed(void) {
    vfio = open_device();
    map_page(0x100000, PAGE);
    raise(SIGKILL);
}

static void unmaps_memory_first(void) {
    vfio = open_device();
    void *at = map_page(0x100000, 2 * PAGE);
    CHECK(!munmap(at, 2 * PAGE));
    work(map_engine(vfio.device), FILL, 0, 0x100000, 8);
    CHECK(!unmap_dma(vfio.container, 0x100000, 2 * PAGE));
}

static char *map_shared(uint64_t iova) {
    char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && !map_dma(vfio.container, at, iova, PAGE, READ_WRITE));
    return at;
}

static void gives_memory_back_first(void) {
    vfio = open_device();
    CHECK(!madvise(map_page(0x100000, PAGE), PAGE, MADV_DONTNEED));
    CHECK(!madvise(map_page(0x200000, PAGE), PAGE, MADV_FREE));
    CHECK(!madvise(map_shared(0x300000), PAGE, MADV_REMOVE));
    CHECK(!syscall(SYS_madvise, map_page(0x400000, PAGE), PAGE, MADV_DONTNEED));
    CHECK(work(map_engine(vfio.device), FILL, 0, 0x100000, 8) == DONE);
    for (uint64_t iova = 0x100000; iova <= 0x400000; iova += 0x100000)
        CHECK(!unmap_dma(vfio.container, iova, PAGE));
}

static void keeps_its_memory(void) {
    vfio = open_device();
    char *shared = map_shared(0x100000), *locked = map_page(0x200000, PAGE);
    strcpy(shared, "text");
    CHECK(!madvise(shared, PAGE, MADV_DONTNEED));
    CHECK(!strcmp(shared, "text"));
    CHECK(!mlock(locked, PAGE));
    CHECK_FAILS(madvise(locked, PAGE, MADV_DONTNEED), EINVAL);
    CHECK(!madvise(map_page(0x300000, PAGE), PAGE, MADV_DONTFORK));
    CHECK(work(map_engine(vfio.device), COPY, 0x100000, 0x200000, 8) == DONE);
    CHECK(!strcmp(locked, "text"));
}

static void makes_memory_longer(void) {
    vfio = open_device();
    char *at = memory(4 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(!munmap(at + 2 * PAGE, 2 * PAGE));
    CHECK(!map_dma(vfio.container, at, 0x100000, 2 * PAGE, READ_WRITE));
    CHECK(mremap(at, 2 * PAGE, 3 * PAGE, 0) == at);
    CHECK(work(map_engine(vfio.device), FILL, 0, 0x100000, 2 * PAGE) == DONE);
    CHECK(!unmap_dma(vfio.container, 0x100000, 2 * PAGE));
}

CASES(CASE(ignores_a_refusal), CASE(leaves_mappings), CASE(is_killed), CASE(unmaps_memory_first),
      CASE(makes_memory_longer), CASE(gives_memory_back_first), CASE(keeps_its_memory))
