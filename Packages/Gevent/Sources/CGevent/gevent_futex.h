// Futex waits on a word. They need no lock, which a fork or a signal handler could find held.
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/// Sleeps while `word` equals `value`, until `moment` in nanoseconds on the monotonic clock, or INT64_MAX for no limit.
/// Returns 0 or an errno, which is ETIMEDOUT at `moment`. May wake spuriously.
static inline int gevent_futex_wait(uint32_t *word, uint32_t value, int64_t moment) {
    struct timespec deadline = {.tv_sec = moment / 1000000000, .tv_nsec = moment % 1000000000};
    // FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock.
    long result = syscall(
        SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, moment == INT64_MAX ? NULL : &deadline, NULL,
        FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 0 : errno;
}

/// Wakes the threads that sleep on `word`. Safe in a signal handler.
static inline void gevent_futex_wake(uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
}
