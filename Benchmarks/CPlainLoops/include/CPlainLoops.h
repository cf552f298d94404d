// The work of a loop's poll, written by hand in C, as the reference for the cost of the abstraction.
#pragma once

#include <stdint.h>
#include <time.h>

/// An entry in the batch of a poll.
typedef struct plain_ready {
    int descriptor;
    uint8_t readiness;
} plain_ready;

static inline int64_t plain_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/// Polls `descriptors`, all of them registered for reading, `rounds` times without waiting, and stores the ready ones
/// in an array of (descriptor, readiness). Returns the nanoseconds of all rounds, or -1. Sets `seen` to the number of
/// events.
int64_t plain_epoll_polls(const int *descriptors, int count, int rounds, int64_t *seen);
