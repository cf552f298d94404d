// Clock readings in nanoseconds.
#pragma once

#include <stdint.h>
#include <time.h>

static inline int64_t gevent_clock(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/// Returns the time since an origin that the system chooses. It never decreases. Async-signal-safe.
static inline int64_t gevent_monotonic_time(void) { return gevent_clock(CLOCK_MONOTONIC); }

/// Returns the processor time that this thread has used.
static inline int64_t gevent_thread_processor_time(void) { return gevent_clock(CLOCK_THREAD_CPUTIME_ID); }
