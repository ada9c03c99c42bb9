// The clocks of the guest in nanoseconds, and what the programs that keep time have in common.
#ifndef TURNTABLE_GUEST_CLOCK_H
#define TURNTABLE_GUEST_CLOCK_H

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#define NANOSECONDS_PER_SECOND 1000000000LL
#define NANOSECONDS_PER_MILLISECOND 1000000LL

static inline int64_t clock_nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * NANOSECONDS_PER_SECOND + now.tv_nsec;
}

// Sleeps until `deadline` of CLOCK_MONOTONIC; a deadline in the past returns at once.
static inline void sleep_until(int64_t deadline) {
    struct timespec when = {deadline / NANOSECONDS_PER_SECOND, deadline % NANOSECONDS_PER_SECOND};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR) {
    }
}

// Before every ordinary process, and never waiting for a page.
static inline void run_as_instrument(int priority) {
    struct sched_param parameters = {.sched_priority = priority};
    if (sched_setscheduler(0, SCHED_FIFO, &parameters) != 0) perror("sched_setscheduler SCHED_FIFO");
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) perror("mlockall");
}

#endif
