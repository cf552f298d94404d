// Waiting for a word to change, without a lock that a fork or a signal handler could find held.
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/// Sleeps while `word` is `value`, until `moment` on the monotonic clock in nanoseconds; INT64_MAX for no limit. 0 or
/// an errno, ETIMEDOUT at `moment`; may return early for no reason.
static inline int gevent_futex_wait(uint32_t *word, uint32_t value, int64_t moment) {
    struct timespec deadline = {.tv_sec = moment / 1000000000, .tv_nsec = moment % 1000000000};
    // With a bitset the time is absolute, and of the monotonic clock.
    long result = syscall(
        SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, moment == INT64_MAX ? NULL : &deadline, NULL,
        FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 0 : errno;
}

/// Wakes the threads that sleep on `word`. Safe in a signal handler.
static inline void gevent_futex_wake(uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
}
