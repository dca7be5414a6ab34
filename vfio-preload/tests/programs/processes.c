// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Children: what they inherit stays the parent's, and they may open files themselves.
#include "client.h"
#include <dlfcn.h>
#include <sched.h>

// Runs a part of a case in a child, which must end well.
static void in_child(void (*part)(void)) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        part();
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

static struct vfio inherited;

static void copies(void) {
    struct vfio vfio = open_device();
    volatile struct engine *engine = map_engine(vfio.device);
    char *page = memory(PAGE, PROT_READ | PROT_WRITE);
    CHECK(!map_dma(vfio.container, page, 0x100000, PAGE, READ_WRITE));
    strcpy(page, "text");
    CHECK(work(engine, COPY, 0x100000, 0x100800, 5) == DONE);
    CHECK(!strcmp(page + 0x800, "text"));
}

static void asks(void) {
    uint32_t word = 7;
    CHECK_FAILS(ioctl(inherited.container, VFIO_GET_API_VERSION), EIO);
    CHECK_FAILS(ioctl(inherited.device, VFIO_DEVICE_RESET), EIO);
    CHECK_FAILS(pread(inherited.device, &word, 4, 7L << 40), EIO);
    CHECK_FAILS(pwrite(dup(inherited.device), &word, 4, 7L << 40), EIO);
    CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, inherited.device, 0), EIO);
    int number = dup(inherited.device);
    CHECK(!close(number) && open("/dev/null", O_RDWR) == number);
    CHECK(write(number, &word, 4) == 4);
    CHECK_FAILS(ioctl(inherited.group, VFIO_GROUP_UNSET_CONTAINER), EIO);
}

static void inherited_files_are_refused(void) {
    inherited = open_device();
    in_child(asks);
    CHECK(ioctl(inherited.container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
}

static void finds_the_group_busy(void) { CHECK_FAILS(open(group_path(), O_RDWR), EBUSY); }

static void takes_the_group(void) {
    CHECK(!close(inherited.group));
    copies();
}

static void a_group_is_opened_by_one_process(void) {
    inherited.group = open(group_path(), O_RDWR);
    CHECK(inherited.group >= 0);
    in_child(finds_the_group_busy);
    CHECK(!close(inherited.group));
    in_child(copies);
    copies();
}

static void a_child_may_close_what_it_inherits(void) {
    inherited.group = open(group_path(), O_RDWR);
    pid_t child = fork();
    if (!child) {
        CHECK(!close(inherited.group));
        finds_the_group_busy();
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(!ioctl(inherited.group, VFIO_GROUP_GET_STATUS, &(struct vfio_group_status){.argsz = 8}));
}

static void children_open_files_themselves(void) {
    for (int i = 0; i < 3; i++)
        in_child(copies);
    copies();
}

// Has a host of its own: what it has inherited is its parent's.
static int begins_anew(void *argument) {
    CHECK(argument == &inherited);
    asks();
    int container = open("/dev/vfio/vfio", O_RDWR);
    CHECK(ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
    finds_the_group_busy();
    return 0;
}

static long by_fork(void) { return syscall(SYS_fork); }
static long by_clone(void) { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

static long by_clone3(void) {
    const uint64_t arguments[8] = {[4] = SIGCHLD};
    return syscall(SYS_clone3, arguments, sizeof arguments);
}

static long by_libc_without_handlers(void) {
    pid_t (*fork_alone)(void) = (pid_t(*)(void))dlsym(RTLD_DEFAULT, "_Fork");
    // Older ones have none.
    return fork_alone ? fork_alone() : by_fork();
}

static long with_a_stack(void) {
    static char stack[1 << 20] __attribute__((aligned(16)));
    return clone(begins_anew, stack + sizeof stack, SIGCHLD, &inherited);
}

static void children_that_libc_does_not_tell_of_are_like_others(void) {
    inherited = open_device();
    long (*const ways[])(void) = {by_fork, by_clone, by_clone3, by_libc_without_handlers, with_a_stack};
    for (int i = 0; i < 5; i++) {
        long child = ways[i]();
        CHECK(child >= 0);
        if (!child) {
            begins_anew(&inherited);
            _exit(0);
        }
        int status;
        CHECK(waitpid((pid_t)child, &status, 0) == child && !status);
    }
    CHECK(ioctl(inherited.container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
}

static void a_fork_in_the_middle_leaves_the_parent_its_device(void) {
    struct vfio vfio = open_device();
    volatile struct engine *engine = map_engine(vfio.device);
    char *page = memory(PAGE, PROT_READ | PROT_WRITE);
    CHECK(!map_dma(vfio.container, page, 0, PAGE, READ_WRITE));
    pid_t child = fork();
    if (!child) {
        signal(SIGSEGV, SIG_DFL);
        engine->command = 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    // The registers are the parent's.
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CHECK(engine->ended == 0);
    strcpy(page, "text");
    CHECK(work(engine, COPY, 0, 0x800, 5) == DONE);
    CHECK(!strcmp(page + 0x800, "text"));
}

// What comes behind exec: started with the same arguments, and a variable that says so.
static void a_program_is_executed(void) {
    if (getenv("AGAIN")) {
        copies();
        return;
    }
    int group = open(group_path(), O_RDWR | O_CLOEXEC);
    CHECK(group >= 0);
    setenv("AGAIN", "yes", 1);
    execl("/proc/self/exe", "processes", "a_program_is_executed", NULL);
    CHECK(!"executed");
}

static void a_child_that_borrows_the_memory_closes_nothing(void) {
    struct vfio vfio = open_device();
    pid_t child = vfork();
    if (!child) {
        close(vfio.device);
        close_range(3, ~0U, 0);
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(!ioctl(vfio.device, VFIO_DEVICE_RESET));
    CHECK(map_engine(vfio.device)->identification == 0x45414d44);
    CHECK(ioctl(vfio.container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
}

static void a_group_waits_for_all_who_have_it(void) {
    inherited.group = open(group_path(), O_RDWR);
    int go[2];
    CHECK(!pipe(go));
    pid_t child = fork();
    if (!child) {
        char byte;
        // A parent that fails ends the wait.
        CHECK(!close(go[1]));
        CHECK(read(go[0], &byte, 1) == 1);
        takes_the_group();
        exit(0);
    }
    CHECK(!close(inherited.group));
    // The child has a descriptor of it still.
    CHECK_FAILS(open(group_path(), O_RDWR), EBUSY);
    CHECK(write(go[1], "x", 1) == 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(open(group_path(), O_RDWR) >= 0);
}

CASES(CASE(inherited_files_are_refused), CASE(a_group_is_opened_by_one_process),
      CASE(a_child_may_close_what_it_inherits), CASE(children_open_files_themselves), 
      CASE(children_that_libc_does_not_tell_of_are_like_others),
      CASE(a_fork_in_the_middle_leaves_the_parent_its_device), CASE(a_program_is_executed),
      CASE(a_child_that_borrows_the_memory_closes_nothing), CASE(a_group_waits_for_all_who_have_it))
