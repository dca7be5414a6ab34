// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// iommufd's own calls and devices opened by their own nodes, which the headers of older systems do not have.
#include "client.h"

#include <dirent.h>

#define COMMAND(number) _IO(';', number)

// The path of the device's node: /dev/vfio/devices/vfioN.
UNUSED static const char *node_path(void) {
    static char path[PATH_MAX];
    char place[PATH_MAX];
    snprintf(place, sizeof place, "/sys/bus/pci/devices/%s/vfio-dev", address());
    DIR *directory = opendir(place);
    CHECK(directory);
    const struct dirent *entry;
    do
        CHECK(entry = readdir(directory));
    while (entry->d_name[0] == '.');
    snprintf(path, sizeof path, "/dev/vfio/devices/%s", entry->d_name);
    closedir(directory);
    return path;
}

UNUSED static uint32_t allocate_ioas(int iommufd) {
    struct {
        uint32_t size, flags, ioas;
    } request = {.size = sizeof request};
    CHECK(!ioctl(iommufd, COMMAND(0x81), &request));
    return request.ioas;
}

// Opens the device by its node, and attaches it to an address space.
UNUSED static int open_node(int iommufd, uint32_t ioas) {
    int device = open(node_path(), O_RDWR);
    CHECK(device >= 0);
    struct {
        uint32_t size, flags;
        int32_t iommufd;
        uint32_t id;
    } bind = {.size = sizeof bind, .iommufd = iommufd};
    CHECK(!ioctl(device, COMMAND(118), &bind));
    struct {
        uint32_t size, flags, ioas;
    } attach = {.size = sizeof attach, .ioas = ioas};
    CHECK(!ioctl(device, COMMAND(119), &attach));
    return device;
}

// Maps memory at an address, for devices to read and write.
UNUSED static int ioas_map(int iommufd, uint32_t ioas, const void *memory, uint64_t iova, uint64_t length) {
    struct {
        uint32_t size, flags, ioas, reserved;
        uint64_t memory, length, iova;
    } request = {sizeof request, 7, ioas, 0, (uintptr_t)memory, length, iova};
    return ioctl(iommufd, COMMAND(0x85), &request);
}

UNUSED static int ioas_unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t length) {
    struct {
        uint32_t size, ioas;
        uint64_t iova, length;
    } request = {sizeof request, ioas, iova, length};
    return ioctl(iommufd, COMMAND(0x86), &request);
}
