// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Says which signals reach it, each time, and goes on.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *text) {
    ssize_t written = write(STDOUT_FILENO, text, strlen(text));
    (void)written;
}

static void tell(int signal) {
    say(signal == SIGINT ? "INT\n" : signal == SIGQUIT ? "QUIT\n" : signal == SIGTERM ? "TERM\n" : "HUP\n");
}

int main(void) {
    const int signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
    for (unsigned at = 0; at < sizeof signals / sizeof *signals; at++)
        signal(signals[at], tell);
    say("ready\n");
    struct timespec rest = {.tv_nsec = 800000000};
    while (nanosleep(&rest, &rest)) {
    }
    say("over\n");
    return 7;
}
