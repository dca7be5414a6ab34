// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Programs with the mistakes that reports are made for, by the interface that is named behind the case: a
// type1 container, type1's calls on an iommufd (compat), or iommufd's own.
#include "iommufd.h"

static const char *interface;
static struct vfio vfio;
static uint32_t ioas;

static int is_by(const char *name) {
    return !strcmp(interface, name);
}

static void begin(void) {
    if (is_by("iommufd")) {
        CHECK((vfio.container = open("/dev/iommu", O_RDWR)) >= 0);
        ioas = allocate_ioas(vfio.container);
        vfio.device = open_node(vfio.container, ioas);
        let_do_dma(vfio.device);
    } else {
        vfio = open_device_by(is_by("compat") ? "/dev/iommu" : "/dev/vfio/vfio");
    }
}

static int map(const void *at, uint64_t iova, uint64_t size) {
    return is_by("iommufd") ? ioas_map(vfio.container, ioas, at, iova, size)
                            : map_dma(vfio.container, at, iova, size, READ_WRITE);
}

static int unmap(uint64_t iova, uint64_t size) {
    return is_by("iommufd") ? ioas_unmap(vfio.container, ioas, iova, size)
                            : unmap_dma(vfio.container, iova, size);
}

static void *map_page(uint64_t iova, size_t size) {
    void *at = memory(size, PROT_READ | PROT_WRITE);
    map(at, iova, size);
    return at;
}

static void ignores_a_refusal(void) {
    begin();
    map_page(0xfee01000, PAGE);
    map_page(0x100000, PAGE);
    work(map_engine(vfio.device), FILL, 0, 0xfee01000, 8);
    CHECK(!unmap(0x100000, PAGE));
}

static void heeds_a_refusal(void) {
    begin();
    void *at = map_page(0xfee01000, PAGE);
    CHECK(!map(at, 0x100000, PAGE));
    map_page(0x200000, PAGE);
    CHECK(!unmap(0, 0x300000));
}

static void leaves_mappings(void) {
    begin();
    map_page(0x100000, PAGE);
    map_page(0x200000, 2 * PAGE);
}

static void is_killed(void) {
    begin();
    map_page(0x100000, PAGE);
    raise(SIGKILL);
}

static void unmaps_memory_first(void) {
    begin();
    void *at = map_page(0x100000, 2 * PAGE);
    CHECK(!munmap(at, 2 * PAGE));
    work(map_engine(vfio.device), FILL, 0, 0x100000, 8);
    CHECK(!unmap(0x100000, 2 * PAGE));
}

static char *map_shared(uint64_t iova) {
    char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && !map(at, iova, PAGE));
    return at;
}

static void gives_memory_back_first(void) {
    begin();
    CHECK(!madvise(map_page(0x100000, PAGE), PAGE, MADV_DONTNEED));
    CHECK(!madvise(map_page(0x200000, PAGE), PAGE, MADV_FREE));
    CHECK(!madvise(map_shared(0x300000), PAGE, MADV_REMOVE));
    CHECK(!syscall(SYS_madvise, map_page(0x400000, PAGE), PAGE, MADV_DONTNEED));
    CHECK(work(map_engine(vfio.device), FILL, 0, 0x100000, 8) == DONE);
    for (uint64_t iova = 0x100000; iova <= 0x400000; iova += 0x100000)
        CHECK(!unmap(iova, PAGE));
}

static void keeps_its_memory(void) {
    begin();
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
    begin();
    char *at = memory(4 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(!munmap(at + 2 * PAGE, 2 * PAGE));
    CHECK(!map(at, 0x100000, 2 * PAGE));
    CHECK(mremap(at, 2 * PAGE, 3 * PAGE, 0) == at);
    CHECK(work(map_engine(vfio.device), FILL, 0, 0x100000, 2 * PAGE) == DONE);
    CHECK(!unmap(0x100000, 2 * PAGE));
}

// Memory that one address space does not take is not made good by another one that does.
static void ignores_a_refusal_of_one_address_space(void) {
    begin();
    uint32_t other = allocate_ioas(vfio.container);
    void *at = map_page(0xfee01000, PAGE);
    CHECK(!ioas_map(vfio.container, other, at, 0xfee01000, PAGE));
    map_page(0x100000, PAGE);
    CHECK(!unmap(0x100000, PAGE));
}

// An address space has two names here: type1's calls mean it without one.
static void mixes_calls(void) {
    begin();
    CHECK(!map_dma(vfio.container, memory(PAGE, PROT_READ | PROT_WRITE), 0x100000, PAGE, READ_WRITE));
    uint32_t compat = 1;
    CHECK(!ioas_map(vfio.container, compat, memory(PAGE, PROT_READ | PROT_WRITE), 0x200000, PAGE));
    CHECK(!unmap_dma(vfio.container, 0x200000, PAGE));
}

int main(int argc, char **argv) {
    const struct test_case cases[] = {CASE(ignores_a_refusal),
                                      CASE(heeds_a_refusal),
                                      CASE(leaves_mappings),
                                      CASE(is_killed),
                                      CASE(unmaps_memory_first),
                                      CASE(makes_memory_longer),
                                       CASE(gives_memory_back_first),
                                       CASE(keeps_its_memory),
                                      CASE(ignores_a_refusal_of_one_address_space),
                                      CASE(mixes_calls),
                                      {NULL, NULL}};
    CHECK(argc == 3);
    interface = argv[2];
    return run_case(2, argv, cases);
}
