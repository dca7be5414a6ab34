// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Descriptors of VFIO's files are descriptors like any other.
#include "client.h"
#include <dirent.h>
#include <dlfcn.h>
#include <linux/close_range.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static int speaks(int container) { return ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION; }

static void text_is(int fd, const char *expected) {
    char link[64], text[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, text, sizeof text - 1);
    CHECK(length > 0);
    text[length] = 0;
    CHECK(!strcmp(text, expected));
}

static void proc_tells_the_path(void) {
    struct vfio vfio = open_group();
    text_is(vfio.container, "/dev/vfio/vfio");
    text_is(vfio.group, group_path());
}

static void copies_are_the_same_file(void) {
    struct vfio vfio = open_device();
    int copies[] = {
        dup(vfio.container),
        dup2(vfio.container, 100),
        dup3(vfio.container, 101, O_CLOEXEC),
        fcntl(vfio.container, F_DUPFD, 200),
        fcntl(vfio.container, F_DUPFD_CLOEXEC, 300),
    };
    CHECK(!close(vfio.container));
    CHECK_FAILS(ioctl(vfio.container, VFIO_GET_API_VERSION), EBADF);
    void *page = memory(PAGE, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++) {
        CHECK(speaks(copies[i]));
        // All of them are one container: the address is taken.
        CHECK(!map_dma(copies[i], page, PAGE * i, PAGE, READ_WRITE));
        CHECK_FAILS(map_dma(copies[0], page, PAGE * i, PAGE, READ_WRITE), EEXIST);
    }
    CHECK(fcntl(copies[2], F_GETFD) == FD_CLOEXEC);
    CHECK(fcntl(copies[3], F_GETFD) == 0);
}

static void the_last_copy_closes(void) {
    int group = open(group_path(), O_RDWR), copy = dup(group);
    CHECK(copy >= 0);
    CHECK(!close(group));
    CHECK_FAILS(open(group_path(), O_RDWR), EBUSY);
    CHECK(!close(copy));
    CHECK(open(group_path(), O_RDWR) >= 0);
}

static void another_file_in_its_place_closes(void) {
    int group = open(group_path(), O_RDWR), other = open("/dev/null", O_RDWR);
    CHECK(dup2(other, group) == group);
    CHECK(write(group, "x", 1) == 1);
    CHECK_FAILS(ioctl(group, VFIO_GROUP_UNSET_CONTAINER), ENOTTY);
    CHECK(open(group_path(), O_RDWR) >= 0);
}

static void a_range_is_closed(void) {
    struct vfio vfio = open_device();
    CHECK(!close_range((unsigned)vfio.container, (unsigned)vfio.device, 0));
    CHECK_FAILS(ioctl(vfio.device, VFIO_DEVICE_RESET), EBADF);
    open_device();
}

static void a_range_that_is_refused_stays_open(void) {
    struct vfio vfio = open_device();
    CHECK_FAILS(close_range(3, ~0U, 0xf0), EINVAL);
    CHECK_FAILS(close_range(10, 3, 0), EINVAL);
    CHECK(!close_range(3, ~0U, CLOSE_RANGE_CLOEXEC));
    CHECK(speaks(vfio.container) && !ioctl(vfio.device, VFIO_DEVICE_RESET));
    CHECK(!close_range((unsigned)vfio.device, (unsigned)vfio.device, CLOSE_RANGE_UNSHARE));
    CHECK_FAILS(ioctl(vfio.device, VFIO_DEVICE_RESET), EBADF);
    CHECK(speaks(vfio.container));
}

static void the_rest_may_be_closed(void) {
    struct vfio vfio = open_device();
    // As daemons do.
    CHECK(!close_range((unsigned)vfio.device + 1, ~0U, 0));
    for (int fd = vfio.device + 1; fd < 2000; fd++)
        CHECK_FAILS(close(fd), EBADF);
    volatile struct engine *engine = map_engine(vfio.device);
    CHECK(engine->identification == 0x45414d44);
    CHECK(fcntl(vfio.device, F_DUPFD, 0) >= 0);
}

static void what_the_library_holds_is_out_of_reach(void) {
    struct vfio vfio = open_device();
    volatile struct engine *engine = map_engine(vfio.device);
    int event = fcntl(eventfd(0, EFD_NONBLOCK), F_DUPFD, 20);
    CHECK(!set_interrupt(vfio.device, 0, event));
    // As daemons do.
    for (int fd = event + 1; fd < 2000; fd++)
        close(fd);
    int refused = 0, other = open("/dev/null", O_RDWR);
    for (int fd = event + 1; fd < 1000; fd++) {
        int copy = fd % 2 ? dup2(other, fd) : dup3(other, fd, 0);
        if (copy < 0) {
            CHECK(errno == EBUSY);
            refused++;
        }
    }
    CHECK(refused > 1);
    char *page = memory(PAGE, PROT_READ | PROT_WRITE);
    uint64_t times = 0;
    CHECK(!map_dma(vfio.container, page, 0, PAGE, READ_WRITE));
    CHECK(work(engine, FILL, 0, 0, 8) == DONE);
    CHECK(read(event, &times, 8) == 8 && times == 1);
    // And it lets go.
    CHECK(!set_interrupt(vfio.device, 0, -1));
    int now = 0;
    for (int fd = event + 1; fd < 1000; fd++)
        now += dup2(other, fd) < 0;
    CHECK(now == refused - 1);
}

// What is open by the number of stderr is not stderr, once that has been closed.
static void files_in_the_place_of_stderr_are_the_program_s(void) {
    struct vfio vfio = open_device();
    CHECK(!close(STDERR_FILENO) && memfd_create("data", 0) == STDERR_FILENO);
    CHECK_FAILS(ioctl(vfio.device, _IO(VFIO_TYPE, VFIO_BASE + 22)), ENOTTY);
    CHECK(lseek(STDERR_FILENO, 0, SEEK_END) == 0);
    int log = memfd_create("log", 0);
    CHECK(dup2(log, STDERR_FILENO) == STDERR_FILENO);
    CHECK_FAILS(ioctl(vfio.device, _IO(VFIO_TYPE, VFIO_BASE + 23)), ENOTTY);
    off_t said = lseek(log, 0, SEEK_END);
    CHECK(said > 0);
    // A child of vfork closes its own.
    pid_t child = vfork();
    if (!child) {
        close(STDERR_FILENO);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_FAILS(ioctl(vfio.device, _IO(VFIO_TYPE, VFIO_BASE + 24)), ENOTTY);
    CHECK(lseek(log, 0, SEEK_END) > said);
    CHECK(!fclose(stderr) && memfd_create("data", 0) == STDERR_FILENO);
    CHECK_FAILS(ioctl(vfio.device, _IO(VFIO_TYPE, VFIO_BASE + 25)), ENOTTY);
    CHECK(lseek(STDERR_FILENO, 0, SEEK_END) == 0);
}

static void eventfds_are_known_in_another_root(void) {
    struct vfio vfio = open_device();
    if (chroot("/tmp"))
        CHECK(errno == EPERM);
    CHECK(!set_interrupt(vfio.device, 0, eventfd(0, 0)));
    CHECK_FAILS(set_interrupt(vfio.device, 0, vfio.container), EINVAL);
}

static void the_device_is_closed_on_exec(void) {
    struct vfio vfio = open_device();
    CHECK(fcntl(vfio.device, F_GETFD) == FD_CLOEXEC);
    CHECK(fcntl(vfio.container, F_GETFD) == 0);
}

static void a_low_limit_suffices(void) {
    struct rlimit limit = {64, 64};
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    struct vfio vfio = open_device();
    CHECK(vfio.device < 10);
    int event = eventfd(0, 0);
    CHECK(!set_interrupt(vfio.device, 0, event));
}

static void the_device_outlives_group_and_container(void) {
    struct vfio vfio = open_device();
    volatile struct engine *engine = map_engine(vfio.device);
    CHECK(!close(vfio.container) && !close(vfio.group));
    CHECK(!ioctl(vfio.device, VFIO_DEVICE_RESET));
    CHECK(!close(vfio.device));
    // The mapping is a reference to the file.
    CHECK(engine->identification == 0x45414d44);
    CHECK(!munmap((void *)engine, PAGE));
    open_device();
}

// That a path, and the file that it leads to, are a character device with this number.
static void is_device(const char *path, dev_t number) {
    int fd = open(path, O_RDWR), other;
    CHECK(fd >= 0);
    struct stat by[6];
    struct statx more;
    CHECK(!stat(path, &by[0]) && !lstat(path, &by[1]) && !fstat(fd, &by[2]));
    CHECK(!fstatat(fd, "", &by[3], AT_EMPTY_PATH));
    CHECK(!syscall(SYS_newfstatat, AT_FDCWD, path, &by[4], 0));
    CHECK(!statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &more));
    // What programs of long ago call, and a libc of today has for them.
    int (*old)(int, int, struct stat *) = dlsym(RTLD_DEFAULT, "__fxstat");
    CHECK(!old || !old(1, fd, &by[5]));
    for (int i = 0; i < (old ? 6 : 5); i++)
        CHECK(S_ISCHR(by[i].st_mode) && by[i].st_rdev == number && by[i].st_ino == by[0].st_ino);
    CHECK(S_ISCHR(more.stx_mode) && makedev(more.stx_rdev_major, more.stx_rdev_minor) == number);
    // Others are what they were.
    CHECK((other = open("/dev/null", O_RDWR)) >= 0 && !fstat(other, &by[0]) && by[0].st_rdev == makedev(1, 3));
    CHECK(!close(fd) && !close(other));
}

static void they_are_character_devices(void) {
    is_device("/dev/vfio/vfio", makedev(10, 196));
    is_device(group_path(), makedev(510, (unsigned)atoi(strrchr(group_path(), '/') + 1)));
    struct stat status;
    CHECK(!stat("/dev/vfio/vfio", &status) && (status.st_mode & 0777) == 0666);
    CHECK(!stat("/dev/iommu", &status) && S_ISCHR(status.st_mode) && major(status.st_rdev) == 10);
    CHECK(!stat(group_path(), &status) && (status.st_mode & 0777) == 0600);
    CHECK(!stat("/proc/self/exe", &status) && S_ISREG(status.st_mode));
    CHECK(!stat("/dev/vfio", &status) && S_ISDIR(status.st_mode));
}

static void a_device_s_node_has_the_number_in_sysfs(void) {
    char path[PATH_MAX], text[32];
    unsigned numbers[2];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vfio-dev", address());
    DIR *directory = opendir(path);
    struct dirent *entry;
    CHECK(directory);
    do
        CHECK((entry = readdir(directory)));
    while (entry->d_name[0] == '.');
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vfio-dev/%s/dev", address(), entry->d_name);
    FILE *file = fopen(path, "r");
    CHECK(file && fgets(text, sizeof text, file) && sscanf(text, "%u:%u", &numbers[0], &numbers[1]) == 2);
    snprintf(path, sizeof path, "/dev/vfio/devices/%s", entry->d_name);
    is_device(path, makedev(numbers[0], numbers[1]));
}

static void system_calls_without_libc(void) {
    int container = (int)syscall(SYS_openat, AT_FDCWD, "/dev/vfio/vfio", O_RDWR);
    int group = (int)syscall(SYS_open, group_path(), O_RDWR);
    CHECK(!syscall(SYS_ioctl, group, VFIO_GROUP_SET_CONTAINER, &container));
    CHECK(!syscall(SYS_ioctl, container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU));
    int device = (int)syscall(SYS_ioctl, group, VFIO_GROUP_GET_DEVICE_FD, address());
    volatile struct engine *engine =
        (void *)syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_SHARED, device, (long)region(device, 0).offset);
    CHECK(engine->identification == 0x45414d44);
    uint32_t word;
    CHECK(syscall(SYS_pread64, device, &word, 4, (long)region(device, 0).offset) == 4);
    CHECK(word == 0x45414d44);
    CHECK(!syscall(SYS_munmap, engine, PAGE));
    CHECK(!syscall(SYS_close, device) && !syscall(SYS_close, group));
    CHECK_FAILS(syscall(SYS_ioctl, group, VFIO_GROUP_UNSET_CONTAINER), EBADF);
}

CASES(CASE(proc_tells_the_path), CASE(copies_are_the_same_file), CASE(the_last_copy_closes),
      CASE(another_file_in_its_place_closes), CASE(a_range_is_closed), CASE(a_range_that_is_refused_stays_open),
      CASE(the_rest_may_be_closed), CASE(what_the_library_holds_is_out_of_reach),
      CASE(files_in_the_place_of_stderr_are_the_program_s), CASE(eventfds_are_known_in_another_root), CASE(the_device_is_closed_on_exec),
      CASE(a_low_limit_suffices), CASE(the_device_outlives_group_and_container), CASE(they_are_character_devices),
      CASE(a_device_s_node_has_the_number_in_sysfs), CASE(system_calls_without_libc))
