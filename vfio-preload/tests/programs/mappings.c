// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Mappings of a device's regions, of an NVMe controller, whose BAR 0 has four pages of registers.
#include "client.h"

#define VERSION 0x10400

static int device;
static sigjmp_buf before;

static void on_fault(int signal) {
    (void)signal;
    siglongjmp(before, 1);
}

// Whether an address can be read.
static int readable(volatile void *at) {
    signal(SIGSEGV, on_fault);
    if (sigsetjmp(before, 1))
        return 0;
    (void)*(volatile uint32_t *)at;
    return 1;
}

static int writable(volatile void *at) {
    signal(SIGSEGV, on_fault);
    if (sigsetjmp(before, 1))
        return 0;
    *(volatile uint32_t *)at = 0;
    return 1;
}

// Maps BAR 0 whole. The version register is at 8; INTMS, which may be written, at 0xc.
static volatile char *map_registers(void) {
    device = open_device().device;
    volatile char *bar = map_bar(device, 0, 4 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION);
    return bar;
}

static void a_part_is_unmapped(void) {
    volatile char *bar = map_registers();
    CHECK(!munmap((void *)(bar + PAGE), PAGE));
    CHECK(readable(bar) && !readable(bar + PAGE) && readable(bar + 2 * PAGE));
    CHECK(!munmap((void *)bar, PAGE));
    CHECK(!readable(bar + 8) && readable(bar + 3 * PAGE));
    // What comes there next is memory.
    volatile char *page = mmap((void *)bar, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page == bar && writable(bar + 8));
    CHECK(*(volatile uint32_t *)(bar + 8) == 0);
}

static void another_mapping_takes_the_place(void) {
    volatile char *bar = map_registers();
    void *page = mmap((void *)(bar + PAGE), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                      -1, 0);
    CHECK(page == (void *)(bar + PAGE));
    memset(page, 0x5a, PAGE);
    CHECK(*(volatile uint32_t *)(bar + PAGE) == 0x5a5a5a5a && readable(bar + 2 * PAGE));
    // And registers take the place of memory, as DPDK maps them.
    page = mmap(page, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, device, 0);
    CHECK(page == (void *)(bar + PAGE));
    CHECK(*(volatile uint32_t *)(bar + PAGE + 8) == VERSION && !writable(bar + PAGE + 0xc));
}

static void a_mapping_is_moved(void) {
    volatile char *bar = map_registers();
    char *place = memory(4 * PAGE, PROT_NONE);
    volatile char *moved = mremap((void *)bar, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    CHECK(moved == place && !readable(bar + 8));
    CHECK(*(volatile uint32_t *)(moved + 8) == VERSION);
    moved = mremap((void *)moved, 4 * PAGE, PAGE, 0);
    CHECK(moved == place && !readable(moved + PAGE));
    CHECK(*(volatile uint32_t *)(moved + 8) == VERSION);
    // Devices' mappings do not grow.
    CHECK_FAILS(mremap((void *)moved, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    CHECK(*(volatile uint32_t *)(moved + 8) == VERSION);
}

static void protection_is_changed(void) {
    volatile char *bar = map_registers();
    CHECK(!mprotect((void *)bar, PAGE, PROT_READ));
    CHECK(readable(bar + 8) && !writable(bar + 0xc) && writable(bar + PAGE));
    CHECK(!mprotect((void *)bar, 4 * PAGE, PROT_NONE));
    CHECK(!readable(bar + 8) && !readable(bar + 3 * PAGE));
    CHECK(!mprotect((void *)bar, 4 * PAGE, PROT_READ | PROT_WRITE));
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION && writable(bar + 0xc));
}

static void protection_is_changed_with_a_key(void) {
    volatile char *bar = map_registers();
    CHECK(!pkey_mprotect((void *)bar, PAGE, PROT_READ, -1));
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION && !writable(bar + 0xc) && writable(bar + PAGE));
    CHECK(!syscall(SYS_pkey_mprotect, bar, 4 * PAGE, PROT_READ | PROT_WRITE, -1));
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION && writable(bar + 0xc));
    char *page = memory(PAGE, PROT_READ);
    CHECK(!pkey_mprotect(page, PAGE, PROT_READ | PROT_WRITE, -1) && writable(page));
}

static void protection_is_changed_around(void) {
    device = open_device().device;
    char *place = memory(6 * PAGE, PROT_NONE);
    volatile char *bar =
        mmap(place + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device, 0);
    CHECK(bar == place + PAGE);
    CHECK(!mprotect(place, 6 * PAGE, PROT_READ | PROT_WRITE));
    CHECK(writable(place) && writable(place + 5 * PAGE));
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION);
    CHECK(!mprotect(place, 6 * PAGE, PROT_READ));
    CHECK(!writable(place) && !writable(place + 5 * PAGE) && !writable(bar + 0xc));
    CHECK(*(volatile uint32_t *)(bar + 8) == VERSION);
    CHECK_FAILS(mprotect((void *)(bar + 1), PAGE, PROT_READ), EINVAL);
}

static void an_access_behind_a_mapping_is_a_fault(void) {
    device = open_device().device;
    char *place = memory(3 * PAGE, PROT_NONE);
    volatile char *bar = mmap(place + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device, 0);
    CHECK(bar == place + PAGE);
    CHECK(readable(bar + PAGE - 4) && !readable(bar + PAGE) && !readable(bar - 4));
    CHECK(!readable(bar + PAGE - 2) && !writable(bar - 2));
}

static void what_cannot_be_mapped(void) {
    struct vfio vfio = open_device();
    device = vfio.device;
    off_t bar = (off_t)region(device, 0).offset, config = (off_t)region(device, 7).offset;
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, device, bar), EINVAL);
    CHECK_FAILS(mmap(NULL, 0, PROT_READ, MAP_SHARED, device, bar), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, bar + 1), EINVAL);
    CHECK_FAILS(mmap(NULL, 5 * PAGE, PROT_READ, MAP_SHARED, device, bar), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, bar + 4 * (off_t)PAGE), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, config), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, (off_t)1 << 40), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, (off_t)9 << 40), EINVAL);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, vfio.container, 0), ENODEV);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, vfio.group, 0), ENODEV);
    CHECK(mmap(NULL, PAGE + 1, PROT_READ, MAP_SHARED, device, bar) != MAP_FAILED);
}

static void regions_are_mapped_as_they_say(void) {
    device = open_device().device;
    for (uint32_t index = 0; index < 9; index++) {
        struct vfio_region_info info = {.argsz = sizeof info, .index = index};
        if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) || !info.size)
            continue;
        volatile uint32_t *at = mmap(NULL, info.size, PROT_READ, MAP_SHARED, device, (off_t)info.offset);
        CHECK(!(info.flags & VFIO_REGION_INFO_FLAG_MMAP) == (at == MAP_FAILED));
        uint32_t word;
        CHECK(pread(device, &word, 4, (off_t)info.offset) == 4);
        CHECK(at == MAP_FAILED || *at == word);
    }
}

static void a_region_is_read_to_its_end(uint32_t index) {
    struct vfio_region_info info = region(device, index);
    off_t at = (off_t)info.offset, end = at + (off_t)info.size;
    int behind = index == VFIO_PCI_CONFIG_REGION_INDEX ? EFAULT : EINVAL;
    char *bytes = memory(info.size + PAGE, PROT_READ | PROT_WRITE);
    CHECK(pread(device, bytes, 4, at) == 4);
    CHECK(pread(device, bytes, info.size, at) == (ssize_t)info.size);
    CHECK(pread(device, bytes, 4, end - 4) == 4);
    // Configuration space is read whole or not at all, BARs as far as they go.
    if (index == VFIO_PCI_CONFIG_REGION_INDEX)
        CHECK_FAILS(pread(device, bytes, info.size + PAGE, at), EFAULT);
    else
        CHECK(pread(device, bytes, info.size + PAGE, at) == (ssize_t)info.size);
    CHECK_FAILS(pread(device, bytes, 4, end), behind);
    CHECK_FAILS(pwrite(device, bytes, 4, end), behind);
    CHECK(pread(device, bytes, 0, at) == 0);
}

static void regions_are_read_to_their_ends(void) {
    device = open_device().device;
    char bytes[8];
    for (uint32_t index = 0; index < 8; index++)
        if (region(device, index).size)
            a_region_is_read_to_its_end(index);
    CHECK(pread(device, bytes, 8, (off_t)region(device, 0).offset + 4 * (off_t)PAGE - 4) == 4);
    CHECK_FAILS(pread(device, bytes, 4, -1), EINVAL);
    CHECK_FAILS(pread(device, bytes, 4, (off_t)12 << 40), EINVAL);
}

static void addresses_without_memory(void) {
    struct vfio vfio = open_device();
    device = vfio.device;
    off_t bar = (off_t)region(device, 0).offset;
    char *bytes = memory(2 * PAGE, PROT_READ | PROT_WRITE), *nothing = bytes + PAGE;
    const char *constant = memory(PAGE, PROT_READ);
    CHECK(!munmap(nothing, PAGE));
    CHECK_FAILS(pread(device, nothing, 4, bar), EFAULT);
    CHECK_FAILS(pread(device, nothing - PAGE, 2 * PAGE, bar), EFAULT);
    CHECK_FAILS(pwrite(device, nothing, 4, bar + 0xc), EFAULT);
    CHECK_FAILS(pread(device, (void *)-8L, 4, bar), EFAULT);
    CHECK_FAILS(pread(device, (void *)constant, 4, bar), EFAULT);
    const unsigned long device_calls[] = {VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO,
                                          VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_SET_IRQS};
    for (size_t i = 0; i < sizeof device_calls / sizeof *device_calls; i++) {
        CHECK_FAILS(ioctl(device, device_calls[i], nothing), EFAULT);
        CHECK_FAILS(ioctl(device, device_calls[i], nothing - 4), EFAULT);
        CHECK_FAILS(ioctl(device, device_calls[i], NULL), EFAULT);
        CHECK_FAILS(ioctl(device, device_calls[i], 0xffff800000000000), EFAULT);
    }
    const unsigned long container_calls[] = {VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA};
    for (size_t i = 0; i < sizeof container_calls / sizeof *container_calls; i++)
        CHECK_FAILS(ioctl(vfio.container, container_calls[i], nothing), EFAULT);
    CHECK_FAILS(ioctl(vfio.group, VFIO_GROUP_GET_STATUS, nothing), EFAULT);
    CHECK_FAILS(ioctl(vfio.group, VFIO_GROUP_GET_DEVICE_FD, nothing), EFAULT);
    CHECK_FAILS(ioctl(vfio.group, VFIO_GROUP_SET_CONTAINER, nothing), EFAULT);
}

static void pieces_are_read_and_written_in_order(void) {
    device = open_device().device;
    off_t config = (off_t)region(device, 7).offset, bar = (off_t)region(device, 0).offset;
    uint16_t vendor = 0, id = 0;
    struct iovec pieces[] = {{&vendor, 2}, {NULL, 0}, {&id, 2}};
    CHECK(preadv(device, pieces, 3, config) == 4);
    CHECK(vendor == 0x1b36 && id == 0x10f2);
    CHECK(preadv2(device, pieces, 3, config, 0) == 4);
    CHECK(preadv2(device, pieces, 3, config, RWF_HIPRI) == 4);
    CHECK_FAILS(preadv2(device, pieces, 3, config, RWF_NOWAIT), EOPNOTSUPP);
    CHECK_FAILS(pwritev2(device, pieces, 3, config, RWF_DSYNC), EOPNOTSUPP);
    CHECK_FAILS(preadv64v2(device, pieces, 3, config, 1 << 30), EOPNOTSUPP);
    uint32_t first = 1, second = 0;
    struct iovec words[] = {{&first, 4}, {&second, 4}};
    CHECK(pwritev(device, words, 2, bar + 0x24) == 8);
    CHECK(pread(device, &second, 4, bar + 0x24) == 4 && second == 1);
    CHECK(readv(device, words, 2) == 8);
}

static void reading_goes_on_where_it_has_ended(void) {
    device = open_device().device;
    // Of an NVMe controller: what it can, in two halves; its version; two masks; how it is set; nothing; its state.
    uint32_t expected[8], word;
    for (int i = 0; i < 8; i++)
        CHECK(pread(device, &expected[i], 4, 4 * i) == 4);
    CHECK(expected[0] != expected[1] && expected[1] != expected[2]);
    CHECK(read(device, &word, 4) == 4 && word == expected[0]);
    CHECK(read(dup(device), &word, 4) == 4 && word == expected[1]);
    CHECK_FAILS(lseek(device, 0, SEEK_SET), ESPIPE);
    struct iovec piece = {&word, 4};
    CHECK(readv(device, &piece, 1) == 4 && word == expected[2]);
    CHECK(preadv2(device, &piece, 1, -1, 0) == 4 && word == expected[3]);
    CHECK_FAILS(preadv(device, &piece, 1, -1), EINVAL);
    CHECK(write(device, &word, 4) == 4);
    CHECK(read(device, &word, 4) == 4 && word == expected[5]);
}

CASES(CASE(a_part_is_unmapped), CASE(another_mapping_takes_the_place), CASE(a_mapping_is_moved),
      CASE(protection_is_changed), CASE(protection_is_changed_with_a_key), CASE(protection_is_changed_around),
      CASE(an_access_behind_a_mapping_is_a_fault), CASE(what_cannot_be_mapped),
      CASE(regions_are_mapped_as_they_say), CASE(regions_are_read_to_their_ends),
      CASE(addresses_without_memory), CASE(pieces_are_read_and_written_in_order),
      CASE(reading_goes_on_where_it_has_ended))
