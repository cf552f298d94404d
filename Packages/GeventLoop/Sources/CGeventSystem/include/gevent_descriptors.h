// Descriptors: what loops are made of. Functions that fail return the negated errno unless they say otherwise.
#pragma once

#include <stdint.h>

/// A new non-blocking eventfd.
int gevent_eventfd(void);

/// A new non-blocking timerfd on CLOCK_MONOTONIC, not set.
int gevent_timerfd(void);

/// Sets a timerfd to an instant of its clock in nanoseconds; 0 stops it. An expiry that was not read is forgotten.
int gevent_set_timer(int fd, int64_t nanoseconds);

/// A new epoll descriptor.
int gevent_epoll(void);

/// A new non-blocking pipe: read end, write end.
int gevent_pipe(int ends[2]);

/// Puts the file of one descriptor behind the number of another, atomically, and closes the first.
int gevent_replace(int fd, int with);

/// `open()` with O_PATH: a descriptor that names a file and cannot be read, written or polled.
int gevent_open_path(const char *path);

/// Whether the kernel can poll a descriptor. `probe` is an epoll descriptor that watches nothing. Returns 0, or an
/// errno: EBADF if the descriptor is not open, EPERM if it is of a kind that cannot be polled.
int gevent_check_pollable(int probe, int fd);
