// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A program's own handlers, masks and stacks for signals, while it uses mapped registers.
#include "client.h"
#include <sys/time.h>

static volatile struct engine *engine;
static sigjmp_buf before;
static volatile sig_atomic_t caught;
static void *volatile caught_at;

// Nothing is here.
static volatile int *const nowhere = (int *)0x10;

static void open_engine(void) { engine = map_engine(open_device().device); }

static void engine_answers(void) {
    engine->value = 7;
    CHECK(engine->value == 7 && engine->identification == 0x45414d44);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    CHECK(context);
    caught = signal;
    caught_at = info->si_addr;
    siglongjmp(before, 1);
}

static void on_fault_plain(int signal) {
    caught = signal;
    siglongjmp(before, 1);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK(!sigaction(signal, &action, NULL));
}

// That an access is the program's own mistake.
#define FAULTS(access, address)                                                                              \
    do {                                                                                                     \
        caught = 0;                                                                                          \
        if (!sigsetjmp(before, 1)) {                                                                         \
            (void)(access);                                                                                  \
            CHECK(!"the access goes through");                                                               \
        }                                                                                                    \
        CHECK(caught == SIGSEGV && caught_at == (void *)(address));                                          \
    } while (0)

static void a_handler_gets_the_program_s_own_faults(void) {
    open_engine();
    handle(SIGSEGV, on_fault, 0);
    for (int i = 0; i < 3; i++) {
        FAULTS(*nowhere, nowhere);
        FAULTS(*nowhere = 1, nowhere);
        engine_answers();
    }
}

static void a_handler_set_before_the_device_is_opened(void) {
    handle(SIGSEGV, on_fault, 0);
    open_engine();
    FAULTS(*nowhere, nowhere);
    engine_answers();
    struct sigaction action;
    CHECK(!sigaction(SIGSEGV, NULL, &action));
    CHECK(action.sa_sigaction == on_fault && action.sa_flags & SA_SIGINFO);
}

static void a_handler_without_information(void) {
    open_engine();
    CHECK(signal(SIGSEGV, on_fault_plain) == SIG_DFL);
    CHECK(signal(SIGSEGV, on_fault_plain) == on_fault_plain);
    if (!sigsetjmp(before, 1))
        *nowhere = 1;
    CHECK(caught == SIGSEGV);
    engine_answers();
}

// What signal() is in a program that is compiled for System V.
extern __sighandler_t __sysv_signal(int, __sighandler_t);

static void a_handler_as_of_system_v(void) {
    open_engine();
    CHECK(__sysv_signal(SIGSEGV, on_fault_plain) == SIG_DFL);
    engine_answers();
    if (!sigsetjmp(before, 1))
        *nowhere = 1;
    CHECK(caught == SIGSEGV);
    // It was for once.
    struct sigaction action;
    CHECK(!sigaction(SIGSEGV, NULL, &action) && action.sa_handler == SIG_DFL);
    engine_answers();
}

// Not declared any more, or not without a warning; but there.
extern __sighandler_t old_bsd_signal(int, __sighandler_t) __asm__("bsd_signal");
extern __sighandler_t old_ssignal(int, __sighandler_t) __asm__("ssignal");
extern __sighandler_t old_sigset(int, __sighandler_t) __asm__("sigset");

static void handlers_of_other_names(void) {
    open_engine();
    __sighandler_t (*const ways[])(int, __sighandler_t) = {old_bsd_signal, old_ssignal, old_sigset};
    for (int i = 0; i < 3; i++) {
        CHECK(ways[i](SIGSEGV, on_fault_plain) == SIG_DFL);
        engine_answers();
        caught = 0;
        if (!sigsetjmp(before, 1))
            *nowhere = 1;
        CHECK(caught == SIGSEGV);
        CHECK(ways[i](SIGSEGV, SIG_DFL) == on_fault_plain);
        engine_answers();
    }
}

static int blocked(int signal) {
    sigset_t mask;
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask));
    return sigismember(&mask, signal);
}

static void signals_are_held(void) {
    __sighandler_t const hold = (__sighandler_t)2;
    open_engine();
    CHECK(old_sigset(SIGSEGV, on_fault_plain) == SIG_DFL);
    // Faults cannot be held.
    CHECK(old_sigset(SIGSEGV, hold) == on_fault_plain && old_sigset(SIGSEGV, hold) == on_fault_plain);
    engine_answers();
    if (!sigsetjmp(before, 1))
        *nowhere = 1;
    CHECK(caught == SIGSEGV);
    // All else can, a trap too.
    const int others[] = {SIGTRAP, SIGUSR1};
    for (int i = 0; i < 2; i++) {
        CHECK(old_sigset(others[i], on_fault_plain) == SIG_DFL);
        CHECK(old_sigset(others[i], hold) == on_fault_plain && blocked(others[i]));
        CHECK(old_sigset(others[i], hold) == hold);
        CHECK(old_sigset(others[i], on_fault_plain) == hold && !blocked(others[i]));
    }
    CHECK_FAILS(old_sigset(1000, hold), EINVAL);
    engine_answers();
}

static void blocked_without_libc(void) {
    open_engine();
    sigset_t all, was;
    sigfillset(&all);
    sigemptyset(&was);
    CHECK(!syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8));
    engine_answers();
    CHECK(!syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &was, 8) && sigismember(&was, SIGUSR1));
    engine_answers();
    CHECK(blocked(SIGUSR1) && blocked(SIGTRAP));
    CHECK(!syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &all, NULL, 8) && !blocked(SIGUSR1));
    CHECK_FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, nowhere, NULL, 8), EFAULT);
    CHECK_FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 4), EINVAL);
    CHECK(!syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &was, 8) && !sigismember(&was, SIGUSR1));
}

static void a_store_of_its_own_mistake_is_told_of(void) {
    struct vfio vfio = open_device();
    engine = map_engine(vfio.device);
    handle(SIGSEGV, on_fault, 0);
    volatile struct engine *constant = map_bar(vfio.device, 0, PAGE, PROT_READ);
    CHECK(constant->identification == 0x45414d44);
    FAULTS(constant->value = 1, &constant->value);
    volatile struct engine *hidden = map_bar(vfio.device, 0, PAGE, PROT_NONE);
    FAULTS(hidden->value, &hidden->value);
    // The processor knows no memory that can be written and not read.
    volatile struct engine *written = map_bar(vfio.device, 0, PAGE, PROT_WRITE);
    written->value = 3;
    CHECK(written->value == 3);
    engine_answers();
}

static void the_default_ends_the_program(void) {
    open_engine();
    engine_answers();
    *nowhere = 1;
}

static void ignoring_a_fault_ends_the_program(void) {
    open_engine();
    signal(SIGSEGV, SIG_IGN);
    // One that was sent may be ignored.
    CHECK(!raise(SIGSEGV));
    engine_answers();
    *nowhere = 1;
}

static void resets_itself(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    CHECK(!caught++);
}

static void a_handler_for_once_lets_the_next_fault_end_the_program(void) {
    open_engine();
    handle(SIGSEGV, resets_itself, SA_RESETHAND);
    *nowhere = 1;
}

static void *with_all_blocked(void *unused) {
    sigset_t all;
    sigfillset(&all);
    CHECK(!pthread_sigmask(SIG_BLOCK, &all, NULL));
    engine_answers();
    asm volatile("lock orq $8, %0" : "+m"(engine->value));
    CHECK(engine->value == 15);
    CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
    engine_answers();
    return unused;
}

static void a_thread_may_block_all_signals(void) {
    open_engine();
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, with_all_blocked, NULL));
    CHECK(!pthread_join(thread, NULL));
}

static void blocked_from_the_beginning(void) {
    if (getenv("AGAIN")) {
        open_engine();
        engine_answers();
        return;
    }
    sigset_t all;
    sigfillset(&all);
    // Without libc: a program that starts others may have done so before it is run here.
    CHECK(!syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8));
    setenv("AGAIN", "yes", 1);
    execl("/proc/self/exe", "signals", "blocked_from_the_beginning", NULL);
    CHECK(!"executed");
}

static void stores(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    engine->value = 7;
    caught++;
}

static void a_handler_that_blocks_all_may_use_registers(void) {
    open_engine();
    struct sigaction action = {.sa_sigaction = stores, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    CHECK(!raise(SIGUSR1));
    CHECK(caught == 1 && engine->value == 7);
}

static void signals_in_the_middle_of_accesses(void) {
    open_engine();
    handle(SIGALRM, stores, SA_RESTART);
    struct itimerval often = {{0, 100}, {0, 100}};
    CHECK(!setitimer(ITIMER_REAL, &often, NULL));
    while (caught < 500) {
        engine->length = 1;
        CHECK(engine->length == 1);
        asm volatile("lock orq $8, %0" : "+m"(engine->destination));
    }
    CHECK(engine->destination == 8 && engine->value == 7);
}

// Which stack it is called on is another matter.
static void a_handler_that_asks_for_a_stack_is_called(void) {
    static char stack[1 << 16];
    open_engine();
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(!sigaltstack(&other, NULL));
    handle(SIGSEGV, on_fault, SA_ONSTACK);
    FAULTS(*nowhere, nowhere);
    engine_answers();
}

static volatile sigset_t mask_in_handler;

static void looks_at_mask(int signal, siginfo_t *info, void *context) {
    (void)info, (void)context;
    sigset_t mask;
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask));
    mask_in_handler = mask;
    caught = signal;
    siglongjmp(before, 1);
}

static void a_handler_has_the_mask_that_it_asked_for(void) {
    open_engine();
    struct sigaction action = {.sa_sigaction = looks_at_mask, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    CHECK(!sigaction(SIGSEGV, &action, NULL));
    if (!sigsetjmp(before, 1))
        *nowhere = 1;
    sigset_t mask = mask_in_handler;
    CHECK(sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGALRM));
    CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &mask) && !sigismember(&mask, SIGUSR2));
}

static volatile unsigned long stored;

static void stores_often(int signal) {
    CHECK(signal == SIGALRM);
    engine->source = ++stored;
}

static void every_50_us(void (*handler)(int)) {
    signal(SIGALRM, handler);
    struct itimerval often = {{0, 50}, {0, 50}};
    CHECK(!setitimer(ITIMER_REAL, &often, NULL));
}

// A store needs nothing of the program's, wherever its handler has interrupted it.
static void a_handler_stores_in_the_middle_of_malloc(void) {
    open_engine();
    every_50_us(stores_often);
    static char *blocks[64];
    for (unsigned i = 0; stored < 3000; i++) {
        free(blocks[i % 64]);
        blocks[i % 64] = malloc(1 + i * 977 % 5000);
        CHECK(blocks[i % 64]);
    }
}

// In the middle of a call, the library may hold what it needs itself.
static void a_handler_stores_in_the_middle_of_a_call(void) {
    struct vfio vfio = open_device();
    engine = map_engine(vfio.device);
    every_50_us(stores_often);
    for (uint32_t word;;)
        CHECK(pread(vfio.device, &word, 4, 7L << 40) == 4);
}

static void counts(int signal) {
    CHECK(signal == SIGBUS);
    caught++;
}

static void *sends_often(void *to) {
    for (int i = 0; i < 3000; i++) {
        CHECK(!pthread_kill(*(pthread_t *)to, SIGBUS));
        usleep(20);
    }
    return NULL;
}

// Whoever sends a signal that faults raise too does not end a copy.
static void a_signal_that_is_sent_is_no_fault(void) {
    enum { SIZE = 1 << 20 };
    struct vfio vfio = open_device();
    engine = map_engine(vfio.device);
    CHECK(!map_dma(vfio.container, memory(2 * SIZE, PROT_READ | PROT_WRITE), 0, 2 * SIZE, READ_WRITE));
    signal(SIGBUS, counts);
    pthread_t self = pthread_self(), sender;
    CHECK(!pthread_create(&sender, NULL, sends_often, &self));
    while (caught < 1000)
        CHECK(work(engine, COPY, 0, SIZE, SIZE) == DONE);
    CHECK(!pthread_join(sender, NULL));
}

static void faults_itself(int signal) {
    CHECK(write(STDOUT_FILENO, "once\n", 5) == 5 && signal == SIGSEGV);
    *nowhere = 1;
}

static void a_handler_that_faults_ends_the_program(void) {
    open_engine();
    signal(SIGSEGV, faults_itself);
    *nowhere = 1;
}

static volatile int depth;

static void faults_twice(int signal, siginfo_t *info, void *context) {
    CHECK(signal == SIGSEGV && info && context);
    if (++depth < 3)
        *nowhere = 1;
    siglongjmp(before, 1);
}

static void a_handler_may_ask_for_its_own_faults(void) {
    open_engine();
    handle(SIGSEGV, faults_twice, SA_NODEFER);
    if (!sigsetjmp(before, 1))
        *nowhere = 1;
    CHECK(depth == 3);
    engine_answers();
}

CASES(CASE(a_handler_gets_the_program_s_own_faults), CASE(a_handler_set_before_the_device_is_opened),
      CASE(a_handler_without_information), CASE(a_handler_as_of_system_v),
      CASE(handlers_of_other_names), CASE(signals_are_held),
      CASE(blocked_without_libc), CASE(a_store_of_its_own_mistake_is_told_of), CASE(the_default_ends_the_program),
      CASE(ignoring_a_fault_ends_the_program), CASE(a_handler_for_once_lets_the_next_fault_end_the_program),
      CASE(a_thread_may_block_all_signals), CASE(blocked_from_the_beginning),
      CASE(a_handler_that_blocks_all_may_use_registers), CASE(signals_in_the_middle_of_accesses),
      CASE(a_handler_that_asks_for_a_stack_is_called),
      CASE(a_handler_has_the_mask_that_it_asked_for), CASE(a_handler_stores_in_the_middle_of_malloc),
      CASE(a_handler_stores_in_the_middle_of_a_call), CASE(a_signal_that_is_sent_is_no_fault),
      CASE(a_handler_that_faults_ends_the_program), CASE(a_handler_may_ask_for_its_own_faults))
