// The same work as a loop's poll, written by hand in C: what the abstraction is measured against.
#pragma once

#include <stdint.h>

/// Polls `descriptors`, all of them registered for reading, `rounds` times without waiting, and puts what is ready into an
/// array of (descriptor, readiness). Returns the nanoseconds of all rounds, or -1; `seen` gets the number of events.
int64_t plain_epoll_polls(const int *descriptors, int count, int rounds, int64_t *seen);
