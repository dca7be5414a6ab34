// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What a VMM tells KVM of the groups whose devices its guest gets.
#include "client.h"
#include <linux/kvm.h>

static int kvm_device(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    CHECK(kvm >= 0);
    int machine = ioctl(kvm, KVM_CREATE_VM, 0);
    CHECK(machine >= 0);
    struct kvm_create_device test = {.type = KVM_DEV_TYPE_VFIO, .flags = KVM_CREATE_DEVICE_TEST};
    CHECK(!ioctl(machine, KVM_CREATE_DEVICE, &test));
    struct kvm_create_device create = {.type = KVM_DEV_TYPE_VFIO};
    CHECK(!ioctl(machine, KVM_CREATE_DEVICE, &create));
    CHECK_FAILS(ioctl(machine, KVM_CREATE_DEVICE, &create), EBUSY);
    return (int)create.fd;
}

static int tell(int device, uint64_t what, int fd) {
    struct kvm_device_attr attribute = {.group = KVM_DEV_VFIO_GROUP, .attr = what, .addr = (uintptr_t)&fd};
    return ioctl(device, KVM_SET_DEVICE_ATTR, &attribute);
}

static void groups_are_added_and_removed(void) {
    int device = kvm_device();
    struct vfio vfio = open_group();
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.group));
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.group), EEXIST);
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, dup(vfio.group)), EEXIST);
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.container), EINVAL);
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, open("/dev/null", O_RDWR)), EINVAL);
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, 999), EBADF);
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_DEL, vfio.group));
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_DEL, vfio.group), ENOENT);
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.group));
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = 0;
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_DEL, vfio.group));
}

static void devices_are_added(void) {
    int device = kvm_device();
    struct vfio vfio = open_device();
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.device));
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, vfio.device), EEXIST);
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_DEL, vfio.device));
}

static void only_groups_are_added(void) {
    int device = kvm_device();
    CHECK_FAILS(tell(device, KVM_DEV_VFIO_GROUP_ADD, open_device().device), EINVAL);
}

static void attributes_are_told(void) {
    int device = kvm_device();
    open_group();
    struct kvm_device_attr attribute = {.group = KVM_DEV_VFIO_GROUP, .attr = KVM_DEV_VFIO_GROUP_DEL};
    CHECK(!ioctl(device, KVM_HAS_DEVICE_ATTR, &attribute));
    CHECK_FAILS(ioctl(device, KVM_GET_DEVICE_ATTR, &attribute), EPERM);
    CHECK_FAILS(ioctl(device, KVM_SET_DEVICE_ATTR, &attribute), EFAULT);
    CHECK_FAILS(ioctl(device, KVM_SET_DEVICE_ATTR, NULL), EFAULT);
    CHECK_FAILS(ioctl(device, KVM_CREATE_VCPU, 0), ENOTTY);
    attribute.attr = 9;
    CHECK_FAILS(ioctl(device, KVM_HAS_DEVICE_ATTR, &attribute), ENXIO);
    attribute.group = 9;
    CHECK_FAILS(ioctl(device, KVM_SET_DEVICE_ATTR, &attribute), ENXIO);
}

// What KVM has been told of is held open.
static void a_group_is_held_by_kvm(void) {
    int device = kvm_device(), group = open(group_path(), O_RDWR);
    CHECK(!tell(device, KVM_DEV_VFIO_GROUP_ADD, group));
    CHECK(!close(group));
    CHECK_FAILS(open(group_path(), O_RDWR), EBUSY);
    CHECK(!close(device));
    CHECK(open(group_path(), O_RDWR) >= 0);
}

static void other_devices_of_kvm_are_its_own(void) {
    int kvm = open("/dev/kvm", O_RDWR), machine = ioctl(kvm, KVM_CREATE_VM, 0);
    open_group();
    struct kvm_create_device unknown = {.type = 999};
    CHECK_FAILS(ioctl(machine, KVM_CREATE_DEVICE, &unknown), ENODEV);
    CHECK_FAILS(ioctl(machine, KVM_CREATE_DEVICE, NULL), EFAULT);
}

static void registers_are_given_as_memory(void) {
    int kvm = open("/dev/kvm", O_RDWR), machine = ioctl(kvm, KVM_CREATE_VM, 0);
    volatile struct engine *engine = map_engine(open_device().device);
    struct kvm_userspace_memory_region memory = {.memory_size = PAGE, .userspace_addr = (uintptr_t)engine};
    CHECK(!ioctl(machine, KVM_SET_USER_MEMORY_REGION, &memory));
}

CASES(CASE(groups_are_added_and_removed), CASE(devices_are_added), CASE(only_groups_are_added), CASE(attributes_are_told), CASE(a_group_is_held_by_kvm),
      CASE(other_devices_of_kvm_are_its_own), CASE(registers_are_given_as_memory))
