// The descriptors that loops use. Functions that fail return the negated errno unless documented otherwise.
#pragma once

#include <stdint.h>

/// Creates a non-blocking eventfd.
int gevent_eventfd(void);

/// Creates a non-blocking timerfd on CLOCK_MONOTONIC, not set.
int gevent_timerfd(void);

/// Sets a timerfd to an instant of its clock in nanoseconds; 0 stops it. An expiry that was not read is discarded.
int gevent_set_timer(int fd, int64_t nanoseconds);

/// Creates an epoll descriptor.
int gevent_epoll(void);

/// Creates a non-blocking pipe: read end, write end.
int gevent_pipe(int ends[2]);

/// Makes `fd` refer to the file of `with`, atomically, and closes `with`.
int gevent_replace(int fd, int with);

/// Calls `open()` with O_PATH. The descriptor only names the file: it cannot be read, written or polled.
int gevent_open_path(const char *path);

/// Checks whether the kernel can poll a descriptor. `probe` is an epoll descriptor that watches nothing. Returns 0, or
/// an errno: EBADF if the descriptor is not open, EPERM if it is of a kind that cannot be polled.
int gevent_check_pollable(int probe, int fd);
