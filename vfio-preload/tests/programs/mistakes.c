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
      CASE(makes_memory_longer))
