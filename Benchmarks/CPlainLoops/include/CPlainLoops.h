// The same work as a loop's poll, written by hand in C: what the abstraction is measured against.
#pragma once

#include <stdint.h>

/// Polls `descriptors`, all of them registered for reading, `rounds` times without waiting, and puts what is ready into an
/// array of (descriptor, readiness). Returns the nanoseconds of all rounds, or -1; `seen` gets the number of events.
int64_t plain_epoll_polls(const int *descriptors, int count, int rounds, int64_t *seen);

/// The same with an `ev_io` for each descriptor; not there without libev.
int64_t plain_libev_polls(const int *descriptors, int count, int rounds, int64_t *seen);

/// The same with a `uv_poll_t` for each descriptor, of which fewer than 1,024 may be ready; not there without libuv.
int64_t plain_libuv_polls(const int *descriptors, int count, int rounds, int64_t *seen);
