// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What the programs here share: opening the device whose address is in $BDF, its registers, checks, cases.
//
// The programs are ordinary VFIO programs, which know nothing of the emulator. Each takes the name of a case.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define UNUSED __attribute__((unused))

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: not so: %s (errno %d, %s)\n", __FILE__, __LINE__, #what, errno,          \
                    strerror(errno));                                                                        \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

// That a call returns -1, or MAP_FAILED, and an errno.
#define CHECK_FAILS(call, expected)                                                                          \
    do {                                                                                                     \
        errno = 0;                                                                                           \
        CHECK((long)(call) == -1L);                                                                          \
        CHECK(errno == (expected));                                                                          \
    } while (0)

struct test_case {
    const char *name;
    void (*run)(void);
};

// Runs the case that is named.
static inline int run_case(int argc, char **argv, const struct test_case *cases) {
    // Whatever goes wrong, a test ends.
    alarm(120);
    for (; argc == 2 && cases->name; cases++)
        if (!strcmp(cases->name, argv[1])) {
            cases->run();
            return 0;
        }
    fprintf(stderr, "%s: there is no case %s\n", argv[0], argc == 2 ? argv[1] : "");
    return 2;
}

#define CASES(...)                                                                                           \
    int main(int argc, char **argv) {                                                                        \
        const struct test_case cases[] = {__VA_ARGS__, {NULL, NULL}};                                        \
        return run_case(argc, argv, cases);                                                                  \
    }
#define CASE(name) {#name, name}

struct vfio {
    int container, group, device;
};

UNUSED static const char *address(void) {
    const char *address = getenv("BDF");
    CHECK(address);
    return address;
}

// The path of the device's group: /dev/vfio/N.
UNUSED static const char *group_path(void) {
    static char path[PATH_MAX];
    char link[PATH_MAX], target[PATH_MAX];
    snprintf(link, sizeof link, "/sys/bus/pci/devices/%s/iommu_group", address());
    ssize_t length = readlink(link, target, sizeof target - 1);
    CHECK(length > 0);
    target[length] = 0;
    CHECK(snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(target, '/') + 1) < (int)sizeof path);
    return path;
}

// Opens a container, or an iommufd in its place, and the group, and has it translate.
UNUSED static struct vfio open_group_by(const char *container) {
    struct vfio vfio = {open(container, O_RDWR), open(group_path(), O_RDWR), -1};
    CHECK(vfio.container >= 0);
    CHECK(vfio.group >= 0);
    CHECK(!ioctl(vfio.group, VFIO_GROUP_SET_CONTAINER, &vfio.container));
    CHECK(!ioctl(vfio.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
    return vfio;
}

UNUSED static struct vfio open_group(void) {
    return open_group_by("/dev/vfio/vfio");
}

UNUSED static void let_do_dma(int device) {
    uint16_t command = 6;
    CHECK(pwrite(device, &command, 2, (7L << 40) + 4) == 2);
}

// The same, and opens the device and lets it do DMA.
UNUSED static struct vfio open_device_by(const char *container) {
    struct vfio vfio = open_group_by(container);
    vfio.device = ioctl(vfio.group, VFIO_GROUP_GET_DEVICE_FD, address());
    CHECK(vfio.device >= 0);
    let_do_dma(vfio.device);
    return vfio;
}

UNUSED static struct vfio open_device(void) {
    return open_device_by("/dev/vfio/vfio");
}

UNUSED static struct vfio_region_info region(int device, uint32_t index) {
    struct vfio_region_info info = {.argsz = sizeof info, .index = index};
    CHECK(!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info));
    return info;
}

// Maps the beginning of a BAR.
UNUSED static volatile void *map_bar(int device, uint32_t index, size_t size, int prot) {
    void *at = mmap(NULL, size, prot, MAP_SHARED, device, (off_t)region(device, index).offset);
    CHECK(at != MAP_FAILED);
    return at;
}

UNUSED static int map_dma(int container, const void *memory, uint64_t iova, uint64_t size, uint32_t flags) {
    struct vfio_iommu_type1_dma_map map = {sizeof map, flags, (uintptr_t)memory, iova, size};
    return ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}

UNUSED static int unmap_dma(int container, uint64_t iova, uint64_t size) {
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = 24, .iova = iova, .size = size};
    return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

#define READ_WRITE (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

// Zeroed memory of the process's own.
UNUSED static void *memory(size_t size, int prot) {
    void *at = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

// Has the eventfd signalled for an MSI-X vector; -1 for none.
UNUSED static int set_interrupt(int device, uint32_t vector, int event) {
    char bytes[sizeof(struct vfio_irq_set) + sizeof event];
    struct vfio_irq_set set = {.argsz = sizeof bytes,
                               .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                               .index = VFIO_PCI_MSIX_IRQ_INDEX,
                               .start = vector,
                               .count = 1};
    memcpy(bytes, &set, sizeof set);
    memcpy(bytes + sizeof set, &event, sizeof event);
    return ioctl(device, VFIO_DEVICE_SET_IRQS, bytes);
}

// The registers of a dma-engine (vfio-sim/DEVICES.md).
struct engine {
    uint32_t identification, reserved, command, status;
    uint64_t operation, source, destination, length, value, ended, fault;
};

enum { COPY = 1, FILL = 2 };
enum { DONE = 2, FAULT = 3 };

UNUSED static volatile struct engine *map_engine(int device) {
    return map_bar(device, 0, PAGE, PROT_READ | PROT_WRITE);
}

// Does a job, and returns the status.
UNUSED static uint32_t work(volatile struct engine *engine, uint64_t operation, uint64_t source,
                            uint64_t destination, uint64_t length) {
    engine->operation = operation;
    engine->source = source;
    engine->destination = destination;
    engine->length = length;
    engine->command = 1;
    return engine->status;
}
